"""Processes to measure in, what is measured in them, and how measurements are taken.

A service is a class named `module:Class`. Its process builds one object, `Class(**settings)`, and
calls its methods by request, one at a time. So several services stay alive, each alone with its
libraries, threads and memory, and are measured in turn. Arguments and results are JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

import numpy as np

from dreamer.benchmarks.operations import compiled_operations, executed_operations
from dreamer.config.config import Config
from dreamer.data.replay import Replay
from dreamer.envs.processes.pool import EnvPool
from dreamer.envs.spec import Space, spaces_from_json
from dreamer.system.children import ChildProcess, serve
from dreamer.system.messages import Message
from dreamer.system.tensorflow import describe_device, prepare_tensorflow
from dreamer.system.threads import in_background
from dreamer.training.build import make_agent, make_pool
from dreamer.training.collector import Collector, checked

Work = Callable[[int], Mapping[str, Any]]
"""Runs a group of updates, given the number of the first, and returns the metrics."""
Measure = Callable[[int], float]
"""Takes a number of repetitions, does the work that often, and returns the seconds."""
Name = TypeVar("Name", bound=Hashable)


class Service(ChildProcess, contextlib.AbstractContextManager["Service"]):
    """One service and its process. Leaving its context ends the process.

    `name` is `module:Class`; `settings` are the class's arguments, of JSON types. Raises UserError
    if the class raises it, and ChildError if anything else goes wrong in the process.
    """

    def __init__(self, name: str, variables: Mapping[str, str] | None = None, **settings: Any):
        super().__init__(__name__, name, variables=variables or {})
        with contextlib.ExitStack() as failed:
            failed.callback(self.close)
            self.ask("", **settings)
            failed.pop_all()

    def ask(self, method: str, **arguments: Any) -> Any:
        """Calls a method of the service and returns its result."""
        self.send({"method": method, "arguments": arguments})
        return self.receive()[0]["result"]

    def measure(self, method: str, **arguments: Any) -> Measure:
        """Returns a function that calls `method(count=..., **arguments)`."""
        return lambda count: self.ask(method, count=count, **arguments)

    def __exit__(self, *_: object) -> None:
        self.close()


def repeated(work: Callable[[], object]) -> Measure:
    """Returns a function that does the work `count` times and returns the seconds."""

    def measure(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            work()
        return time.perf_counter() - start

    return measure


def in_turn(measures: Mapping[Name, Measure], rounds: int, shortest: float) -> dict[Name, float]:
    """Measures in the order A B A B ..., so that disturbances affect all measurements alike.

    Each is run once as a warm-up, once to estimate its duration, and then measured `rounds` times.
    Work that takes fewer seconds than `shortest` is repeated. Returns the median seconds of each.
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

    def values(space: Space) -> np.ndarray:
        if space.discrete:
            sizes = space.parts or space.shape
            drawn = [np.eye(n, dtype=np.float32)[rng.integers(n, size=shape)] for n in sizes]
            return np.concatenate(drawn, -1)
        if np.issubdtype(space.dtype, np.integer):
            found = rng.integers(0, 256, (*shape, *space.shape), np.uint8)
        else:
            found = rng.uniform(-1.0, 1.0, (*shape, *space.shape))
        return found.astype(space.dtype)

    index = np.broadcast_to(np.arange(shape[-1]), shape)
    return {
        **{key: values(space) for key, space in {**obs_space, "action": act_space}.items()},
        "reward": rng.random(shape, np.float32),
        "cont": np.ones(shape, np.float32),
        "is_first": index == 0,
        "is_last": index == shape[-1] - 1,
        "is_terminal": np.zeros(shape, bool),
    }


