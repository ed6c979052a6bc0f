"""The published stacks of convolutions between 64x64 images and vectors, as numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderStack:
    """Convolutions with stride 2.

    Attributes:
        multiples: Channels of each, as multiples of the depth.
        kernel: Their kernel size.
        padding: "valid" or "same".
        side: Height and width of the last one's output.
    """

    multiples: tuple[int, ...]
    kernel: int
    padding: str
    side: int

    def size(self, depth: int) -> int:
        """Numbers in the last one's output."""
        return self.side**2 * self.multiples[-1] * depth


@dataclass(frozen=True)
class DecoderStack:
    """A dense layer to a small image, then transposed convolutions with stride 2.

    Attributes:
        side: Height and width of the small image.
        multiple: Its channels, as a multiple of the depth.
        multiples: Those of the hidden transposed convolutions; one to the images' channels follows.
        kernels: Kernel sizes of all transposed convolutions.
        padding: "valid" or "same".
        hidden: Whether norm and activation follow the dense layer.
        sigmoid: Whether predicted images are bounded by a sigmoid.
    """

    side: int
    multiple: int
    multiples: tuple[int, ...]
    kernels: tuple[int, ...]
    padding: str
    hidden: bool
    sigmoid: bool


# worldmodels: arXiv 1803.10122, which DreamerV1 and V2 use. v3: DreamerV3, arXiv 2301.04104.
ENCODERS = {
    "worldmodels": EncoderStack((1, 2, 4, 8), 4, "valid", side=2),
    "v3": EncoderStack((2, 3, 4, 4), 5, "same", side=4),
}
DECODERS = {
    "worldmodels": DecoderStack(1, 32, (4, 2, 1), (5, 5, 6, 6), "valid", False, False),
    "v3": DecoderStack(4, 4, (4, 3, 2), (5, 5, 5, 5), "same", True, True),
}
