"""What is measured, each object in a process of its own (see `dreamer.benchmarks.service`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from dreamer.benchmarks.service import random_timesteps, repeated, resident_bytes
from dreamer.config.config import Config
from dreamer.data.replay import Replay
from dreamer.envs.processes.pool import EnvPool
from dreamer.envs.spec import spaces_from_json
from dreamer.system.tensorflow import describe_device, prepare_tensorflow
from dreamer.system.threads import in_background
from dreamer.training.build import make_agent, make_pool
from dreamer.training.collector import Collector, checked

IMAGE_SIZE = 64
#: Products [m, k] @ [k, n] that measure the device's rate; the fastest one counts.
CPU_PRODUCTS = ((2048, 2048, 2048), (4096, 4096, 4096), (16384, 1024, 1024))
GPU_PRODUCTS = ((4096, 4096, 4096), (8192, 8192, 8192), (65536, 2048, 2048))
SMALL_PRODUCTS = ((128, 128, 128), (512, 64, 64))

Work = Callable[[int], Mapping[str, Any]]
"""Runs a group of updates, given the number of the first, and returns the metrics."""


class AgentService:
    """Dreamer as a config describes it, learning from random numbers.

    Args:
        values: The config, by dotted name.
        spaces: Observation and action space, as `spaces_from_json` reads them.
        small: Whether to use small matrix products.
        agent: Name of the agent whose config it is.
    """

    def __init__(
        self, values: dict[str, Any], spaces: Mapping[str, Any], small: bool = False,
        agent: str = "dreamer",
    ) -> None:  # fmt: skip
        self._config, self._small = Config(values, agent=agent), small
        prepare_tensorflow(self._config.deterministic)
        self._spaces = spaces_from_json(spaces)
        self._agent: Any = self._make_agent()
        self._work, self._group, self._timesteps = self._make_work()
        self._state: Any = None
        self._updates = 0
        self._matrices: dict[tuple[int, ...], list[Any]] = {}

    def _make_agent(self) -> Any:
        return make_agent(self._config, *self._spaces)

    def _make_work(self) -> tuple[Work, int, int]:
        """Returns what learns, the updates of a group, and the timesteps an update learns from."""
        shape = self._config.train.batch_size, self._config.train.batch_length
        batch = random_timesteps(*self._spaces, shape, seed=0)
        return lambda update: self._agent.train_step(batch, update), 1, shape[0] * shape[1]

    def facts(self) -> dict[str, Any]:
        """Returns the device, TensorFlow's version, whether XLA is used, the precision that suits
        the device, and the matrix products to measure it with."""
        import tensorflow as tf

        from dreamer.agent.precision import choose_jit, choose_precision

        large = GPU_PRODUCTS if tf.config.list_physical_devices("GPU") else CPU_PRODUCTS
        return {
            "device": describe_device(),
            "tensorflow": tf.__version__,
            "xla": choose_jit(self._config.jit),
            "precision": choose_precision("auto"),
            "products": SMALL_PRODUCTS if self._small else large,
        }

    def timesteps(self) -> int:
        """Returns the number of timesteps or transitions that an update learns from."""
        return self._timesteps

    def update(self, count: int) -> float:
        """Runs whole groups of updates, at least `count`, and returns the seconds of `count`.

        It reads their metrics, as the trainer does, which waits for the device.
        """
        groups, start = -(-count // self._group), time.perf_counter()
        for _ in range(groups):
            for value in self._work(self._updates).values():
                np.asarray(value)
            self._updates += self._group
        return (time.perf_counter() - start) * count / (groups * self._group)

    def multiply(self, product: Sequence[int], count: int) -> float:
        """Multiplies matrices (m, k, n) in the agent's precision and returns the seconds."""
        import tensorflow as tf

        m, k, n = product
        if (m, k, n) not in self._matrices:
            dtype = tf.as_dtype(self._agent.precision)
            pair = [tf.random.stateless_normal(shape, [0, 0]) for shape in ((m, k), (k, n))]
            self._matrices[m, k, n] = [tf.cast(matrix, dtype) for matrix in pair]
        a, b = self._matrices[m, k, n]
        start = time.perf_counter()
        for _ in range(count):
            result = tf.matmul(a, b)
        float(result[0, 0])  # waits for the GPU
        return time.perf_counter() - start

    def policy(self, count: int) -> float:
        """Chooses actions for the config's number of environments and returns the seconds."""
        episodes = random_timesteps(*self._spaces, (self._config.envs.num_envs, 3), seed=0)
        timesteps = {key: value[:, 1] for key, value in episodes.items() if key != "action"}

        def act() -> None:
            _, self._state = self._agent.policy(timesteps, self._state)

        return repeated(act)(count)

    def collect(self, agent_steps: int, rounds: int) -> float:
        """Steps the environments under the agent; `agent_steps` of each environment per round.

        Returns:
            Environment frames per second over all environments, the median over the rounds.
        """
        rates = []
        with self._collecting() as (collector, pool):
            for _ in range(rounds):
                before, start = collector.agent_steps, time.perf_counter()
                collector.collect(self._agent.policy, agent_steps * pool.num_envs)
                frames = (collector.agent_steps - before) * pool.action_repeat
                rates.append(frames / (time.perf_counter() - start))
        return median(rates)

    def overlap(
        self, agent_steps: int, updates: int, update_seconds: float | None, rounds: int
    ) -> dict[str, float]:
        """Collects and updates, one after the other and at the same time, in turn.

        Args:
            agent_steps: Of each environment, per round.
            updates: Per round.
            update_seconds: Simulates updates on an accelerator, by sleeping; None: real updates.
            rounds: Number of rounds of each kind.

        Returns:
            sequential_seconds and overlapped_seconds of a round (medians), and gain, their ratio.
        """

        def learn() -> None:
            if update_seconds is None:
                self.update(updates)
            else:
                time.sleep(updates * update_seconds)

        sequential, overlapped = [], []
        with self._collecting() as (collector, pool):
            steps = agent_steps * pool.num_envs
            for _ in range(rounds):
                start = time.perf_counter()
                collector.collect(self._agent.policy, steps)
                learn()
                middle = time.perf_counter()
                with in_background(
                    lambda check: collector.collect(checked(self._agent.policy, check), steps)
                ):
                    learn()
                sequential.append(middle - start)
                overlapped.append(time.perf_counter() - middle)
        before, after = median(sequential), median(overlapped)
        return {"sequential_seconds": before, "overlapped_seconds": after, "gain": before / after}

    def memory(self) -> dict[str, int]:
        """Returns the updates so far, the bytes in RAM, and the peak of TensorFlow's GPU memory."""
        import tensorflow as tf

        found = {"updates": self._updates, "resident_bytes": resident_bytes()}
        if tf.config.list_physical_devices("GPU"):
            found["gpu_peak_bytes"] = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        return found

    @contextmanager
    def _collecting(self) -> Iterator[tuple[Collector, EnvPool]]:
        with make_pool(self._config, self._config.envs.num_envs, training=True) as pool:
            collector = Collector(pool, lambda episode, number: None, self._config.seed)
            collector.collect(self._agent.policy, pool.num_envs)  # traces the policy
            yield collector, pool


