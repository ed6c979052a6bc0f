"""A memory of the newest timesteps, drawn as n-step transitions, uniformly or by priority.

dreamer.data.replay keeps every episode on disk and draws sequences. Agents that make thousands of
small updates from single transitions need them faster than files can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from baselines.observations import Arrays, Observations

EPSILON = 1e-6  # keeps every transition's priority above zero


@dataclass(eq=False, kw_only=True)
class Transitions:
    """A ring of timesteps, and n-step transitions from them.

    From a timestep t that is not its episode's last, m = min(n, timesteps after t):

        return_t = sum over k = 1..m of gamma^(k-1) r_(t+k),   factor_t = gamma^m cont_(t+m)

    so the target of Q(o_t, a_(t+1)) is return_t + factor_t Q(o_(t+m), ...). At a terminal cont is
    0. At a time limit cont is 1, and the value of the last observation counts.

    With a priority exponent alpha > 0, transition i is drawn with P(i) = p_i^alpha / sum p^alpha
    and has the weight (N P(i))^-beta, divided by the batch's largest weight (arXiv 1511.05952). New
    transitions have the largest priority so far. Priorities are not saved: after a resume all are
    equal.
    """

    observations: Observations  # packs the observations
    actions: int  # A
    capacity: int  # timesteps held; the oldest are dropped first
    n: int  # steps of a return
    gamma: float  # discount of a step
    alpha: float  # exponent of the priorities; 0: uniform draws
    beta: float  # exponent of the weights
    seed: int  # of the draws
    reward_bound: float = np.inf  # rewards are clipped to [-bound, bound]

    def __post_init__(self) -> None:
        shapes = {"action": (self.actions,), "reward": (), "cont": ()}
        # The kernel gives memory page by page when it is written, not now.
        self._timesteps: Arrays = {
            key: np.empty((self.capacity, *shape), np.uint8 if key == "image" else np.float32)
            for key, shape in {**self.observations.timestep_shapes, **shapes}.items()
        }
        self._before = np.zeros(self.capacity, np.int64)  # timesteps of its episode before each
        self._after = np.zeros(self.capacity, np.int64)
        self._masses = np.zeros(self.capacity)  # p^alpha of the transition that begins at each
        self._written = 0
        self._largest = 1.0

    def __len__(self) -> int:
        return min(self._written, self.capacity)

    def add(self, episode: Mapping[str, np.ndarray]) -> None:
        """Adds a complete episode [L, ...], or its end if it is longer than the memory."""
        packed = {**self.observations.pack(episode), **{k: episode[k] for k in ("action", "cont")}}
        packed["reward"] = np.clip(episode["reward"], -self.reward_bound, self.reward_bound)
        length = len(episode["reward"])
        kept = slice(max(0, length - self.capacity), length)
        count = kept.stop - kept.start
        slots = (self._written + np.arange(count)) % self.capacity
        for key, array in self._timesteps.items():
            array[slots] = packed[key][kept]
        self._before[slots] = np.arange(count)
        self._after[slots] = count - 1 - np.arange(count)
        self._written += count
        # No transition begins at an episode's last timestep, or where frames are gone.
        self._masses[slots] = np.where(self._after[slots] > 0, self._largest**self.alpha, 0.0)
        self._masses[(self._written + np.arange(self._worn)) % self.capacity] = 0.0

    @property
    def _worn(self) -> int:
        """Number of oldest timesteps of a full ring whose earlier frames may be gone."""
        return self.observations.frames - 1 if self._written > self.capacity else 0

    def sample(self, first: int, count: int, batch_size: int) -> Arrays:
        """Draws the batches of updates `first` to `first + count - 1` together.

        Returns:
            Arrays [count, B, ...]: image and vector (those that there are), next_image,
            next_vector, action [count, B, A], return, factor, weight; and index, for `prioritise`.
        """
        rng = np.random.default_rng([self.seed, first])
        total = count * batch_size
        weight = np.ones(total)
        if self.alpha > 0:
            strata = np.tile(np.arange(batch_size), count)
            slots = draw(self._masses, (strata + rng.random(total)) / batch_size)
            weight = self._masses[slots] ** -self.beta
        else:
            slots = self._uniform(rng, total)
        batch = {**self._gather(slots), "index": slots, "weight": weight}
        batch = {k: v.reshape(count, batch_size, *v.shape[1:]) for k, v in batch.items()}
        weight = batch["weight"]
        return {**batch, "weight": (weight / weight.max(-1, keepdims=True)).astype(np.float32)}

    def prioritise(self, index: np.ndarray, errors: np.ndarray) -> None:
        """Sets the priorities of drawn transitions to |error|, if there are priorities."""
        slots, priority = index.reshape(-1), np.abs(errors.reshape(-1)) + EPSILON
        sound = np.isfinite(priority)  # an update that is not finite changes nothing
        slots, priority = slots[sound], priority[sound]
        self._largest = max(self._largest, float(priority.max(initial=0.0)))
        self._masses[slots] = np.where(self._masses[slots] > 0, priority**self.alpha, 0.0)

    def _uniform(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Returns slots of transitions, each equally likely; draws again where none begins."""
        oldest = self._written - len(self) + self._worn
        slots = rng.integers(oldest, self._written, count) % self.capacity
        while (bad := self._after[slots] == 0).any():
            slots[bad] = rng.integers(oldest, self._written, int(bad.sum())) % self.capacity
        return slots

    def _gather(self, slots: np.ndarray) -> Arrays:
        ahead = np.minimum(self.n, self._after[slots])
        ends = (slots + ahead) % self.capacity
        steps = np.arange(1, self.n + 1)
        rewards = self._timesteps["reward"][(slots[:, None] + steps) % self.capacity]
        rewards = np.where(steps <= ahead[:, None], rewards, 0.0)
        factor = self.gamma**ahead * self._timesteps["cont"][ends]
        return {
            **self._observe(slots), **{f"next_{k}": v for k, v in self._observe(ends).items()},
            "action": self._timesteps["action"][(slots + 1) % self.capacity],
            "return": (rewards @ self.gamma ** (steps - 1.0)).astype(np.float32),
            "factor": factor.astype(np.float32),
        }  # fmt: skip

    def _observe(self, slots: np.ndarray) -> Arrays:
        found: Arrays = {}
        if "vector" in self._timesteps:
            found["vector"] = self._timesteps["vector"][slots]
        if "image" in self._timesteps:
            back = np.arange(self.observations.frames)[::-1]
            back = np.minimum(back, self._before[slots][:, None])  # the first frame is repeated
            frames = self._timesteps["image"][(slots[:, None] - back) % self.capacity]
            found["image"] = np.concatenate(np.moveaxis(frames, 1, 0), -1)  # [m, 64, 64, k * C]
        return found


def draw(masses: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Draws items int64 [m] in proportion to their masses; one of mass 0 is never drawn.

    Args:
        masses: float64 [N], at least 0.
        shares: Where to draw in the total mass, in [0, 1]: float64 [m].
    """
    ends = np.cumsum(masses)
    below = np.minimum(shares * ends[-1], np.nextafter(ends[-1], 0.0))
    return np.searchsorted(ends, below, side="right")
