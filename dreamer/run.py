"""The main job: from the command line to a trained agent.

    python -m dreamer.run --task dmc_walker_walk --logdir runs/
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamer.config.combinations import check_devices
from dreamer.config.command_line import parse_args, run_main
from dreamer.config.config import Config
from dreamer.config.schema import DREAMER
from dreamer.errors import UserError
from dreamer.system.streams import say

if TYPE_CHECKING:
    from dreamer.agent.agent import Agent
    from dreamer.agent.devices import Devices, SeveralDevices
    from dreamer.envs.processes.pool import EnvPool
    from dreamer.logs.logger import Logger
    from dreamer.training.trained_agent import TrainedAgent
    from dreamer.training.trainer import Trainer


@dataclass(frozen=True)
class Result:
    """What a training came to.

    Attributes:
        path: The run's directory.
        step: Environment frames.
        updates: Updates.
        eval_return: Mean return of the last evaluation, or None if there was none.
    """

    path: Path
    step: int
    updates: int
    eval_return: float | None


def main(argv: Sequence[str]) -> int:
    """Reads the command line, trains, and returns the exit status."""
    config = parse_args(argv, "python -m dreamer.run", "Trains Dreamer on a task.")
    return finish(config, train)


def finish(config: Config, train: Callable[[Config], Result]) -> int:
    """Trains, says how it ended if that can be said, and returns the exit status."""
    from dreamer.training.interrupts import StopRequested

    try:
        result = train(config)
    except StopRequested as stop:
        say(f"{stop}; the run is saved, the same command goes on with it")
        return stop.status
    except KeyboardInterrupt:
        say("interrupted at once; the same command goes on from the last checkpoint, if any")
        return 128 + signal.SIGINT
    say(f"done: {result.step} steps, {result.updates} updates, in {result.path}")
    return 0


def train(
    config: Config,
    maker: Callable[..., TrainedAgent] | None = None,
    trainer: Callable[..., Trainer] | None = None,
) -> Result:
    """Trains an agent as the config says; the same call goes on with a run that was stopped.

    Args:
        config: From load_config.
        maker: Makes another agent than Dreamer, from the config and the spaces of observations
            and actions.
        trainer: A `Trainer` that suits it, made from the same arguments; None for the usual one.
    Returns:
        Where the run lies and what it came to.
    Raises:
        UserError: For what the user can mend.
        dreamer.errors.EnvError: An environment failed too often; the run is saved.
        dreamer.training.interrupts.StopRequested: After SIGINT or SIGTERM, with the run saved.
    """
    from dreamer.logs.sinks import sink_names
    from dreamer.runs.rundir import RunDir
    from dreamer.system.tensorflow import prepare_tensorflow
    from dreamer.training.batch_limits import check_batch
    from dreamer.training.interrupts import Interrupt
    from dreamer.training.trainer import Trainer

    sink_names(config.log.sinks)  # refused before anything is made
    devices = make_devices(config)
    with ExitStack() as stack:
        pool = stack.enter_context(make_pool(config, config.envs.num_envs, training=True))
        eval_pool = stack.enter_context(make_pool(config, config.eval.num_envs, training=False))
        check_batch(config, pool)
        rundir = stack.enter_context(RunDir.open(config))
        prepare_tensorflow(config.deterministic)
        logger = stack.enter_context(make_logger(config, rundir.path))
        for note in rundir.notes:
            logger.message(note)
        interrupt = stack.enter_context(Interrupt(rundir.check))
        pool.on_wait = eval_pool.on_wait = interrupt.while_waiting
        if devices:
            logger.message(f"every batch is shared by {devices}")
            maker = partial(make_agent, devices=devices)
        agent = (maker or make_agent)(config, pool.obs_space, pool.act_space)
        describe(logger, agent, pool)
        parts = make_parts(config, rundir, agent, pool, eval_pool, logger, interrupt)
        loop = (trainer or Trainer)(**parts)
        if loop.resume():
            logger.message(f"going on from step {loop.step}, update {loop.update}")
        loop.run()
        return Result(rundir.path, loop.step, loop.update, loop.last_return)


def make_pool(config: Config, num_envs: int, *, training: bool) -> EnvPool:
    """That many environments of the config's task, each in a process of its own; 1: one a task.

    Some tasks are played otherwise for training: Atari's episodes end with a life there.
    """
    from dreamer.envs.processes.pool import EnvPool
    from dreamer.tasks import split_tasks

    if num_envs == 1:
        num_envs = len(split_tasks(config.task))
    settings: dict[str, Any] = {**config.section("envs"), "num_envs": num_envs}
    return EnvPool(config.task, **settings, training=training)


def make_devices(config: Config) -> SeveralDevices | None:
    """Returns the devices that share each update, or None where one device makes it.

    Raises:
        UserError: The machine does not have these devices, or they cannot share the batch.
    """
    asked = int(config.section("train").get("devices", 1))  # only Dreamer has the key
    if asked == 1:
        return None
    check_devices(asked or 1, config.train.batch_size, config.jit)
    from dreamer.system.tensorflow import prepare_tensorflow

    prepare_tensorflow(config.deterministic)  # before anything imports it
    from dreamer.agent.devices import open_devices

    devices = open_devices(asked, os.environ)
    check_devices(devices.count, config.train.batch_size, config.jit)
    return devices


def make_logger(config: Config, path: Path) -> Logger:
    """The logger of a run."""
    from dreamer.logs.logger import Logger
    from dreamer.logs.sinks import make_sinks

    return Logger(
        path,
        tensorboard=config.log.tensorboard,
        terminal=config.log.terminal,
        total_steps=config.steps,
        sinks=make_sinks(config.log.sinks, path, config.flat()),
    )


def make_agent(
    config: Config, obs_space: dict, act_space, devices: Devices | None = None
) -> Agent:
    """The agent that a config describes, for an environment's spaces; learns on one device, or
    those given."""
    from dreamer.agent.agent import Agent

    if config.agent != DREAMER:
        raise UserError(
            f"this is a run of the agent {config.agent}, not of Dreamer: use python -m "
            "baselines.run to train it and python -m baselines.evaluate to evaluate it"
        )
    return Agent(
        obs_space,
        act_space,
        **config.agent_sections(),
        precision=config.precision,
        jit=config.jit,
        seed=config.seed,
        devices=devices,
    )


def make_parts(
    config: Config, rundir, agent: TrainedAgent, pool, eval_pool, logger, interrupt
) -> dict[str, Any]:
    """Everything that the training loop stands on, as a Trainer's arguments."""
    from dreamer.data.replay import Replay
    from dreamer.io.disk import Patience
    from dreamer.runs.checkpoints import Checkpoints
    from dreamer.training.evaluation import Evaluator
    from dreamer.training.forecast import forecast
    from dreamer.training.nonfinite import NonFiniteGuard
    from dreamer.training.reports import Intervals, Reports
    from dreamer.training.schedule import UpdateSchedule

    replay = Replay(
        rundir.episodes,
        cache_bytes=config.replay.cache_bytes,
        seed=config.seed,
        obs_space=pool.obs_space,
        act_space=pool.act_space,
    )
    evaluator = Evaluator(
        eval_pool,
        seed=config.seed,
        episodes=config.eval.episodes,
        filmed=config.eval.videos,
        directory=rundir.eval_episodes if config.eval.save_episodes else None,
    )
    t = config.section("train")  # in which some agents have fewer keys than Dreamer
    keys = ("prefill", "pretrain", "every", "updates")
    schedule = UpdateSchedule(**{key: int(t.get(key, 0)) for key in keys})
    patience = Patience(config.disk_wait, interrupt, logger.message)
    intervals = Intervals(
        config.log.every, config.eval.every, config.log.video_every, config.checkpoint.every
    )
    return {
        "agent": agent,
        "pool": pool,
        "replay": replay,
        "reports": Reports(agent, evaluator, logger, intervals, patience, interrupt),
        "checkpoints": Checkpoints(rundir.checkpoints, config.checkpoint.keep),
        "interrupt": interrupt,
        "patience": patience,
        "guard": NonFiniteGuard(
            rundir.path / "nonfinite", config.train.nonfinite_limit, logger.message
        ),
        "seed": config.seed,
        "prefix": f"{rundir.owner}s{config.seed}e",
        "exact": config.deterministic,
        "schedule": schedule,
        "batch": {
            "batch_size": t.get("batch_size", 1),
            "length": t.get("batch_length", 1),
            "prefetch": config.replay.prefetch,
        },
        "steps": config.steps,
        "overlap": bool(t.get("overlap", False)),
        "forecast": lambda update, frames: forecast(config, schedule, update, frames),
    }


def describe(logger: Logger, agent: Any, pool: EnvPool) -> None:
    """Says what runs on what."""
    from dreamer.system.tensorflow import describe_device

    logger.message(f"{describe_device()}; precision {agent.precision}")
    if pool.info:
        logger.message("environment: " + ", ".join(f"{k} {v}" for k, v in pool.info.items()))
    tasks = list(dict.fromkeys(pool.tasks))
    if len(tasks) > 1:
        logger.message(f"{len(tasks)} tasks, in turn: {', '.join(tasks)}")
    actions = pool.act_space
    text = f"actions {actions.shape[0]} {'one-hot' if actions.discrete else 'continuous'}"
    if model := getattr(agent, "world_model", None):  # not every agent has one
        text = (
            f"encoder takes {', '.join(model.inputs)}; decoder predicts "
            f"{', '.join(model.targets)}; {text}"
        )
    logger.message(text)


if __name__ == "__main__":
    run_main(main)
