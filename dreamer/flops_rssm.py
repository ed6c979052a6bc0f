"""Operations of the latent dynamics, of every kind (dreamer.nets.rssm_kinds).

See dreamer.flops for what is counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from dreamer.flops_layer import Layer, Section


def sizes_of_kind(rssm: Section) -> Section:
    """The config's section with the size of what its kind lacks, S or D, at zero."""
    lacking = {"stochastic_only": {"deter": 0}, "deterministic_only": {"stoch": 0}}
    return {**rssm, **lacking.get(rssm["kind"], {})}


def filtering_layers(rssm: Section, actions: int, embed: int, b: int, t: int) -> Iterator[Layer]:
    """Prior and posterior of sequences [B, T]; sizes as `sizes_of_kind` gives them."""
    s, d, hidden = rssm["stoch"], rssm["deter"], rssm["hidden"]
    n, later = b * t, b * (t - 1)  # the state before the first step is zero and needs no gradient
    yield from step_layers("rssm", rssm, actions, (n, 0, n), (n, later, n), (n, n, n))
    if s:
        yield Layer("rssm", "post hidden", ((d or hidden) + embed) * hidden, n, n, n)
        yield Layer("rssm", "post mean and std", hidden * 2 * s, n, n, n)
        return
    # No loss is behind the last posterior: the heads learn from the priors.
    for name, macs in (
        ("post hidden", embed * hidden),
        ("post gru, input", hidden * 3 * d),
        ("post gru, recurrent", d * 3 * d),
    ):
        yield Layer("rssm", name, macs, n, later, later)


def overshooting_layers(
    rssm: Section, actions: int, b: int, t: int, distance: int
) -> Iterator[Layer]:
    """The prior of 2 to `distance` steps ahead, of every state that is so far from a start."""
    n = sum(b * (t - d + 1) for d in range(2, distance + 1))
    if n:
        yield from step_layers("overshooting", rssm, actions, (n, 0, n), (n, n, n), (n, n, n))


Passes = tuple[int, int, int]


def step_layers(
    part: str, rssm: Section, actions: int, action: Passes, state: Passes, rest: Passes
) -> Iterator[Layer]:
    """Steps of the prior; Layer's last three for what reads actions, states, and the rest."""
    s, d, hidden = rssm["stoch"], rssm["deter"], rssm["hidden"]
    if s:
        yield Layer(part, "input, stoch", s * hidden, *state)
    yield Layer(part, "input, action", actions * hidden, *action)
    if d:
        yield Layer(part, "gru, input", hidden * 3 * d, *rest)
        yield Layer(part, "gru, recurrent", d * 3 * d, *state)
    if s:
        yield Layer(part, "prior hidden", (d or hidden) * hidden, *rest)
        yield Layer(part, "prior mean and std", hidden * 2 * s, *rest)
