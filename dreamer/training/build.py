"""Makes the parts of a run from its config. Only this module and the programs see all of it.

Importing this module loads no TensorFlow, so that usage errors are found fast and environments
start before TensorFlow does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dreamer.config.config import Config, check_devices, preset_refusal
from dreamer.config.schema import DREAMER
from dreamer.data.latent_memory import LatentMemory
from dreamer.data.replay import Batch, Replay, timestep_bytes
from dreamer.envs.processes.pool import EnvPool
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.logs.logger import Logger
from dreamer.logs.sinks import make_sinks
from dreamer.logs.terminal import duration
from dreamer.runs.checkpoints import Checkpoints
from dreamer.runs.rundir import RunDir
from dreamer.system.machine import machine
from dreamer.system.tensorflow import describe_device, prepare_tensorflow
from dreamer.tasks import split_tasks
from dreamer.training.experience import ReplayCollector
from dreamer.training.interfaces import (
    DrawBatches,
    EpisodeMemory,
    TrainableAgent,
    TrainingCollector,
)  # fmt: skip
from dreamer.training.interrupts import Interrupt, RetryWhileDiskFull
from dreamer.training.reports import Evaluator, Reporter
from dreamer.training.schedule import UpdateSchedule
from dreamer.training.trainer import NonFiniteGuard, Trainer

if TYPE_CHECKING:
    from dreamer.agent.agent import Agent
    from dreamer.agent.devices import Devices

_LONG = 48 * 3600  # seconds; longer runs want a GPU
MakeAgent = Callable[[Config, Mapping[str, Space], Space], TrainableAgent]
"""Makes an agent from the config and the spaces of observations and actions."""
Experience = tuple[TrainingCollector, DrawBatches | None]
MakeExperience = Callable[["Setup"], Experience]
"""Makes the collector and the function for batches, None if the collector makes the updates."""


@dataclass
class Setup:
    """What a run's trainer is made from."""

    config: Config
    rundir: RunDir
    agent: TrainableAgent
    pool: EnvPool  # for training
    eval_pool: EnvPool
    logger: Logger
    interrupt: Interrupt

    @cached_property
    def retry_while_disk_full(self) -> RetryWhileDiskFull:
        """Waits while the disk is full."""
        return RetryWhileDiskFull(self.config.disk_wait, self.interrupt, self.logger.message)

    @cached_property
    def guard(self) -> NonFiniteGuard:
        """Watches for updates that are not finite."""
        folder, limit = self.rundir.path / "nonfinite", self.config.train.nonfinite_limit
        return NonFiniteGuard(folder, limit, self.logger.message)


def make_pool(config: Config, num_envs: int, *, training: bool) -> EnvPool:
    """Returns environments of the config's task; for `num_envs` 1, one environment per task."""
    count = len(split_tasks(config.task)) if num_envs == 1 else num_envs
    settings: dict[str, Any] = {**config.section("envs"), "num_envs": count}
    return EnvPool(config.task, **settings, training=training)


def check_batch(config: Config, pool: EnvPool) -> None:
    """Raises UserError for batches longer than any episode, or larger than the memory."""
    train = config.section("train")  # not every agent learns from sequences, or from batches
    length = int(train.get("batch_length", 1))
    longest = longest_episode(config, pool)
    if longest and length > longest:
        raise UserError(
            f"train.batch_length is {length}, but an episode of {config.task} has at most "
            f"{longest} timesteps ({pool.action_repeat} steps a timestep); choose at most {longest}"
        )
    size = int(train.get("batch_size", 1))
    timestep = timestep_bytes(pool.obs_space, pool.act_space)
    batches = config.replay.prefetch + 2  # one is being drawn, another is trained on
    needed, memory = batches * size * length * timestep, machine()["memory"]
    if memory and needed > memory:
        raise UserError(
            f"train.batch_size {size} of train.batch_length {length} is {size * length:,} "
            f"timesteps of {timestep:,} bytes; {batches} such batches in memory (replay.prefetch "
            f"{config.replay.prefetch}) take {needed / 1e9:.0f} GB, but this machine has "
            f"{memory / 1e9:.0f} GB: choose smaller ones"
        )


