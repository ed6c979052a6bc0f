"""How long an update takes, against what the machine's matrix products would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dreamer.benchmarks.helper import Helper
from dreamer.benchmarks.rounds import Measure, in_turn

SAMPLE = "sample"
Key = tuple[Any, ...]


def measure_updates(
    agents: Mapping[str, Helper],
    products: Sequence[Sequence[int]],
    flops: int,
    sample: Measure | None,
    rounds: int,
    shortest: float,
) -> tuple[dict[str, dict[str, float]], dict[str, Any], float | None]:
    """Measures updates, matrix products and sampling in turn: no two ever run at once.

    Args:
        agents: Precision -> an AgentService of that precision.
        products: Sizes (m, k, n) of the matrix products.
        flops: Of one update.
        sample: Draws batches, or None.
        rounds, shortest: As `in_turn` takes them.

    Returns:
        By precision: seconds of an update, flops, matmul_flops_per_second (of the fastest
        product), floor_seconds (the flops at that rate), over_floor (seconds over those), and
        over_float32 where that was measured too. By precision: memory of the process. And the
        seconds that drawing a batch took, or None.
    """
    before = {}
    measures: dict[Key, Measure] = {}
    for precision, agent in agents.items():
        for product in products:
            measures[precision, *product] = _asking(agent, "multiply", product=product)
            agent.ask("multiply", product=product)  # its matrices stay, and are no growth
        measures[precision,] = _asking(agent, "update")
        agent.ask("update", count=2)
        before[precision] = agent.ask("memory")
    if sample:
        measures[SAMPLE,] = sample
    seconds = in_turn(measures, rounds, shortest)
    found = {
        precision: _against_floor(seconds[precision,], flops, {
            (m, k, n): seconds[precision, m, k, n] for m, k, n in products
        })
        for precision in agents
    }  # fmt: skip
    for precision in set(found) - {"float32"} if "float32" in found else ():
        found[precision]["over_float32"] = (
            found[precision]["seconds"] / found["float32"]["seconds"]
        )
    return found, _memory(agents, before), seconds.get((SAMPLE,))


def _asking(agent: Helper, method: str, **arguments: Any) -> Measure:
    return lambda count: agent.ask(method, count=count, **arguments)


def _against_floor(
    seconds: float, flops: int, products: Mapping[tuple[int, int, int], float]
) -> dict[str, float]:
    rate = max(2 * m * k * n / duration for (m, k, n), duration in products.items())
    return {
        "seconds": seconds,
        "flops": flops,
        "matmul_flops_per_second": rate,
        "floor_seconds": flops / rate,
        "over_floor": seconds * rate / flops,
    }


def _memory(agents: Mapping[str, Helper], before: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for precision, agent in agents.items():
        after, was = agent.ask("memory"), before[precision]
        found[precision] = {
            **after,
            "growth_bytes": after["resident_bytes"] - was["resident_bytes"],
            "updates": after["updates"] - was["updates"],
        }
    return found
