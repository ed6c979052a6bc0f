"""One run of the benchmark: which processes it starts and what it measures, in which order."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from dreamer.benchmarks.flops import FlopCounter
from dreamer.benchmarks.services import Measure, RandomReplay, Service, in_turn, repeated
from dreamer.benchmarks.table import judge
from dreamer.config.config import Config, load_config, preset_refusal
from dreamer.config.schema import DREAMER, agent_names
from dreamer.envs import rendering
from dreamer.envs.processes.pool import EnvPool
from dreamer.envs.spec import Space, spaces_to_json
from dreamer.errors import EnvError, UserError
from dreamer.system.machine import machine
from dreamer.system.streams import warn
from dreamer.tasks import suite_of
from dreamer.training.build import longest_episode, make_pool

DEFAULT_PARTS = ("update", "env", "replay", "memory")
DEFAULT_TIMESTEPS = 501  # of an episode, for tasks without a known time limit
NO_UPDATES = ("random", "constant")  # agents that do not learn
OVERLAP_UPDATES = 2  # per round
#: Products [m, k] @ [k, n] that measure the device's rate; the fastest one counts.
CPU_PRODUCTS = ((2048, 2048, 2048), (4096, 4096, 4096), (16384, 1024, 1024))
GPU_PRODUCTS = ((4096, 4096, 4096), (8192, 8192, 8192), (65536, 2048, 2048))
SMALL_PRODUCTS = ((128, 128, 128), (512, 64, 64))
_SERVICES = "dreamer.benchmarks.services"


class Scale(NamedTuple):
    """How much to measure."""

    rounds: int  # of updates
    env_rounds: int = 9  # of environment steps and policy calls
    shortest: float = 0.5  # minimum seconds of one measurement
    sampled: int = 40  # episodes to sample from
    added: int = 1000  # episodes to add, which must not take memory
    added_timesteps: int = 101  # of each of them
    run_steps: int = 5000  # of a run, after its prefill
    small: bool = False  # small matrix products


QUICK = Scale(1, 2, 0.0, 3, 20, 21, 100, small=True)


class Bench(ExitStack):
    """Measures what a config describes. Leaving its context ends all processes.

    If `precisions` is empty, updates have the config's precision; for "auto", float32 and the
    precision that suits the device.
    """

    def __init__(self, config: Config, scale: Scale, precisions: Sequence[str] = ()) -> None:
        super().__init__()
        self._config, self._scale = config, scale
        configured = [config.precision] if config.precision != "auto" else []
        self._chosen = list(precisions) or configured
        self._agents: dict[str, Service] = {}

    def run(self, parts: Sequence[str]) -> dict[str, Any]:
        """Returns the figures of the given parts, as nested dictionaries.

        Raises UserError if there is no such task, or no OpenGL.
        """
        load, here = os.getloadavg()[0], machine()
        results: dict[str, Any] = {
            "task": self._config.task, "config": self._config.flat(),
            "machine": {key: self._facts[key] for key in ("device", "tensorflow", "xla")} | {
                "processor": here["processor"], "cores": here["cores"],
                "python": platform.python_version(), "suits": self._facts["precision"],
            },
        }  # fmt: skip
        if "update" in parts:
            results |= self._measure_updates()
        if "replay" in parts:
            results["replay"] = found = {"sample_seconds": self._measure_sampling()}
            if updates := results.get("update"):
                fastest = min(update["seconds"] for update in updates.values())
                found["share_of_update"] = found["sample_seconds"] / fastest
        if "memory" in parts:
            results["memory"] = results.get("memory", {}) | self._measure_growth()
        if "env" in parts:
            results["env"] = self._measure_environments()
        if "overlap" in parts:
            results["overlap"] = self._measure_overlap()
        if "run" in parts:
            results["run"] = self._measure_run()
        if "agents" in parts:
            warn("updating each agent in turn")
            presets, rounds = self._config.presets, self._scale.rounds
            results["agents"] = measure_agents(self._config.task, presets, rounds)
        results["machine"] |= {"load_before": load, "load_after": os.getloadavg()[0]}
        return results | {"verdicts": judge(results)}

    @cached_property
    def _task(self) -> tuple[tuple[Mapping[str, Space], Space], int]:
        """Spaces of observations and actions, and timesteps of the longest episode."""
        with make_pool(self._config, 1, training=True) as pool:
            timesteps = longest_episode(pool) or DEFAULT_TIMESTEPS
            return (pool.obs_space, pool.act_space), timesteps

    def _agent(self, precision: str) -> Service:
        if precision not in self._agents:
            service = _start_agent(self._config.replace({"precision": precision}), self._task[0])
            self._agents[precision] = self.enter_context(service)
        return self._agents[precision]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return self._agent((self._chosen or ["float32"])[0]).ask("facts")

    @property
    def _precisions(self) -> list[str]:
        return self._chosen or list(dict.fromkeys(("float32", self._facts["precision"])))

    def _make_replay(self) -> RandomReplay:
        folder = tempfile.TemporaryDirectory(prefix="dreamer_benchmark_")
        return RandomReplay(self._config, self._task[0], self.enter_context(folder))

    def _measure_sampling(self) -> float:
        """Measures the seconds of sampling a batch from a replay of full-length episodes."""
        count, length = self._scale.sampled, self._task[1]
        warn(f"sampling batches from {count} episodes of {length} timesteps")
        replay = self._make_replay()
        replay.add(count, length)
        return self._seconds(repeated(replay.sample))

    def _seconds(self, measure: Measure) -> float:
        return in_turn({"": measure}, self._scale.env_rounds, self._scale.shortest)[""]

    def _measure_updates(self) -> dict[str, Any]:
        """Measures updates and matrix products of all precisions in turn."""
        scale, names = self._scale, ", ".join(self._precisions)
        large = GPU_PRODUCTS if self._facts["gpu"] else CPU_PRODUCTS
        products = SMALL_PRODUCTS if scale.small else large
        warn(f"updating in {names}: {scale.rounds} rounds after tracing, which takes a while")
        agents = {precision: self._agent(precision) for precision in self._precisions}
        measures, before = dict[Any, Measure](), {}
        operations = {name: agent.ask("operations") for name, agent in agents.items()}
        for precision, agent in agents.items():
            for product in products:
                measures[precision, product] = agent.measure("multiply", product=product)
                # Allocates the matrices, so that they do not count as growth.
                agent.ask("multiply", product=product, count=1)
            measures[precision, "update"] = agent.measure("update")
            agent.ask("update", count=2)
            agent.ask("usage")  # that of the first updates does not count
            before[precision] = agent.ask("memory")
        seconds = in_turn(measures, scale.rounds, scale.shortest)
        parts = FlopCounter(self._config, *self._task[0]).update()
        flops, updates, memory = sum(parts.values()), dict[str, Any](), {}
        for precision, agent in agents.items():
            rate = max(2 * m * k * n / seconds[precision, (m, k, n)] for m, k, n in products)
            took = seconds[precision, "update"]
            updates[precision] = {
                "seconds": took, "flops": flops, "matmul_flops_per_second": rate,
                "floor_seconds": flops / rate, "over_floor": took * rate / flops,
                **agent.ask("usage"),
            }  # fmt: skip
            if precision != "float32" and "float32" in updates:
                updates[precision]["over_float32"] = took / updates["float32"]["seconds"]
            # Printed now, because this took minutes and the next part may fail.
            warn(f"{precision}: {took:.3g} s, {took * rate / flops:.2f} of its floor")
            memory[precision] = after = agent.ask("memory")
            after["growth_bytes"] = after["resident_bytes"] - before[precision]["resident_bytes"]
            after["updates"] -= before[precision]["updates"]
            updates[precision] |= operations[precision]
        return {"update": updates, "flops": parts, "memory": {"update": memory}}

    def _measure_growth(self) -> dict[str, Any]:
        """Measures memory before and after many episodes."""
        added, length = self._scale.added, self._scale.added_timesteps
        warn(f"adding {added} episodes to a replay")
        replay = self._make_replay()
        replay.add(max(1, added // 10), length)  # warms up
        grown = replay.add(added, length)
        share = grown["growth_bytes"] / grown["added_bytes"]
        return {"replay": {**grown, "growth_share": share}}

    def _measure_environments(self) -> dict[str, Any]:
        rounds, shortest = self._scale.env_rounds, self._scale.shortest
        warn("stepping environments")
        found = measure_stepping(self._config, rounds, shortest)
        warn("collecting with the policy")
        agent, steps = self._agent(self._precisions[-1]), max(1, round(40 * shortest))
        found["collect_steps_per_second"] = agent.ask("collect", agent_steps=steps, rounds=rounds)
        seconds = self._seconds(agent.measure("policy"))
        flops = sum(FlopCounter(self._config, *self._task[0]).policy().values())
        return found | {
            "policy_seconds": seconds, "policy_flops": flops,
            "policy_flops_per_second": flops / seconds,
        }  # fmt: skip

    def _measure_overlap(self) -> dict[str, Any]:
        """Measures the gain of `train.overlap`, with real and with simulated updates."""
        warn("collecting and updating, one after the other and at the same time")
        config, agent = self._config, self._agent(self._precisions[-1])
        frames = OVERLAP_UPDATES * config.train.every / max(1, config.train.updates)
        steps = max(1, round(frames / config.envs.action_repeat / config.envs.num_envs))
        simulated = {"here": None, "simulated_20_ms": 0.02, "simulated_100_ms": 0.1}
        return {
            name: agent.ask(
                "overlap", agent_steps=steps, updates=OVERLAP_UPDATES, update_seconds=seconds,
                rounds=self._scale.env_rounds,
            )
            for name, seconds in simulated.items()
        }  # fmt: skip

    def _measure_run(self) -> dict[str, Any]:
        """Trains for a while, and measures on what the wall time is spent."""
        steps = min(self._config.steps, self._config.train.prefill + self._scale.run_steps)
        config = self._config.replace({"steps": steps, "precision": self._precisions[-1]})
        warn(f"training to step {steps:,}")
        name = "dreamer.benchmarks.run_times:RunService"
        with Service(name, values=config.flat(), agent=config.agent) as service:
            return service.ask("run")


def measure_stepping(config: Config, rounds: int, shortest: float) -> dict[str, Any]:
    """Returns the environment frames per second of one environment, all kinds measured in turn.

    `steps_per_second` is measured with the config's settings; gl and renderer name the OpenGL. For
    images of dm_control's suite there are more figures: without rendering; with a reduced shadow
    map (the config's size, or the `small` preset's); of `ReferenceLoop`; and our speed divided by
    that of `ReferenceLoop`, with the full and with the reduced shadow map.
    """
    own = config.envs.shadow_size
    compared = config.envs.image and suite_of(config.task) == "dmc"
    kinds: dict[Any, dict[str, Any]] = {own: {}}
    if compared:
        reduced = own or load_config("small", task=config.task).envs.shadow_size
        kinds |= {size: {"envs.shadow_size": size} for size in (0, reduced)}  # 0: the full map
        kinds["states"] = {"envs.image": False, "envs.state": True}
    with ExitStack() as stack:
        pools = {
            name: stack.enter_context(make_pool(config.replace(changed), 1, training=False))
            for name, changed in kinds.items()
        }
        info, frames = pools[own].info, pools[own].action_repeat
        measures = {name: _stepping(pool) for name, pool in pools.items()}
        if compared:
            reference = Service(
                f"{_SERVICES}:ReferenceLoop", rendering.backend_variables(config.envs.egl_device),
                task=config.task, camera=int(info["camera"]), action_repeat=frames,
            )  # fmt: skip
            measures["reference"] = stack.enter_context(reference).measure("step")
        rates = {k: frames / v for k, v in in_turn(measures, rounds, shortest).items()}
    found: dict[str, Any] = {"steps_per_second": rates[own]}
    if compared:
        found |= {
            "steps_per_second_without_rendering": rates["states"],
            f"steps_per_second_shadow_{reduced}": rates[reduced],
            "reference_steps_per_second": rates["reference"],
            "over_reference": rates[0] / rates["reference"],
            f"over_reference_shadow_{reduced}": rates[reduced] / rates["reference"],
        }
    return found | {key: info[key] for key in ("gl", "renderer") if key in info}


def _stepping(pool: EnvPool) -> Measure:
    """Returns a function that takes random actions in the pool's one environment."""
    rng = np.random.default_rng(0)
    pool.reset([0])

    def step() -> None:
        (timestep,) = pool.step(pool.act_space.sample(rng)[None])
        if isinstance(timestep, EnvError):
            raise timestep
        if timestep["is_last"]:
            pool.reset([None])

    return repeated(step)


