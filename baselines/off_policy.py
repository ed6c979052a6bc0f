"""What D4PG and DQN share: they learn from single transitions in a memory of their own."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from baselines.agent import Baseline
from baselines.memory import Transitions
from dreamer.agent.exploration import Exploration
from dreamer.training.build import Experience, Setup, make_replay_collector
from dreamer.training.collector import Episode

Tensors = dict[str, tf.Tensor]
_ACTING = 1  # what a random stream is for


class OffPolicy(Baseline):
    """An agent with a memory of transitions.

    Attributes (set by the agent):
        memory: The transitions.
        batch_size: Transitions in an update.
        group: Updates made by one call, from batches drawn together, because a call takes longer
            than a small update. Priorities change once a group.
    """

    memory: Transitions
    batch_size: int
    group: int

    def update_once(self, batch: Tensors, update: tf.Tensor) -> tuple[Tensors, tf.Tensor]:
        """One update in graph mode.

        Args:
            batch: As `Transitions.sample`, without the leading axis.
            update: int32, its number.
        Returns:
            Scalar metrics (`metric_names`), and each transition's error float32 [B]; its absolute
            value is the priority.
        """
        raise NotImplementedError

    metric_names: tuple[str, ...] = ()

    @property
    def capacity(self) -> int:
        """Timesteps that the memory holds."""
        return self.memory.capacity

    def remember(self, episode: Episode) -> None:
        """Takes a complete episode into the memory."""
        self.memory.add(episode)

    def explore(self, section: Mapping[str, Any], eval_epsilon: float = 0.0) -> None:
        """Sets the exploration; call before acting.

        Args:
            section: The config's section explore, for training.
            eval_epsilon: Probability of a random action in evaluations.
        """
        self._explore = Exploration(self.act_space, **section)
        self._noise_scale = self._explore.noise_scale(0, 0)
        kind = "epsilon" if eval_epsilon else "none"
        self._eval_explore = Exploration(self.act_space, kind=kind, noise_scale=eval_epsilon)

    def progress(self, step: int, update: int) -> None:
        """Sets the progress of training, which the noise depends on."""
        self._noise_scale = self._explore.noise_scale(step, update)

    def act(self, function: Any, stack: Mapping[str, np.ndarray], mode: str) -> np.ndarray:
        """Returns actions [n, A] from a traced ``function(obs, calls, noise_scale, training)``.

        Args:
            function: It ends in `exploring`; it is traced for training and for evaluation.
            stack: From `Observations.push`.
            mode: "train" or "eval".
        """
        # As NumPy numbers, because TensorFlow keeps a tensor for each Python number for ever.
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
        """Makes the updates of a group of batches, in turn.

        Args:
            batch: `Transitions.sample`'s, [count, B, ...].
            update: Number of the first.

        Returns:
            The means of their metrics; nonfinite of each, float32 [count].
        """
        index = batch["index"]
        tensors = {k: tf.convert_to_tensor(v) for k, v in batch.items() if k != "index"}
        metrics, errors = self._group_function(tensors, tf.constant(np.int32(update)))
        self.memory.prioritise(index, errors.numpy())
        found = dict(zip(self.metric_names, metrics.numpy().T, strict=True))
        means = {name: values.mean() for name, values in found.items()}
        return {**means, "nonfinite": found["nonfinite"]}

    def compile(self) -> None:
        """Prepares train_step; call when all variables are made."""
        self._group_function = tf.function(self._group, autograph=False, reduce_retracing=True)

    def _group(self, batches: Tensors, first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Updates on batches [count, B, ...]; returns metrics [count, M] and errors [count, B]."""
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


class TransitionBatches:
    """Groups of batches from an agent's memory; see `OffPolicy.group`."""

    def __init__(self, agent: OffPolicy) -> None:
        self._agent = agent

    @property
    def ready(self) -> bool:
        """Whether there is an episode."""
        return len(self._agent.memory) > 0

    def draw(self, first: int, count: int) -> Generator[tuple[int, Any], None, None]:
        """Yields batches [n, B, ...] of `count` updates, each with its number of updates n."""
        agent = self._agent
        for update in range(first, first + count, agent.group):
            group = min(agent.group, first + count - update)
            yield group, agent.memory.sample(update, group, agent.batch_size)


def make_experience(setup: Setup) -> Experience:
    """Returns what collects into the replay and the agent's memory, and its transitions."""
    agent = setup.agent
    assert isinstance(agent, OffPolicy)
    return make_replay_collector(setup, memory=agent), TransitionBatches(agent)
