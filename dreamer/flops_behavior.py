"""Operations of behaviour: imagined for learning, or searched for by the planner.

See dreamer.flops for what is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from dreamer.flops_layer import Layer, Section, dense_layers
from dreamer.flops_rssm import step_layers


def imagined_layers(
    feat: int,
    rssm: Section,
    actions: int,
    outputs: int,
    starts: int,
    *,
    behavior: Section,
    actor: Section,
    heads: Mapping[str, Section],
    ensemble: Section | None = None,
) -> Iterator[Layer]:
    """An actor and, if there is one, a value network that learn in imagination.

    Args:
        feat: F.
        rssm: The config's section, as `sizes_of_kind` gives it.
        behavior, actor: The config's sections.
        actions: A.
        outputs: Of the actor.
        starts: N.
        heads: "reward", "discount" and "value", those that are asked.
        ensemble: In place of the reward head, the section of the config that describes it.
    """
    horizon, value = behavior["horizon"], heads.get("value")
    through = actor["gradient"] == "dynamics"
    # The start is one of the states that are judged (dreamer.behavior.behavior_losses).
    from_start = value is not None and (not through or horizon == 1)
    rows, n, later = starts * (horizon + from_start), starts * horizon, starts * (horizon - 1)
    back = {"reward": n if value is None else later, "discount": later}
    who = "explorer" if ensemble else "actor"
    yield from _actor(who, feat, actor, outputs, n)
    yield from _dynamics(rssm, actions, n, (n, later) if through else (0, 0))
    for name, head in heads.items():
        if name != "value":
            passes = (rows, back[name] if through else 0, 0)
            yield from dense_layers(f"imagined {name}", feat, head, 1, passes)
    if ensemble:
        passes = (n, back["reward"], 0)
        yield from _ensemble("imagined ensemble", feat + actions, rssm, ensemble, passes)
    if value is not None:
        moved = (starts if horizon == 1 else later) if through else 0
        own = n if from_start else later
        layers = dense_layers("imagined value", feat, value, 1, (rows, moved, own))
        for i, layer in enumerate(layers):
            yield replace(layer, inputs=moved + own if i else moved)  # its own ends at the first


def ensemble_layers(
    feat: int, actions: int, rssm: Section, ensemble: Section, rows: int
) -> Iterator[Layer]:
    """The ensemble's own learning on `rows` replayed transitions, which get no gradient."""
    passes = (rows, rows, rows)
    for layer in _ensemble("ensemble", feat + actions, rssm, ensemble, passes):
        yield replace(layer, inputs=0) if layer.name == "dense 1" else layer


def replayed_value_layers(feat: int, value: Section, b: int, t: int) -> Iterator[Layer]:
    """The value network of a planner, on replayed sequences [B, T]; the last record has no target.
    """
    passes = (b * t, b * (t - 1), b * (t - 1))
    for i, layer in enumerate(dense_layers("value", feat, value, 1, passes)):
        yield layer if i else replace(layer, inputs=0)


def planned_layers(
    feat: int, rssm: Section, actions: int, heads: Mapping[str, Section], planner: Section
) -> Iterator[Layer]:
    """The search for one action: every candidate's steps, in every iteration, forward alone.

    Args:
        feat: F.
        rssm, planner: The config's sections.
        actions: A.
        heads: "reward", "discount" and "value", those that are asked.
    """
    n = planner["iterations"] * planner["candidates"] * planner["horizon"]
    for layer in _dynamics(rssm, actions, n, (0, 0)):
        yield replace(layer, part="planned dynamics")
    for name, head in heads.items():
        yield from dense_layers(f"planned {name}", feat, head, 1, (n, 0, 0))


def _actor(part: str, feat: int, actor: Section, outputs: int, rows: int) -> Iterator[Layer]:
    """H applications, at z_0 to z_(H-1); the first layer's inputs have no gradient."""
    for i, layer in enumerate(dense_layers(part, feat, actor, outputs, (rows, rows, rows))):
        yield replace(layer, inputs=rows if i else 0)


def _dynamics(rssm: Section, actions: int, n: int, back: tuple[int, int]) -> Iterator[Layer]:
    """H steps of the prior; of the first one only the action has a gradient, not the state.

    `back`: steps that pass a gradient to their action, and to the state before them.
    """
    every, later = back
    action, state = (n, every, 0), (n, later, 0)
    return step_layers("imagined dynamics", rssm, actions, action, state, (n, every, 0))


def _ensemble(
    part: str, inputs: int, rssm: Section, ensemble: Section, passes: tuple[int, int, int]
) -> Iterator[Layer]:
    """All members as one layer each time: they are alike."""
    for layer in dense_layers(part, inputs, ensemble, rssm["stoch"], passes):
        yield replace(layer, macs=layer.macs * ensemble["members"])
