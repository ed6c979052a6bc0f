"""Films of what the agent does and of what its world model expects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dreamer.logs.logger import Logger
from dreamer.logs.video import open_loop_video, signed_difference, tile
from dreamer.training.collector import Episode

CONTEXT, IMAGINED = 5, 45  # timesteps, as in the paper's figure 5
# Of films of episodes, whatever a step of the task lasts: movements can be followed with the eye.
TIMESTEPS_PER_SECOND = 25
# A minute: a game of Atari may have 27,000 timesteps, whose frames as a GIF take gigabytes.
MOST_TIMESTEPS = 60 * TIMESTEPS_PER_SECOND
OPEN_LOOP_TIMESTEPS_PER_SECOND = 10  # slow enough to compare truth and model


def image_keys(arrays: Episode) -> list[str]:
    """Keys of uint8 arrays [..., H, W, C]."""
    return [k for k, v in arrays.items() if v.dtype == np.uint8 and v.ndim >= 4]


def film_evaluation(
    logger: Logger, episodes: Sequence[Episode], step: int, check: Callable[[], None]
) -> None:
    """Writes films of episodes, side by side: all of them, or their first minute.

    Each takes seconds, or more of many episodes: `check` may raise before any of them.
    """
    if not episodes:
        return
    for key in image_keys(episodes[0]):
        check()
        name = "eval/policy" if key == "image" else f"eval/policy_{key}"
        frames = tile([episode[key][:MOST_TIMESTEPS] for episode in episodes])
        logger.video(name, frames, step, TIMESTEPS_PER_SECOND)


def film_open_loop(
    logger: Logger, agent: Any, episodes: Sequence[Episode], step: int, check: Callable[[], None]
) -> None:
    """Writes open-loop predictions on held-out episodes: truth, model and error, and their errors.

    The model sees CONTEXT timesteps and imagines up to IMAGINED more from the actions alone. An
    agent without a model, which predicts nothing, is filmed in no such way. `check` may raise
    before it predicts and before any film.
    """
    check()
    batch = held_out_batch(episodes, CONTEXT + IMAGINED)
    if not batch:
        return
    result = agent.predict(batch, CONTEXT)
    if not result:
        return
    error = result["model/reward"] - result["truth/reward"]
    logger.scalars({"open_loop/reward_error": float(np.abs(error[:, CONTEXT:]).mean())})
    for key in image_keys({k: v for k, v in result.items() if k.startswith("model/")}):
        check()
        name = key.removeprefix("model/")
        truth, model = result[f"truth/{name}"], result[key]
        difference = model.astype(np.int16) - truth
        logger.scalars({f"open_loop/{name}_error": float(np.abs(difference[:, CONTEXT:]).mean())})
        film = open_loop_video(truth, model, signed_difference(truth, model), CONTEXT)
        logger.video(f"open_loop/{name}", film, step, OPEN_LOOP_TIMESTEPS_PER_SECOND)


def held_out_batch(episodes: Sequence[Episode], length: int) -> dict[str, np.ndarray]:
    """The first timesteps of several episodes as a batch [B, T, ...], T at most `length`.

    Episodes too short for one imagined step are left out; T is the shortest of the others.
    """
    usable = [e for e in episodes if len(e["reward"]) > CONTEXT + 1]
    if not usable:
        return {}
    length = min(length, *(len(e["reward"]) for e in usable))
    return {k: np.stack([e[k][:length] for e in usable]) for k in usable[0]}