def longest_episode(config: Config, pool: EnvPool) -> int:
    """Returns the timesteps of the task's longest episodes; 0 if it has no time limit."""
    limit = config.envs.time_limit or int(pool.info.get("time_limit", 0))
    return -(-limit // pool.action_repeat) + 1 if limit else 0


def forecast(
    config: Config, schedule: UpdateSchedule, seconds_per_update: float, frames_per_second: float
) -> str:
    """Returns a sentence on the hours that the run will take, with advice if it wants a GPU."""
    import tensorflow as tf

    updates = schedule.due(config.steps)
    seconds = updates * seconds_per_update + config.steps / frames_per_second
    text = (
        f"measured here: {seconds_per_update:.2f} s an update, {frames_per_second:.0f} frames a "
        f"second; {config.steps:,} steps with {updates:,} updates will take about "
        f"{duration(seconds)} (h:mm:ss, without evaluations)"
    )
    takes_small = not preset_refusal("small", config.agent)  # not all agents have its keys
    if seconds > _LONG and takes_small and not tf.config.list_physical_devices("GPU"):
        text += "; this wants a GPU: --configs small is made for pixels on a CPU"
    return text


def make_devices(config: Config) -> Devices | None:
    """Returns the devices that share each update, or None if one device makes it.

    Raises UserError if the machine lacks these devices, or they cannot share the batch.
    """
    asked = int(config.section("train").get("devices", 1))  # only Dreamer has the key
    if asked == 1:
        return None
    check_devices(asked or 1, config.train.batch_size, config.jit)
    prepare_tensorflow(config.deterministic)  # before anything imports TensorFlow
    from dreamer.agent.devices import open_devices

    devices = open_devices(asked, os.environ)
    check_devices(devices.count, config.train.batch_size, config.jit)
    return devices


def make_logger(config: Config, path: Path) -> Logger:
    """Returns the logger of a run in the directory `path`."""
    return Logger(
        path, tensorboard=config.log.tensorboard, terminal=config.log.terminal,
        total_steps=config.steps, sinks=make_sinks(config.log.sinks, path, config.flat()),
    )  # fmt: skip


def make_agent(
    config: Config, obs_space: Mapping[str, Space], act_space: Space,
    devices: Devices | None = None,
) -> Agent:  # fmt: skip
    """Returns Dreamer's agent, for an environment's spaces; `devices` share each update."""
    from dreamer.agent.agent import make_dreamer

    if config.agent != DREAMER:
        raise UserError(
            f"this is a run of the agent {config.agent}, not of Dreamer: use python -m "
            "baselines.run to train it and python -m baselines.evaluate to evaluate it"
        )
    return make_dreamer(
        obs_space, act_space, config.agent_sections(), precision=config.precision, jit=config.jit,
        seed=config.seed, devices=devices,
    )  # fmt: skip


def make_replay_collector(setup: Setup, memory: EpisodeMemory | None = None) -> ReplayCollector:
    """Returns the collector into the run's replay, and into the agent's own `memory` if any."""
    config = setup.config
    latents = None
    if config.section("replay").get("latents") == "stored":  # some agents have fewer keys
        size = cast("Agent", setup.agent).world_model.rssm.feat_size
        latents = LatentMemory(config.replay.latent_bytes, size)
    replay = Replay(
        setup.rundir.episodes, cache_bytes=config.replay.cache_bytes, seed=config.seed,
        obs_space=setup.pool.obs_space, act_space=setup.pool.act_space,
        sampling=config.replay.sampling, latents=latents,
    )  # fmt: skip
    return ReplayCollector(
        pool=setup.pool, replay=replay, logger=setup.logger,
        retry_while_disk_full=setup.retry_while_disk_full, seed=config.seed,
        prefix=f"{setup.rundir.owner}s{config.seed}e", deterministic=config.deterministic,
        memory=memory,
    )  # fmt: skip


def make_replay_experience(setup: Setup) -> Experience:
    """Returns the collector into the run's replay, and the function that draws sequences."""
    collector = make_replay_collector(setup)
    train = setup.config.section("train")  # some agents have fewer keys than Dreamer
    shape = int(train.get("batch_size", 1)), int(train.get("batch_length", 1))

    def draw(first: int, count: int) -> Generator[tuple[int, Batch], None, None]:
        prefetch = setup.config.replay.prefetch

        def found() -> np.ndarray:
            return np.asarray(cast("Agent", setup.agent).latents)

        source = collector.replay.batches(first, count, *shape, prefetch, found)
        with closing(source) as batches:
            for batch in batches:
                yield 1, batch

    return collector, draw


def make_trainer(setup: Setup, experience: MakeExperience = make_replay_experience) -> Trainer:
    """Returns the training loop of a run."""
    config, rundir = setup.config, setup.rundir
    directory = rundir.eval_episodes if config.eval.save_episodes else None
    evaluator = Evaluator(
        setup.eval_pool, seed=config.seed, episodes=config.eval.episodes, shown=config.eval.videos,
        directory=directory,
    )  # fmt: skip
    intervals = {
        "log": config.log.every, "evaluate": config.eval.every,
        "video": config.log.video_every, "save": config.checkpoint.every,
    }  # fmt: skip
    train = config.section("train")  # some agents have fewer keys than Dreamer
    keys = ("prefill", "pretrain", "every", "updates")
    schedule = UpdateSchedule(**{key: int(train.get(key, 0)) for key in keys})
    collector, batches = experience(setup)
    agent, interrupt, retry = setup.agent, setup.interrupt, setup.retry_while_disk_full
    return Trainer(
        agent=agent, collector=collector, batches=batches, schedule=schedule, guard=setup.guard,
        reporter=Reporter(agent, evaluator, setup.logger, intervals, retry, interrupt),
        checkpoints=Checkpoints(rundir.checkpoints, config.checkpoint.keep),
        interrupt=interrupt, retry_while_disk_full=retry,
        steps=config.steps, action_repeat=setup.pool.action_repeat,
        overlap=bool(train.get("overlap", False)), forecast=partial(forecast, config, schedule),
    )  # fmt: skip


def describe(logger: Logger, agent: TrainableAgent, pool: EnvPool) -> None:
    """Logs the device, precision, environment, tasks, observations and actions."""
    logger.message(f"{describe_device()}; precision {agent.precision}")
    if pool.info:
        logger.message("environment: " + ", ".join(f"{k} {v}" for k, v in pool.info.items()))
    tasks = list(dict.fromkeys(pool.tasks))
    if len(tasks) > 1:
        logger.message(f"{len(tasks)} tasks, in turn: {', '.join(tasks)}")
    text = ""
    if model := getattr(agent, "world_model", None):  # not every agent has one
        text = f"encoder takes {', '.join(model.inputs)}; "
        text += f"decoder predicts {', '.join(model.targets)}; "
    kind = "one-hot" if pool.act_space.discrete else "continuous"
    logger.message(f"{text}actions {pool.act_space.shape[0]} {kind}")
