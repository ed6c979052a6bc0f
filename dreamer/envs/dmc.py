"""DeepMind Control (arXiv 1801.00690) from pixels, from state observations, or both."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from dreamer.envs import rendering
from dreamer.envs.spec import Env, Space, Timestep, make_timestep
from dreamer.envs.wrappers import NormalizeActions
from dreamer.errors import UserError, suggest

#: Names under which results are published, where dm_control's differ.
ALIASES = {"cup_catch": ("ball_in_cup", "catch")}
#: Camera by domain, where it is not the first one: this one follows the body.
CAMERAS = {"quadruped": 2}
#: Frames after which a task ends that has no limit of its own (lqr).
DEFAULT_LIMIT = 1000
#: Seed of what is random in a model itself (lqr): every worker must build the same one.
MODEL_SEED = 0


def make_dmc(task: str, *, egl_device: int = -1, **settings: Any) -> Env:
    """Returns the environment `dmc_<task>`; settings as `DMC` takes them.

    Raises:
        UserError: no such task, camera or rendering here.
    """
    if settings.get("image", True):
        rendering.prepare(egl_device)
        _suite(images=True)
    return NormalizeActions(DMC(*find_task(task), **settings))


def find_task(name: str) -> tuple[str, str]:
    """Returns (domain, task) for "<domain>_<task>"; both may hold underscores themselves."""
    known = {**{f"{domain}_{task}": (domain, task) for domain, task in _suite().ALL_TASKS},
             **ALIASES}  # fmt: skip
    if name not in known:
        near = suggest(name, known, most=3, prefix="dmc_")
        raise UserError(
            f"unknown task 'dmc_{name}'{near}; tasks are named dmc_<domain>_<task>, as in "
            "dmc_walker_walk, after the tasks of dm_control's suite"
        )
    return known[name]


def _suite(images: bool = False) -> Any:
    """Returns dm_control's suite; without `images` its first import loads no OpenGL."""
    try:
        with contextlib.nullcontext() if images else rendering.switched_off():
            from dm_control import suite
    except (ImportError, AttributeError, RuntimeError) as error:
        missing = getattr(error, "name", None)
        if missing is not None and missing.partition(".")[0] in ("dm_control", "mujoco"):
            raise UserError(
                "dm_control is not installed: pip install dm_control==1.0.50 mujoco==3.17.0"
            ) from error
        # dm_control loads OpenGL on import, and fails there when the chosen one is not usable.
        raise UserError(
            f"dm_control could not load OpenGL ({error}); {rendering.HELP}"
        ) from error
    return suite


