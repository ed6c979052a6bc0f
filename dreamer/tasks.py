"""Task names: the suites they belong to, several tasks in one name, and the lists of papers.

To add a suite, write its module and its preset, and add an entry to `SUITES`; a program outside
this package calls `register_suite`.
"""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamer.errors import UserError, suggest


def _named(suite: str, names: str) -> tuple[str, ...]:
    return tuple(f"{suite}_{name}" for name in names.split())


TASK_LISTS: dict[str, tuple[str, ...]] = {
    "dmc20": _named("dmc", "acrobot_swingup cartpole_balance cartpole_balance_sparse "
        "cartpole_swingup cartpole_swingup_sparse cheetah_run cup_catch finger_spin "
        "finger_turn_easy finger_turn_hard hopper_hop hopper_stand pendulum_swingup quadruped_run "
        "quadruped_walk reacher_easy reacher_hard walker_run walker_stand walker_walk"),
    "dmc6": _named(
        "dmc", "cartpole_swingup reacher_easy cheetah_run finger_spin cup_catch walker_walk"),
    "atari11": _named("atari", "assault boxing fishing_derby freeway frostbite hero ice_hockey "
        "kung_fu_master montezuma_revenge pong tennis"),
    "dmlab13": _named("dmlab", "collect collect_few compare doors_large doors_small explore_small "
        "find_large find_small keys lasertag_1 lasertag_3 recognize watermaze"),
}  # fmt: skip
"""The Dreamer paper's 20 control tasks in its order, PlaNet's six, the Atari games with published
scores, and the DeepMind Lab tasks of the published code."""


@dataclass(frozen=True)
class Suite:
    """A family of tasks. Their names are the suite's name, an underscore, and a name within it.

    The maker is `module:function` or `path/to/file.py:function`, which the workers import. It takes
    the name within the suite and an `EnvSettings`, and returns an `Env`, both of dreamer.envs.spec.
    """

    maker: str
    naming: str  # how tasks are named, for error messages
    preset: str  # the start of their configs: a name below configs/presets, or a .yaml file
    # Whether MuJoCo's OpenGL draws the images; optional: it may draw those of some tasks.
    opengl: Literal["required", "optional", "unused"] = "unused"
    uses: tuple[str, ...] = ()  # which keys of `_OF_SOME_SUITES` its maker uses

    def check(self, task: str, settings: Any) -> None:
        """Raises UserError if settings of environments are set that its maker would ignore."""
        for key in _OF_SOME_SUITES:
            if getattr(settings, key) and key not in self.uses:
                raise UserError(
                    f"envs.{key} is {getattr(settings, key)!r}, but {task} takes none; only "
                    "Gymnasium's tasks and environments of your own do: leave it out"
                )


_OF_SOME_SUITES = ("arguments", "flatten")  # keys of envs
SUITES = {
    "dmc": Suite("dreamer.envs.dmc:make_dmc", "dmc_<domain>_<task>", "dmc", "required"),
    "atari": Suite("dreamer.envs.atari:Atari", "atari_<game>", "atari"),
    "dmlab": Suite("dreamer.envs.dmlab:DMLab", "dmlab_<level>", "dmlab"),
    "gym": Suite("dreamer.envs.gym:make_gym", "gym_<EnvId>", "gym", "optional", _OF_SOME_SUITES),
}
_CUSTOM = Suite(
    "dreamer.envs.make:make_custom", "module:function", "gym", "optional", _OF_SOME_SUITES
)


def register_suite(name: str, suite: Suite) -> None:
    """Adds a suite for the rest of this process, so that tasks `<name>_...` are known.

    Its maker's module must be importable by the workers: they search where this process does.
    Raises UserError if the name has an underscore or a colon, or belongs to another suite.
    """
    if not name.isalnum() or name == "custom":
        raise UserError(f"a suite's name is {name!r}; expected letters and digits, not 'custom'")
    if SUITES.setdefault(name, suite) != suite:
        raise UserError(f"there is a suite {name!r} already: choose another name")


def find_suite(task: str) -> tuple[Suite, str]:
    """Returns the suite of one task, and the task's name within it. Raises as `suite_of`."""
    name = suite_of(task)
    return (_CUSTOM, task) if name == "custom" else (SUITES[name], task.removeprefix(f"{name}_"))


def suite_of(task: str) -> str:
    """Returns the name of a task's suite: a key of `SUITES`, or "custom" for `module:function`.

    Several tasks, `a,b,c`, must be of one suite, because they share its preset. Raises UserError
    if they are not, or a name belongs to no suite.
    """
    suites = {name: _suite_of_one(name) for name in split_tasks(task)}
    if len(set(suites.values())) > 1:
        listed = ", ".join(f"{name} of {suite}" for name, suite in suites.items())
        raise UserError(f"the tasks are of different suites ({listed}): choose one suite")
    return next(iter(suites.values()))


def suite_preset(task: str) -> str:
    """Returns the preset that configs of a task begin with. Raises UserError as `suite_of`."""
    return SUITES.get(suite_of(task), _CUSTOM).preset


def _suite_of_one(task: str) -> str:
    suite, _, name = task.partition("_")
    place, colon, _ = task.rpartition(":")
    # gym_package:Name-v0 is Gymnasium's; gym_mine.py:make is a file whose name begins with gym_.
    if colon and (suite not in SUITES or place.endswith(".py")):
        return "custom"
    if suite not in SUITES or not name:
        naming = ", ".join(suite.naming for suite in (*SUITES.values(), _CUSTOM))
        raise UserError(
            f"unknown suite in task {task!r}{_near(task)}; tasks are named {naming} or "
            "path/to/file.py:function"
        )
    return suite


def _near(task: str) -> str:
    """Returns a suggestion for a task without a suite, such as walker_walk; "" for none."""
    if task.endswith(".py"):
        try:
            body = ast.parse(Path(task).expanduser().read_text(encoding="utf-8")).body
        except (OSError, ValueError, SyntaxError):
            return f"; did you mean '{task}:function', which makes the environment?"
        named = [n.name for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        listed = " or ".join(repr(f"{task}:{name}") for name in named[:5])
        return f"; did you mean {listed}?" if named else f"; {task} has no function or class"
    if re.fullmatch(r"([\w-]+[:/])?[\w-]+-v\d+", task):
        return f"; did you mean 'gym_{task}'?"
    known = [name for names in TASK_LISTS.values() for name in names]
    tails = {name.partition("_")[2]: name for name in known}
    if near := difflib.get_close_matches(task.lower(), tails, n=1, cutoff=0.7):
        return f"; did you mean {tails[near[0]]!r}?"
    return suggest(task.partition("_")[0], SUITES)


def split_tasks(task: str) -> list[str]:
    """Returns the names in `a,b,c`; UserError if one is empty or occurs twice."""
    if "," not in task:
        return [task]
    tasks = [name.strip() for name in task.split(",")]
    if "" in tasks or len(set(tasks)) < len(tasks):
        raise UserError(f"task is {task!r}; expected a name, or different names as in a,b,c")
    return tasks
