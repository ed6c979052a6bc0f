"""Names of tasks and methods, their order, and numbers as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dreamer.errors import UserError, suggest
from dreamer.tasks import SUITES, TASK_LISTS

_PAPER_TASKS = TASK_LISTS["dmc20"] + TASK_LISTS["atari11"]
_WITHOUT_SUITE = {task.partition("_")[2]: task for task in _PAPER_TASKS}

_PUBLISHED = {
    "dreamer": "Dreamer, paper", "dreamer_tf2_release": "Dreamer, TF2 release",
    "planet": "PlaNet, paper", "planet_1000_episodes": "PlaNet, its own paper",
    "d4pg": "D4PG, images", "a3c": "A3C, states", "sac": "SAC, images",
    "dreamerv3_states": "DreamerV3, states", "d4pg_states": "D4PG, states",
    "dreamerv2": "DreamerV2", "dreamerv3": "DreamerV3", "drqv2": "DrQ-v2", "curl": "CURL",
    "tdmpc2": "TD-MPC2", "slac": "SLAC", "dqn": "DQN", "rainbow": "Rainbow", "simple": "SimPLe",
    "human": "Human gamer", "random": "Random play", "no_value": "No value function",
    "reconstruction": "Reconstruction", "contrastive": "Contrastive", "reward_only": "Reward only",
}


def task_name(word: str) -> str | None:
    """Returns the full name (``dmc_walker_walk``) of a task, None if `word` names no task.

    Tasks of papers need no prefix (``walker_walk``); ``ball_in_cup_catch`` is dm_control's name.
    """
    word = word.replace("ball_in_cup_catch", "cup_catch")
    return _WITHOUT_SUITE.get(word) or (word if suite_of(word) else None)


def suite_of(task: str) -> str:
    """Returns the suite of a full task name: ``dmc`` of ``dmc_walker_walk``, ``""`` if none."""
    suite, _, rest = task.partition("_")
    return suite if suite in SUITES and rest else ""


def task_title(task: str) -> str:
    """Returns the title of a task's panel: ``Walker Walk`` for ``dmc_walker_walk``.

    Names that are not a paper's stay as they are: ``CartPole-v1``, ``own_env.py:Reach``.
    """
    titles = []
    for part in task.split("+"):  # several tasks
        suite = suite_of(part)
        if suite in ("dmc", "atari", "dmlab"):
            titles.append(part.removeprefix(f"{suite}_").replace("_", " ").title())
        else:  # a folder's name has _ for :
            titles.append(re.sub(r"\.py_(?=\w+$)", ".py:", part.removeprefix("gym_")))
    return " + ".join(titles)


def published_label(method: str) -> str:
    """Returns the name of a published method for legends."""
    return _PUBLISHED.get(method, method)


def in_order(tasks: Iterable[str]) -> list[str]:
    """Returns the tasks without repeats: control tasks first, in the paper's order."""
    rank = {task: i for i, task in enumerate(_PAPER_TASKS)}
    return sorted(set(tasks), key=lambda task: (rank.get(task, len(rank)), task))


def suite_gaps(tasks: Iterable[str]) -> list[str]:
    """Names the missing tasks of each suite if `tasks` has more than half of it, but not all.

    A list that is part of a list already named (dmc6 is part of dmc20) gives no message.
    """
    present, named, messages = set(tasks), set[str](), []
    for name, suite in sorted(TASK_LISTS.items(), key=lambda item: -len(item[1])):
        absent = [task for task in suite if task not in present]
        if 0 < len(absent) < len(suite) / 2 and not named.issuperset(suite):
            named |= set(suite)
            messages.append(f"{len(suite) - len(absent)} of {name}'s {len(suite)} tasks have "
                            f"results; missing: {', '.join(absent)}.")
    return messages


def choose(words: Iterable[str], known: Iterable[str], what: str) -> list[str]:
    """Returns `words` without repeats. Each word must be one of `known`.

    Raises:
        UserError: a word is not known. The message suggests the nearest known word.
    """
    known, chosen = list(known), list(dict.fromkeys(words))
    for word in chosen:
        if word not in known:
            raise UserError(f"Unknown {what} {word!r}{suggest(word, known)}. Known: "
                            f"{listed(known, 30)}.")
    return chosen


def listed(words: Sequence[str], most: int = 6) -> str:
    """Returns the first `most` words, and says how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def short_frames(frames: float) -> str:
    """Returns a number of frames to three digits: ``5M``, ``250k`` or ``0``."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if round(frames / unit, 3) >= 1:
            return f"{frames / unit:.3g}{name}"
    return f"{frames:.3g}"


def frames_range(frames: Iterable[float]) -> str:
    """Returns the range of the frames above 0: ``300k``, ``200k-300k``, or ``""`` if none."""
    known = sorted(value for value in frames if value)
    return "-".join(dict.fromkeys(map(short_frames, known[:1] + known[-1:])))


def short_score(score: float) -> str:
    """Returns a score with one decimal, or with three decimals if it is below 10."""
    return f"{score:.1f}" if abs(score) >= 10 else f"{score:.3f}"
