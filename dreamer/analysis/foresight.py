"""What a model foresees along whole episodes, beside what came: rewards, values, returns.

A value, and so a return, includes the reward of its own timestep, as everywhere. At a time limit
the value of the last state stands for what would follow. Where a return rests for more than half
on that value, it judges nothing, so `Foresight.judged` is false there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamer.training.collector import Episode

LONGEST = 1000  # timesteps of an episode that are looked at


@dataclass(frozen=True)
class Foresight:
    """One episode of L timesteps. From n of them, `starts`, the model imagines H steps.

    Imagined arrays are [n, 1 + H], the start first, and NaN beyond the episode's end. Rewards are
    on the scale that the model learns. Without a value network, values and returns are None.
    """

    truth: np.ndarray  # [L], the rewards that came
    reward: np.ndarray  # [L], as the model sees them once it has observed the timestep
    starts: np.ndarray  # [n]
    imagined: np.ndarray  # rewards
    value: np.ndarray | None = None  # [L], of the observed states
    imagined_value: np.ndarray | None = None
    imagined_return: np.ndarray | None = None  # [n], H imagined rewards and the value after them
    returns: np.ndarray | None = None  # [L], discounted rewards that came
    judged: np.ndarray | None = None  # bool [L]


def foresee(
    agent: Any, episodes: Sequence[Episode], context: int, horizon: int, gamma: float
) -> list[Foresight]:
    """Returns what an agent foresees along episodes.

    The model imagines from timestep `context` on, five times in each `horizon` steps; `gamma` is
    the config's.
    """
    lengths = [len(episode["reward"]) for episode in episodes]
    # Zeros follow each episode, and whole pieces of 50 timesteps are filtered fastest.
    total = -(-(max(lengths) + horizon) // 50) * 50
    batch = {
        key: np.stack([_padded(episode[key], total) for episode in episodes]) for key in episodes[0]
    }
    starts = np.arange(context - 1, max(lengths) - 1, max(1, horizon // 5))
    expected = agent.foresee(batch, starts.tolist(), horizon)
    found = []
    for i, (episode, length) in enumerate(zip(episodes, lengths, strict=True)):
        inside = starts < length - 1
        own = {k: v[i, inside] if "/" in k else v[i, :length] for k, v in expected.items()}
        found.append(_foresight(own, episode, starts[inside], gamma))
    return found


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    """Appends timesteps of zeros to an episode's array [L, ...]."""
    return np.concatenate([array, np.zeros((length - len(array), *array.shape[1:]), array.dtype)])


def _foresight(
    expected: Mapping[str, np.ndarray], episode: Episode, starts: np.ndarray, gamma: float
) -> Foresight:
    length = len(episode["reward"])
    steps = expected["imagined/reward"].shape[1]
    inside = starts[:, None] + np.arange(steps) < length

    def cut(name: str) -> np.ndarray:
        return np.where(inside, expected[f"imagined/{name}"], np.nan)

    truth, reward = expected["truth"], expected["reward"]
    if "value" not in expected:
        return Foresight(truth, reward, starts, cut("reward"))
    value, factors = expected["value"], gamma * episode["cont"].astype(np.float64)
    returns, rest = truth.astype(np.float64), np.ones(length)  # rest: the last value's weight
    ended = factors[-1] == 0.0
    returns[-1], rest[-1] = (truth[-1], 0.0) if ended else (value[-1], 1.0)
    for t in range(length - 2, -1, -1):
        returns[t] += factors[t] * returns[t + 1]
        rest[t] = factors[t] * rest[t + 1]
    imagined, weight = cut("reward"), np.cumprod(expected["imagined/pcont"], 1)
    weight = np.concatenate([np.ones((len(starts), 1)), weight[:, :-1]], 1)
    values = cut("value")
    found = (weight * imagined)[:, :-1].sum(1) + (weight * values)[:, -1]  # NaN beyond the end
    return Foresight(
        truth, reward, starts, imagined, value, values, found, returns, judged=rest <= 0.5
    )


@dataclass(frozen=True)
class Calibration:
    """Predictions of one kind beside what came; both [N]."""

    name: str
    predicted: np.ndarray
    came: np.ndarray

    def statistics(self) -> dict[str, float | int | None]:
        """Returns the number of predictions, their mean error (bias), its root mean square, the
        correlation, and the slope of what came over what was predicted; None if undefined."""
        error = self.predicted - self.came
        spread = len(error) > 1 and self.predicted.std() > 0 and self.came.std() > 0
        correlation = float(np.corrcoef(self.predicted, self.came)[0, 1]) if spread else None
        slope = None
        if correlation is not None:
            slope = correlation * float(self.came.std() / self.predicted.std())
        return {
            "count": len(error), "bias": float(error.mean()) if len(error) else None,
            "rmse": float(np.sqrt(np.mean(error**2))) if len(error) else None,
            "correlation": correlation, "slope": slope,
        }  # fmt: skip


def calibrations(foresights: Sequence[Foresight], horizon: int) -> list[Calibration]:
    """Returns the predictions of all episodes: the rewards of the next steps, and the returns."""
    sums, rows = [], []
    for one in foresights:
        cumulated = np.concatenate([[0.0], np.cumsum(one.truth, dtype=np.float64)])
        whole = one.starts + horizon < len(one.truth)
        first = one.starts[whole] + 1
        sums.append((one.imagined[whole, 1:].sum(1), cumulated[first + horizon] - cumulated[first]))
        if one.returns is not None and one.value is not None and one.judged is not None:
            at = one.starts
            assert one.imagined_return is not None
            usable = one.judged[at] & np.isfinite(one.imagined_return)
            rows.append((one.value[one.judged], one.returns[one.judged],
                         one.imagined_return[usable], one.returns[at][usable]))  # fmt: skip
    found = [Calibration(f"reward of the next {horizon} steps", *_joined(sums))]
    if rows:
        values, came, imagined, after = _joined(rows)
        found.append(Calibration("return: value network", values, came))
        found.append(Calibration(f"return: {horizon} steps imagined", imagined, after))
    return found


def _joined(rows: Sequence[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    return [np.concatenate(column) for column in zip(*rows, strict=True)]
