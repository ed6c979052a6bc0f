"""The world model's KL terms: free nats, balancing, overshooting; and predictions far ahead."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf
import tensorflow_probability as tfp

from dreamer.nets.rssm import RSSM, State
from dreamer.ops.replicas import average
from dreamer.ops.shapes import flatten_leading


@dataclass(frozen=True)
class KLLoss:
    """KL between posteriors and priors of one step ahead, and of more (arXiv 1811.04551, eq. 7).

        kl_loss           = kl_scale / D * free(KL_1)
        overshooting_loss = overshooting_scale kl_scale / D * sum_(d=2..D) free(KL_d)

    KL_d is KL(q(s_t | o_<=t) || p(s_t | s_(t-1))), where d - 1 samples of the prior lead from the
    posterior sample s_(t-d) to s_(t-1). With D = 1 the first line is Dreamer's KL term. Free nats
    apply to the batch's mean, max(mean KL, free_nats) (TF2 release), or to each step,
    mean max(0, KL - free_nats) (TF1 release). Equation 7 has none; here they apply to each distance
    by itself.

    Attributes:
        kl_scale: Weight of the one-step KL, beta (beta_1).
        free_nats: KL below which there is no gradient.
        free_nats_per_step: Clip each step's KL instead of the batch's mean.
        kl_balance: Share alpha of the one-step KL's gradient that goes to the prior,
            alpha KL(stop(post) || prior) + (1 - alpha) KL(post || stop(prior)) (DreamerV2, arXiv
            2010.02193, algorithm 2); 0 for the ordinary gradient, the whole of it to both sides.
        overshooting: D, the largest distance; 1 for no overshooting.
        overshooting_scale: Weight of each distance above 1, relative to that of distance 1:
            beta_>1 / beta_1; 1 for one beta, as in PlaNet's experiments.
    """

    kl_scale: float
    free_nats: float
    free_nats_per_step: bool
    kl_balance: float
    overshooting: int
    overshooting_scale: float

    def losses(
        self, rssm: RSSM, post: State, prior: State, batch: Mapping[str, tf.Tensor], noise
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """The loss terms and the metrics of filtered sequences.

        Args:
            rssm: The latent dynamics.
            post, prior: Filtered states, entries [B, T, ...].
            batch: action [B, T, A] and is_first [B, T] are used, for overshooting.
            noise: float32 [B, T, (D - 1) S], standard Normal, not the posterior's; D <= T.
        Returns:
            Loss terms, and unweighted KLs and entropies, all scalars; none if S = 0.
        """
        if not rssm.stoch_size:
            return {}, {}
        if self.kl_balance:
            to_prior, to_post = _kl(rssm, _stop(post), prior), _kl(rssm, post, _stop(prior))
            kl = self.kl_balance * to_prior + (1.0 - self.kl_balance) * to_post  # [B, T]
        else:
            kl = _kl(rssm, post, prior)
        losses = {"kl_loss": self.kl_scale / self.overshooting * self.free(kl)}
        metrics = {
            "kl": tf.reduce_mean(kl),
            "prior_entropy": tf.reduce_mean(rssm.dist(prior).entropy()),
            "post_entropy": tf.reduce_mean(rssm.dist(post).entropy()),
        }
        if self.overshooting > 1:
            terms, further = self._overshoot(rssm, post, prior, batch, noise)
            scale = self.overshooting_scale * self.kl_scale / self.overshooting
            losses["overshooting_loss"] = scale * terms
            metrics["overshooting_kl"] = further
        return losses, metrics

    def free(self, kl: tf.Tensor, valid: tf.Tensor | None = None) -> tf.Tensor:
        """Mean KL [] with the free nats applied, over the valid entries of float32 [B, T]."""
        if self.free_nats_per_step:
            return _mean(tf.maximum(kl - self.free_nats, 0.0), valid)
        return tf.maximum(_mean(kl, valid), self.free_nats)

    def _overshoot(
        self, rssm: RSSM, post: State, prior: State, batch: Mapping[str, tf.Tensor], noise
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Sum over the distances 2..D of their free(KL_d), and the mean KL over all of their pairs.

        As in PlaNet, the target posterior has no gradient, so these terms train the predictions to
        match it, not the reverse. The posterior sample that a prediction starts from has a
        gradient, which trains posterior and encoder to be good starts.
        A pair counts if both states lie in one sequence and episode; the state of zeros before a
        sequence is a start too, as at distance 1. Like equation 7's sum over t, a distance's term
        grows with its number of pairs: it is their mean times their share of B*T.
        """
        noises = tf.split(noise, self.overshooting - 1, -1)  # [B, T, S] each
        target, entries = _stop(post), tf.size(batch["is_first"], tf.float32)
        terms, total, pairs = [], 0.0, 0.0
        for i, (ahead, valid) in enumerate(predict_ahead(rssm, prior, batch, noises), 1):
            kl = _kl(rssm, {k: v[:, i:] for k, v in target.items()}, ahead)
            share = average(tf.reduce_sum(valid)) / entries
            terms.append(share * self.free(kl, valid))
            total, pairs = total + tf.reduce_sum(kl * valid), pairs + tf.reduce_sum(valid)
        return tf.add_n(terms), tf.math.divide_no_nan(average(total), average(pairs))


