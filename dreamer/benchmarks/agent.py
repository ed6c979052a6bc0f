"""An agent in a process of its own: its updates, its acting, and what matrix products cost there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dreamer.benchmarks.helper import resident_bytes
from dreamer.benchmarks.synthetic import random_batch, random_timesteps
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.run import make_agent, make_pool
from dreamer.system.tensorflow import describe_device, prepare_tensorflow
from dreamer.training.collector import Collector
from dreamer.training.overlap import Background

#: Products [m, k] @ [k, n] that the machine's rate is measured with; the fastest counts.
CPU_PRODUCTS = ((2048, 2048, 2048), (4096, 4096, 4096), (16384, 1024, 1024))
GPU_PRODUCTS = ((4096, 4096, 4096), (8192, 8192, 8192), (65536, 2048, 2048))
SMALL_PRODUCTS = ((128, 128, 128), (512, 64, 64))


class AgentService:
    """Dreamer as a config describes it, learning from random numbers.

    Args:
        values: The config, by dotted name.
        obs_space, act_space: `Space.to_json` of the environment's.
        small: Whether matrix products are.
    """

    def __init__(
        self, values: dict[str, Any], obs_space: Mapping[str, Any], act_space: Any, small: bool
    ) -> None:
        config = Config(values)
        self._config, self._small = config, small
        prepare_tensorflow(config.deterministic)
        self._obs_space = {key: Space.from_json(space) for key, space in obs_space.items()}
        self._act_space = Space.from_json(act_space)
        self._agent = make_agent(config, self._obs_space, self._act_space)
        spaces = (self._obs_space, self._act_space)
        shape = config.train.batch_size, config.train.batch_length
        self._batch = random_batch(*spaces, *shape, seed=0)
        self._timesteps = random_timesteps(*spaces, config.envs.num_envs, seed=0)
        self._state: Any = None
        self._updates = 0
        self._matrices: dict[tuple[int, ...], list[Any]] = {}

    def facts(self) -> dict[str, Any]:
        """What runs here: device, TensorFlow, XLA or not, the precision that suits the device, and
        the matrix products to measure it with."""
        import tensorflow as tf

        from dreamer.agent.precision import choose_jit, choose_precision

        return {
            "device": describe_device(),
            "tensorflow": tf.__version__,
            "xla": choose_jit(self._config.jit),
            "precision": choose_precision("auto"),
            "products": self._products(),
        }

    def update(self, count: int = 1) -> float:
        """Makes updates as the trainer does, reading their metrics; returns the seconds."""
        start = time.perf_counter()
        for _ in range(count):
            metrics = self._agent.train_step(self._batch, self._updates)
            for value in metrics.values():
                float(value)
            self._updates += 1
        return time.perf_counter() - start

    def multiply(self, product: Sequence[int], count: int = 1) -> float:
        """Makes a product (m, k, n) of matrices in the agent's precision; returns the seconds."""
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
        float(result[0, 0])  # a GPU has finished only once its result is here
        return time.perf_counter() - start

    def policy(self, calls: int) -> float:
        """Chooses actions for `envs.num_envs` environments; returns the seconds."""
        start = time.perf_counter()
        for _ in range(calls):
            _, self._state = self._agent.policy(self._timesteps, self._state)
        return time.perf_counter() - start

    def collect(self, agent_steps: int, bursts: int) -> dict[str, Any]:
        """Steps the config's environments under the agent.

        Returns:
            seconds: of each burst; frames: environment frames of one burst, over all environments.
        """
        seconds = []
        with make_pool(self._config, self._config.envs.num_envs, training=True) as pool:
            collector = Collector(pool, _forget, self._config.seed)
            collector.collect(self._agent.policy, pool.num_envs)  # traces the policy
            for _ in range(bursts):
                before, start = collector.agent_steps, time.perf_counter()
                collector.collect(self._agent.policy, agent_steps * pool.num_envs)
                seconds.append(time.perf_counter() - start)
            frames = (collector.agent_steps - before) * pool.action_repeat
        return {"seconds": seconds, "frames": frames}

    def rounds(
        self, agent_steps: int, updates: int, delay: float | None, bursts: int
    ) -> dict[str, list[float]]:
        """Rounds of collecting and updates, one after the other and side by side, in turn.

        Args:
            agent_steps: Of a round, of each environment.
            updates: Of a round.
            delay: Seconds of an update by an accelerator that leaves the processor alone, which is
                simulated by sleeping; None: updates are made here.
            bursts: Rounds of each kind.

        Returns:
            Seconds of each round: ``sequential`` and ``overlapped``.
        """
        seconds: dict[str, list[float]] = {"sequential": [], "overlapped": []}
        with make_pool(self._config, self._config.envs.num_envs, training=True) as pool:
            collector = Collector(pool, _forget, self._config.seed)
            collector.collect(self._agent.policy, pool.num_envs)  # traces the policy

            def learn() -> None:
                if delay is None:
                    self.update(updates)
                for _ in range(updates if delay is not None else 0):
                    time.sleep(delay or 0.0)

            for _ in range(bursts):
                start = time.perf_counter()
                collector.collect(self._agent.policy, agent_steps * pool.num_envs)
                learn()
                middle = time.perf_counter()
                with Background(lambda leaving: collector.collect(
                    leaving(self._agent.policy), agent_steps * pool.num_envs
                )):  # fmt: skip
                    learn()
                seconds["sequential"].append(middle - start)
                seconds["overlapped"].append(time.perf_counter() - middle)
        return seconds

    def memory(self) -> dict[str, int]:
        """Updates so far, bytes in RAM now, and the most that TensorFlow has taken of a GPU."""
        import tensorflow as tf

        found = {"updates": self._updates, "resident_bytes": resident_bytes()}
        if tf.config.list_physical_devices("GPU"):
            found["gpu_peak_bytes"] = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        return found

    def _products(self) -> tuple[tuple[int, ...], ...]:
        import tensorflow as tf

        if self._small:
            return SMALL_PRODUCTS
        return GPU_PRODUCTS if tf.config.list_physical_devices("GPU") else CPU_PRODUCTS


def _forget(episode: dict[str, np.ndarray], number: int) -> None:
    """Takes an episode and keeps nothing."""
