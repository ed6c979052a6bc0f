"""Task names: their suites, several tasks in one name, and the lists that papers report."""

from __future__ import annotations

from dreamer.errors import UserError, suggest

_DMC20 = (
    "acrobot_swingup", "cartpole_balance", "cartpole_balance_sparse", "cartpole_swingup",
    "cartpole_swingup_sparse", "cheetah_run", "cup_catch", "finger_spin", "finger_turn_easy",
    "finger_turn_hard", "hopper_hop", "hopper_stand", "pendulum_swingup", "quadruped_run",
    "quadruped_walk", "reacher_easy", "reacher_hard", "walker_run", "walker_stand", "walker_walk",
)  # fmt: skip
_DMC6 = (
    "cartpole_swingup", "reacher_easy", "cheetah_run", "finger_spin", "cup_catch", "walker_walk",
)  # fmt: skip
_ATARI11 = (
    "assault", "boxing", "fishing_derby", "freeway", "frostbite", "hero", "ice_hockey",
    "kung_fu_master", "montezuma_revenge", "pong", "tennis",
)  # fmt: skip
_DMLAB = (
    "collect", "collect_few", "compare", "doors_large", "doors_small", "explore_small",
    "find_large", "find_small", "keys", "lasertag_1", "lasertag_3", "recognize", "watermaze",
)  # fmt: skip

TASK_LISTS: dict[str, tuple[str, ...]] = {
    "dmc20": tuple(f"dmc_{name}" for name in _DMC20),
    "dmc6": tuple(f"dmc_{name}" for name in _DMC6),
    "atari11": tuple(f"atari_{name}" for name in _ATARI11),
    "dmlab13": tuple(f"dmlab_{name}" for name in _DMLAB),
}
"""The Dreamer paper's 20 control tasks in its order, PlaNet's six, the Atari games with published
scores, and the DeepMind Lab tasks of the published code."""

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


def split_tasks(task: str) -> list[str]:
    """Returns the names in `a,b,c`, which is how the tasks of one agent are given.

    Raises:
        UserError: an empty name, or one twice.
    """
    if "," not in task:
        return [task]
    tasks = [name.strip() for name in task.split(",")]
    if "" in tasks or len(set(tasks)) < len(tasks):
        raise UserError(f"task is {task!r}; expected a name, or different names as in a,b,c")
    return tasks
