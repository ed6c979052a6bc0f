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
from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.config.config import Config, load_config, preset_refusal
from dreamer.config.schema import DREAMER
from dreamer.errors import UserError

SERVICE = "baselines.benchmark_service:UpdateService"
NO_UPDATES = ("random", "constant")
LINE = CommandLine(
    "python -m baselines.benchmark",
    "Measures an update of each agent: Dreamer's and those that it is compared with.",
    (
        Option("task", "dmc_walker_walk", "The task, whose spaces count."),
        Option("agents", "", "Which agents; default: all that learn.", many=True),
        Option("configs", "", "Presets; an agent goes without those that do not fit.", many=True),
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
    _check_presets(options["configs"], chosen)
    results = measure(options["task"], chosen, options["configs"], options["rounds"])
    print_results(results)
    if path:
        from dreamer.io.files import atomic_write

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
        presets: Of which each agent takes those that fit it.
        rounds, shortest: As `in_turn` takes them.
    Returns:
        ``task``, ``load`` (average before), and by agent ``seconds`` of an update, ``records`` that
        it learns from and ``without``, the presets that do not fit it; or ``refused``, why the
        agent is not for this task.
    """
    from dreamer.benchmarks.helper import Helper
    from dreamer.benchmarks.rounds import in_turn

    found: dict[str, Any] = {}
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        helpers = {}
        for agent in agents:
            config = load_config(*_fitting(presets, agent), task=task, agent=agent)
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
            without = sorted({*presets} - {*_fitting(presets, agent)})
            found[agent] = {"seconds": seconds[agent], "without": without}
            found[agent]["records"] = helper.ask("records")
    return {"task": task, "load": load, "agents": found}


def _fitting(presets: Sequence[str], agent: str) -> list[str]:
    return [preset for preset in presets if not preset_refusal(preset, agent)]


def _check_presets(presets: Sequence[str], agents: Sequence[str]) -> None:
    """Refuses what is no preset of any of the agents."""
    for preset in presets:
        refusals = [preset_refusal(preset, agent) for agent in agents]
        if all(refusals):
            raise UserError(f"--configs {preset} fits none of {', '.join(agents)}: {refusals[0]}")


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
            lacks = f"; without {', '.join(found['without'])}" if found["without"] else ""
            print(f"{agent:<12} {1000 * found['seconds']:10.2f} ms an update of "
                  f"{found['records']} records, {rate:.0f} records a second{lacks}")  # fmt: skip


if __name__ == "__main__":
    run_main(main)