class DMC:
    """One task of dm_control's suite, with actions in the suite's own range.

    Observations: `image` uint8 [image_size, image_size, 3] if `image`; with `state`, the suite's
    observations under its own names, each flattened to a float32 vector.

    Args:
        domain, task: dm_control's names.
        action_repeat: frames an action is held; only the last one is rendered.
        time_limit: frames of an episode; 0 is the suite's own (1000; also given to tasks that have
            none). Reaching it is no terminal.
        image, state: which observations there are; at least one.
        image_size: pixels.
        camera: index; -1 is the usual one: 2 for the quadruped, else 0.
        shadow_size: texels along the shadow map's edge; 0 is the simulator's own (2048). Less is
            faster in software, and changes pixels (configs/defaults.yaml says how much, per task).
    """

    def __init__(
        self,
        domain: str,
        task: str,
        *,
        action_repeat: int = 2,
        time_limit: int = 0,
        image: bool = True,
        state: bool = False,
        image_size: int = 64,
        camera: int = -1,
        shadow_size: int = 0,
    ):
        if not (image or state):
            raise UserError("no observation is left: set envs.image or envs.state to true")
        limit = {"time_limit": float("inf")} if time_limit else {}
        if image:
            rendering.prepare()
        self._env = _suite(images=image).load(domain, task, {"random": MODEL_SEED, **limit})
        self._env.task.random.seed(None)
        self.action_repeat = action_repeat
        self._limit = time_limit or (DEFAULT_LIMIT if domain == "lqr" else 0)
        own_limit = self._env._step_limit  # dm_control tells it nowhere else; infinite for none
        self.info: dict[str, str] = {"time_limit": str(self._limit or math.ceil(own_limit))}
        self._frames = 0
        self._over = True
        self._size = image_size
        self._camera = CAMERAS.get(domain, 0) if camera == -1 else camera
        self.obs_space: dict[str, Space] = {}
        if image:
            self._start_rendering(shadow_size)
            self.obs_space["image"] = Space((image_size, image_size, 3), np.dtype(np.uint8), 0, 255)
        else:
            _forbid_rendering(self._env.physics)
        self._state_keys = list(self._env.observation_spec()) if state else []
        self.obs_space.update(self._state_spaces())
        action = self._env.action_spec()
        self.act_space = Space(
            action.shape, np.dtype(np.float32), action.minimum, action.maximum
        )

    def _state_spaces(self) -> Iterator[tuple[str, Space]]:
        for key in self._state_keys:
            size = int(np.prod(self._env.observation_spec()[key].shape))
            yield key, Space((size,), np.dtype(np.float32))

    def _start_rendering(self, shadow_size: int) -> None:
        """Creates the OpenGL context, small; MuJoCo reads both sizes only then."""
        model = self._env.physics.model
        if not -1 <= self._camera < model.ncam:
            raise UserError(
                f"envs.camera is {self._camera}, but this task has cameras 0 to {model.ncam - 1}"
            )
        model.vis.global_.offwidth = self._size
        model.vis.global_.offheight = self._size
        if shadow_size:
            model.vis.quality.shadowsize = shadow_size
        import mujoco
        from dm_control import _render
        from dm_control.mujoco import Camera

        try:
            renderer = rendering.renderer_name(self._env.physics)
            # One camera for all frames: physics.render() makes one for each, which costs more than
            # a fifth of the time in software and gives the same pixels.
            self._view = Camera(self._env.physics, self._size, self._size, self._camera)
        except (RuntimeError, mujoco.FatalError) as error:
            raise UserError(f"OpenGL cannot render here ({error}); {rendering.HELP}") from error
        self.info.update(
            gl=_render.BACKEND, renderer=renderer, camera=str(self._camera),
            shadow_size=str(model.vis.quality.shadowsize),
        )  # fmt: skip

    def reset(self, seed: int | None = None) -> Timestep:
        if seed is not None:
            self._env.task.random.seed(np.random.SeedSequence(seed).generate_state(8))
        self._frames = 0
        self._over = False
        return make_timestep(self._observe(self._env.reset().observation), is_first=True)

    def step(self, action: np.ndarray) -> Timestep:
        if self._over:
            raise RuntimeError("step() after the episode's last timestep: call reset() first")
        reward = 0.0
        for _ in range(self.action_repeat):
            timestep = self._env.step(action)
            self._frames += 1
            reward += timestep.reward
            self._over = timestep.last() or self._frames == self._limit
            if self._over:
                break
        # dm_control ends an episode at its time limit with discount 1, at a true end with 0.
        terminal = timestep.last() and timestep.discount == 0
        obs = self._observe(timestep.observation)
        return make_timestep(obs, reward, is_last=self._over, is_terminal=terminal)

    def _observe(self, observation: dict[str, Any]) -> dict[str, np.ndarray]:
        obs = {key: np.asarray(observation[key], np.float32).reshape(-1)
               for key in self._state_keys}  # fmt: skip
        if "image" in self.obs_space:
            obs["image"] = self.render()
        return obs

    def render(self) -> np.ndarray:
        """Returns the present frame, uint8 [image_size, image_size, 3]."""
        return self._view.render().copy()

    def close(self) -> None:
        self._env.close()


def _forbid_rendering(physics: Any) -> None:
    """Makes `physics` one without OpenGL contexts, for machines that have no OpenGL at all.

    quadruped_escape asks for the context at every reset to upload its terrain, which creates one.
    """
    cls = type(physics)
    physics.__class__ = type(cls.__name__, (cls,), {"contexts": None})
