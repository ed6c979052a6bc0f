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
- the value network runs forward once, and backward twice: for its own loss and for the actor's;
- the score function passes no gradient through the dynamics, and a planner imagines nothing.

At full size (50 x 50, 64x64x3 images, A = 6) this comes to 903e9. It is about 950e9 where the value
network runs forward twice (31e9), images have a gradient (7e9), and so have the steps whose
gradient nothing needs (8e9).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from dreamer.flops_behavior import (
    ensemble_layers,
    imagined_layers,
    planned_layers,
    replayed_value_layers,
)
from dreamer.flops_layer import Layer, Section, convolution_macs, dense_layers, transposed_macs

Shapes = Mapping[str, Sequence[int]]


def update_layers(
    shapes: Shapes,
    actions: int,
    *,
    discrete: bool,
    batch_size: int,
    batch_length: int,
    encoder: Section,
    decoder: Section,
    rssm: Section,
    reward: Section,
    discount: Section,
    value: Section,
    actor: Section,
    behavior: Section,
    planner: Section,
    disagreement: Section,
) -> list[Layer]:
    """The layers of one update, at the start of training: an explorer learns if there is one.

    Args:
        shapes: Observation key -> shape, images [64, 64, C] and vectors [size].
        actions: A.
        discrete: Whether actions are one-hot: the actor then has A outputs instead of 2 A.
        batch_size, batch_length: B, T.
        encoder, decoder, rssm, reward, discount, value, actor, behavior, planner, disagreement:
            The config's sections.
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
        layers += dense_layers(name, feat, head, 1, (rows, rows, rows))
    judges = {**heads, **({"value": value} if _has_value(behavior, planner) else {})}
    if behavior["policy"] == "planner":
        if "value" in judges:
            layers += replayed_value_layers(feat, value, batch_size, batch_length)
        return layers
    sizes = (feat, rssm, actions, outputs, starts)
    layers += imagined_layers(*sizes, behavior=behavior, actor=actor, heads=judges)
    if disagreement["until"]:
        transitions = batch_size * (batch_length - 1)
        layers += ensemble_layers(feat, actions, rssm, disagreement, transitions)
        del judges["reward"]
        layers += imagined_layers(
            *sizes,
            behavior=behavior,
            actor={**actor, "gradient": "dynamics"},
            heads=judges,
            ensemble=disagreement,
        )
    return layers


def policy_layers(
    shapes: Shapes,
    actions: int,
    *,
    discrete: bool,
    amount: int,
    encoder: Section,
    rssm: Section,
    reward: Section,
    discount: Section,
    value: Section,
    actor: Section,
    behavior: Section,
    planner: Section,
) -> list[Layer]:
    """The layers of choosing an action for each of `amount` environments.

    Args:
        shapes, actions, discrete: As `update_layers` takes them.
        amount: Environments.
        encoder, rssm, reward, discount, value, actor, behavior, planner: The config's sections.
    """
    seen = {k: s for k, s in shapes.items() if re.fullmatch(encoder["keys"], k)}
    feat = rssm["stoch"] + rssm["deter"]
    filtering = _filtering(rssm, actions, _embedding(seen, encoder), 1, 1)
    # What predicts the latent state before the observation is not needed to act.
    filtering = (layer for layer in filtering if not layer.name.startswith("prior"))
    layers = [*_encoder(seen, encoder, 1), *filtering]
    if behavior["policy"] == "planner":
        judges = {"reward": reward} | ({"discount": discount} if discount["enabled"] else {})
        judges |= {"value": value} if _has_value(behavior, planner) else {}
        layers += planned_layers(feat, rssm, actions, judges, planner)
    else:
        outputs = actions if discrete else 2 * actions
        layers += dense_layers("actor", feat, actor, outputs, (1, 0, 0))
    return [replace(x, forward=amount * x.forward, inputs=0, weights=0) for x in layers]


def _has_value(behavior: Section, planner: Section) -> bool:
    """Whether a value network is learnt (dreamer.parts.make_parts)."""
    if behavior["policy"] == "planner":
        return planner["returns"] == "lambda"
    return bool(behavior["value"])


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
        yield from dense_layers("decoder", feat, section, vectors, (rows, rows, rows))
