"""An agent in a process of its own: its updates and actions, and the device's matrix products."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from dreamer.benchmarks.sampling import random_timesteps
from dreamer.benchmarks.service import resident_bytes
from dreamer.config.config import Config
from dreamer.envs.processes.pool import EnvPool
from dreamer.envs.spec import spaces_from_json
from dreamer.system.tensorflow import describe_device, prepare_tensorflow
from dreamer.training.build import make_agent, make_pool
from dreamer.training.collector import Collector
from dreamer.training.overlap import Background

#: Products [m, k] @ [k, n] that measure the device's rate; the fastest one counts.
CPU_PRODUCTS = ((2048, 2048, 2048), (4096, 4096, 4096), (16384, 1024, 1024))
GPU_PRODUCTS = ((4096, 4096, 4096), (8192, 8192, 8192), (65536, 2048, 2048))
SMALL_PRODUCTS = ((128, 128, 128), (512, 64, 64))


class AgentService:
    """Dreamer as a config describes it, learning from random numbers.

    Args:
        values: The config, by dotted name.
        spaces: Observation and action space, as `spaces_from_json` reads them.
        small: Whether to use small matrix products.
    """

    def __init__(self, values: dict[str, Any], spaces: Mapping[str, Any], small: bool) -> None:
        self._config, self._small = Config(values), small
        prepare_tensorflow(self._config.deterministic)
        obs_space, act_space = spaces_from_json(spaces)
        self._agent = make_agent(self._config, obs_space, act_space)
        train, envs = self._config.train, self._config.envs
        shape = train.batch_size, train.batch_length
        self._batch = random_timesteps(obs_space, act_space, shape, seed=0)
        episodes = random_timesteps(obs_space, act_space, (envs.num_envs, 3), seed=0)
        self._timesteps = {k: v[:, 1] for k, v in episodes.items() if k != "action"}
        self._state: Any = None
        self._updates = 0
        self._matrices: dict[tuple[int, ...], list[Any]] = {}

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

    def update(self, count: int) -> float:
        """Runs updates, reads their metrics as the trainer does, and returns the seconds."""
        start = time.perf_counter()
        for _ in range(count):
            metrics = self._agent.train_step(self._batch, self._updates)
            for value in metrics.values():
                float(value)
            self._updates += 1
        return time.perf_counter() - start

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
        start = time.perf_counter()
        for _ in range(count):
            _, self._state = self._agent.policy(self._timesteps, self._state)
        return time.perf_counter() - start

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
                with Background(
                    lambda leaving: collector.collect(leaving(self._agent.policy), steps)
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
