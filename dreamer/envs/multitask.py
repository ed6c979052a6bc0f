"""Several tasks in one agent: their names, the spaces they share, and what fits each to them.

As in PlaNet (arXiv 1811.04551, section 5), actions are padded to the largest action space, and the
agent is not told which task it is in, unless `envs.tell_task` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dreamer.envs.spec import Env, Space, Timestep
from dreamer.envs.wrappers import Wrapper
from dreamer.errors import UserError

#: Observation that tells the task, a one-hot vector in the order in which the tasks are named.
TASK_KEY = "task"


def assign(tasks: Sequence[str], num_envs: int) -> list[str]:
    """Returns the task of each of `num_envs` workers, in turn.

    Raises:
        UserError: some tasks would have more workers than others, or none.
    """
    if num_envs % len(tasks):
        raise UserError(
            f"{num_envs} environments for {len(tasks)} tasks: expected envs.num_envs and "
            f"eval.num_envs to be 1 (which means one a task) or a multiple of {len(tasks)}"
        )
    return [tasks[worker % len(tasks)] for worker in range(num_envs)]


def shared_actions(spaces: Mapping[str, Space]) -> Space:
    """Returns the largest of the tasks' action spaces, which must be of one kind.

    Raises:
        UserError: some are continuous, others one-hot.
    """
    if len({space.discrete for space in spaces.values()}) > 1:
        kinds = {True: "one-hot", False: "continuous"}
        listed = ", ".join(f"{task} {kinds[space.discrete]}" for task, space in spaces.items())
        raise UserError(f"the tasks' actions are of different kinds ({listed}): choose one kind")
    return max(spaces.values(), key=lambda space: space.shape[0])


def shared_observations(spaces: Mapping[str, Mapping[str, Space]]) -> dict[str, Space]:
    """Returns observations that hold those of every task.

    Float vectors get the length of the longest, 0 where a task has none of that name. Everything
    else, as images, must be the same in all tasks.

    Raises:
        UserError: it is not.
    """
    shared: dict[str, Space] = {}
    for key in dict.fromkeys(key for each in spaces.values() for key in each):
        found = {task: each.get(key) for task, each in spaces.items()}
        given = [space for space in found.values() if space is not None]
        if len(given) == len(found) and all(space == given[0] for space in given):
            shared[key] = given[0]
        elif all(space.dtype == np.float32 and len(space.shape) == 1 for space in given):
            longest = max(space.shape[0] for space in given)
            shared[key] = Space((longest,), np.dtype(np.float32))
        else:
            shapes = ", ".join(
                f"{task} {f'{space.dtype} {list(space.shape)}' if space else 'none'}"
                for task, space in found.items()
            )
            raise UserError(
                f"the tasks' observation {key!r} differs ({shapes}), and only float vectors can be "
                "padded: choose tasks, or envs.image and envs.state, such that it does not"
            )
    return shared


def spaces_of(reply: Mapping[str, Any]) -> tuple[dict[str, Space], Space]:
    """Returns the observation and action spaces in a worker's description of its environment."""
    obs_space = {key: Space.from_json(space) for key, space in reply["obs_space"].items()}
    return obs_space, Space.from_json(reply["act_space"])


def shared_info(replies: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the first worker's info, its time limit being the longest of all, 0 for none."""
    info = dict(replies[0]["info"])
    if "time_limit" in info:
        limits = [int(reply["info"].get("time_limit", 0)) for reply in replies]
        info["time_limit"] = str(max(limits) if all(limits) else 0)
    return info


def share_requests(
    tasks: Sequence[str], replies: Sequence[Mapping[str, Any]], tell_task: bool
) -> list[dict[str, Any]]:
    """Returns the request that fits each worker's environment to the spaces that all share.

    Args:
        tasks: of each worker.
        replies: each worker's description of its environment.
        tell_task: whether to observe which task it is.

    Raises:
        UserError: the tasks cannot share them, or hold actions for different numbers of frames.
    """
    names = list(dict.fromkeys(tasks))
    repeats = {name: reply["action_repeat"] for name, reply in zip(tasks, replies, strict=True)}
    if len(set(repeats.values())) > 1:
        raise UserError(f"the tasks hold actions for different numbers of frames: {repeats}")
    spaces = {name: spaces_of(reply) for name, reply in zip(tasks, replies, strict=True)}
    observed = shared_observations({name: obs for name, (obs, _) in spaces.items()})
    request = {
        "kind": "share",
        "obs_space": {key: space.to_json() for key, space in observed.items()},
        "act_space": shared_actions({name: act for name, (_, act) in spaces.items()}).to_json(),
    }
    return [
        {**request, "place": [names.index(name), len(names)] if tell_task else None}
        for name in tasks
    ]


class Padded(Wrapper):
    """One of several tasks, in the spaces that they share.

    Vectors are filled up with zeros. Of continuous actions the first elements are used. One-hot
    actions beyond the task's own begin again with its first, so that random ones stay uniform or
    nearly so.

    Args:
        env: the task.
        obs_space, act_space: what `shared_observations` and `shared_actions` gave.
        place: (number of the task, number of tasks) to tell as the observation TASK_KEY; None to
            leave it out.

    Raises:
        UserError: the task has an observation of that name itself.
    """

    def __init__(
        self, env: Env, obs_space: Mapping[str, Space], act_space: Space,
        place: tuple[int, int] | None = None,
    ):  # fmt: skip
        super().__init__(env)
        self.obs_space, self.act_space = dict(obs_space), act_space
        self._told: dict[str, np.ndarray] = {}
        if place is not None:
            if TASK_KEY in obs_space:
                raise UserError(
                    f"envs.tell_task adds an observation {TASK_KEY!r}, but the tasks have one of "
                    "that name: rename it, or leave envs.tell_task false"
                )
            number, num_tasks = place
            self._told = {TASK_KEY: np.eye(num_tasks, dtype=np.float32)[number]}
            self.obs_space[TASK_KEY] = Space((num_tasks,), np.dtype(np.float32), 0.0, 1.0)

    def reset(self, seed: int | None = None) -> Timestep:
        return self._fill(self.env.reset(seed))

    def step(self, action: np.ndarray) -> Timestep:
        self.act_space.check(action, "action")
        own = self.env.act_space.shape[0]
        if self.act_space.discrete:
            return self._fill(self.env.step(np.eye(own, dtype=np.float32)[action.argmax() % own]))
        return self._fill(self.env.step(action[:own].copy()))

    def _fill(self, timestep: Timestep) -> Timestep:
        filled = {**timestep, **{key: value.copy() for key, value in self._told.items()}}
        for key, space in self.obs_space.items():
            value = filled.get(key)
            if value is None or value.shape != space.shape:
                filled[key] = np.zeros(space.shape, space.dtype)
                if value is not None:
                    filled[key][: len(value)] = value
        return filled
