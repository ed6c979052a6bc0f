"""Trains one of the agents that Dreamer is compared with, with Dreamer's own program.

    python -m baselines.run --agent d4pg --task dmc_walker_walk --logdir runs/
"""

from __future__ import annotations

from collections.abc import Sequence

from baselines import registry
from dreamer import run
from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.config.config import Config
from dreamer.errors import UserError
from dreamer.training.callbacks import Callback


def command_line() -> CommandLine:
    """Returns the program's command line, whose keys are those of --agent."""
    agent = Option("agent", "", "The agent.", required=True, choices=tuple(registry.AGENTS))
    description = "Trains the agent. With --agent NAME, --help shows its presets and keys, too."
    return CommandLine("python -m baselines.run", description, (agent,), agent="")


def main(argv: Sequence[str]) -> int:
    """Reads the command line, trains, and returns the exit status."""
    return run.finish(command_line().parse(argv).config(), train)


def train(config: Config, callbacks: Sequence[Callback] = ()) -> run.Result:
    """Trains the agent of a config (`load_config(..., agent="d4pg")`); see `dreamer.run.train`."""
    check_deterministic(config)
    experience = registry.experience_of(config.agent)
    return run.train(config, registry.make_agent, experience, callbacks)


def check_deterministic(config: Config) -> None:
    """Raises UserError for a deterministic run that cannot be repeated or resumed bit for bit."""
    section = config.tree().get(config.agent, {}) if config.deterministic else {}
    if section.get("alpha"):
        raise UserError(
            f"deterministic is true, but {config.agent}.alpha is {section['alpha']}, and as "
            "priorities are not saved, a resumed run would draw other batches; set "
            f"{config.agent}.alpha to 0, or deterministic to false"
        )
    if section.get("synchronous") is False:
        raise UserError(
            "deterministic is true, but no seed fixes the order in which a3c's learners change the "
            "parameters they share; set a3c.synchronous to true, or deterministic to false"
        )


if __name__ == "__main__":
    run_main(main)