def predict_ahead(
    rssm: RSSM, prior: State, batch: Mapping[str, tf.Tensor], noises: Sequence[tf.Tensor]
) -> Iterator[tuple[State, tf.Tensor]]:
    """Predictions of the states of sequences over 2, 3, .. steps, each from the one before.

    Args:
        rssm: The latent dynamics.
        prior: Predictions over one step, entries [B, T, ...].
        batch: action [B, T, A] and is_first [B, T] are used.
        noises: float32 [B, T, S] for each further step, at most T - 1 of them.
    Yields:
        For distance d the states of the timesteps d-1..T-1, entries [B, T-d+1, ...], stoch being
        the mean; and float32 [B, T-d+1], 0 where a new episode began on the way.
    """
    size, length = batch["is_first"].shape
    cont = 1.0 - tf.cast(batch["is_first"], tf.float32)  # [B, T]
    ahead, valid = {**prior}, tf.ones_like(cont)
    for i, eps in enumerate(noises):
        ahead["stoch"] = rssm.latent.sample(ahead, eps[:, i:])
        before = {k: flatten_leading(v[:, :-1]) for k, v in ahead.items()}
        action, zeros = flatten_leading(batch["action"][:, i + 1 :]), before["stoch"] * 0.0
        reached = rssm.imagine_step(before, action, zeros)
        shape = (size, length - i - 1)
        ahead = {k: tf.reshape(v, [*shape, v.shape[-1]]) for k, v in reached.items()}
        valid = valid[:, :-1] * cont[:, i + 1 :]
        yield {**ahead}, valid


def features_ahead(
    rssm: RSSM, prior: State, batch: Mapping[str, tf.Tensor], draws: tf.Tensor, steps: int
) -> tf.Tensor:
    """Features of predictions over 1..D steps: of each timestep, one at a distance that is drawn.

    With latent dynamics that have no stochastic path there is no KL to overshoot. The heads'
    likelihoods take its place: their mean over the timesteps is an unbiased estimate of

        1/D sum_(d=1..D) mean_t log p(timestep_t | h_t^d)

    where d - 1 steps of the prior lead from the posterior h_(t-d) to h_t^d. Where the sequence or
    the episode has begun fewer than d steps ago, the longest prediction takes the place of h_t^d.

    Args:
        rssm, prior, batch: As `predict_ahead`'s.
        draws: float32 [B, T, 1], standard Normal.
        steps: D.
    Returns:
        float32 [B, T, F].
    """
    feat, uniform = rssm.feat(prior), 0.5 * (1.0 + tf.math.erf(draws / math.sqrt(2.0)))
    noises = [tf.zeros([*feat.shape[:2], rssm.stoch_size])] * (min(steps, feat.shape[1]) - 1)
    for i, (ahead, valid) in enumerate(predict_ahead(rssm, prior, batch, noises), 1):
        further = tf.pad(rssm.feat(ahead), [[0, 0], [i, 0], [0, 0]])
        reached = tf.pad(valid, [[0, 0], [i, 0]])[..., None] > 0.0
        feat = tf.where(reached & (uniform >= i / steps), further, feat)
    return feat


def _kl(rssm: RSSM, post: State, prior: State) -> tf.Tensor:
    return tfp.distributions.kl_divergence(rssm.dist(post), rssm.dist(prior))


def _stop(state: State) -> State:
    return {k: tf.stop_gradient(v) for k, v in state.items()}


def _mean(values: tf.Tensor, valid: tf.Tensor | None) -> tf.Tensor:
    """Mean over the whole batch, of which this device may have only a share."""
    if valid is None:
        return average(tf.reduce_mean(values))
    valued = average(tf.reduce_sum(values * valid))
    return tf.math.divide_no_nan(valued, average(tf.reduce_sum(valid)))
