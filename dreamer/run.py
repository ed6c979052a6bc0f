"""The main job: from the command line to a trained agent.

    python -m dreamer.run --task dmc_walker_walk --logdir runs/
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamer.cli import parse_args, run_main
from dreamer.config import Config
from dreamer.errors import UserError

if TYPE_CHECKING:
    from dreamer.agent import Agent
    from dreamer.envs.pool import EnvPool
    from dreamer.logger import Logger

AGENT_SECTIONS = (
    *("encoder", "decoder", "rssm", "reward", "discount", "value", "actor"),
    *("loss", "contrastive", "behavior", "optimizer", "explore", "planner", "disagreement"),
)


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
    from dreamer.interrupt import StopRequested

    try:
        result = train(config)
    except StopRequested as stop:
        print(f"{stop}; the run is saved, the same command goes on with it")
        return stop.status
    except KeyboardInterrupt:
        print("interrupted at once; the same command goes on from the last checkpoint, if any")
        return 128 + signal.SIGINT
    print(f"done: {result.step} steps, {result.updates} updates, in {result.path}")
    return 0


def train(config: Config) -> Result:
    """Trains an agent as the config says; the same call goes on with a run that was stopped.

    Args:
        config: From load_config.
    Returns:
        Where the run lies and what it came to.
    Raises:
        UserError: For what the user can mend.
        dreamer.errors.EnvError: An environment failed too often; the run is saved.
        dreamer.interrupt.StopRequested: After SIGINT or SIGTERM, with the run saved.
    """
    from dreamer.device import prepare_tensorflow
    from dreamer.interrupt import Interrupt
    from dreamer.rundir import RunDir
    from dreamer.sinks import sink_names

    sink_names(config.log.sinks)  # refused before anything is made
    with ExitStack() as stack:
        pool = stack.enter_context(make_pool(config, config.envs.amount, training=True))
        eval_pool = stack.enter_context(make_pool(config, config.eval.amount, training=False))
        check_batch_length(config, pool)
        rundir = stack.enter_context(RunDir.open(config))
        prepare_tensorflow(config.deterministic)
        logger = stack.enter_context(make_logger(config, rundir.path))
        for note in rundir.notes:
            logger.message(note)
        interrupt = stack.enter_context(Interrupt())
        pool.on_wait = eval_pool.on_wait = interrupt.while_waiting
        agent = make_agent(config, pool.obs_space, pool.act_space)
        describe(logger, config, agent, pool)
        trainer = make_trainer(config, rundir, agent, pool, eval_pool, logger, interrupt)
        if trainer.resume():
            logger.message(f"going on from step {trainer.step}, update {trainer.update}")
        trainer.run()
        return Result(rundir.path, trainer.step, trainer.update, trainer.last_return)


def make_pool(config: Config, amount: int, *, training: bool) -> EnvPool:
    """That many environments of the config's task, each in a process of its own; 1: one a task.

    Some tasks are played otherwise for training: Atari's episodes end with a life there.
    """
    from dreamer.envs.pool import EnvPool
    from dreamer.envs.several import split_tasks

    if amount == 1:
        amount = len(split_tasks(config.task))
    settings: dict[str, Any] = {**config.section("envs"), "amount": amount, "training": training}
    return EnvPool(config.task, **settings)


def check_batch_length(config: Config, pool: EnvPool) -> None:
    """Refuses sequences longer than any episode of the task can be."""
    longest = longest_episode(config, pool)
    if longest and config.train.batch_length > longest:
        raise UserError(
            f"train.batch_length is {config.train.batch_length}, but an episode of {config.task} "
            f"has at most {longest} records ({pool.action_repeat} steps a record); "
            f"choose at most {longest}"
        )


def longest_episode(config: Config, pool: EnvPool) -> int:
    """Records of the task's longest episodes; 0 if it says no limit."""
    limit = config.envs.time_limit or int(pool.info.get("time_limit", 0))
    return -(-limit // pool.action_repeat) + 1 if limit else 0


def make_logger(config: Config, path: Path) -> Logger:
    """The logger of a run."""
    from dreamer.logger import Logger
    from dreamer.sinks import make_sinks

    return Logger(
        path,
        tensorboard=config.log.tensorboard,
        terminal=config.log.terminal,
        total_steps=config.steps,
        sinks=make_sinks(config.log.sinks, path, config.flat()),
    )


def make_agent(config: Config, obs_space: dict, act_space) -> Agent:
    """The agent that a config describes, for an environment's spaces."""
    from dreamer.agent import Agent

    sections = {name: config.section(name) for name in AGENT_SECTIONS}
    return Agent(
        obs_space,
        act_space,
        **sections,
        precision=config.precision,
        jit=config.jit,
        seed=config.seed,
    )


def make_trainer(config: Config, rundir, agent: Agent, pool, eval_pool, logger, interrupt):
    """The training loop with everything it stands on."""
    from dreamer.checkpoint import Checkpoints
    from dreamer.evaluation import Evaluator
    from dreamer.forecast import forecast
    from dreamer.nonfinite import NonFiniteGuard
    from dreamer.replay import Replay
    from dreamer.reports import Intervals, Reports
    from dreamer.schedule import UpdateSchedule
    from dreamer.storage import Patience
    from dreamer.trainer import Trainer

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
    t = config.train
    schedule = UpdateSchedule(t.prefill, t.pretrain, t.every, t.updates)
    patience = Patience(config.disk_wait, interrupt, logger.message)
    intervals = Intervals(
        config.log.every, config.eval.every, config.log.video_every, config.checkpoint.every
    )
    return Trainer(
        agent=agent,
        pool=pool,
        replay=replay,
        reports=Reports(agent, evaluator, logger, intervals, patience),
        checkpoints=Checkpoints(rundir.checkpoints, config.checkpoint.keep),
        interrupt=interrupt,
        patience=patience,
        guard=NonFiniteGuard(rundir.path / "nonfinite", t.nonfinite_limit, logger.message),
        seed=config.seed,
        prefix=f"{rundir.owner}s{config.seed}e",
        exact=config.deterministic,
        schedule=schedule,
        batch={
            "batch_size": t.batch_size,
            "length": t.batch_length,
            "prefetch": config.replay.prefetch,
        },
        steps=config.steps,
        overlap=t.overlap,
        forecast=lambda update, frames: forecast(config, schedule, update, frames),
    )


def describe(logger: Logger, config: Config, agent: Agent, pool: EnvPool) -> None:
    """Says what runs on what."""
    from dreamer.device import describe_device

    logger.message(f"{describe_device()}; precision {agent.precision}")
    if pool.info:
        logger.message("environment: " + ", ".join(f"{k} {v}" for k, v in pool.info.items()))
    tasks = list(dict.fromkeys(pool.tasks))
    if len(tasks) > 1:
        logger.message(f"{len(tasks)} tasks, in turn: {', '.join(tasks)}")
    model, actions = agent.world_model, pool.act_space
    logger.message(
        f"encoder takes {', '.join(model.inputs)}; decoder predicts {', '.join(model.targets)}; "
        f"actions {actions.shape[0]} {'one-hot' if actions.discrete else 'continuous'}"
    )


if __name__ == "__main__":
    run_main(main)
