"""What D4PG and DQN share: they learn from single transitions in a memory of their own."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from baselines.baseline import Baseline
from baselines.memory import Transitions
from baselines.observations import Observations
from baselines.torso import Head, Heads, copy_every
from dreamer.agent.exploration import Exploration
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.ops.optimizers import Optimizer, RateSchedule, apply_together
from dreamer.training.build import Experience, Setup, make_replay_collector
from dreamer.training.collector import Episode

Tensors = dict[str, tf.Tensor]
_ACTING = 1  # the number of the random stream of exploration


class OffPolicy(Baseline):
    """An agent with a memory of transitions, and networks that others follow as targets.

    A subclass defines `greedy` and `losses`, and calls `add_optimizer`.

    Args:
        config, obs_space, act_space: As Baseline's.
        heads: The networks.
        gray: Whether images become gray.
        reward_bound: Rewards are clipped to [-bound, bound].
        eval_epsilon: Probability of a random action in evaluations.

    Attributes:
        memory: The transitions.
        batch_size: Transitions in an update.
        group: Updates made by one call, from batches drawn together, because a call takes longer
            than a small update. Priorities change once a group.
    """

    def __init__(
        self, config: Config, obs_space: Mapping[str, Space], act_space: Space,
        heads: Mapping[str, Head], *, gray: bool = False, reward_bound: float = np.inf,
        eval_epsilon: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(config, obs_space, act_space)
        keras.utils.set_random_seed(self.seed)
        section = self._section = config.section(config.agent)
        self._schedule = RateSchedule(**config.section("optimizer"))
        self.batch_size, self.group = config.train.batch_size, section["group"]
        self._explore = Exploration(act_space, **config.section("explore"))
        self._noise_scale = self._explore.noise_scale(0, 0)
        kind = "epsilon" if eval_epsilon else "none"
        self._eval_explore = Exploration(act_space, kind=kind, noise_scale=eval_epsilon)
        self._observations = Observations(obs_space, section["frames"], gray)
        self.memory = Transitions(
            observations=self._observations, actions=act_space.shape[0], seed=self.seed,
            n=section["n_step"], reward_bound=reward_bound,
            **{k: section[k] for k in ("alpha", "beta", "capacity", "gamma")},
        )  # fmt: skip
        sizes = {k: section[k] for k in ("layers", "units", "cnn_depth")}
        self._nets, self._target = (
            Heads(self._observations.shapes, heads, **sizes, name=name)
            for name in ("nets", "target")
        )
        for nets in (self._nets, self._target):
            nets.build()
        for source, target in zip(self._nets.variables, self._target.variables, strict=True):
            target.assign(source)
        self._trained: dict[str, Sequence] = {}
        self._optimizers: dict[str, Optimizer] = {}
        self._metric_names: list[str] = []
        self._act = tf.function(self._policy_step, autograph=False)
        self._update = tf.function(self._group, autograph=False, reduce_retracing=True)

    def add_optimizer(self, loss: str, variables: Sequence, rate: float, name: str) -> None:
        """Lets Adam, named `name`, train `variables` by the loss `loss` at learning rate `rate`."""
        eps, clip = self._section["eps"], self._section["clip"]
        self._trained[loss] = variables
        self._optimizers[loss] = Optimizer(
            list(variables), rate, eps, clip, False, name, schedule=self._schedule
        )

    def variables(self) -> dict[str, Any]:
        """Returns the variables of networks, targets and optimizers, by name."""
        found = {f"nets/{v.path}": v for v in self._nets.variables}
        found |= {f"target/{v.path}": v for v in self._target.variables}
        for optimizer in self._optimizers.values():
            place = optimizer.name.replace("_", "/")
            found |= {f"{place}/{k}": v for k, v in optimizer.state.items()}
        return found

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """As Baseline's, except learning rates: they are the config's."""
        super().load_arrays(arrays)
        for optimizer in self._optimizers.values():
            optimizer.reset_learning_rate()

    # ---------------------------------------------------------------- acting

    def progress(self, step: int, update: int) -> None:
        """Sets the progress of training, which the noise depends on."""
        self._noise_scale = self._explore.noise_scale(step, update)

    def policy(self, timesteps: Any, state: Any, mode: str = "train") -> tuple[np.ndarray, Any]:
        """Returns actions float32 [n, A], with noise in training, and the next state."""
        stack = self._observations.push(state, timesteps)
        # TensorFlow would keep a tensor for each Python number for ever; these are NumPy numbers.
        calls = tf.constant(np.int32(self.policy_calls))
        self.policy_calls += 1
        training = mode == "train"
        noise_scale = self._noise_scale if training else self._eval_explore.noise_scale(0, 0)
        action = self._act(stack, calls, tf.constant(np.float32(noise_scale)), training)
        return action.numpy(), stack

    def _policy_step(
        self, obs: Tensors, calls: tf.Tensor, noise_scale: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """Adds noise to `greedy` actions; traced for training and for evaluation."""
        base = tf.constant([self.seed, _ACTING], tf.int32)
        folded = tf.random.experimental.stateless_fold_in(base, calls)
        explore = self._explore if training else self._eval_explore
        return explore(self.greedy(obs), noise_scale, tf.unstack(tf.random.split(folded, 2)))

    def greedy(self, obs: Tensors) -> tf.Tensor:
        """Returns the best actions [n, A] for observations [n, ...], in graph mode."""
        raise NotImplementedError

    # -------------------------------------------------------------- learning

    @property
    def capacity(self) -> int:
        """Timesteps that the memory holds."""
        return self.memory.capacity

    def remember(self, episode: Episode) -> None:
        """Takes a complete episode into the memory."""
        self.memory.add(episode)

    def losses(
        self, batch: Tensors, obs: Tensors, later: Tensors
    ) -> tuple[Tensors, Tensors, tf.Tensor]:
        """Returns the losses [] by name, other metrics [], and each transition's error float32 [B].

        The error's absolute value is the transition's priority.

        Args:
            batch: From `Transitions.sample`, without the leading axis.
            obs, later: The observations of its transitions, and those n steps later.
        """
        raise NotImplementedError

    def update_once(self, batch: Tensors, update: tf.Tensor) -> tuple[Tensors, tf.Tensor]:
        """Makes update number `update` (int32); returns metrics, and errors as in `losses`."""
        keys = self._observations.shapes
        obs, later = {k: batch[k] for k in keys}, {k: batch[f"next_{k}"] for k in keys}
        with tf.GradientTape(persistent=True) as tape:
            losses, metrics, error = self.losses(batch, obs, later)
        gradients = {k: tape.gradient(loss, self._trained[k]) for k, loss in losses.items()}
        report = apply_together(self._optimizers, gradients, losses)
        period = self._section["target_period"]
        copy_every(period, update, self._nets.variables, self._target.variables)
        return {**metrics, **report}, error

    def batches(self, first: int, count: int) -> Generator[tuple[int, Any], None, None]:
        """Yields batches [n, B, ...] of `count` updates, each with its number of updates n."""
        for update in range(first, first + count, self.group):
            group = min(self.group, first + count - update)
            yield group, self.memory.sample(update, group, self.batch_size)

    def train_step(self, batch: Any, update: int) -> Mapping[str, np.ndarray]:
        """Makes the updates of a group of batches in turn; `update` is the first one's number.

        `batch` is [count, B, ...] from `Transitions.sample`. Returns the mean of each metric, but
        `nonfinite` of each update, float32 [count]. All of them have the first one's learning rate.
        """
        for optimizer in self._optimizers.values():
            optimizer.begin(update)
        metrics, errors = self._update(batch, tf.constant(np.int32(update)))
        self.memory.prioritise(batch["index"], errors.numpy())
        found = dict(zip(self._metric_names, metrics.numpy().T, strict=True))
        return {k: v if k == "nonfinite" else v.mean() for k, v in found.items()}

    def _group(self, batches: Tensors, first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Updates on batches [count, B, ...]; returns metrics [count, M] and errors [count, B]."""
        count = tf.shape(batches["action"])[0]
        rows, errors = (tf.TensorArray(tf.float32, count) for _ in range(2))

        def body(i, rows, errors):
            metrics, error = self.update_once({k: v[i] for k, v in batches.items()}, first + i)
            del metrics["skipped"]  # only loss scaling skips updates that are finite
            self._metric_names = list(metrics)  # set while it is traced
            return i + 1, rows.write(i, tf.stack(list(metrics.values()))), errors.write(i, error)

        _, rows, errors = tf.while_loop(
            lambda i, *_: i < count, body, (tf.constant(0), rows, errors), parallel_iterations=1
        )
        return rows.stack(), errors.stack()


def make_experience(setup: Setup) -> Experience:
    """Returns the collector into replay and agent's memory, and the memory's batches."""
    assert isinstance(setup.agent, OffPolicy)
    return make_replay_collector(setup, memory=setup.agent), setup.agent.batches
