"""Several tasks for one agent: the spaces that they share, and the wrapper that pads each task.

As in PlaNet (arXiv 1811.04551, section 5), actions are padded to the largest action space. The
agent does not observe which task it plays, unless `envs.tell_task` is set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dreamer.envs.spec import (
    Env,
    Space,
    Timestep,
    check_timestep,
    spaces_from_json,
    spaces_to_json,
)
from dreamer.envs.wrappers import Wrapper
from dreamer.errors import UserError

#: Key of the observation that tells the task: one-hot, in the order of the tasks' names.
TASK_KEY = "task"


def assign(tasks: Sequence[str], num_envs: int) -> list[str]:
    """Returns each worker's task; UserError if some tasks would have more workers than others."""
    if num_envs % len(tasks):
        raise UserError(
            f"{num_envs} environments for {len(tasks)} tasks: expected envs.num_envs and "
            f"eval.num_envs to be 1 (which means one a task) or a multiple of {len(tasks)}"
        )
    return [tasks[worker % len(tasks)] for worker in range(num_envs)]


def shared_actions(spaces: Mapping[str, Space]) -> Space:
    """Returns the largest action space; UserError if the spaces are of different kinds."""
    if len({space.discrete for space in spaces.values()}) > 1:
        kinds = {True: "one-hot", False: "continuous"}
        listed = ", ".join(f"{task} {kinds[space.discrete]}" for task, space in spaces.items())
        raise UserError(f"the tasks' actions are of different kinds ({listed}): choose one kind")
    parts = {task: space.parts for task, space in spaces.items()}
    if len(set(parts.values())) > 1:
        raise UserError(
            f"the tasks' actions consist of different one-hot vectors ({parts}), and only single "
            "ones can be padded: choose tasks whose actions are the same"
        )
    return max(spaces.values(), key=lambda space: space.shape[0])


def shared_observations(spaces: Mapping[str, Mapping[str, Space]]) -> dict[str, Space]:
    """Returns the observation spaces that all tasks are padded to.

    A float vector gets the length of the longest task's; a task without it observes zeros. All
    other observations, such as images, must be the same in all tasks; else this raises UserError.
    """
    shared: dict[str, Space] = {}
    for key in dict.fromkeys(key for each in spaces.values() for key in each):
        given = {task: each.get(key) for task, each in spaces.items()}
        found = [space for space in given.values() if space]
        if all(space == found[0] for space in given.values()):
            shared[key] = found[0]
        elif all(space.dtype == np.float32 and len(space.shape) == 1 for space in found):
            shared[key] = Space(max(space.shape for space in found), np.dtype(np.float32))
        else:
            shapes = ", ".join(
                f"{task} {f'{space.dtype} {list(space.shape)}' if space else 'none'}"
                for task, space in given.items()
            )
            raise UserError(
                f"the tasks' observation {key!r} differs ({shapes}), and only float vectors can be "
                "padded: choose tasks, or envs.image and envs.state, such that it does not"
            )
    return shared


def shared_info(infos: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Returns the first worker's info, with all workers' notes and their longest time limit.

    The limit is 0 if a worker has none.
    """
    shared = dict(infos[0])
    notes = [note for info in infos for note in info.get("notes", "").splitlines()]
    if notes:
        shared["notes"] = "\n".join(dict.fromkeys(notes))
    if "time_limit" in shared:
        limits = [int(info.get("time_limit", 0)) for info in infos]
        shared["time_limit"] = str(max(limits) if all(limits) else 0)
    return shared


def share_requests(
    tasks: Sequence[str], replies: Sequence[Mapping[str, Any]], tell_task: bool
) -> list[dict[str, Any]]:
    """Returns the request for each worker that pads its environment to the shared spaces.

    `tasks` and `replies` are the workers' tasks and descriptions of their environments. UserError
    if the tasks cannot share spaces, or hold actions for different numbers of frames.
    """
    by_task = dict(zip(tasks, replies, strict=True))
    repeats = {name: reply["action_repeat"] for name, reply in by_task.items()}
    if len(set(repeats.values())) > 1:
        raise UserError(f"the tasks hold actions for different numbers of frames: {repeats}")
    spaces = {name: spaces_from_json(reply) for name, reply in by_task.items()}
    observed = shared_observations({name: obs for name, (obs, _) in spaces.items()})
    actions = shared_actions({name: act for name, (_, act) in spaces.items()})
    request = {"kind": "share", **spaces_to_json(observed, actions)}
    numbers = {name: [number, len(by_task)] for number, name in enumerate(by_task)}
    return [{**request, "task": numbers[name] if tell_task else None} for name in tasks]


class Padded(Wrapper):
    """One of several tasks, padded to the spaces that they share.

    Vectors are padded with zeros. A continuous action's first elements are used. One-hot actions
    beyond the task's own start again with its first action, so that random actions stay uniform or
    nearly so.

    Args:
        env: The task's environment.
        obs_space, act_space: Results of `shared_observations` and `shared_actions`.
        task: (index of the task, number of tasks), observed as TASK_KEY, which must not be the
            name of an observation (UserError); None: not observed.
    """

    def __init__(
        self, env: Env, obs_space: Mapping[str, Space], act_space: Space,
        task: Sequence[int] | None = None,
    ):  # fmt: skip
        super().__init__(env)
        self.obs_space, self.act_space, self._task = dict(obs_space), act_space, task
        if task is None:
            return
        if TASK_KEY in obs_space:
            raise UserError(
                f"envs.tell_task adds an observation {TASK_KEY!r}, but the tasks have one of that "
                "name: rename it, or leave envs.tell_task false"
            )
        self.obs_space[TASK_KEY] = Space((task[1],), np.dtype(np.float32), 0.0, 1.0)

    def reset(self, seed: int | None = None) -> Timestep:
        return self._pad(self.env.reset(seed))

    def step(self, action: np.ndarray) -> Timestep:
        self.act_space.check(action, "action")
        own = self.env.act_space.shape[0]
        if self.act_space.discrete and not self.act_space.parts:
            return self._pad(self.env.step(np.eye(own, dtype=np.float32)[action.argmax() % own]))
        return self._pad(self.env.step(action[:own].copy()))

    def _pad(self, timestep: Timestep) -> Timestep:
        check_timestep(timestep, self.env.obs_space)  # padding would hide a wrong shape
        padded = dict(timestep)
        for key, space in self.obs_space.items():
            value = timestep.get(key, np.zeros(0, np.float32))
            if value.shape != space.shape:
                padded[key] = np.zeros(space.shape, space.dtype)
                padded[key][: len(value)] = value
        if self._task is not None:
            padded[TASK_KEY][self._task[0]] = 1.0
        return padded
