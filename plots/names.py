"""What tasks and methods are called, and the order in which papers show them."""

from __future__ import annotations

from collections.abc import Iterable

from dreamer.errors import UserError, suggest
from dreamer.tasks import TASK_LISTS

SUITES = TASK_LISTS

_PREFIXES = ("dmc", "atari", "dmlab", "gym")
_BARE = {task.partition("_")[2]: task for task in SUITES["dmc20"] + SUITES["atari11"]}

_LABELS = {
    "dreamer": "Dreamer, paper",
    "dreamer_tf2_release": "Dreamer, TF2 release",
    "planet": "PlaNet, paper",
    "planet_1000_episodes": "PlaNet, its own paper",
    "d4pg": "D4PG, images",
    "a3c": "A3C, states",
    "dreamerv2": "DreamerV2",
    "dreamerv3": "DreamerV3",
    "drqv2": "DrQ-v2",
    "sac": "SAC, images",
    "curl": "CURL",
    "tdmpc2": "TD-MPC2",
    "slac": "SLAC",
    "dqn": "DQN",
    "rainbow": "Rainbow",
    "simple": "SimPLe",
    "human": "Human gamer",
    "random": "Random play",
    "no_value": "No value function",
    "reconstruction": "Reconstruction",
    "contrastive": "Contrastive",
    "reward_only": "Reward only",
}


def task_name(word: str) -> str | None:
    """Returns the task's full name (``dmc_walker_walk``) if `word` names a task, else None.

    Understands names with a suite's prefix, the bare names of the published tasks
    (``walker_walk``) and dm_control's own name of cup_catch.
    """
    word = word.replace("ball_in_cup_catch", "cup_catch")
    if word in _BARE:
        return _BARE[word]
    suite, _, rest = word.partition("_")
    return word if suite in _PREFIXES and rest else None


def suite_of(task: str) -> str:
    """Returns the suite of a full task name: ``dmc`` of ``dmc_walker_walk``, ``""`` if none."""
    suite, _, rest = task.partition("_")
    return suite if suite in _PREFIXES and rest else ""


def task_title(task: str) -> str:
    """Returns the heading of a task's panel: ``Walker Walk`` of ``dmc_walker_walk``."""
    names = []
    for part in task.split("+"):  # the folder of an agent of several tasks
        suite = suite_of(part)
        names.append(part[len(suite) + 1 :] if suite in ("dmc", "atari") else part)
    return " + ".join(names).replace("_", " ").title()


def published_label(method: str) -> str:
    """Returns how a published method is called in legends."""
    return _LABELS.get(method, method)


def in_order(tasks: Iterable[str]) -> list[str]:
    """Returns the tasks without repeats: control tasks first, in the paper's order."""
    rank = {task: i for i, task in enumerate(SUITES["dmc20"] + SUITES["atari11"])}
    return sorted(set(tasks), key=lambda task: (rank.get(task, len(rank)), task))


def suite_gaps(tasks: Iterable[str]) -> list[str]:
    """Says which tasks are missing of the suites that `tasks` hold more than half of, but not all.

    Of a suite that is part of another one said (dmc6 of dmc20), nothing.
    """
    there, told, said = set(tasks), set[str](), []
    for name, suite in sorted(SUITES.items(), key=lambda item: -len(item[1])):
        absent = [task for task in suite if task not in there]
        if absent and len(absent) < len(suite) / 2 and not set(suite) <= told:
            told |= set(suite)
            said.append(f"{len(suite) - len(absent)} of {name}'s {len(suite)} tasks have results; "
                        f"missing: {', '.join(absent)}.")
    return said


def choose(words: Iterable[str], known: Iterable[str], what: str) -> list[str]:
    """Returns `words` without repeats, each of which must be among `known`.

    Raises:
        UserError: a word that is not known, with the nearest known one.
    """
    known, chosen = list(known), list(dict.fromkeys(words))
    for word in chosen:
        if word not in known:
            listed = ", ".join(known[:30]) + (", ..." if len(known) > 30 else "")
            raise UserError(f"Unknown {what} {word!r}{suggest(word, known)}. Known: {listed}.")
    return chosen
