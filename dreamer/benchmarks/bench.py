"""One run of the benchmark: which processes there are, and what is measured in which order."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dreamer.benchmarks.agents import measure_agents
from dreamer.benchmarks.environment import (
    measure_collecting,
    measure_overlap,
    measure_stepping,
)
from dreamer.benchmarks.flops import LayerTable, flops_by_part
from dreamer.benchmarks.helper import Helper
from dreamer.benchmarks.replay import Sampling, scratch
from dreamer.benchmarks.report import judge
from dreamer.benchmarks.rounds import in_turn
from dreamer.benchmarks.update import measure_updates
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.run import make_pool

PARTS = ("update", "env", "replay", "memory")
MORE_PARTS = ("overlap", "agents")  # measured if asked for
DEFAULT_TIMESTEPS = 501  # of an episode, for tasks that tell no time limit


@dataclass(frozen=True)
class Scale:
    """How much to measure.

    Attributes:
        rounds: Of updates.
        small: Matrix products of a size for tests.
        env_rounds: Of environment steps and policy calls.
        shortest: Seconds that one measurement takes at least.
        sampled: Episodes to sample from.
        added: Episodes that memory must stay flat over.
        added_timesteps: Timesteps of each.
        calls: Of the policy, over which memory must stay flat.
    """

    rounds: int
    small: bool = False
    env_rounds: int = 9
    shortest: float = 0.5
    sampled: int = 40
    added: int = 1000
    added_timesteps: int = 101
    calls: int = 1000


QUICK = Scale(
    1, True, env_rounds=2, shortest=0.0, sampled=3, added=20, added_timesteps=21, calls=10
)


class Bench:
    """Measures what a config describes. A context manager: its end ends all processes.

    Args:
        config: Task, sizes, environments.
        scale: How much to measure.
        precisions: Of the updates; empty: the config's, or if that is auto, float32 and what suits
            the device.
    """

    def __init__(self, config: Config, scale: Scale, precisions: Sequence[str] = ()) -> None:
        self._config, self._scale = config, scale
        self._asked = list(precisions)
        self._stack = ExitStack()
        self._agents: dict[str, Helper] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, parts: Sequence[str]) -> dict[str, Any]:
        """Measures parts.

        Args:
            parts: Among PARTS and MORE_PARTS.
        Returns:
            The figures, nested: ``update.<precision>``, ``env``, ``replay``, ``memory``,
            ``overlap``, ``agents``; the ``flops`` by part; ``task``, ``config`` (flat),
            ``machine``; and ``verdicts``.
        Raises:
            UserError: no such task, no OpenGL, no room for episodes.
        """
        load = os.getloadavg()[0]
        results: dict[str, Any] = {
            "task": self._config.task, "config": self._config.flat(), "machine": self._machine(),
        }  # fmt: skip
        measured: dict[str, dict[str, Any]] = {part: {} for part in PARTS + MORE_PARTS}
        if "replay" in parts or "update" in parts:
            self._measure_learning(parts, measured)
        if "memory" in parts:
            measured["memory"] |= self._measure_growth()
        if "env" in parts:
            measured["env"] = self._measure_environment()
        if "overlap" in parts:
            measured["overlap"] = self._measure_overlap()
        if "agents" in parts:
            _say("updating each agent in turn")
            presets = self._config.presets
            measured["agents"] = measure_agents(self._config.task, presets, self._scale.rounds)
        results |= {part: found for part, found in measured.items() if found}
        if "update" in parts:
            results["flops"] = flops_by_part(self._layers.update_layers())
        results["machine"] |= {"load_before": load, "load_after": os.getloadavg()[0]}
        return results | {"verdicts": judge(results)}

    # ------------------------------------------------------- what is measured

    @cached_property
    def _task(self) -> tuple[dict[str, Space], Space, int]:
        """Spaces of observations and actions, and timesteps of the longest episode."""
        with make_pool(self._config, 1, training=True) as pool:
            limit = int(pool.info.get("time_limit", 0))
            timesteps = -(-limit // pool.action_repeat) + 1 if limit else DEFAULT_TIMESTEPS
            return pool.obs_space, pool.act_space, timesteps

    @property
    def _spaces(self) -> tuple[dict[str, Space], Space]:
        return self._task[:2]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """What an agent's process says of the device."""
        return self._agent((self._asked or [self._configured or "float32"])[0]).ask("facts")

    @property
    def _configured(self) -> str:
        return "" if self._config.precision == "auto" else self._config.precision

    @property
    def _precisions(self) -> list[str]:
        chosen = self._asked or ([self._configured] if self._configured else [])
        return chosen or list(dict.fromkeys(("float32", self._facts["precision"])))

    @cached_property
    def _layers(self) -> LayerTable:
        obs_space, act_space = self._spaces
        shapes = {key: space.shape for key, space in obs_space.items()}
        return LayerTable(
            self._config, shapes, act_space.shape[0], discrete=act_space.discrete
        )

    def _agent(self, precision: str) -> Helper:
        if precision not in self._agents:
            service = "dreamer.benchmarks.agent:AgentService"
            described = self._described(precision=precision)
            helper = Helper(service, **described, small=self._scale.small)
            self._agents[precision] = self._stack.enter_context(helper)
        return self._agents[precision]

    def _described(self, **overrides: Any) -> dict[str, Any]:
        """Config and spaces, as services take them."""
        obs_space, act_space = self._spaces
        return {
            "values": self._config.replace(overrides).flat(),
            "obs_space": {key: space.to_json() for key, space in obs_space.items()},
            "act_space": act_space.to_json(),
        }

    def _machine(self) -> dict[str, Any]:
        facts = self._facts
        return {
            "device": facts["device"],
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "tensorflow": facts["tensorflow"],
            "python": platform.python_version(),
            "xla": facts["xla"],
            "suits": facts["precision"],
        }

    # ------------------------------------------------------------------ parts

    def _measure_learning(self, parts: Sequence[str], measured: dict[str, Any]) -> None:
        """Updates and sampling, in turn with each other if both are asked for."""
        scale = self._scale
        sampling = self._stack.enter_context(self._sampling()) if "replay" in parts else None
        if "update" not in parts:
            assert sampling
            _say("drawing batches")
            found = in_turn({"sample": sampling.sample}, scale.env_rounds, scale.shortest)
            measured["replay"] = {"sample_seconds": found["sample"]}
            return
        names = ", ".join(self._precisions)
        _say(f"updating in {names}: {scale.rounds} rounds after tracing, which takes its time")
        updates, memory, sample_seconds = measure_updates(
            {precision: self._agent(precision) for precision in self._precisions},
            self._facts["products"],
            sum(layer.flops for layer in self._layers.update_layers()),
            sampling.sample if sampling else None,
            scale.rounds,
            scale.shortest,
        )
        for precision, found in updates.items():
            # Said at once: it took minutes, and what comes next may fail.
            _say(f"{precision}: {found['seconds']:.3g} s, {found['over_floor']:.2f} of its floor")
        measured["update"], measured["memory"] = updates, {"update": memory}
        if sample_seconds is not None:
            fastest = min(found["seconds"] for found in updates.values())
            measured["replay"] = {
                "sample_seconds": sample_seconds,
                "share_of_update": sample_seconds / fastest,
            }

    def _sampling(self) -> Sampling:
        timesteps = self._task[2]
        _say(f"writing {self._scale.sampled} episodes of {timesteps} timesteps to sample from")
        return Sampling(self._config, self._spaces, self._scale.sampled, timesteps)

    def _measure_growth(self) -> dict[str, Any]:
        """Memory before and after many policy calls and many episodes."""
        scale, agent = self._scale, self._agent(self._precisions[-1])
        # A planner may take as long for an action as for an update.
        planning = self._config.behavior.policy == "planner"
        calls = max(1, scale.calls // 20) if planning else scale.calls
        _say(f"calling the policy {calls} times")
        agent.ask("policy", calls=max(1, calls // 10))
        before = agent.ask("memory")["resident_bytes"]
        agent.ask("policy", calls=calls)
        after = agent.ask("memory")["resident_bytes"]
        _say(f"adding {scale.added} episodes to a replay")
        size = {"episodes": scale.added, "length": scale.added_timesteps}
        with (
            scratch(self._spaces, round(1.1 * scale.added), scale.added_timesteps) as folder,
            Helper("dreamer.benchmarks.replay:GrowthService", **self._described()) as helper,
        ):
            grown = helper.ask("grow", directory=str(folder), **size)
        share = grown["growth_bytes"] / grown["added_bytes"]
        return {
            "policy": {
                "calls": calls, "growth_bytes": after - before, "resident_bytes": after,
            },
            "replay": {**grown, "growth_share": share},
        }  # fmt: skip

    def _measure_environment(self) -> dict[str, Any]:
        scale = self._scale
        _say("stepping environments")
        found = measure_stepping(self._config, scale.env_rounds, scale.shortest)
        _say("collecting with the policy")
        agent = self._agent(self._precisions[-1])
        found |= measure_collecting(agent, scale.env_rounds, scale.shortest)
        flops = sum(layer.flops for layer in self._layers.policy_layers())
        rate = flops / found["policy_seconds"]
        return found | {"policy_flops": flops, "policy_flops_per_second": rate}

    def _measure_overlap(self) -> dict[str, Any]:
        _say("collecting and updating, one after the other and side by side")
        agent = self._agent(self._precisions[-1])
        agent.ask("update")  # traces it
        return measure_overlap(agent, self._config, 2, self._scale.env_rounds)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
