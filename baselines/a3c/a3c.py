"""A3C (Mnih et al., arXiv 1602.01783): actors that learn side by side, without a replay.

Each actor-learner is a process (baselines.a3c.actor_learner). It takes n steps with the newest
shared parameters, computes a gradient, and applies the gradient to these parameters with shared
RMSProp statistics, without a lock. In the synchronous form (A2C), one learner steps all
environments. Observations are states or pixels, actions continuous or one-hot.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from baselines.baseline import Baseline
from baselines.observations import Arrays, Observations
from baselines.torso import Head, Heads
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.ops.distributions import diagonal_normal, inverse_softplus
from dreamer.ops.optimizers import RateSchedule
from dreamer.ops.shapes import check_shape, flatten_leading

Tensors = dict[str, tf.Tensor]
MIN_STD = 1e-3


class PolicyValue(Heads):
    """A shared torso, then a policy and a value network.

    One-hot actions: logits of a categorical. Continuous ones: a Normal of mean tanh(m) and standard
    deviation softplus(s) + MIN_STD, `init_std` at the start (paper: a linear mean and a softplus
    variance). Samples are not squashed; the environment gets them clipped to [-1, 1]. The other
    arguments are those of `Heads`.
    """

    def __init__(self, shapes: Mapping[str, Any], act_space: Space, *, init_std: float, **kwargs):
        if act_space.parts:
            raise UserError("a3c takes one number as its action, but this task's are several")
        outputs = act_space.shape[0] * (1 if act_space.discrete else 2)
        heads = {"policy": Head(outputs, init_scale=1e-3), "value": Head(1)}
        super().__init__(shapes, heads, **kwargs)
        self._discrete, self._raw_std = act_space.discrete, inverse_softplus(init_std)

    def call(self, obs: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        """Observations [N, ...] -> the policy's outputs [N, A or 2 A] and values [N]."""
        feat = self.torso(obs)
        return self.policy(feat), self.value(feat)[:, 0]

    def sample(self, outputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Actions [N, A] drawn from the policy."""
        if self._discrete:
            choice = tf.random.stateless_categorical(outputs, 1, seed)[:, 0]
            return tf.one_hot(choice, outputs.shape[-1])
        mean, std = self._normal(outputs)
        return mean + std * tf.random.stateless_normal(tf.shape(mean), seed)

    def mode(self, outputs: tf.Tensor) -> tf.Tensor:
        """The most likely actions [N, A]."""
        if self._discrete:
            return tf.one_hot(tf.argmax(outputs, -1), outputs.shape[-1])
        return self._normal(outputs)[0]

    def log_prob_and_entropy(
        self, outputs: tf.Tensor, action: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns log-probabilities of actions [N, A] and entropies (nats), float32 [N] each."""
        if self._discrete:
            logs = tf.nn.log_softmax(outputs)
            entropy = -tf.reduce_sum(tf.exp(logs) * logs, -1)
            return tf.reduce_sum(logs * action, -1), entropy
        normal = diagonal_normal(*self._normal(outputs))
        return normal.log_prob(action), normal.entropy()

    def _normal(self, outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean, std = tf.split(outputs, 2, -1)
        return tf.tanh(mean), tf.nn.softplus(std + self._raw_std) + MIN_STD


class A3C(Baseline):
    """The networks, the loss, and the parameters that all processes share.

    loss = mean over a rollout's steps (the paper: a sum) of
        - log pi(a_t|o_t) stop(R_t - v_t) - entropy_scale H(pi(o_t)) + value_scale (R_t - v_t)^2 / 2

    with R_t of `n_step_returns`. Shared RMSProp: g2 <- decay g2 + (1 - decay) g^2, and
    w <- w - lr g / sqrt(g2 + eps), after the gradient was scaled down to the norm `clip`.

    `descriptor` is that of another process's shared memory; None makes new memory.

    Attributes:
        settings: The section a3c.
        shared: Arrays of `shared_arrays`: params and squares (RMSProp's mean of squared gradients)
            of all networks, end to end; limit, the number of steps at which all learners pause;
            and each learner's steps, updates, episodes begun and episodes dropped.
    """

    def __init__(
        self, config: Config, obs_space: Mapping[str, Space], act_space: Space,
        descriptor: int | None = None,
    ):  # fmt: skip
        super().__init__(config, obs_space, act_space)
        keras.utils.set_random_seed(self.seed)
        a3c = self.settings = config.a3c
        self._schedule = RateSchedule(**config.section("optimizer"))
        self.observations = Observations(obs_space, a3c.frames, a3c.gray)
        self.nets = PolicyValue(
            self.observations.shapes, act_space, init_std=a3c.init_std, layers=a3c.layers,
            units=a3c.units, cnn_depth=a3c.cnn_depth, name="nets",
        )  # fmt: skip
        self.nets.build()
        weights = [v.numpy() for v in self.nets.trainable_variables]
        self._sizes = [weight.size for weight in weights]
        learners = 1 if a3c.synchronous else config.envs.num_envs
        layout = {name: ("<f4", sum(self._sizes)) for name in ("params", "squares")}
        layout |= {"limit": ("<i8", 1)}
        # One element a learner, so that no addition is lost.
        layout |= dict.fromkeys(("steps", "updates", "episodes", "dropped"), ("<i8", learners))
        self.shared, self.descriptor = shared_arrays(layout, descriptor)
        if descriptor is None:
            self.shared["params"][:] = np.concatenate([weight.ravel() for weight in weights])
        self._act = tf.function(self._policy_step, autograph=False)
        self._gradient = tf.function(self._gradient_step, autograph=False)
        self._assign = tf.function(self._assign_flat, autograph=False)

    # ---------------------------------------------------------------- acting

    def refresh(self) -> None:
        """Copies the shared parameters to this process's networks."""
        self._assign(self.shared["params"].copy())

    def policy(self, timesteps: Any, state: Any, mode: str = "train") -> tuple[np.ndarray, Any]:
        """Returns actions float32 [n, A]: clipped samples, or in evaluations the mode."""
        stack = self.observations.push(state, timesteps)
        return np.clip(self.choose(stack, mode == "train", 0), -1.0, 1.0), stack

    def choose(self, stack: Arrays, sampling: bool, stream: int) -> np.ndarray:
        """Returns actions [n, A], not clipped; `stream` and the number of the call seed them."""
        counter = tf.constant([stream, self.policy_calls], tf.int32)
        self.policy_calls += 1
        return self._act(stack, counter, sampling).numpy()

    def _policy_step(self, obs: Tensors, counter: tf.Tensor, sampling: bool) -> tf.Tensor:
        outputs, _ = self.nets(obs)
        if not sampling:
            return self.nets.mode(outputs)
        seed = tf.constant([self.seed, 1], tf.int32)
        for number in tf.unstack(counter):
            seed = tf.random.experimental.stateless_fold_in(seed, number)
        return self.nets.sample(outputs, seed)

    # -------------------------------------------------------------- learning

    def learn(self, rollout: Arrays) -> dict[str, float]:
        """Computes a rollout's gradient and applies it to the shared parameters.

        Args:
            rollout: image and vector [T+1, N, ...], action [T, N, A], reward, cont, is_last
                [T+1, N]; no step follows a last timestep.
        Returns:
            Metrics; nonfinite is 1 if loss or gradient was not finite and nothing changed.
        """
        gradient, found = self._gradient(rollout)
        metrics = {name: float(value) for name, value in found.items()}
        if not metrics["nonfinite"]:
            rate = self.settings.lr * self._schedule.factor(int(self.shared["updates"].sum()))
            apply_rmsprop(
                self.shared["params"], self.shared["squares"], gradient.numpy(),
                lr=rate, decay=self.settings.decay, eps=self.settings.eps,
            )  # fmt: skip
        return metrics

    def loss(self, rollout: Tensors) -> tuple[tf.Tensor, Tensors]:
        """The loss [] of a rollout, and metrics."""
        obs = {k: flatten_leading(rollout[k], len(s)) for k, s in self.observations.shapes.items()}
        outputs, value = self.nets(obs)
        reward, cont, is_last = (rollout[k] for k in ("reward", "cont", "is_last"))
        value = tf.reshape(value, reward.shape)
        returns = tf.stop_gradient(
            n_step_returns(reward, cont, is_last, value, self.settings.gamma)
        )
        action = flatten_leading(rollout["action"])
        log_prob, entropy = self.nets.log_prob_and_entropy(outputs[: action.shape[0]], action)
        mask = tf.reshape(1.0 - tf.cast(is_last[:-1], tf.float32), [-1])
        error = tf.reshape(returns - value[:-1], [-1])

        def mean(x: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(mask * x) / tf.maximum(tf.reduce_sum(mask), 1.0)

        policy_loss = -mean(log_prob * tf.stop_gradient(error))
        value_loss, entropy = 0.5 * mean(tf.square(error)), mean(entropy)
        a3c = self.settings
        total = policy_loss - a3c.entropy_scale * entropy + a3c.value_scale * value_loss
        return total, {
            "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy,
            "value": tf.reduce_mean(value), "return": mean(tf.reshape(returns, [-1])),
        }  # fmt: skip

    def _gradient_step(self, rollout: Tensors) -> tuple[tf.Tensor, Tensors]:
        with tf.GradientTape() as tape:
            loss, metrics = self.loss(rollout)
        gradients = tape.gradient(loss, self.nets.trainable_variables)
        clipped, norm = tf.clip_by_global_norm(gradients, self.settings.clip)
        flat = tf.concat([tf.reshape(g, [-1]) for g in clipped], 0)
        sound = tf.math.is_finite(loss) & tf.math.is_finite(norm)
        return flat, {**metrics, "grad_norm": norm, "nonfinite": tf.cast(~sound, tf.float32)}

    def _assign_flat(self, flat: tf.Tensor) -> None:
        variables = self.nets.trainable_variables
        for variable, part in zip(variables, tf.split(flat, self._sizes), strict=True):
            variable.assign(tf.reshape(part, variable.shape))

    # ----------------------------------------------------------- checkpoints

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Returns the parameters, RMSProp's statistics and all counts."""
        names = ("params", "squares", "steps", "updates", "episodes", "dropped")
        arrays = {name: self.shared[name].copy() for name in names}
        return arrays | {"policy_calls": np.asarray(self.policy_calls, np.int64)}

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restores what state_arrays gave; ValueError, and no change, if names or shapes differ."""
        if set(self.state_arrays()) != set(arrays):
            raise ValueError(f"the arrays are not a3c's: {sorted(arrays)[:5]}")
        # An evaluation may have another number of learners than the run.
        for name in ("params", "squares"):
            check_shape(name, arrays[name], self.shared[name].shape)
        for name in set(arrays) - {"policy_calls"}:
            size = min(len(self.shared[name]), len(arrays[name]))
            self.shared[name][:size] = arrays[name][:size]
        self.policy_calls = int(arrays["policy_calls"])
        self.refresh()


def n_step_returns(
    reward: tf.Tensor, cont: tf.Tensor, is_last: tf.Tensor, value: tf.Tensor, gamma: float
) -> tf.Tensor:
    """Sums rewards up to the end of the episode or the stream, and adds the value of that end.

        R_t = cont_t v_t             if timestep t is its episode's last, and for t = T
        R_t = r_(t+1) + gamma R_(t+1)         everywhere else, t = T-1 .. 0

    A terminal (cont 0) is worth nothing; at a time limit (cont 1) the value of the last timestep
    counts (arXiv 1602.01783, algorithm S3, has the same R at terminals and at t_max).

    Args:
        reward: float32 [T+1, N], r_t received on arriving at timestep t.
        cont, is_last, value: float32, bool and float32 [T+1, N].
        gamma: Discount of a step.
    Returns:
        float32 [T, N], R_0..R_(T-1); ignore those at an episode's last timestep.
    """
    for name, tensor in (("cont", cont), ("is_last", is_last), ("value", value)):
        check_shape(name, tensor, tuple(reward.shape))
    ended = cont * value
    following, returns = ended[-1], []
    for t in reversed(range(reward.shape[0] - 1)):
        following = tf.where(is_last[t], ended[t], reward[t + 1] + gamma * following)
        returns.append(following)
    return tf.stack(returns[::-1])


def apply_rmsprop(
    params: np.ndarray, squares: np.ndarray, gradient: np.ndarray, *, lr: float, decay: float,
    eps: float,
) -> None:  # fmt: skip
    """One step of shared RMSProp in place (arXiv 1602.01783, section 4 and equation S2)."""
    squares *= decay
    squares += (1.0 - decay) * np.square(gradient)
    params -= lr * gradient / np.sqrt(squares + eps)


def shared_arrays(
    layout: Mapping[str, tuple[str, int]], descriptor: int | None = None
) -> tuple[Arrays, int]:
    """Maps named arrays into memory that several processes read and write at once.

    The arrays lie in an anonymous file (memfd, Linux) that a child inherits by its descriptor.
    The file has no name that could be left behind, and ends with the last process that holds it.
    Aligned numbers of 4 and 8 bytes are read and written whole. Nothing else is promised: if two
    processes add to one element, an addition may be lost.

    Args:
        layout: Name -> dtype and length; the same in every process.
        descriptor: Descriptor of another process's memory; None: new memory, all zeros.
    Returns:
        The arrays, and the memory's descriptor.
    """
    kind = np.dtype([(name, dtype, (size,)) for name, (dtype, size) in layout.items()], align=True)
    if descriptor is None:
        descriptor = os.memfd_create("dreamer-baselines")
        os.ftruncate(descriptor, kind.itemsize)
    record = np.frombuffer(mmap.mmap(descriptor, kind.itemsize), kind)
    return {name: record[name][0] for name in layout}, descriptor
