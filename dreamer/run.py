"""The main program: from the command line to a trained agent.

python -m dreamer.run --task dmc_walker_walk --logdir runs/
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dreamer.config.command_line import CommandLine, run_main
from dreamer.config.config import Config
from dreamer.config.schema import DREAMER
from dreamer.system.streams import say
from dreamer.training.interrupts import Interrupt, StopRequested

if TYPE_CHECKING:
    from dreamer.training.build import MakeAgent, MakeExperience
    from dreamer.training.callbacks import Callback

CORE_FLOPS = 80e9  # operations a second that updates reach on a core of a Zen 4 (docs/speed.md)


@dataclass(frozen=True)
class Result:
    """The outcome of a training."""

    path: Path  # the run's directory
    step: int  # environment frames
    updates: int
    eval_return: float | None  # mean return of the last evaluation; None if there was none


def main(argv: Sequence[str]) -> int:
    """Reads the command line, trains, and returns the exit status."""
    line = CommandLine("python -m dreamer.run", "Trains Dreamer on a task.")
    return finish(line.parse(argv).config(), train)


def finish(config: Config, train: Callable[[Config], Result]) -> int:
    """Trains, prints how it ended, and returns the exit status."""
    try:
        result = train(config)
    except StopRequested as stop:
        say(f"{stop}; the run is saved, the same command resumes it")
        return stop.status
    except KeyboardInterrupt:
        say("interrupted at once; the same command resumes from the last checkpoint, if any")
        return 128 + signal.SIGINT
    say(f"done: {result.step} steps, {result.updates} updates, in {result.path}")
    return 0


def train(
    config: Config, make_agent: MakeAgent | None = None,
    make_experience: MakeExperience | None = None, callbacks: Sequence[Callback] = (),
) -> Result:  # fmt: skip
    """Trains an agent as the config says, or resumes a run that was stopped.

    Args:
        config: From `load_config`.
        make_agent: Makes another agent than Dreamer.
        make_experience: Makes the collector and the batches of an agent that does not learn from
            replayed sequences.
        callbacks: Code of your own, which is called while the agent trains.

    Raises:
        UserError: A usage error; the message says how to fix it.
        dreamer.errors.EnvError: An environment failed too often; the run is saved.
        dreamer.training.interrupts.StopRequested: After SIGINT or SIGTERM; the run is saved.
    """
    from dreamer.logs.sinks import sink_names  # all late, so that --help is quick
    from dreamer.logs.terminal import Phase
    from dreamer.runs.checkpoints import Checkpoints
    from dreamer.runs.rundir import RunDir
    from dreamer.system.tensorflow import prepare_tensorflow
    from dreamer.training import build
    from dreamer.training.initial_weights import check_source, take_weights

    sink_names(config.log.sinks)  # checked before anything is made
    if text := cost_without_gpu(config):
        say(text)
    source = str(config.flat().get("init_from", ""))  # not every agent has the key
    if source:
        check_source(source)
    devices = build.make_devices(config)
    with ExitStack() as stack:
        pool, eval_pool = stack.enter_context(build.open_pools(config))
        build.check_batch(config, pool)
        rundir = stack.enter_context(RunDir.open(config))
        logger = stack.enter_context(build.make_logger(config, rundir.path))
        logger.progress(Phase("loading TensorFlow"))
        prepare_tensorflow(config.deterministic, str(config.flat().get("jit", "off")))
        for note in rundir.notes:
            logger.message(note)
        if config.left_out:
            logger.message(
                f"the agent {config.agent} lacks some keys of the presets, which are left out: "
                f"{', '.join(config.left_out)}"
            )
        interrupt = stack.enter_context(Interrupt())
        pool.on_wait = eval_pool.on_wait = interrupt.while_waiting
        pool.on_note = lambda note: logger.message(f"note: {note}")
        if devices:
            logger.message(f"every batch is shared by {devices}")
        logger.progress(Phase("building the networks"))
        make_agent = make_agent or partial(build.make_agent, devices=devices)
        agent = make_agent(config, pool.obs_space, pool.act_space)
        build.describe(logger, agent, pool)
        if source and Checkpoints(rundir.checkpoints).newest() is None:
            logger.message(take_weights(agent, source, config.init_parts, config))
        setup = build.Setup(
            config, rundir, agent, pool, eval_pool, logger, interrupt, callbacks
        )
        trainer = build.make_trainer(setup, make_experience or build.make_replay_experience)
        if trainer.resume():
            logger.message(f"resumed at step {trainer.step}, update {trainer.update}")
        if trainer.step > config.steps:
            logger.message(
                f"the run is at step {trainer.step:,} already, beyond steps ({config.steps:,}), so "
                "nothing is left to train; give more --steps to go on"
            )
        trainer.run()
        return Result(rundir.path, trainer.step, trainer.update, trainer.reporter.last_return)


def cost_without_gpu(config: Config) -> str:
    """Returns a sentence on the days that a new run will take on this CPU.

    It is "" if there is a GPU, or the run takes less than two days or exists already. A run
    measures its real speed later.
    """
    from dreamer.benchmarks.flops import run_flops  # late, so that --help is quick
    from dreamer.runs.rundir import run_path
    from dreamer.system.machine import machine
    from dreamer.system.tensorflow import has_nvidia

    if config.agent != DREAMER or has_nvidia() or (run_path(config) / "config.yaml").exists():
        return ""
    flops, cores = run_flops(config), machine()["cores"]
    days = flops / (cores * CORE_FLOPS) / 86400
    if days < 2:
        return ""
    return (
        f"warning: no GPU found; {config.steps:,} steps at this size will take about {days:,.0f} "
        f"days on this machine's {cores} cores: --configs small is made for pixels on a CPU; "
        "Ctrl-C ends this run"
    )


if __name__ == "__main__":
    run_main(main)
