"""How fast environments step, and how much faster than a literal loop over dm_control."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from dreamer.benchmarks.helper import Helper
from dreamer.benchmarks.rounds import Measure, in_turn
from dreamer.config.config import Config, load_config
from dreamer.envs import rendering
from dreamer.envs.processes.pool import EnvPool
from dreamer.tasks import suite_of

BARE, REFERENCE = "bare", "reference"


class Stepping:
    """One environment in a worker process, under random actions.

    Args:
        task: As `make_env` takes it.
        timeout: Seconds for one reply.
        **settings: As `make_env` takes them.
    """

    def __init__(self, task: str, timeout: float, **settings: Any) -> None:
        self._pool = EnvPool(task, 1, timeout, **settings)
        self._rng = np.random.default_rng(0)
        self.frames: int = self._pool.action_repeat
        self.info = self._pool.info
        self._pool.reset([0])

    def step(self, count: int) -> float:
        """Takes that many agent steps; returns the seconds."""
        start = perf_counter()
        for _ in range(count):
            (timestep,) = self._pool.step(self._pool.act_space.sample(self._rng)[None])
            if timestep["is_last"]:
                self._pool.reset([None])
        return perf_counter() - start

    def __enter__(self) -> Stepping:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()


def measure_stepping(config: Config, rounds: int, shortest: float) -> dict[str, Any]:
    """Environment frames per second of one environment, all kinds measured in turn.

    Args:
        config: Of the task.
        rounds, shortest: As `in_turn` takes them.

    Returns:
        steps_per_second: with the config's own settings. Where they have images, for a task of
        dm_control's suite: steps_per_second_without_rendering (its state alone);
        steps_per_second_shadow_<size>: with a reduced shadow map, of the config's size or the
        `small` preset's; reference_steps_per_second: the literal loop's; over_reference: ours with
        the pixels unchanged, in units of that; over_reference_shadow_<size>: likewise reduced. And
        `gl` and `renderer`, which say what draws.
    """
    sizes = _shadow_sizes(config)
    own = _shadow(config.envs.shadow_size)
    compared = config.envs.image and suite_of(config.task) == "dmc"
    with ExitStack() as stack:
        kinds = {
            name: stack.enter_context(Stepping(config.task, config.envs.timeout, **settings))
            for name, settings in _settings(config, sizes if compared else sizes[:1]).items()
        }
        measures: dict[str, Measure] = {name: kind.step for name, kind in kinds.items()}
        info = kinds[own].info
        if compared:
            helper = stack.enter_context(_start_reference(config, info))
            measures[REFERENCE] = lambda count: helper.ask("step", count=count)
        seconds = in_turn(measures, rounds, shortest)
        rates = {name: kinds[own].frames / value for name, value in seconds.items()}
    found = {"steps_per_second": rates[own]}
    if compared:
        found |= _compare(rates, max(sizes))
    return {**found, **{key: info[key] for key in ("gl", "renderer") if key in info}}


def measure_collecting(agent: Helper, rounds: int, shortest: float) -> dict[str, float]:
    """Environment frames per second of `envs.num_envs` environments with the policy in the loop.

    Args:
        agent: An AgentService.
        rounds: How often to measure.
        shortest: Seconds that one measurement should take at least.

    Returns:
        collect_steps_per_second, over all environments, and policy_seconds of one call.
    """
    calls = {"policy": lambda count: agent.ask("policy", calls=count)}
    found = agent.ask("collect", agent_steps=max(1, round(40 * shortest)), bursts=rounds)
    return {
        "collect_steps_per_second": found["frames"] / median(found["seconds"]),
        "policy_seconds": in_turn(calls, rounds, shortest)["policy"],
    }


def measure_overlap(agent: Helper, config: Config, updates: int, rounds: int) -> dict[str, Any]:
    """What `train.overlap` gains: rounds at the config's ratio, side by side and in turn.

    Args:
        agent: An AgentService.
        config: For the ratio of updates to steps.
        updates: Of a round.
        rounds: How many.

    Returns:
        By who makes the updates, ``here`` or an accelerator that takes ``simulated_20_ms`` or
        ``simulated_100_ms`` for one: sequential_seconds and overlapped_seconds of a round, and
        gain, the one over the other.
    """
    frames = updates * config.train.every / max(1, config.train.updates)
    steps = max(1, round(frames / config.envs.action_repeat / config.envs.num_envs))
    found = {}
    for name, delay in (("here", None), ("simulated_20_ms", 0.02), ("simulated_100_ms", 0.1)):
        seconds = agent.ask("rounds", agent_steps=steps, updates=updates, delay=delay,
                            bursts=rounds)  # fmt: skip
        medians = {kind: median(values) for kind, values in seconds.items()}
        found[name] = {
            **{f"{kind}_seconds": value for kind, value in medians.items()},
            "gain": medians["sequential"] / medians["overlapped"],
        }
    return found


def _shadow_sizes(config: Config) -> list[int]:
    """Shadow maps to measure: the config's own first, the simulator's own (0), a reduced one."""
    reduced = config.envs.shadow_size or load_config("small", task=config.task).envs.shadow_size
    return list(dict.fromkeys((config.envs.shadow_size, 0, reduced)))


def _settings(config: Config, sizes: list[int]) -> dict[str, dict[str, Any]]:
    """Kind -> what to make the environment with."""
    own = config.section("envs")
    del own["num_envs"], own["timeout"]
    kinds = {_shadow(size): {**own, "shadow_size": size} for size in sizes}
    if len(sizes) > 1:
        kinds[BARE] = {**own, "image": False, "state": True}
    return kinds


def _start_reference(config: Config, info: Mapping[str, str]) -> Helper:
    from dreamer.envs.dmc import find_task

    domain, task = find_task(config.task.removeprefix("dmc_"))
    return Helper(
        "dreamer.benchmarks.reference:ReferenceLoop",
        variables=rendering.backend_variables(config.envs.egl_device),
        domain=domain, task=task, camera=int(info["camera"]),
        action_repeat=config.envs.action_repeat,
    )  # fmt: skip


def _compare(rates: Mapping[str, float], reduced: int) -> dict[str, float]:
    reference = rates[REFERENCE]
    return {
        "steps_per_second_without_rendering": rates[BARE],
        f"steps_per_second_{_shadow(reduced)}": rates[_shadow(reduced)],
        "reference_steps_per_second": reference,
        "over_reference": rates[_shadow(0)] / reference,
        f"over_reference_{_shadow(reduced)}": rates[_shadow(reduced)] / reference,
    }


def _shadow(size: int) -> str:
    return f"shadow_{size}"
