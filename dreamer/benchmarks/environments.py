"""How fast environments step, compared with a plain loop over dm_control."""

from __future__ import annotations

from contextlib import ExitStack
from time import perf_counter
from typing import Any

import numpy as np

from dreamer.benchmarks.sampling import in_turn
from dreamer.benchmarks.service import Measure, Service
from dreamer.config.config import Config, load_config
from dreamer.envs import rendering
from dreamer.envs.processes.pool import EnvPool
from dreamer.tasks import suite_of

IMAGE_SIZE = 64


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
        self._camera, self._repeat = camera, action_repeat
        self._rng = np.random.default_rng(0)
        self._restart()

    def step(self, count: int) -> float:
        """Takes agent steps of `action_repeat` frames each and returns the seconds."""
        spec = self._env.action_spec()
        start = perf_counter()
        for _ in range(count):
            action = self._rng.uniform(spec.minimum, spec.maximum)
            for _ in range(self._repeat):
                timestep = self._env.step(action)
                self._env.physics.render(IMAGE_SIZE, IMAGE_SIZE, camera_id=self._camera)
            if timestep.last():
                self._restart()
        return perf_counter() - start

    def _restart(self) -> None:
        self._env.reset()
        self._env.physics.render(IMAGE_SIZE, IMAGE_SIZE, camera_id=self._camera)


def measure_stepping(config: Config, rounds: int, shortest: float) -> dict[str, Any]:
    """Returns the environment frames per second of one environment, all kinds measured in turn.

    Args:
        config: The config.
        rounds, shortest: As `in_turn` takes them.

    Returns:
        steps_per_second: with the config's settings; gl, renderer: what draws. For images of
        dm_control's suite also steps_per_second_without_rendering: from states;
        steps_per_second_shadow_<size>: with a reduced shadow map, of the config's size or the
        `small` preset's; reference_steps_per_second: of `ReferenceLoop`; over_reference: ours with
        the full shadow map, relative to that; over_reference_shadow_<size>: ours, reduced.
    """
    own = config.section("envs")
    timeout = config.envs.timeout
    del own["num_envs"], own["timeout"]
    compared = config.envs.image and suite_of(config.task) == "dmc"
    sizes = [config.envs.shadow_size]
    if compared:  # 0: the full shadow map
        small = load_config("small", task=config.task).envs.shadow_size
        sizes += [0, config.envs.shadow_size or small]
    with ExitStack() as stack:

        def start(**changed: Any) -> EnvPool:
            pool = EnvPool(config.task, 1, timeout, **{**own, **changed})
            return stack.enter_context(pool)

        pools: dict[Any, EnvPool] = {size: start(shadow_size=size) for size in dict.fromkeys(sizes)}
        info, frames = pools[sizes[0]].info, pools[sizes[0]].action_repeat
        if compared:
            pools["states"] = start(image=False, state=True)
        measures: dict[Any, Measure] = {name: _stepping(pool) for name, pool in pools.items()}
        if compared:
            reference = stack.enter_context(_start_reference(config, int(info["camera"])))
            measures["reference"] = reference.measure("step")
        seconds = in_turn(measures, rounds, shortest)
    rates = {name: frames / duration for name, duration in seconds.items()}
    found: dict[str, Any] = {"steps_per_second": rates[sizes[0]]}
    if compared:
        shadow, reduced = f"shadow_{max(sizes)}", rates[max(sizes)]
        found |= {
            "steps_per_second_without_rendering": rates["states"],
            f"steps_per_second_{shadow}": reduced,
            "reference_steps_per_second": rates["reference"],
            "over_reference": rates[0] / rates["reference"],
            f"over_reference_{shadow}": reduced / rates["reference"],
        }
    return found | {key: info[key] for key in ("gl", "renderer") if key in info}


def _stepping(pool: EnvPool) -> Measure:
    """Returns a function that takes random actions in the pool's one environment."""
    rng = np.random.default_rng(0)
    pool.reset([0])

    def step(count: int) -> float:
        start = perf_counter()
        for _ in range(count):
            (timestep,) = pool.step(pool.act_space.sample(rng)[None])
            if timestep["is_last"]:
                pool.reset([None])
        return perf_counter() - start

    return step


def _start_reference(config: Config, camera: int) -> Service:
    from dreamer.envs.dmc import find_task

    domain, task = find_task(config.task.removeprefix("dmc_"))
    return Service(
        f"{__name__}:ReferenceLoop", domain=domain, task=task, camera=camera,
        action_repeat=config.envs.action_repeat,
        variables=rendering.backend_variables(config.envs.egl_device),
    )  # fmt: skip
