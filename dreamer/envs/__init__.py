"""Environments by task name. Nothing here imports TensorFlow, and nothing may."""

from __future__ import annotations

from typing import Any

from dreamer.envs.several import split_tasks
from dreamer.envs.spec import Env, Record, Space, make_record
from dreamer.errors import UserError, suggest

__all__ = ["SUITES", "Env", "Record", "Space", "make_env", "make_record", "suite_of"]

SUITES = ("dmc", "atari", "dmlab", "gym")


def suite_of(task: str) -> str:
    """Returns the suite of a task name: one of SUITES, or "custom" for `module:function`.

    Several tasks, `a,b,c`, must be of one suite, since its preset is that of them all.

    Raises:
        UserError: the name belongs to no suite, or several belong to different ones.
    """
    suites = {name: _suite_of_one(name) for name in split_tasks(task)}
    if len(set(suites.values())) > 1:
        listed = ", ".join(f"{name} of {suite}" for name, suite in suites.items())
        raise UserError(f"the tasks are of different suites ({listed}): choose one suite")
    return next(iter(suites.values()))


def _suite_of_one(task: str) -> str:
    suite, _, name = task.partition("_")
    place, colon, _ = task.rpartition(":")
    # gym_package:Name-v0 is Gymnasium's; gym_mine.py:make is a file that happens to be called so.
    if colon and (suite not in SUITES or place.endswith(".py")):
        return "custom"
    if suite not in SUITES or not name:
        raise UserError(
            f"unknown suite in task {task!r}{suggest(suite, SUITES)}; tasks are named "
            "dmc_<domain>_<task>, atari_<game>, dmlab_<level>, gym_<EnvId>, module:function or "
            "path/to/file.py:function"
        )
    return suite


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
    `dreamer.envs.pool.EnvPool` runs it in a process of its own.

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
        from dreamer.envs.gym_registry import make_gym

        return make_gym(task.removeprefix("gym_"), **common)
    from dreamer.envs.custom import make_custom

    return make_custom(task, **common)
