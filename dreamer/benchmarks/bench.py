"""One run of the benchmark: which processes it starts and what it measures, in which order."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from dreamer.benchmarks.environments import measure_stepping
from dreamer.benchmarks.flops import LayerTable, flops_by_part
from dreamer.benchmarks.replay import episodes_folder
from dreamer.benchmarks.report import judge
from dreamer.benchmarks.sampling import in_turn
from dreamer.benchmarks.service import Measure, Service
from dreamer.config.config import Config
from dreamer.envs.spec import Space, spaces_to_json
from dreamer.errors import UserError
from dreamer.system.machine import machine
from dreamer.training.build import make_pool

DEFAULT_PARTS = ("update", "env", "replay", "memory")
AGENTS_PROGRAM = "baselines.benchmark"
DEFAULT_TIMESTEPS = 501  # of an episode, for tasks without a known time limit
OVERLAP_UPDATES = 2  # per round


class Scale(NamedTuple):
    """How much to measure."""

    rounds: int  # of updates
    env_rounds: int = 9  # of environment steps and policy calls
    shortest: float = 0.5  # minimum seconds of one measurement
    sampled: int = 40  # episodes to sample from
    added: int = 1000  # episodes to add, which must not take memory
    added_timesteps: int = 101  # of each of them
    calls: int = 1000  # of the policy, which must not take memory
    small: bool = False  # small matrix products


QUICK = Scale(1, 2, 0.0, 3, 20, 21, 10, small=True)


class Bench:
    """Measures what a config describes. Leaving its context ends all processes.

    Args:
        config: The config.
        scale: How much to measure.
        precisions: Precisions of the updates. If empty: the config's; for "auto", float32 and
            the precision that suits the device.
    """

    def __init__(self, config: Config, scale: Scale, precisions: Sequence[str] = ()) -> None:
        self._config, self._scale = config, scale
        configured = [config.precision] if config.precision != "auto" else []
        self._chosen = list(precisions) or configured
        self._stack = ExitStack()
        self._agents: dict[str, Service] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, parts: Sequence[str]) -> dict[str, Any]:
        """Measures the given parts and returns the figures, as nested dictionaries.

        Raises:
            UserError: No such task, no OpenGL, or no room for episodes.
        """
        load = os.getloadavg()[0]
        results: dict[str, Any] = {
            "task": self._config.task, "config": self._config.flat(), "machine": self._machine(),
        }  # fmt: skip
        sample = self._start_sampling() if "replay" in parts else None
        if "update" in parts:
            results |= self._measure_updates(sample)
        elif sample:
            _say("sampling batches")
            seconds = in_turn({"sample": sample}, self._scale.env_rounds, self._scale.shortest)
            results["replay"] = {"sample_seconds": seconds["sample"]}
        if "memory" in parts:
            results["memory"] = results.get("memory", {}) | self._measure_growth()
        if "env" in parts:
            results["env"] = self._measure_environments()
        if "overlap" in parts:
            results["overlap"] = self._measure_overlap()
        if "agents" in parts:
            _say("updating each agent in turn")
            presets = self._config.presets
            results["agents"] = measure_agents(self._config.task, presets, self._scale.rounds)
        results["machine"] |= {"load_before": load, "load_after": os.getloadavg()[0]}
        return results | {"verdicts": judge(results)}

    # --------------------------------------------------------------- processes

    @cached_property
    def _task(self) -> tuple[dict[str, Space], Space, int]:
        """Observation space, action space, and timesteps of the longest episode."""
        with make_pool(self._config, 1, training=True) as pool:
            limit = int(pool.info.get("time_limit", 0))
            timesteps = -(-limit // pool.action_repeat) + 1 if limit else DEFAULT_TIMESTEPS
            return pool.obs_space, pool.act_space, timesteps

    def _start(self, name: str, **settings: Any) -> Service:
        """Starts a service of the config and the spaces; `precision` replaces the config's."""
        obs_space, act_space, _ = self._task
        changed = {"precision": settings.pop("precision")} if "precision" in settings else {}
        service = Service(
            f"dreamer.benchmarks.{name}",
            values=self._config.replace(changed).flat(),
            spaces=spaces_to_json(obs_space, act_space),
            **settings,
        )
        return self._stack.enter_context(service)

    def _agent(self, precision: str) -> Service:
        if precision not in self._agents:
            self._agents[precision] = self._start(
                "agent_service:AgentService", precision=precision, small=self._scale.small
            )
        return self._agents[precision]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """`AgentService.facts`."""
        return self._agent((self._chosen or ["float32"])[0]).ask("facts")

    @property
    def _precisions(self) -> list[str]:
        return self._chosen or list(dict.fromkeys(("float32", self._facts["precision"])))

    def _machine(self) -> dict[str, Any]:
        here, facts = machine(), self._facts
        return {
            "device": facts["device"],
            "processor": here["processor"],
            "cores": here["cores"],
            "tensorflow": facts["tensorflow"],
            "python": platform.python_version(),
            "xla": facts["xla"],
            "suits": facts["precision"],
        }

    @cached_property
    def _layers(self) -> LayerTable:
        obs_space, act_space, _ = self._task
        shapes = {key: space.shape for key, space in obs_space.items()}
        actions = act_space.shape[0]
        return LayerTable(self._config, shapes, actions, discrete=act_space.discrete)

    # ------------------------------------------------------------------- parts

    def _start_sampling(self) -> Measure:
        """Returns a function that samples batches from a replay of full-length episodes."""
        obs_space, act_space, length = self._task
        count = self._scale.sampled
        _say(f"writing {count} episodes of {length} timesteps to sample batches from")
        room = episodes_folder(obs_space, act_space, count, length)
        folder = self._stack.enter_context(room)
        replay = self._start("replay:ReplayService", directory=str(folder))
        replay.ask("add", episodes=count, length=length)
        return replay.measure("sample")

    def _measure_updates(self, sample: Measure | None) -> dict[str, Any]:
        """Measures updates, matrix products and sampling in turn: no two run at the same time."""
        scale, products = self._scale, [tuple(product) for product in self._facts["products"]]
        names = ", ".join(self._precisions)
        _say(f"updating in {names}: {scale.rounds} rounds after tracing, which takes a while")
        agents = {precision: self._agent(precision) for precision in self._precisions}
        measures: dict[Any, Measure] = {}
        before = {}
        for precision, agent in agents.items():
            for product in products:
                measures[precision, product] = agent.measure("multiply", product=product)
                # Allocates the matrices, so that they do not count as growth.
                agent.ask("multiply", product=product, count=1)
            measures[precision, "update"] = agent.measure("update")
            agent.ask("update", count=2)
            before[precision] = agent.ask("memory")
        if sample:
            measures["sample"] = sample
        seconds = in_turn(measures, scale.rounds, scale.shortest)
        parts = flops_by_part(self._layers.update_layers())
        updates: dict[str, dict[str, float]] = {}
        memory = {}
        for precision, agent in agents.items():
            rate = max(2 * m * k * n / seconds[precision, (m, k, n)] for m, k, n in products)
            found = _compare_with_floor(seconds[precision, "update"], sum(parts.values()), rate)
            if precision != "float32" and "float32" in updates:
                found["over_float32"] = found["seconds"] / updates["float32"]["seconds"]
            updates[precision] = found
            # Printed now, because this took minutes and the next part may fail.
            _say(f"{precision}: {found['seconds']:.3g} s, {found['over_floor']:.2f} of its floor")
            after = agent.ask("memory")
            memory[precision] = after | {
                "growth_bytes": after["resident_bytes"] - before[precision]["resident_bytes"],
                "updates": after["updates"] - before[precision]["updates"],
            }
        results = {"update": updates, "flops": parts, "memory": {"update": memory}}
        if sample:
            fastest = min(found["seconds"] for found in updates.values())
            share = seconds["sample"] / fastest
            results["replay"] = {"sample_seconds": seconds["sample"], "share_of_update": share}
        return results

    def _measure_growth(self) -> dict[str, Any]:
        """Measures memory before and after many policy calls, and many episodes."""
        scale, agent = self._scale, self._agent(self._precisions[-1])
        # A planner's action may take as long as an update.
        planning = self._config.behavior.policy == "planner"
        calls = max(1, scale.calls // 20) if planning else scale.calls
        _say(f"calling the policy {calls} times")
        agent.ask("policy", count=max(1, calls // 10))
        before = agent.ask("memory")["resident_bytes"]
        agent.ask("policy", count=calls)
        after = agent.ask("memory")["resident_bytes"]
        policy = {"calls": calls, "growth_bytes": after - before, "resident_bytes": after}
        _say(f"adding {scale.added} episodes to a replay")
        obs_space, act_space, _ = self._task
        length, warm_up = scale.added_timesteps, max(1, scale.added // 10)
        with (
            episodes_folder(obs_space, act_space, scale.added + warm_up, length) as folder,
            self._start("replay:ReplayService", directory=str(folder)) as replay,
        ):
            replay.ask("add", episodes=warm_up, length=length)
            grown = replay.ask("add", episodes=scale.added, length=length)
        share = grown["growth_bytes"] / grown["added_bytes"]
        return {"policy": policy, "replay": {**grown, "growth_share": share}}

    def _measure_environments(self) -> dict[str, Any]:
        rounds, shortest = self._scale.env_rounds, self._scale.shortest
        _say("stepping environments")
        found = measure_stepping(self._config, rounds, shortest)
        _say("collecting with the policy")
        agent = self._agent(self._precisions[-1])
        steps = max(1, round(40 * shortest))
        found["collect_steps_per_second"] = agent.ask("collect", agent_steps=steps, rounds=rounds)
        seconds = in_turn({"policy": agent.measure("policy")}, rounds, shortest)["policy"]
        flops = sum(layer.flops for layer in self._layers.policy_layers())
        return found | {
            "policy_seconds": seconds, "policy_flops": flops,
            "policy_flops_per_second": flops / seconds,
        }  # fmt: skip

    def _measure_overlap(self) -> dict[str, Any]:
        """Measures the gain of `train.overlap`, with real and with simulated updates."""
        _say("collecting and updating, one after the other and at the same time")
        config, agent = self._config, self._agent(self._precisions[-1])
        agent.ask("update", count=1)  # traces it
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


def check_agents() -> None:
    """Raises a UserError if the package baselines is missing, as in an installed wheel."""
    if find_spec("baselines") is None:
        raise UserError(
            "--parts agents needs the package baselines, which is in the checkout and not in the "
            "wheel: run the benchmark from the checkout, or leave agents out"
        )


def measure_agents(task: str, presets: Sequence[str], rounds: int) -> dict[str, Any]:
    """Measures an update of each agent that learns, by the program of the package baselines.

    Returns:
        By agent: ``seconds`` of an update, ``records`` (timesteps that it learns from) and
        ``without`` (the presets that the agent does not have); or ``refused``.

    Raises:
        UserError: The program failed; it has printed the reason.
    """
    check_agents()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agents.json"
        words = ["--task", task, "--rounds", str(rounds), "--json", str(path)]
        words += ["--configs", *presets] if presets else []
        command = [sys.executable, "-m", AGENTS_PROGRAM, *words]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise UserError(
                f"python -m {AGENTS_PROGRAM} ended with status {done.returncode} for the reason "
                "above; leave agents out of --parts to measure the rest"
            )
        return json.loads(path.read_text(encoding="utf-8"))["agents"]


def _compare_with_floor(seconds: float, flops: int, rate: float) -> dict[str, float]:
    return {
        "seconds": seconds,
        "flops": flops,
        "matmul_flops_per_second": rate,
        "floor_seconds": flops / rate,
        "over_floor": seconds * rate / flops,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