def measure_agents(
    task: str, presets: Sequence[str], rounds: int, shortest: float = 0.5,
    agents: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Measures an update of each agent that learns, in turn, each in a process of its own.

    Each agent takes the presets that fit it; by default all agents that learn are measured.
    Returns by agent: ``seconds`` of an update, ``records`` (timesteps that it learns from) and
    ``without`` (the presets that the agent does not have); or ``refused``, the reason. Raises
    UserError if the package baselines is missing, as in an installed wheel.
    """
    if find_spec("baselines") is None:
        raise UserError(
            "--parts agents needs the package baselines, which is in the checkout and not in the "
            "wheel: run the benchmark from the checkout, or leave agents out"
        )
    found: dict[str, Any] = {}
    updates: dict[str, Measure] = {}
    with ExitStack() as stack:
        for agent in agents or [name for name in agent_names() if name not in NO_UPDATES]:
            without = sorted({preset for preset in presets if preset_refusal(preset, agent)})
            fitting = [preset for preset in presets if preset not in without]
            config = load_config(*fitting, task=task, agent=agent)
            with make_pool(config, 1, training=True) as pool:
                spaces = pool.obs_space, pool.act_space
            try:
                service = _start_agent(config, spaces)
            except UserError as error:
                found[agent] = {"refused": str(error)}
                continue
            updates[agent] = stack.enter_context(service).measure("update")
            found[agent] = {"without": without, "records": service.ask("timesteps")}
        for agent, seconds in in_turn(updates, rounds, shortest).items():
            found[agent]["seconds"] = seconds
    return found


def _start_agent(config: Config, spaces: tuple[Mapping[str, Space], Space]) -> Service:
    dreamer = config.agent == DREAMER
    name = f"{_SERVICES}:AgentService" if dreamer else "baselines.benchmark:BaselineService"
    return Service(name, agent=config.agent, values=config.flat(), spaces=spaces_to_json(*spaces))
