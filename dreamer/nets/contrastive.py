"""Contrastive representation loss (arXiv 1912.01603, section 4)."""

from __future__ import annotations

from typing import ClassVar

import tensorflow as tf

from dreamer.nets.layers import MLP
from dreamer.ops.contrast import contrastive_loss, pairwise_log_prob
from dreamer.ops.distributions import inverse_softplus
from dreamer.ops.replicas import gather, replicas
from dreamer.ops.shapes import flatten_leading


class Contrastive(MLP):
    """Predicts from an embedding which state it belongs to, as a diagonal Normal over features.

    std = min_std + softplus(x + c), where the constant c makes std = init_std at x = 0.

    Args:
        feat_size: F.
        layers: Hidden layers.
        units: Their width.
        init_std: Standard deviations at the start, above min_std.
        min_std: Least standard deviation.
        negatives: "observations" or "features"; see `losses`.
        batch_shifts, time_shifts: Size of the window of negatives; see `contrastive_loss`.

    Input shape: [N, E]. Output: means and standard deviations, float32 [N, F] each.
    """

    reconstructs: ClassVar[bool] = False

    def __init__(
        self, feat_size: int, *, layers: int, units: int, init_std: float, min_std: float,
        negatives: str = "observations", batch_shifts: int = 10, time_shifts: int = 30, **kwargs,
    ):  # fmt: skip
        super().__init__(layers, units, 2 * feat_size, **kwargs)
        self._offset, self._min_std = inverse_softplus(init_std - min_std), min_std
        self._negatives, self._shifts = negatives, (batch_shifts, time_shifts)

    def call(self, embed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean, std = tf.split(super().call(embed), 2, -1)
        return mean, self._min_std + tf.nn.softplus(std + self._offset)

    def losses(self, embed: tf.Tensor, feat: tf.Tensor) -> dict[str, tf.Tensor]:
        """Mean of -log q(s|o) + log sum_o' q(s|o'), where q is a Normal over features given o.

        With negatives "observations" (the paper) the state is held, and o' are the observations of
        other sequences and times. With "features" (TF1 release) the observation is held, and the
        sum is over the states of others. Gradients reach the encoder and the RSSM.

        Args:
            embed: [B, T, E].
            feat: float32 [B, T, F].
        """
        b, t = feat.shape[:2]
        rows = flatten_leading(feat), *self(flatten_leading(embed))
        states, mean, std = map(gather, rows)  # [B*T, F], of the whole batch
        log_prob = pairwise_log_prob(states, mean, std)  # [state, observation]
        if self._negatives == "features":
            log_prob = tf.transpose(log_prob)
        loss = contrastive_loss(log_prob, b * replicas(), t, *self._shifts)
        return {"contrastive_loss": loss}
