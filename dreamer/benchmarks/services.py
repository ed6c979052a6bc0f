"""Processes to measure in, what is measured in them, and how measurements are taken.

A service is a class named `module:Class`. Its process builds one object, `Class(**settings)`, and
calls its methods by request, one at a time. So several services stay alive, each alone with its
libraries, threads and memory, and are measured in turn. Arguments and results are JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np

from dreamer.config.config import Config
from dreamer.data.replay import Replay
from dreamer.envs.processes.pool import EnvPool
from dreamer.envs.spec import Space, spaces_from_json
from dreamer.system.messages import Message
from dreamer.system.processes import ChildProcess, serve
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
Measure = Callable[[int], float]
"""Does something so many times and returns the seconds that it took."""
Name = TypeVar("Name", bound=Hashable)


class Service(ChildProcess):
    """One service and its process. Leaving its context ends the process.

    Args:
        name: `module:Class`.
        variables: Environment variables to set.
        **settings: Arguments of the class; JSON types.

    Raises:
        UserError: The class raised it.
        ChildError: Anything else went wrong in the process.
    """

    def __init__(self, name: str, variables: Mapping[str, str] | None = None, **settings: Any):
        super().__init__(__name__, name, variables=variables or {})
        try:
            self.ask("", **settings)
        except BaseException:
            self.close()
            raise

    def ask(self, method: str, **arguments: Any) -> Any:
        """Calls a method of the service and returns its result."""
        self.send({"method": method, "arguments": arguments})
        return self.receive()[0]["result"]

    def measure(self, method: str, **arguments: Any) -> Measure:
        """Returns a function that calls `method(count=..., **arguments)`."""
        return lambda count: self.ask(method, count=count, **arguments)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def repeated(work: Callable[[], object]) -> Measure:
    """Returns a function that does the work so many times and returns the seconds."""

    def measure(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            work()
        return time.perf_counter() - start

    return measure


def in_turn(measures: Mapping[Name, Measure], rounds: int, shortest: float) -> dict[Name, float]:
    """Measures in the order A B A B ..., so that disturbances affect all measurements alike.

    Args:
        measures: By name. Each is run once as a warm-up, and once to estimate its duration.
        rounds: Number of measurements of each.
        shortest: Minimum seconds of a measurement; faster work is repeated.

    Returns:
        The median seconds of doing each once.
    """
    counts = {}
    for name, measure in measures.items():
        measure(1)
        counts[name] = max(1, math.ceil(shortest / max(measure(1), 1e-6)))
    found: dict[Name, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure(counts[name]) / counts[name])
    return {name: median(seconds) for name, seconds in found.items()}


def random_timesteps(
    obs_space: Mapping[str, Space], act_space: Space, shape: tuple[int, ...], seed: int
) -> dict[str, np.ndarray]:
    """Returns timesteps [*shape, ...] of random numbers, as a replay stores and samples them.

    The last axis of `shape` is time: it holds whole episodes that end at a time limit.
    """
    rng = np.random.default_rng(seed)
    spaces = {**obs_space, "action": act_space}
    timesteps = {key: _random_values(space, shape, rng) for key, space in spaces.items()}
    index = np.broadcast_to(np.arange(shape[-1]), shape)
    return timesteps | {
        "reward": rng.random(shape, np.float32),
        "cont": np.ones(shape, np.float32),
        "is_first": index == 0,
        "is_last": index == shape[-1] - 1,
        "is_terminal": np.zeros(shape, bool),
    }


def _random_values(space: Space, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if space.discrete:
        return np.eye(space.shape[0], dtype=np.float32)[rng.integers(space.shape[0], size=shape)]
    if np.issubdtype(space.dtype, np.integer):
        return rng.integers(0, 256, (*shape, *space.shape), np.uint8).astype(space.dtype)
    return rng.uniform(-1.0, 1.0, (*shape, *space.shape)).astype(space.dtype)


def resident_bytes() -> int:
    """Returns the memory of this process that is in RAM now, in bytes (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class AgentService:
    """Dreamer as a config describes it, learning from random numbers.

    Args:
        values: The config of an agent, by dotted name.
        spaces: Observation and action space, as `spaces_from_json` reads them.
        small: Whether to use small matrix products.
        agent: The agent's name.
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

        with self._collecting() as (collector, pool):
            steps = agent_steps * pool.num_envs

            def sequential() -> None:
                collector.collect(self._agent.policy, steps)
                learn()

            def overlapped() -> None:
                with in_background(
                    lambda check: collector.collect(checked(self._agent.policy, check), steps)
                ):
                    learn()

            kinds = {"sequential": repeated(sequential), "overlapped": repeated(overlapped)}
            found = in_turn(kinds, rounds, shortest=0.0)
        before, after = found["sequential"], found["overlapped"]
        return {"sequential_seconds": before, "overlapped_seconds": after, "gain": before / after}

    def memory(self) -> dict[str, int]:
        """Returns the updates so far, the bytes in RAM, and the peak of TensorFlow's GPU memory."""
        import tensorflow as tf

        found = {"updates": self._updates, "resident_bytes": resident_bytes()}
        if tf.config.list_physical_devices("GPU"):
            found["gpu_peak_bytes"] = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        return found

    @contextlib.contextmanager
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
            episodes; growth_bytes: Increase of the memory in RAM; added_bytes: Size of the
            episodes; resident_bytes: Memory in RAM at the end.
        """
        before, added = resident_bytes(), 0
        for number in range(episodes):
            seed, self._episodes = self._episodes, self._episodes + 1
            episode = random_timesteps(self._obs_space, self._act_space, (length,), seed)
            self._replay.add(episode, f"benchmark{seed}")
            added += sum(array.nbytes for array in episode.values())
            if number % 10 == 0:
                self._sample()
        after = resident_bytes()
        return {"episodes": episodes, "growth_bytes": after - before, "added_bytes": added,
                "resident_bytes": after}  # fmt: skip

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
        task: The config's task.
        camera: Index of the camera.
        action_repeat: Frames per action.
    """

    def __init__(self, task: str, camera: int, action_repeat: int) -> None:
        from dm_control import suite

        from dreamer.envs.dmc import find_task

        self._env = suite.load(*find_task(task.removeprefix("dmc_")))
        self._spec = self._env.action_spec()
        self._camera, self._repeat = camera, action_repeat
        self._rng = np.random.default_rng(0)
        self._env.reset()

    def step(self, count: int) -> float:
        """Takes agent steps of `action_repeat` frames each and returns the seconds."""
        return repeated(self._step)(count)

    def _step(self) -> None:
        action = self._rng.uniform(self._spec.minimum, self._spec.maximum)
        for _ in range(self._repeat):
            timestep = self._env.step(action)
            self._env.physics.render(IMAGE_SIZE, IMAGE_SIZE, camera_id=self._camera)
        if timestep.last():
            self._env.reset()


def main() -> None:
    """Serves requests until the benchmark closes the connection."""
    module, _, name = sys.argv[3].partition(":")
    service: Any = None

    def answer(request: dict[str, Any], _: object) -> Message:
        nonlocal service
        method, arguments = request["method"], request["arguments"]
        if method:
            return {"result": getattr(service, method)(**arguments)}, {}
        service = getattr(importlib.import_module(module), name)(**arguments)
        return {"result": None}, {}

    serve(answer)


if __name__ == "__main__":
    main()
