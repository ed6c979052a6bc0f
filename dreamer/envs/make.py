"""Environments by task name. Nothing here imports TensorFlow, and nothing may."""

from __future__ import annotations

from typing import Any

from dreamer.envs.spec import Env
from dreamer.errors import UserError
from dreamer.tasks import split_tasks, suite_of


def make_env(
    task: str,
    *,
    action_repeat: int = 2,
    time_limit: int = 0,
    image: bool = True,
    state: bool = False,
    image_size: int = 64,
    camera: int = -1,
    shadow_size: int = 0,
    egl_device: int = -1,
    training: bool = False,
) -> Env:
    """Returns an environment in this process. One that renders must not share it with TensorFlow:
    `dreamer.envs.processes.pool.EnvPool` runs it in a process of its own.

    Args:
        task: `dmc_<domain>_<task>`, `atari_<game>`, `dmlab_<level>`, `gym_<EnvId>`,
            `module:function` or `path/to/file.py:function`.
        action_repeat: frames an action is held.
        time_limit: frames of an episode, 0 is the task's own.
        image: observe images of `image_size` pixels squared.
        state: observe the task's vectors.
        camera, shadow_size: DeepMind Control only, see `dreamer.envs.dmc.DMC`.
        egl_device: index of the GPU to render on, -1 is the driver's choice.
        training: the episodes are for learning, not for a score; Atari only, see
            `dreamer.envs.atari.Atari`.

    Raises:
        UserError: no such task, a package it needs is missing, or settings it cannot have.
    """
    if len(split_tasks(task)) > 1:
        raise UserError(f"{task} is several tasks, but an environment has one: use an EnvPool")
    least = {"action_repeat": 1, "time_limit": 0, "image_size": 1, "shadow_size": 0, "camera": -1}
    given = (action_repeat, time_limit, image_size, shadow_size, camera)
    for (name, bound), value in zip(least.items(), given, strict=True):
        if value < bound:
            raise UserError(f"envs.{name} is {value}, expected at least {bound}")
    common: dict[str, Any] = {
        "action_repeat": action_repeat, "time_limit": time_limit, "image": image, "state": state,
        "image_size": image_size,
    }  # fmt: skip
    suite = suite_of(task)
    if suite == "dmc":
        from dreamer.envs.dmc import make_dmc

        return make_dmc(
            task.removeprefix("dmc_"), camera=camera, shadow_size=shadow_size,
            egl_device=egl_device, **common,
        )  # fmt: skip
    if suite == "atari":
        from dreamer.envs.atari import make_atari

        return make_atari(task.removeprefix("atari_"), training=training, **common)
    if suite == "dmlab":
        from dreamer.envs.dmlab import DMLab

        return DMLab(task.removeprefix("dmlab_"), egl_device=egl_device, **common)
    if suite == "gym":
        from dreamer.envs.gym import make_gym

        return make_gym(task.removeprefix("gym_"), **common)
    from dreamer.envs.custom import make_custom

    return make_custom(task, **common)