class ReplayService:
    """A replay of random episodes.

    Args:
        values: The config, by dotted name.
        spaces: Observation and action space, as `spaces_from_json` reads them.
        directory: An empty folder, which the caller removes.
    """

    def __init__(self, values: dict[str, Any], spaces: Mapping[str, Any], directory: str) -> None:
        config = Config(values)
        self._batch_shape = config.train.batch_size, config.train.batch_length
        self._obs_space, self._act_space = spaces_from_json(spaces)
        self._replay = Replay(
            Path(directory), cache_bytes=config.replay.cache_bytes, seed=config.seed,
            obs_space=self._obs_space, act_space=self._act_space,
        )  # fmt: skip
        self._episodes = self._batches = 0

    def add(self, episodes: int, length: int) -> dict[str, int]:
        """Adds episodes, and samples a batch after every tenth.

        Returns:
            growth_bytes: Increase of the memory in RAM; added_bytes: Size of the episodes;
            resident_bytes: Memory in RAM at the end; episodes.
        """
        before, added = resident_bytes(), 0
        for number in range(episodes):
            seed = self._episodes
            episode = random_timesteps(self._obs_space, self._act_space, (length,), seed)
            self._replay.add(episode, f"benchmark{seed}")
            self._episodes += 1
            added += sum(array.nbytes for array in episode.values())
            if number % 10 == 0:
                self._sample()
        after = resident_bytes()
        return {
            "episodes": episodes, "growth_bytes": after - before, "added_bytes": added,
            "resident_bytes": after,
        }  # fmt: skip

    def sample(self, count: int) -> float:
        """Samples batches as training does and returns the seconds."""
        return repeated(self._sample)(count)

    def _sample(self) -> None:
        self._replay.sample(self._batches, *self._batch_shape)
        self._batches += 1


class ReferenceLoop:
    """A task of dm_control's suite under random actions, without any of our code.

    dm_control is used as it comes (its own shadow map and offscreen buffer). Every repeated frame
    is rendered by `physics.render`, although only the last one would be used. This must not share
    a process with TensorFlow.

    Args:
        domain, task: dm_control's names.
        camera: Index of the camera.
        action_repeat: Frames per action.
    """

    def __init__(self, domain: str, task: str, camera: int, action_repeat: int) -> None:
        from dm_control import suite

        self._env = suite.load(domain, task)
        self._spec = self._env.action_spec()
        self._camera, self._repeat = camera, action_repeat
        self._rng = np.random.default_rng(0)
        self._restart()

    def step(self, count: int) -> float:
        """Takes agent steps of `action_repeat` frames each and returns the seconds."""
        return repeated(self._step)(count)

    def _step(self) -> None:
        action = self._rng.uniform(self._spec.minimum, self._spec.maximum)
        for _ in range(self._repeat):
            timestep = self._env.step(action)
            self._render()
        if timestep.last():
            self._restart()

    def _restart(self) -> None:
        self._env.reset()
        self._render()

    def _render(self) -> None:
        self._env.physics.render(IMAGE_SIZE, IMAGE_SIZE, camera_id=self._camera)
