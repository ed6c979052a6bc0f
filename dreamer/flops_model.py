"""Operations of the world model's learning: encoder, RSSM, decoder, heads, contrastive term.

See dreamer.flops for what is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from dreamer.flops_layer import Layer, Section, convolution_macs, dense_layers, transposed_macs
from dreamer.flops_rssm import filtering_layers, overshooting_layers

Shapes = Mapping[str, Sequence[int]]


def model_layers(
    seen: Shapes,
    shown: Shapes,
    actions: int,
    batch_size: int,
    batch_length: int,
    *,
    encoder: Section,
    decoder: Section,
    rssm: Section,
    heads: Mapping[str, Section],
    loss: Section,
    contrastive: Section,
) -> Iterator[Layer]:
    """The layers of a world model's update.

    Args:
        seen, shown: Shapes of what is encoded and decoded.
        actions: A.
        batch_size, batch_length: B, T.
        encoder, decoder, loss, contrastive: The config's sections.
        rssm: Likewise, as `sizes_of_kind` gives it.
        heads: Sections of "reward" and, if there is one, "discount".
    """
    rows, feat = batch_size * batch_length, rssm["stoch"] + rssm["deter"]
    embed, every = embedding(seen, encoder), (rows, rows, rows)
    yield from encoder_layers(seen, encoder, rows)
    yield from filtering_layers(rssm, actions, embed, batch_size, batch_length)
    yield from overshooting_layers(rssm, actions, batch_size, batch_length, loss["overshooting"])
    alone = loss["representation"] != "reconstruction"
    yield from _decoder(shown, decoder, feat, rows, alone)
    if loss["representation"] == "contrastive":
        yield from dense_layers("contrastive", embed, contrastive, 2 * feat, every)
        # The squares of all pairs of states and observations (dreamer.ops.contrast).
        yield Layer("contrastive", "pairs", 2 * feat * rows, *every)
    for name, head in heads.items():
        yield from dense_layers(name, feat, head, 1, every)


def embedding(seen: Shapes, encoder: Section) -> int:
    """E: 2 x 2 pixels of 8 * depth channels, and the vectors' last layer."""
    vectors = sum(s[0] for s in seen.values() if len(s) == 1)
    images = any(len(s) == 3 for s in seen.values())
    vector_size = encoder["mlp_units"] if vectors and encoder["mlp_layers"] else vectors
    return images * 32 * encoder["cnn_depth"] + vector_size


def encoder_layers(seen: Shapes, encoder: Section, rows: int) -> Iterator[Layer]:
    """Every image or vector once; observations get no gradient."""
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


def _decoder(
    shown: Shapes, decoder: Section, feat: int, rows: int, alone: bool
) -> Iterator[Layer]:
    """Alone, as a diagnostic: the features that it reads get no gradient."""
    read = 0 if alone else rows
    depth = decoder["cnn_depth"]
    channels = sum(s[-1] for s in shown.values() if len(s) == 3)
    if channels:
        yield Layer("decoder", "dense", feat * 32 * depth, rows, read, rows)
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
        layers = dense_layers("decoder", feat, section, vectors, (rows, rows, rows))
        for i, layer in enumerate(layers):
            yield layer if i else replace(layer, inputs=read)
