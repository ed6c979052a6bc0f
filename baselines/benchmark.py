"""How long an update of each agent takes on this machine, all measured in turn.

    python -m baselines.benchmark --task dmc_walker_walk --json speed.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from baselines import registry
from dreamer.cli import CommandLine, Option, run_main
from dreamer.config import Config, load_config, preset_names
from dreamer.errors import UserError
from dreamer.schema import DREAMER

SERVICE = "baselines.benchmark_service:UpdateService"
NO_UPDATES = ("random", "constant")
LINE = CommandLine(
    "python -m baselines.benchmark",
    "Measures an update of each agent: Dreamer's and those that it is compared with.",
    (
        Option("task", "dmc_walker_walk", "The task, whose spaces count."),
        Option("agents", "", "Which agents; default: all that learn.", many=True),
        Option("configs", "", "Presets; an agent that lacks one goes without it.", many=True),
        Option("rounds", 5, "Rounds to measure, after one to warm up.", low=1),
        Option("json", "", "File to write the figures to."),
    ),
    takes_config=False,
)


def main(argv: Sequence[str]) -> int:
    """Reads the command line, measures, prints a table, and writes the figures if asked to."""
    options = LINE.parse(argv).options
    known = [DREAMER, *(n for n in registry.names() if n not in NO_UPDATES)]
    if unknown := sorted(set(options["agents"]) - set(known)):
        raise UserError(f"--agents {', '.join(unknown)}: expected some of {', '.join(known)}")
    path = options["json"]
    if path and not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise UserError(f"--json cannot write {path}: expected a file in a folder that exists")
    chosen = options["agents"] or known
    results = measure(options["task"], chosen, options["configs"], options["rounds"])
    print_results(results)
    if path:
        from dreamer.files import atomic_write

        with atomic_write(path) as file:
            file.write(json.dumps(results, indent=2, allow_nan=False).encode() + b"\n")
    return 0


def measure(
    task: str, agents: Sequence[str], presets: Sequence[str], rounds: int, shortest: float = 0.5
) -> dict[str, Any]:
    """Measures agents in turn, each in a process of its own.

    Args:
        task: Whose spaces.
        agents: Names.
        presets: Of those each agent has.
        rounds, shortest: As `in_turn` takes them.
    Returns:
        ``task``, ``load`` (average before), and by agent ``seconds`` of an update and ``records``
        that it learns from; or ``refused``, why the agent is not for this task.
    """
    from dreamer.benchmarks.helper import Helper
    from dreamer.benchmarks.rounds import in_turn

    found: dict[str, Any] = {}
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        helpers = {}
        for agent in agents:
            config = _config(task, agent, presets)
            try:
                helper = Helper(SERVICE, agent=agent, values=config.flat(), **_spaces(config))
            except UserError as error:
                found[agent] = {"refused": str(error)}
                continue
            helpers[agent] = stack.enter_context(helper)

        def updating(helper: Helper):
            return lambda count: helper.ask("update", count=count)

        seconds = in_turn({a: updating(h) for a, h in helpers.items()}, rounds, shortest)
        for agent, helper in helpers.items():
            found[agent] = {"seconds": seconds[agent], "records": helper.ask("records")}
    return {"task": task, "load": load, "agents": found}


def _config(task: str, agent: str, presets: Sequence[str]) -> Config:
    return load_config(*[p for p in presets if p in preset_names(agent)], task=task, agent=agent)


def _spaces(config: Config) -> dict[str, Any]:
    from dreamer.run import make_pool

    with make_pool(config, 1, training=True) as pool:
        return {
            "obs_space": {key: space.to_json() for key, space in pool.obs_space.items()},
            "act_space": pool.act_space.to_json(),
        }


def print_results(results: Mapping[str, Any]) -> None:
    """One line an agent."""
    print(f"{results['task']}, load average {results['load']:.1f} before")
    for agent, found in results["agents"].items():
        if "refused" in found:
            print(f"{agent:<12} {found['refused']}")
        else:
            rate = found["records"] / found["seconds"]
            print(f"{agent:<12} {1000 * found['seconds']:10.2f} ms an update of "
                  f"{found['records']} records, {rate:.0f} records a second")  # fmt: skip


if __name__ == "__main__":
    run_main(main)
