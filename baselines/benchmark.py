"""Measures how long an update of each agent takes on this machine, all of them in turn.

    python -m baselines.benchmark --task dmc_walker_walk --json speed.json
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from baselines import registry
from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.config.config import load_config, preset_refusal
from dreamer.config.schema import DREAMER
from dreamer.errors import UserError
from dreamer.io.files import check_writable_file

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
    """Reads the command line, measures, prints a table, and writes the figures to --json."""
    options = LINE.parse(argv).options
    known = [DREAMER, *(name for name in registry.AGENTS if name not in NO_UPDATES)]
    if unknown := sorted(set(options["agents"]) - set(known)):
        raise UserError(f"--agents {', '.join(unknown)}: expected some of {', '.join(known)}")
    agents = options["agents"] or known
    for preset in options["configs"]:
        refusals = [preset_refusal(preset, agent) for agent in agents]
        if all(refusals):
            raise UserError(f"--configs {preset} fits none of {', '.join(agents)}: {refusals[0]}")
    from dreamer.benchmarks.report import write_json

    if options["json"]:
        check_writable_file(Path(options["json"]), "--json")
    results = measure(options["task"], agents, options["configs"], options["rounds"])
    print_results(results)
    if options["json"]:
        write_json(options["json"], results)
    return 0


def measure(
    task: str, agents: Sequence[str], presets: Sequence[str], rounds: int, shortest: float = 0.5
) -> dict[str, Any]:
    """Measures agents in turn, each in a process of its own.

    Args:
        task: The task, whose spaces count.
        agents: Names of the agents.
        presets: Each agent takes those that fit it.
        rounds, shortest: As `in_turn` takes them.

    Returns:
        ``task``, ``load`` (load average before), and by agent ``seconds`` of an update,
        ``records`` (timesteps that it learns from) and ``without`` (the presets that do not fit);
        or ``refused``, the reason why the agent cannot learn this task.
    """
    from dreamer.benchmarks.sampling import in_turn
    from dreamer.benchmarks.service import Service
    from dreamer.envs.spec import spaces_to_json
    from dreamer.training.build import make_pool

    found: dict[str, Any] = {}
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        services: dict[str, Service] = {}
        for agent in agents:
            without = sorted({preset for preset in presets if preset_refusal(preset, agent)})
            fitting = [preset for preset in presets if preset not in without]
            config = load_config(*fitting, task=task, agent=agent)
            with make_pool(config, 1, training=True) as pool:
                spaces = spaces_to_json(pool.obs_space, pool.act_space)
            try:
                service = Service(SERVICE, agent=agent, values=config.flat(), spaces=spaces)
            except UserError as error:
                found[agent] = {"refused": str(error)}
                continue
            services[agent] = stack.enter_context(service)
            found[agent] = {"without": without, "records": service.ask("timesteps")}
        updates = {agent: service.measure("update") for agent, service in services.items()}
        for agent, seconds in in_turn(updates, rounds, shortest).items():
            found[agent]["seconds"] = seconds
    return {"task": task, "load": load, "agents": found}


def print_results(results: Mapping[str, Any]) -> None:
    """Prints one line per agent."""
    print(f"{results['task']}, load average {results['load']:.1f} before")
    for agent, found in results["agents"].items():
        if "refused" in found:
            print(f"{agent:<12} {found['refused']}")
        else:
            rate = found["records"] / found["seconds"]
            lacks = f"; without {', '.join(found['without'])}" if found["without"] else ""
            print(
                f"{agent:<12} {1000 * found['seconds']:10.2f} ms an update of {found['records']} "
                f"timesteps, {rate:.0f} timesteps a second{lacks}"
            )


if __name__ == "__main__":
    run_main(main)
