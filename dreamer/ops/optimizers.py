"""Adam or LaProp with clipping, loss scaling, and refusal of non-finite gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from dreamer.ops.replicas import apply_optimizer, shrink

# Dynamic loss scaling for float16: halve on overflow, double after this many good updates.
INITIAL_SCALE = 2.0**15
GROWTH_INTERVAL = 1000
LEAST_NORM = 1e-3  # of weights, in adaptive clipping; so that weights of 0 can leave it


class Adam(keras.optimizers.Adam):
    """Keras's Adam, one operation of TensorFlow a variable instead of Keras's seventeen."""

    def step(self, variable, gradient: tf.Tensor, rate: tf.Tensor, count: tf.Tensor) -> None:
        """Steps a variable for the `count`-th time, float32 []."""
        place = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].value.handle,
            v=self._velocities[place].value.handle,
            beta1_power=tf.pow(self.beta_1, count),
            beta2_power=tf.pow(self.beta_2, count),
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class LaProp(keras.optimizers.Optimizer):
    """Adam that divides before it averages (Ziyin et al., arXiv 2002.04839, algorithm 1).

        n_t = 0.999 n_(t-1) + 0.001 g_t^2
        m_t = 0.9 m_(t-1) + 0.1 g_t / (sqrt(n_t / (1 - 0.999^t)) + eps)
        w_t = w_(t-1) - rate m_t / (1 - 0.9^t)

    A gradient is thus measured by the size of those before it, never by those after it, so a large
    one cannot leave a momentum behind that a small second moment blows up.

    Args:
        learning_rate: Step size.
        epsilon: Added to the root.
    """

    def __init__(self, learning_rate, epsilon: float, name: str = "laprop"):
        super().__init__(learning_rate, name=name)
        self._epsilon = epsilon

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._averages, self._squares = self.add_optimizer_variables(
                variables, ["average", "square"]
            )

    def step(self, variable, gradient: tf.Tensor, rate: tf.Tensor, count: tf.Tensor) -> None:
        """Steps a variable for the `count`-th time, float32 []."""
        place = self._get_variable_index(variable)
        average, square = self._averages[place], self._squares[place]
        squared = 0.999 * square + 0.001 * tf.square(gradient)
        root = tf.sqrt(squared / (1.0 - tf.pow(0.999, count))) + self._epsilon
        averaged = 0.9 * average + 0.1 * gradient / root
        self.assign(square, squared)
        self.assign(average, averaged)
        self.assign_sub(variable, rate * averaged / (1.0 - tf.pow(0.9, count)))


@dataclass(frozen=True)
class RateSchedule:
    """By what the learning rates are multiplied, as a function of the number of the update.

    Attributes:
        warmup: Updates in which the factor rises linearly to 1; 0: none.
        decay: "constant", "linear" or "cosine" (half a period), from 1 to `final`.
        decay_updates: Updates after the warm-up until the factor is `final`.
        final: The factor at the end.
    """

    warmup: int = 0
    decay: str = "constant"
    decay_updates: int = 1
    final: float = 0.0

    @property
    def is_constant(self) -> bool:
        """Whether the factor is always 1."""
        return self.decay == "constant" and not self.warmup

    def factor(self, update: int) -> float:
        """The factor of update number `update`, which depends on nothing else."""
        if update < self.warmup:
            return (update + 1) / self.warmup
        share = min((update - self.warmup) / self.decay_updates, 1.0)
        cosine = (1.0 + math.cos(math.pi * share)) / 2.0
        left = {"constant": 1.0, "linear": 1.0 - share, "cosine": cosine}[self.decay]
        return self.final + (1.0 - self.final) * left


class Prepared(NamedTuple):
    """Gradients for a step.

    `norm` is the first group's global norm before clipping; `finite` says whether all groups' are.
    """

    clipped: list[tf.Tensor]
    norm: tf.Tensor
    finite: tf.Tensor


class Optimizer(tf.Module):
    """Steps the variables of one network.

    It differs from the releases in one point: a gradient that is not finite leaves weights and
    slots as they were, and is counted (see also `apply_together`).

    Args:
        variables: The network's. Slots are made at once, so that a checkpoint can fill them.
        learning_rate: Step size.
        eps: Epsilon, added to the root of the second moment.
        clip: Largest global norm of a gradient.
        scale_loss: Whether losses are scaled dynamically (float16).
        apart: Variables that are clipped by a global norm of their own, so that a large gradient
            of theirs does not scale the others' down.
        schedule: Changes the learning rate during training.
        algorithm: "adam" or "laprop".
        adaptive_clip: Largest norm of each variable's gradient, as a share of the norm of the
            variable (AGC: Brock et al., arXiv 2102.06171, with whole tensors as units, as in
            DreamerV3). 0: no such clipping. It comes before the clipping by global norm.
        weight_decay: Share that weights lose with each step besides (Loshchilov and Hutter, arXiv
            1711.05101), biases and norms' scales apart: w <- (1 - weight_decay) w - step.
    """

    def __init__(
        self, variables: list, learning_rate: float, eps: float, clip: float, scale_loss: bool,
        name: str, apart: Sequence = (), schedule: RateSchedule = RateSchedule(), *,  # noqa: B008
        algorithm: str = "adam", adaptive_clip: float = 0.0, weight_decay: float = 0.0,
    ):  # fmt: skip
        super().__init__(name=name)
        self._targets, self._clip, self._scale_loss = list(variables), clip, scale_loss
        alone = {id(v) for v in apart}
        places = range(len(self._targets))
        by_group = [[i for i in places if (id(variables[i]) in alone) is x] for x in (False, True)]
        self._groups = [group for group in by_group if group]
        self._learning_rate, self._schedule = learning_rate, schedule
        self._adaptive_clip, self._weight_decay = adaptive_clip, weight_decay
        self._decaying = [v for v in variables if len(v.shape) > 1 and "bias" not in v.name]
        kind: type[Adam | LaProp] = LaProp if algorithm == "laprop" else Adam
        self._stepper = kind(learning_rate, epsilon=eps, name=name)
        self._stepper.build(self._targets)
        self.scale = tf.Variable(INITIAL_SCALE if scale_loss else 1.0, trainable=False)
        # int64, because TensorFlow keeps int32 variables on the CPU, where XLA cannot use them.
        self.good_updates = tf.Variable(0, dtype=tf.int64, trainable=False)

    @property
    def state(self) -> dict[str, tf.Variable]:
        """All state that a checkpoint must hold, by name."""
        slots = {v.path: v for v in self._stepper.variables}
        return {**slots, "loss_scale": self.scale, "good_updates": self.good_updates}

    def begin(self, update: int) -> None:
        """Sets the learning rate of update number `update`, if it follows a schedule."""
        if not self._schedule.is_constant:
            # A NumPy number, because TensorFlow keeps a tensor of each Python number for ever.
            rate = np.float32(self._learning_rate * self._schedule.factor(update))
            self._stepper.learning_rate.assign(rate)

    def reset_learning_rate(self) -> None:
        """Sets a constant learning rate as given, after a state with another one was loaded."""
        if self._schedule.is_constant:
            self._stepper.learning_rate.assign(np.float32(self._learning_rate))

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss to differentiate, [] -> []."""
        return loss * self.scale if self._scale_loss else loss

    def apply(self, scaled_gradients: list[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Steps the variables by gradients of ``scaled(loss)``; see `step`."""
        return self.step(self.prepare(scaled_gradients), True)

    def prepare(self, scaled_gradients: list[tf.Tensor]) -> Prepared:
        """Clips gradients of ``scaled(loss)``, one per variable."""
        gradients = [tf.cast(g, tf.float32) for g in scaled_gradients]
        if self._scale_loss:
            gradients = [g / self.scale for g in gradients]
        norms = []
        for group in self._groups:
            own = [gradients[i] for i in group]
            norms.append(tf.linalg.global_norm(own))
            if self._adaptive_clip:
                own = self._clip_adaptively(own, [self._targets[i] for i in group])
            else:
                own, _ = tf.clip_by_global_norm(own, self._clip, use_norm=norms[-1])
            for i, gradient in zip(group, own, strict=True):
                gradients[i] = gradient
        finite = tf.reduce_all([tf.math.is_finite(norm) for norm in norms])
        return Prepared(gradients, norms[0], finite)

    def step(self, prepared: Prepared, allowed: tf.Tensor | bool) -> dict[str, tf.Tensor]:
        """Steps the variables.

        Args:
            prepared: The gradients.
            allowed: Whether the step may be made, bool []. If not, only the loss scale changes: it
                halves if these gradients have overflowed.
        Returns:
            grad_norm, the global norm before clipping, without the variables of `apart`; and
            grad_finite, 1 if this norm and that of `apart` are finite, else 0.
        """

        def step() -> tf.Tensor:
            if self._weight_decay:
                shrink(self._weight_decay, self._decaying)
            apply_optimizer(self._stepper, prepared.clipped, self._targets)
            return tf.constant(True)

        made = tf.logical_and(prepared.finite, allowed)
        tf.cond(made, step, lambda: tf.constant(False))
        if self._scale_loss:
            self._adapt_scale(prepared.finite, made)
        return {"grad_norm": prepared.norm, "grad_finite": tf.cast(prepared.finite, tf.float32)}

    def _clip_adaptively(self, gradients: list[tf.Tensor], variables: list) -> list[tf.Tensor]:
        """Clips each gradient by its variable's norm, then all by their global norm.

        The factors are computed for all variables at once, and each gradient is multiplied once.
        """
        sizes = _norms(gradients)
        most = self._adaptive_clip * tf.maximum(_norms(variables), LEAST_NORM)
        factors = most / tf.maximum(sizes, most)
        factors *= self._clip / tf.maximum(tf.norm(factors * sizes), self._clip)
        return [g * factor for g, factor in zip(gradients, tf.unstack(factors), strict=True)]

    def _adapt_scale(self, finite: tf.Tensor, made: tf.Tensor) -> None:
        zero = tf.zeros([], tf.int64)
        good = tf.where(finite, self.good_updates + tf.cast(made, tf.int64), zero)
        grow = good >= GROWTH_INTERVAL
        factor = tf.where(finite, tf.where(grow, 2.0, 1.0), 0.5)
        self.scale.assign(tf.clip_by_value(self.scale * factor, 1.0, 2.0**24))
        self.good_updates.assign(tf.where(grow, zero, good))


def _norms(tensors: Sequence) -> tf.Tensor:
    """The Euclidean norm of each of V tensors, [V]."""
    return tf.sqrt(2.0 * tf.stack([tf.nn.l2_loss(tf.convert_to_tensor(x)) for x in tensors]))


def apply_together(
    optimizers: Mapping[str, Optimizer],
    scaled_gradients: Mapping[str, list[tf.Tensor]],
    losses: Mapping[str, tf.Tensor],
) -> dict[str, tf.Tensor]:
    """Steps all networks, or none if any loss or gradient is not finite.

    The releases step each network by itself. But the networks learn from each other, so one with
    numbers that are not finite must not teach the others.

    Args:
        optimizers: One for each network, by name.
        scaled_gradients: By network, the gradients of its scaled loss, one per variable.
        losses: The unscaled losses, each [].
    Returns:
        For each network ``<name>_grad_norm`` and ``<name>_grad_finite``. skipped: 1 if no network
        was stepped. nonfinite: 1 if the cause is more than an overflow, which a smaller loss scale
        avoids.
    """
    sound_losses = tf.reduce_all([tf.math.is_finite(loss) for loss in losses.values()])
    prepared = {name: o.prepare(scaled_gradients[name]) for name, o in optimizers.items()}
    sound = tf.logical_and(sound_losses, tf.reduce_all([x.finite for x in prepared.values()]))
    mendable = tf.reduce_all(
        [prepared[name].finite | (o.scale > 1.0) for name, o in optimizers.items()]
    )
    metrics = {
        "skipped": tf.cast(~sound, tf.float32),
        "nonfinite": tf.cast(~(sound_losses & mendable), tf.float32),
    }
    for name, optimizer in optimizers.items():
        report = optimizer.step(prepared[name], sound)
        metrics |= {f"{name}_{key}": value for key, value in report.items()}
    return metrics
