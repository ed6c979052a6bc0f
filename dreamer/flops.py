"""Floating-point operations of one update of the published architecture, from its layer shapes.

Counted are the matrix products and convolutions of the forward pass and of the backward pass that
learning needs, two operations a multiply-add, whatever an implementation does in their place.
Not counted is what works element by element (activations, losses, Adam: below 1 % of the whole).

A layer costs its multiply-adds per row three times at most: forward, for the gradient of its
inputs, and for that of its weights. What is not needed is not counted:

- images and replayed actions get no gradient, so the layers that read them pass none on;
- in behaviour, the weights of dynamics, reward and discount get none, but their inputs do;
- the actor reads features whose gradient is stopped, so its first layer passes none on;
- the start of imagination, and of a sequence, gets none;
- of V_1..V_(H-1) (dreamer.ops.returns), r_H is no part, and v_1 none that the actor could move:
  each has gradients at H - 1 of H steps. So has the value loss;
- the value network runs forward once, and backward twice: for its own loss and for the actor's.

At full size (50 x 50, 64x64x3 images, A = 6) this comes to 903e9. It is about 950e9 where the value
network runs forward twice (31e9), images have a gradient (7e9), and so have the steps whose
gradient nothing needs (8e9).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Section = Mapping[str, Any]
Shapes = Mapping[str, Sequence[int]]


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


def update_layers(
    shapes: Shapes,
    actions: int,
    *,
    discrete: bool,
    batch_size: int,
    batch_length: int,
    horizon: int,
    encoder: Section,
    decoder: Section,
    rssm: Section,
    reward: Section,
    discount: Section,
    value: Section,
    actor: Section,
) -> list[Layer]:
    """The layers of one update.

    Args:
        shapes: Observation key -> shape, images [64, 64, C] and vectors [size].
        actions: A.
        discrete: Whether actions are one-hot: the actor then has A outputs instead of 2 A.
        batch_size, batch_length, horizon: B, T, H.
        encoder, decoder, rssm, reward, discount, value, actor: The config's sections.
    """
    seen = {k: s for k, s in shapes.items() if re.fullmatch(encoder["keys"], k)}
    shown = {k: s for k, s in shapes.items() if re.fullmatch(decoder["keys"], k)}
    rows = batch_size * batch_length
    embed = _embedding(seen, encoder)
    feat = rssm["stoch"] + rssm["deter"]
    heads = {"reward": reward} | ({"discount": discount} if discount["enabled"] else {})
    # With a discount head the last state of a sequence starts no imagination: it may be terminal.
    starts = batch_size * (batch_length - bool(discount["enabled"]))
    outputs = actions if discrete else 2 * actions
    layers = [
        *_encoder(seen, encoder, rows),
        *_filtering(rssm, actions, embed, batch_size, batch_length),
        *_decoder(shown, decoder, feat, rows),
    ]
    for name, head in heads.items():
        layers += _mlp(name, feat, head, 1, (rows, rows, rows))
    layers += _actor(feat, actor, outputs, starts * horizon)
    layers += _dynamics(rssm, actions, starts, horizon)
    for name, head in heads.items():
        passes = (starts * horizon, starts * (horizon - 1), 0)
        layers += _mlp(f"imagined {name}", feat, head, 1, passes)
    return [*layers, *_value(feat, value, starts, horizon)]


def flops_by_part(layers: Sequence[Layer]) -> dict[str, int]:
    """Operations of each part, in the order of the layers."""
    parts = dict.fromkeys((layer.part for layer in layers), 0)
    for layer in layers:
        parts[layer.part] += layer.flops
    return parts


def _embedding(seen: Shapes, encoder: Section) -> int:
    """E: 2 x 2 pixels of 8 * depth channels, and the vectors' last layer."""
    vectors = sum(s[0] for s in seen.values() if len(s) == 1)
    images = any(len(s) == 3 for s in seen.values())
    vector_size = encoder["mlp_units"] if vectors and encoder["mlp_layers"] else vectors
    return images * 32 * encoder["cnn_depth"] + vector_size


def _encoder(seen: Shapes, encoder: Section, rows: int) -> Iterator[Layer]:
    depth = encoder["cnn_depth"]
    channels = sum(s[-1] for s in seen.values() if len(s) == 3)
    if channels:
        first = convolution_macs(64, 4, 2, channels, depth)  # 64 -> 31
        yield Layer("encoder", "convolution 1", first, rows, 0, rows)
        for i, side in enumerate((31, 14, 6)):  # -> 14 -> 6 -> 2
            macs = convolution_macs(side, 4, 2, depth * 2**i, depth * 2 ** (i + 1))
            yield Layer("encoder", f"convolution {i + 2}", macs, rows, rows, rows)
    vectors, units = sum(s[0] for s in seen.values() if len(s) == 1), encoder["mlp_units"]
    for i in range(encoder["mlp_layers"] if vectors else 0):
        macs = (units if i else vectors) * units
        yield Layer("encoder", f"dense {i + 1}", macs, rows, rows if i else 0, rows)


