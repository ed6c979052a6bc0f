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
from collections.abc import Sequence
from dataclasses import replace

from dreamer.flops_behavior import (
    ensemble_layers,
    imagined_layers,
    planned_layers,
    replayed_value_layers,
)
from dreamer.flops_layer import Layer, Section, dense_layers
from dreamer.flops_model import Shapes, embedding, encoder_layers, model_layers
from dreamer.flops_rssm import filtering_layers, sizes_of_kind


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
    loss: Section,
    contrastive: Section,
) -> list[Layer]:
    """The layers of one update, at the start of training: an explorer learns if there is one.

    Args:
        shapes: Observation key -> shape, images [64, 64, C] and vectors [size].
        actions: A.
        discrete: Whether actions are one-hot: the actor then has A outputs instead of 2 A.
        batch_size, batch_length: B, T.
        encoder, decoder, rssm, reward, discount, value, actor, behavior, planner, disagreement,
            loss, contrastive: The config's sections.
    """
    seen = {k: s for k, s in shapes.items() if re.fullmatch(encoder["keys"], k)}
    shown = {k: s for k, s in shapes.items() if re.fullmatch(decoder["keys"], k)}
    rssm = sizes_of_kind(rssm)
    feat = rssm["stoch"] + rssm["deter"]
    heads = {"reward": reward} | ({"discount": discount} if discount["enabled"] else {})
    outputs = actions if discrete else 2 * actions
    layers = list(model_layers(
        seen, shown, actions, batch_size, batch_length, encoder=encoder, decoder=decoder,
        rssm=rssm, heads=heads, loss=loss, contrastive=contrastive,
    ))  # fmt: skip
    judges = {**heads, **({"value": value} if _has_value(behavior, planner) else {})}
    if behavior["policy"] == "planner":
        if "value" in judges:
            layers += replayed_value_layers(feat, value, batch_size, batch_length)
        return layers
    sizes = (feat, rssm, actions, outputs, batch_size * batch_length)
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
    rssm = sizes_of_kind(rssm)
    feat = rssm["stoch"] + rssm["deter"]
    filtering = filtering_layers(rssm, actions, embedding(seen, encoder), 1, 1)
    # What predicts the latent state before the observation is not needed to act.
    filtering = (layer for layer in filtering if not layer.name.startswith("prior"))
    layers = [*encoder_layers(seen, encoder, 1), *filtering]
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
