"""The loop for agents that learn from single transitions: D4PG and DQN."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from baselines.agent import Baseline
from baselines.transitions import Transitions
from dreamer.agent.exploration import Exploration
from dreamer.data.episodes import EpisodeError, EpisodeFile
from dreamer.data.replay import DamagedEpisodeWarning
from dreamer.training.collector import Episode
from dreamer.training.trainer import Trainer

Tensors = dict[str, tf.Tensor]
_ACTING = 1  # what a random stream is for


class OffPolicy(Baseline):
    """An agent with a memory of transitions.

    Attributes (set by the agent):
        memory: Where transitions come from.
        batch_size: Transitions in an update.
        group: Updates made by one call, from batches drawn together: a small update costs less than
            calling it. Priorities follow once a group.
        nonfinite: Which updates of the last group were not finite, float32 [count].
    """

    memory: Transitions
    batch_size: int
    group: int
    nonfinite: np.ndarray

    def update_once(self, batch: Tensors, update: tf.Tensor) -> tuple[Tensors, tf.Tensor]:
        """One update in graph mode.

        Args:
            batch: As `Transitions.sample`, without the leading axis.
            update: int32, its number.
        Returns:
            Scalar metrics (`metric_names`), and each transition's error float32 [B], whose size is
            its priority.
        """
        raise NotImplementedError

    metric_names: tuple[str, ...] = ()

    def remember(self, episode: Episode) -> None:
        """Takes a complete episode into the memory."""
        self.memory.add(episode)

    def explore(self, section: Mapping[str, Any], eval_epsilon: float = 0.0) -> None:
        """Takes the config's section explore, of training alone; call before acting.

        Args:
            section: It.
            eval_epsilon: Probability of a random action in evaluations.
        """
        self._explore = Exploration(self.act_space, **section)
        self._noise_scale = self._explore.noise_scale(0, 0)
        kind = "epsilon" if eval_epsilon else "none"
        self._eval_explore = Exploration(self.act_space, kind=kind, noise_scale=eval_epsilon)

    def progress(self, step: int, update: int) -> None:
        """Hears where the training is: the noise depends on it."""
        self._noise_scale = self._explore.noise_scale(step, update)

    def act(self, function: Any, stack: Mapping[str, np.ndarray], mode: str) -> np.ndarray:
        """Actions [n, A] of a traced ``function(obs, calls, noise_scale, training)``.

        Args:
            function: Ends in `exploring`; training is a Python bool, so it is traced for each.
            stack: What `Observations.push` returned.
            mode: "train" or "eval".
        """
        # Of NumPy's numbers: TensorFlow keeps a tensor for ever of each Python number it is given.
        calls = tf.constant(np.int32(self.policy_calls))
        self.policy_calls += 1
        training = mode == "train"
        noise_scale = self._noise_scale if training else self._eval_explore.noise_scale(0, 0)
        tensors = {k: tf.convert_to_tensor(v) for k, v in stack.items()}
        return function(tensors, calls, tf.constant(np.float32(noise_scale)), training).numpy()

    def exploring(
        self, action: tf.Tensor, calls: tf.Tensor, noise_scale: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """Actions [n, A] with noise of this scale, keyed by the policy's calls; outside training
        of the evaluations' kind, whatever explore.kind is."""
        base = tf.constant([self.seed, _ACTING], tf.int32)
        folded = tf.random.experimental.stateless_fold_in(base, calls)
        explore = self._explore if training else self._eval_explore
        return explore(action, noise_scale, tf.unstack(tf.random.split(folded, 2)))

    def train_step(self, batch: Any, update: int) -> Mapping[str, np.ndarray]:
        """Makes the updates of a group of batches, in turn; returns the means of their metrics.

        Args:
            batch: `Transitions.sample`'s, [count, B, ...].
            update: Number of the first.
        """
        index = batch["index"]
        tensors = {k: tf.convert_to_tensor(v) for k, v in batch.items() if k != "index"}
        metrics, errors = self._group_function(tensors, tf.constant(np.int32(update)))
        self.memory.prioritise(index, errors.numpy())
        found = dict(zip(self.metric_names, metrics.numpy().T, strict=True))
        self.nonfinite = found["nonfinite"]
        return {name: values.mean() for name, values in found.items()}

    def compile(self) -> None:
        """Readies train_step; call when all variables are made."""
        self._group_function = tf.function(self._group, autograph=False, reduce_retracing=True)

    def _group(self, batches: Tensors, first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Updates on batches [count, B, ...]; their metrics [count, M], and errors [count, B]."""
        count = tf.shape(batches["action"])[0]
        rows, errors = (tf.TensorArray(tf.float32, count) for _ in range(2))

        def body(i, rows, errors):
            batch = {k: v[i] for k, v in batches.items()}
            metrics, error = self.update_once(batch, first + i)
            row = tf.stack([metrics[name] for name in self.metric_names])
            return i + 1, rows.write(i, row), errors.write(i, error)

        _, rows, errors = tf.while_loop(
            lambda i, *_: i < count, body, (tf.constant(0), rows, errors), parallel_iterations=1
        )
        return rows.stack(), errors.stack()


class OffPolicyTrainer(Trainer):
    """Dreamer's loop, with transitions from the agent's memory instead of sequences from files."""

    _agent: OffPolicy  # type: ignore[assignment]

    def __init__(self, **parts: Any):
        super().__init__(**parts)
        self._exact = parts["exact"]
        self._collection.on_episode = self._agent.remember

    def resume(self) -> bool:
        """As Trainer.resume; the memory takes the newest episodes on disk, as many as fit."""
        resumed = super().resume()
        for episode in self._newest(self._agent.memory.capacity):
            self._agent.remember(episode)
        if resumed and self._exact and self._pool.num_envs > 1:
            self._logger.message(
                "warning: not bit for bit what it would have been, unless all episodes are equally "
                "long: they come back in the order in which they began, not in that of their ends"
            )
        return resumed

    def _newest(self, timesteps: int) -> Generator[Episode, None, None]:
        chosen: list[Path] = []
        for path, length in reversed(list(self._replay.files())):
            if timesteps < 0:  # one more where they fit exactly: the ring had been full then, too
                break
            timesteps -= length
            chosen.append(path)
        for path in reversed(chosen):
            try:
                yield EpisodeFile(path).read()
            except EpisodeError as error:
                warnings.warn(f"episode not used: {error}", DamagedEpisodeWarning, stacklevel=2)

    def _watch(
        self, first: int, batch: Mapping[str, np.ndarray], metrics: Mapping[str, float]
    ) -> None:
        """Each update of a group by itself: the limit is of updates, not of groups."""
        for i, flag in enumerate(self._agent.nonfinite):
            own = {key: value[i] for key, value in batch.items()}
            super()._watch(first + i, own, {**metrics, "nonfinite": flag})

    def _learn(self, count: int) -> Generator[tuple[int, Any, Mapping[str, Any]], None, None]:
        agent, made = self._agent, 0
        while made < count:
            self._interrupt.check()
            group = min(agent.group, count - made)
            batch = agent.memory.sample(self.update, group, agent.batch_size)
            yield group, batch, agent.train_step(batch, self.update)
            made += group
