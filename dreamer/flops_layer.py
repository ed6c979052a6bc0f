"""A layer's operations: what the counts of dreamer.flops are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Section = Mapping[str, Any]


@dataclass(frozen=True)
class Layer:
    """One matrix product or convolution.

    Attributes:
        part: What it belongs to: encoder, rssm, decoder, ..., imagined dynamics, ...
        name: Of the layer.
        macs: Multiply-adds of one row (an image, a state).
        forward: Rows that pass forward.
        inputs: Rows whose gradient is passed on to the layer's inputs.
        weights: Rows whose gradient reaches the layer's weights.
    """

    part: str
    name: str
    macs: int
    forward: int
    inputs: int
    weights: int

    @property
    def flops(self) -> int:
        """Operations of this layer in one update."""
        return 2 * self.macs * (self.forward + self.inputs + self.weights)


def convolution_macs(side: int, kernel: int, stride: int, channels: int, filters: int) -> int:
    """Multiply-adds of a convolution with valid padding over a square image of `side` pixels."""
    outputs = (side - kernel) // stride + 1
    return outputs**2 * kernel**2 * channels * filters


def transposed_macs(side: int, kernel: int, channels: int, filters: int) -> int:
    """Multiply-adds of a transposed convolution: each input pixel meets the whole kernel."""
    return side**2 * kernel**2 * channels * filters


def dense_layers(
    part: str, inputs: int, section: Section, outputs: int, passes: tuple[int, int, int]
) -> Iterator[Layer]:
    """Dense layers of equal width, then a linear output; `passes` as Layer's last three."""
    size = inputs
    for i in range(section["layers"]):
        yield Layer(part, f"dense {i + 1}", size * section["units"], *passes)
        size = section["units"]
    yield Layer(part, "output", size * outputs, *passes)
