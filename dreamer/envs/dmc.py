"""DeepMind Control (arXiv 1801.00690) from pixels, from state observations, or from both."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np

from dreamer.envs import rendering
from dreamer.envs.spec import Env, EnvSettings, Space, image_space
from dreamer.envs.wrappers import FrameEnv, NormalizeActions
from dreamer.errors import UserError, suggest

#: Published task names that differ from dm_control's.
ALIASES = {"cup_catch": ("ball_in_cup", "catch")}
#: The domains' cameras, if not the first one: the quadruped's third camera follows its body.
CAMERAS = {"quadruped": 2}
#: First words of names that other packages of dm_control have or are given elsewhere.
PACKAGES = {
    "manip": "manipulation", "manipulation": "manipulation", "locom": "locomotion",
    "locomotion": "locomotion", "composer": "composer", "soccer": "locomotion.soccer",
}  # fmt: skip
#: Frames of an episode of lqr, the only domain without a limit of its own.
DEFAULT_LIMIT = 1000
#: Seed of a model's own random numbers (lqr): every worker must build the same model.
MODEL_SEED = 0


def make_dmc(task: str, settings: EnvSettings) -> Env:
    """Makes the environment `dmc_<task>`; its actions are in [-1, 1]."""
    return NormalizeActions(DMC(task, settings))


def find_task(name: str) -> tuple[str, str]:
    """Returns (domain, task) of "<domain>_<task>"; both parts may contain underscores."""
    known = {"_".join(parts): parts for parts in _suite().ALL_TASKS} | ALIASES
    if name not in known:
        if (package := PACKAGES.get(name.partition("_")[0])) is not None:
            raise UserError(
                f"unknown task 'dmc_{name}': dmc_ names the tasks of dm_control's suite, not of "
                f"dm_control.{package}; write a function that returns such an environment and name "
                "that: --task path/to/file.py:function"
            )
        near = suggest(name, known, most=3, prefix="dmc_")
        raise UserError(
            f"unknown task 'dmc_{name}'{near}; tasks are named dmc_<domain>_<task>, as in "
            "dmc_walker_walk, after the tasks of dm_control's suite"
        )
    return known[name]


def _suite(images: bool = False) -> Any:
    """Imports dm_control's suite; without `images`, a first import loads no OpenGL."""
    try:
        with contextlib.nullcontext() if images else rendering.switched_off():
            from dm_control import suite
    except ModuleNotFoundError as error:
        packages = "dm_control==1.0.50 mujoco==3.17.0"
        raise UserError(f"dm_control is not installed ({error}): pip install {packages}") from error
    except (ImportError, AttributeError, RuntimeError) as error:
        # dm_control loads OpenGL when it is imported, and fails if OpenGL is unusable.
        raise UserError(f"dm_control could not load OpenGL ({error}); {rendering.HELP}") from error
    rendering.show_mujoco_warnings()
    return suite


class DMC(FrameEnv):
    """One task of dm_control's suite, with actions in the suite's own range.

    Observations: with `image`, `image` uint8 [image_size, image_size, 3]; with `state`, the suite's
    observations under its own names, each flattened to a float32 vector. Only the last frame of a
    step is rendered. The suite's own limit is 1000 frames; tasks without one get the same.

    Args:
        name: `<domain>_<task>`.
        settings: How to make the environment.

    Raises:
        UserError: The task or camera does not exist, or OpenGL does not render here.
    """

    def __init__(self, name: str, settings: EnvSettings):
        if settings.image:
            rendering.prepare(settings.egl_device)
        suite = _suite(images=settings.image)
        domain, task = find_task(name)
        super().__init__(settings, settings.time_limit or (DEFAULT_LIMIT if domain == "lqr" else 0))
        own_limit = {"time_limit": float("inf")} if settings.time_limit else {}
        self._env = suite.load(domain, task, {"random": MODEL_SEED, **own_limit})
        self._env.task.random.seed(None)
        # dm_control has its limit only in this attribute; infinite: none.
        limit = min(self._limit, self._env._step_limit)
        self.info = {"time_limit": str(math.ceil(limit))}
        self.obs_space = {}
        if settings.image:
            camera = CAMERAS.get(domain, 0) if settings.camera == -1 else settings.camera
            self._start_rendering(camera, settings.image_size, settings.shadow_size)
            self.obs_space["image"] = image_space(settings.image_size)
        else:
            # At every reset, quadruped_escape would create an OpenGL context for its terrain.
            kind = type(self._env.physics)
            self._env.physics.__class__ = type(kind.__name__, (kind,), {"contexts": None})
        if settings.state:
            for key, spec in self._env.observation_spec().items():
                self.obs_space[key] = Space((math.prod(spec.shape),), np.dtype(np.float32))
        action = self._env.action_spec()
        self.act_space = Space(action.shape, np.dtype(np.float32), action.minimum, action.maximum)
        model = self._env.physics.model
        names = [model.id2name(i, "actuator") for i in range(model.nu)]
        if all(names):
            self.info["actions"] = " ".join(name.replace(" ", "_") for name in names)

    def _start_rendering(self, camera: int, image_size: int, shadow_size: int) -> None:
        """Creates a small OpenGL context; MuJoCo reads both sizes only then."""
        model = self._env.physics.model
        if not -1 <= camera < model.ncam:
            has = f"this task has cameras 0 to {model.ncam - 1}"
            raise UserError(f"envs.camera is {camera}, but {has}")
        model.vis.global_.offwidth = image_size
        model.vis.global_.offheight = image_size
        if shadow_size:
            model.vis.quality.shadowsize = shadow_size
        import mujoco
        from dm_control import _render
        from dm_control.mujoco import Camera
        from OpenGL import GL

        try:
            with self._env.physics.contexts.gl.make_current() as context:
                name = context.call(GL.glGetString, GL.GL_RENDERER) or b"unknown"
            # One camera renders all frames. physics.render() creates a camera for each frame, which
            # costs more than a fifth of the time in software, for the same pixels.
            self._camera = Camera(self._env.physics, image_size, image_size, camera)
        except (RuntimeError, mujoco.FatalError) as error:
            raise UserError(f"OpenGL cannot render here ({error}); {rendering.HELP}") from error
        self.info.update(
            gl=_render.BACKEND, renderer=name.decode(errors="replace"), camera=str(camera),
            shadow_size=str(model.vis.quality.shadowsize),
        )  # fmt: skip

    def _start(self, seed: int | None) -> None:
        if seed is not None:
            self._env.task.random.seed(np.random.SeedSequence(seed).generate_state(8))
        self._shown = self._env.reset().observation

    def _advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        timestep = self._env.step(action)
        self._shown = timestep.observation
        # dm_control ends an episode with discount 1 at its time limit, with 0 at a true end.
        ended = timestep.last()
        return timestep.reward, ended, ended and timestep.discount == 0

    def _observe(self) -> dict[str, np.ndarray]:
        obs = {}
        for key in self.obs_space:
            if key == "image":
                obs[key] = self._camera.render().copy()
            else:
                obs[key] = np.asarray(self._shown[key], np.float32).reshape(-1)
        return obs

    def close(self) -> None:
        super().close()
        self._env.close()