def _usage() -> np.ndarray:
    """Returns this process's page faults without reading, and its seconds in the kernel."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return np.array([used.ru_minflt, used.ru_stime])


def resident_bytes() -> int:
    """Returns the memory of this process that is in RAM now, in bytes (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class AgentService:
    """An agent that learns from random numbers: Dreamer, or another one in a subclass.

    `values` are its config's, by dotted name; `spaces_from_json` reads the spaces.
    """

    def __init__(self, values: dict[str, Any], spaces: Mapping[str, Any], agent: str) -> None:
        self._config, self._spaces = Config(values, agent=agent), spaces_from_json(spaces)
        jit = str(self._config.flat().get("jit", "off"))  # not every agent has the key
        prepare_tensorflow(self._config.deterministic, jit)
        self._agent: Any = self._make_agent()
        self._work, self._group, self._timesteps = self._make_work()
        self._state, self._updates = None, 0
        self._used, self._used_updates = np.zeros(2), 0
        self._matrices: dict[tuple[int, ...], list[Any]] = {}

    def _make_agent(self) -> Any:
        return make_agent(self._config, *self._spaces)

    def _make_work(self) -> tuple[Work, int, int]:
        """Returns the learning function, the updates of a group, and the timesteps of an update."""
        shape = self._config.train.batch_size, self._config.train.batch_length
        self._batch = batch = random_timesteps(*self._spaces, shape, seed=0)
        return lambda update: self._agent.train_step(batch, update), 1, shape[0] * shape[1]

    def facts(self) -> dict[str, Any]:
        """Returns the device, whether it is a GPU, TensorFlow's version, whether XLA is used, and
        the precision that suits the device."""
        import tensorflow as tf

        from dreamer.agent.precision import choose_jit, choose_precision

        return {
            "device": describe_device(), "gpu": bool(tf.config.list_physical_devices("GPU")),
            "tensorflow": tf.__version__, "xla": choose_jit(self._config.jit),
            "precision": choose_precision("auto"),
        }  # fmt: skip

    def timesteps(self) -> int:
        """Returns the number of timesteps or transitions that an update learns from."""
        return self._timesteps

    def update(self, count: int) -> float:
        """Runs whole groups of updates, at least `count`, and returns the seconds of `count`.

        It reads their metrics, as the trainer does, which waits for the device.
        """

        def learn() -> None:
            for value in self._work(self._updates).values():
                np.asarray(value)
            self._updates += self._group

        groups, before = -(-count // self._group), _usage()
        seconds = repeated(learn)(groups)
        self._used += _usage() - before
        self._used_updates += groups * self._group
        return seconds * count / (groups * self._group)

    def usage(self) -> dict[str, float]:
        """Returns an update's page faults and its seconds in the kernel, all threads together:
        means over the updates since the last call."""
        faults, kernel = (self._used / max(1, self._used_updates)).tolist()
        self._used, self._used_updates = np.zeros(2), 0
        return {"page_faults": faults, "seconds_in_kernel": kernel}

    def operations(self) -> dict[str, float]:
        """Returns how many operations an update executes, as `executed_operations` counts them;
        with XLA what `compiled_operations` finds. {} for agents that this does not fit."""
        from dreamer.agent.agent import Agent

        if not isinstance(self._agent, Agent):
            return {}
        if self.facts()["xla"]:
            return compiled_operations(self._agent, self._batch)
        return {"operations": executed_operations(lambda: self.update(1))}

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
        """Takes `agent_steps` of each environment a round; returns the environment frames per
        second over all environments, the median over the rounds."""
        with self._collecting() as (collector, pool):
            steps = agent_steps * pool.num_envs

            def work(count: int) -> float:
                before, start = collector.agent_steps, time.perf_counter()
                collector.collect(self._agent.policy, steps)
                return (time.perf_counter() - start) / (collector.agent_steps - before)

            return pool.action_repeat / median(work(1) for _ in range(rounds))

    def overlap(
        self, agent_steps: int, updates: int, update_seconds: float | None, rounds: int
    ) -> dict[str, float]:
        """Collects and updates, one after the other and at the same time, in turn.

        A round takes `agent_steps` of each environment and makes `updates`, or sleeps
        `update_seconds` for each, like an accelerator. Returns sequential_seconds and
        overlapped_seconds of a round (medians), and gain, their ratio.
        """
        with self._collecting() as (collector, pool):

            def collect(check: Callable[[], object]) -> None:
                collector.collect(checked(self._agent.policy, check), agent_steps * pool.num_envs)

            def learn() -> None:
                if update_seconds is None:
                    self.update(updates)
                else:
                    time.sleep(updates * update_seconds)

            def sequential() -> None:
                collect(lambda: None)
                learn()

            def overlapped() -> None:
                with in_background(collect):
                    learn()

            kinds = {"sequential": repeated(sequential), "overlapped": repeated(overlapped)}
            before, after = in_turn(kinds, rounds, shortest=0.0).values()
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


class RandomReplay:
    """A replay of random episodes in an empty folder, which the caller removes.

    `spaces` are those of observations and actions.
    """

    def __init__(
        self, config: Config, spaces: tuple[Mapping[str, Space], Space], directory: str
    ) -> None:
        self._spaces, self._shape = spaces, (config.train.batch_size, config.train.batch_length)
        self._replay = Replay(
            directory, cache_bytes=config.replay.cache_bytes, seed=config.seed,
            obs_space=spaces[0], act_space=spaces[1],
        )  # fmt: skip
        self._batches = itertools.count()

    def add(self, episodes: int, length: int) -> dict[str, int]:
        """Adds episodes, and samples a batch after every tenth.

        Returns their number, their size (added_bytes), the memory in RAM at the end
        (resident_bytes) and its increase (growth_bytes).
        """
        before, added = resident_bytes(), 0
        for number in range(episodes):
            seed = len(self._replay)
            episode = random_timesteps(*self._spaces, (length,), seed)
            self._replay.add(episode, f"benchmark{seed}")
            added += sum(array.nbytes for array in episode.values())
            if number % 10 == 0:
                self.sample()
        after = resident_bytes()
        return {"episodes": episodes, "growth_bytes": after - before, "added_bytes": added,
                "resident_bytes": after}  # fmt: skip

    def sample(self) -> None:
        """Samples a batch as training does."""
        self._replay.sample(next(self._batches), *self._shape)


class ReferenceLoop:
    """A task of dm_control's suite under random actions, without any of our code.

    dm_control is used as it comes (its own shadow map and offscreen buffer). Every repeated frame
    is rendered by `physics.render`, although only the last one would be used. This must not share
    a process with TensorFlow.
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
            self._env.physics.render(64, 64, camera_id=self._camera)
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
