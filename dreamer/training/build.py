"""Makes the parts of a run from its config. Only this module and the programs see all of it.

Importing this module loads no TensorFlow, so that usage errors are found fast and environments
start before TensorFlow does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
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
from dreamer.errors import EnvError, UserError
from dreamer.logs.logger import Logger
from dreamer.logs.sinks import make_sinks
from dreamer.logs.terminal import duration
from dreamer.runs.checkpoints import Checkpoints
from dreamer.runs.rundir import RunDir
from dreamer.system.machine import machine
from dreamer.system.tensorflow import describe_device, has_nvidia, prepare_tensorflow
from dreamer.tasks import split_tasks, suite_of
from dreamer.training.callbacks import Callback
from dreamer.training.collector import Episode
from dreamer.training.experience import ReplayCollector, StoredEpisodes
from dreamer.training.interfaces import (
    DrawBatches,
    EpisodeMemory,
    TrainableAgent,
    TrainingCollector,
)  # fmt: skip
from dreamer.training.interrupts import Interrupt, RetryWhileDiskFull
from dreamer.training.reports import Evaluator, Reporter
from dreamer.training.schedule import UpdateSchedule
from dreamer.training.trainer import NonFiniteGuard, ReturnGuard, Trainer

if TYPE_CHECKING:
    from dreamer.agent.agent import Agent
    from dreamer.agent.devices import Devices

_SOFTWARE = re.compile("llvmpipe|softpipe|swrast|software", re.IGNORECASE)
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
    eval_pool: EnvPool  # may be the same
    logger: Logger
    interrupt: Interrupt
    callbacks: Sequence[Callback] = ()
    on_episode: Callable[[Episode], None] = lambda episode: None  # the trainer's, once it is made

    @cached_property
    def retry_while_disk_full(self) -> RetryWhileDiskFull:
        """Waits while the disk is full."""
        return RetryWhileDiskFull(self.config.disk_wait, self.interrupt, self.logger.message)

    @cached_property
    def guard(self) -> NonFiniteGuard:
        """Watches for updates that are not finite."""
        folder, limit = self.rundir.path / "nonfinite", self.config.train.nonfinite_limit
        return NonFiniteGuard(folder, limit, self.logger.message, self.agent.precision)


def make_pool(
    config: Config, num_envs: int, *, training: bool, part: int = 0, **changed: Any
) -> EnvPool:
    """Returns environments of the config's task; for `num_envs` 1, one environment per task.

    `part` is the pool's number, if several share the work, so that environments' indices differ.
    `changed` are fields of `EnvSettings` that replace the config's.
    """
    count = len(split_tasks(config.task)) if num_envs == 1 else num_envs
    settings: dict[str, Any] = {
        **config.section("envs"), "num_envs": count, "index": part * count, **changed,
    }  # fmt: skip
    gpus = int(config.section("train").get("devices", 1))
    return EnvPool(config.task, **settings, gpus=gpus, seed=config.seed, training=training)


@contextmanager
def open_pools(config: Config) -> Iterator[tuple[EnvPool, EnvPool]]:
    """Opens the environments for training and for evaluation.

    With eval.num_envs 0 these are one, and with train.offline, too: those for evaluation.
    UserError if Atari's would be one, because its training episodes end with each lost life.
    """
    if config.section("train").get("offline", False):
        with make_pool(config, config.eval.num_envs or 1, training=False) as pool:
            yield pool, pool
        return
    alone = config.eval.num_envs == 0
    if alone and suite_of(config.task) == "atari":
        raise UserError(
            "eval.num_envs is 0, but Atari's training episodes are lives, and evaluations are of "
            "whole games, so they need an environment of their own: set eval.num_envs to 1"
        )
    with ExitStack() as stack:
        pool = stack.enter_context(make_pool(config, config.envs.num_envs, training=True))
        if alone:
            yield pool, pool
            return
        try:
            eval_pool = make_pool(config, config.eval.num_envs, training=False)
        except EnvError as error:
            advice = "if only one environment can exist at a time, set eval.num_envs to 0"
            message = f"{error.message} (beside the training environments; {advice})"
            raise EnvError(error.index, error.kind, message, error.traceback) from error
        yield pool, stack.enter_context(eval_pool)


def check_batch(config: Config, pool: EnvPool) -> None:
    """Raises UserError for batches longer than any episode, or larger than the memory."""
    train = config.section("train")  # not every agent learns from sequences, or from batches
    length = int(train.get("batch_length", 1))
    longest = longest_episode(pool)
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


def longest_episode(pool: EnvPool) -> int:
    """Returns the timesteps of the task's longest episodes; 0 if it has no time limit."""
    return -(-pool.time_limit // pool.action_repeat) + 1 if pool.time_limit else 0


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
    prepare_tensorflow(config.deterministic, config.jit)  # before anything imports TensorFlow
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
    """Returns Dreamer's agent, for an environment's spaces; `devices` share each update.

    Raises UserError for a config of another agent, and as `prepare_tensorflow`.
    """
    if config.agent != DREAMER:
        raise UserError(
            f"this is a run of the agent {config.agent}, not of Dreamer: use python -m "
            "baselines.run to train it, baselines.evaluate to evaluate it and baselines.watch to "
            "watch it"
        )
    prepare_tensorflow(config.deterministic, config.jit)
    from dreamer.agent.agent import make_dreamer

    return make_dreamer(
        obs_space, act_space, config.agent_sections(), precision=config.precision, jit=config.jit,
        seed=config.seed, devices=devices,
    )  # fmt: skip


def make_replay(setup: Setup) -> Replay:
    """Returns the replay of a run."""
    config, rundir, pool = setup.config, setup.rundir, setup.pool
    latents = None
    if config.section("replay").get("latents") == "stored":  # some agents have fewer keys
        size = cast("Agent", setup.agent).world_model.rssm.feat_size
        latents = LatentMemory(config.replay.latent_bytes, size)
    return Replay(
        rundir.episodes, cache_bytes=config.replay.cache_bytes, seed=config.seed,
        obs_space=pool.obs_space, act_space=pool.act_space, owner=rundir.owner,
        others=rundir.others, sampling=config.replay.sampling, latents=latents,
    )  # fmt: skip


def make_replay_collector(setup: Setup, memory: EpisodeMemory | None = None) -> ReplayCollector:
    """Returns the collector into the run's replay, and into the agent's own `memory` if any."""
    config = setup.config
    return ReplayCollector(
        pool=setup.pool, replay=make_replay(setup), logger=setup.logger,
        retry_while_disk_full=setup.retry_while_disk_full, seed=config.seed,
        prefix=f"{setup.rundir.owner}s{config.seed}e", deterministic=config.deterministic,
        memory=memory, capacity=-(-config.replay.capacity // setup.pool.action_repeat),
        on_episode=setup.on_episode,
    )  # fmt: skip


def make_replay_experience(setup: Setup) -> Experience:
    """Returns the collector into the run's replay, and the function that draws sequences."""
    train = setup.config.section("train")  # some agents have fewer keys than Dreamer
    collector: ReplayCollector | StoredEpisodes
    if train.get("offline", False):
        collector = StoredEpisodes(
            replay=make_replay(setup), logger=setup.logger, deterministic=setup.config.deterministic
        )
    else:
        collector = make_replay_collector(setup)
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
    offline = bool(train.get("offline", False))
    if offline:
        schedule = replace(schedule, prefill=0)
    trainer: Trainer

    def on_episode(episode: Episode) -> None:
        trainer.call_back("on_episode", episode)

    setup.on_episode = on_episode
    collector, batches = experience(setup)
    flat = config.flat()
    transform = flat.get("reward.transform")
    # Divided by their root mean square, rewards have no bound that the batches tell.
    gamma = 1.0 if transform == "normalize" else float(flat.get("behavior.gamma", 1.0))
    agent, interrupt, retry = setup.agent, setup.interrupt, setup.retry_while_disk_full
    trainer = Trainer(
        agent=agent, collector=collector, batches=batches, schedule=schedule, guard=setup.guard,
        return_guard=ReturnGuard(gamma, transform == "tanh", setup.logger.message),
        reporter=Reporter(agent, evaluator, setup.logger, intervals, retry, interrupt),
        checkpoints=Checkpoints(rundir.checkpoints, config.checkpoint.keep),
        best=Checkpoints(rundir.best),
        interrupt=interrupt, retry_while_disk_full=retry,
        steps=config.steps, action_repeat=setup.pool.action_repeat,
        shared_pool=setup.pool is setup.eval_pool and not offline,
        overlap=bool(train.get("overlap", False)) and not offline, offline=offline,
        callbacks=setup.callbacks,
        forecast=partial(forecast, config, schedule),
    )  # fmt: skip
    return trainer


def describe(logger: Logger, agent: TrainableAgent, pool: EnvPool) -> None:
    """Logs the device, precision, environment, tasks, observations and actions."""
    logger.message(f"{describe_device()}; precision {agent.precision}")
    if text := software_rendering(pool.info):
        logger.message(text)
    facts = {key: value for key, value in pool.info.items() if key != "notes"}
    if facts:
        logger.message("environment: " + ", ".join(f"{k} {v}" for k, v in facts.items()))
    for note in pool.info.get("notes", "").splitlines():
        logger.message(f"note: {note}")
    tasks = list(dict.fromkeys(pool.tasks))
    if len(tasks) > 1:
        logger.message(f"{len(tasks)} tasks, in turn: {', '.join(tasks)}")
    text = ""
    if model := getattr(agent, "world_model", None):  # not every agent has one
        text = f"encoder takes {', '.join(model.inputs)}; "
        text += f"decoder predicts {', '.join(model.targets)}; "
    kind = "one-hot" if pool.act_space.discrete else "continuous"
    parts = " + ".join(map(str, pool.act_space.parts)) or pool.act_space.shape[0]
    logger.message(f"{text}actions {parts} {kind}")


def software_rendering(info: Mapping[str, str], system: Path = Path("/")) -> str:
    """Returns a warning if an environment renders in software beside an NVIDIA GPU, else "".

    `info` is the environment's; `system` is the root of the file system that describes the machine.
    """
    renderer, hidden = info.get("renderer", ""), os.environ.get("CUDA_VISIBLE_DEVICES")
    software = info.get("gl") == "osmesa" or _SOFTWARE.search(renderer)
    if not software or not has_nvidia(system) or hidden in ("", "-1"):
        return ""
    return (
        f"warning: the environment renders in software ({renderer}), many times slower than on the "
        "NVIDIA GPU of this machine: install the driver's EGL (apt-get install libnvidia-gl-NNN, "
        "NNN as nvidia-smi shows the driver's version), or start the container with "
        "NVIDIA_DRIVER_CAPABILITIES=all, and leave MUJOCO_GL unset"
    )