def _filtering(rssm: Section, actions: int, embed: int, b: int, t: int) -> Iterator[Layer]:
    s, d, hidden = rssm["stoch"], rssm["deter"], rssm["hidden"]
    n, later = b * t, b * (t - 1)  # the state before the first step is zero and needs no gradient
    yield Layer("rssm", "input, stoch", s * hidden, n, later, n)
    yield Layer("rssm", "input, action", actions * hidden, n, 0, n)
    yield Layer("rssm", "gru, input", hidden * 3 * d, n, n, n)
    yield Layer("rssm", "gru, recurrent", d * 3 * d, n, later, n)
    yield Layer("rssm", "prior hidden", d * hidden, n, n, n)
    yield Layer("rssm", "prior mean and std", hidden * 2 * s, n, n, n)
    yield Layer("rssm", "post hidden", (d + embed) * hidden, n, n, n)
    yield Layer("rssm", "post mean and std", hidden * 2 * s, n, n, n)


def _decoder(shown: Shapes, decoder: Section, feat: int, rows: int) -> Iterator[Layer]:
    depth = decoder["cnn_depth"]
    channels = sum(s[-1] for s in shown.values() if len(s) == 3)
    if channels:
        yield Layer("decoder", "dense", feat * 32 * depth, rows, rows, rows)
        plan = (
            (1, 5, 32 * depth, 4 * depth),  # 1 -> 5 pixels
            (5, 5, 4 * depth, 2 * depth),  # 5 -> 13
            (13, 6, 2 * depth, depth),  # 13 -> 30
            (30, 6, depth, channels),  # 30 -> 64
        )
        for i, (side, kernel, inputs, filters) in enumerate(plan):
            macs = transposed_macs(side, kernel, inputs, filters)
            yield Layer("decoder", f"transposed convolution {i + 1}", macs, rows, rows, rows)
    vectors = sum(s[0] for s in shown.values() if len(s) == 1)
    if vectors:
        section = {"layers": decoder["mlp_layers"], "units": decoder["mlp_units"]}
        yield from _mlp("decoder", feat, section, vectors, (rows, rows, rows))


def _actor(feat: int, actor: Section, outputs: int, rows: int) -> Iterator[Layer]:
    """H applications, at z_0 to z_(H-1); the first layer's inputs have no gradient."""
    for i, layer in enumerate(_mlp("actor", feat, actor, outputs, (rows, rows, rows))):
        yield replace(layer, inputs=rows if i else 0)


def _dynamics(rssm: Section, actions: int, starts: int, horizon: int) -> Iterator[Layer]:
    """H steps of the prior; of the first one only the action has a gradient, not the state."""
    s, d, hidden = rssm["stoch"], rssm["deter"], rssm["hidden"]
    n, later = starts * horizon, starts * (horizon - 1)
    part = "imagined dynamics"
    yield Layer(part, "input, stoch", s * hidden, n, later, 0)
    yield Layer(part, "input, action", actions * hidden, n, n, 0)
    yield Layer(part, "gru, input", hidden * 3 * d, n, n, 0)
    yield Layer(part, "gru, recurrent", d * 3 * d, n, later, 0)
    yield Layer(part, "prior hidden", d * hidden, n, n, 0)
    yield Layer(part, "prior mean and std", hidden * 2 * s, n, n, 0)


def _value(feat: int, value: Section, starts: int, horizon: int) -> Iterator[Layer]:
    """Forward once; back to the features for the actor, and to the weights for its own loss."""
    n, later = starts * horizon, starts * (horizon - 1)
    for i, layer in enumerate(_mlp("imagined value", feat, value, 1, (n, later, later))):
        yield replace(layer, inputs=2 * later if i else later)  # its own ends at the first layer


def _mlp(
    part: str, inputs: int, section: Section, outputs: int, passes: tuple[int, int, int]
) -> Iterator[Layer]:
    """Dense layers of equal width, then a linear output; `passes` as Layer's last three."""
    size = inputs
    for i in range(section["layers"]):
        yield Layer(part, f"dense {i + 1}", size * section["units"], *passes)
        size = section["units"]
    yield Layer(part, "output", size * outputs, *passes)
