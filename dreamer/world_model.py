"""World model: encoder, RSSM, decoder and reward, trained together on replayed sequences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from dreamer.errors import UserError
from dreamer.nets.decoder import Decoder
from dreamer.nets.discount import Discount
from dreamer.nets.encoder import Encoder
from dreamer.nets.reward import Reward
from dreamer.nets.rssm import RSSM, State
from dreamer.ops.shapes import flatten_leading, over_leading

Tensors = dict[str, tf.Tensor]


def matching_keys(part: str, pattern: str, shapes: Mapping[str, tuple]) -> dict[str, tuple]:
    """The observations whose whole name matches a pattern.

    Raises:
        UserError: If the pattern is no regular expression, or matches nothing.
    """
    try:
        chosen = {k: s for k, s in shapes.items() if re.fullmatch(pattern, k)}
    except re.error as error:
        raise UserError(f"{part}.keys {pattern!r} is not a regular expression: {error}") from None
    if not chosen:
        raise UserError(f"{part}.keys {pattern!r} matches none of {', '.join(sorted(shapes))}")
    for key, shape in chosen.items():
        is_image = len(shape) == 3 and tuple(shape[:2]) == (64, 64)
        if len(shape) != 1 and not is_image:
            raise UserError(
                f"{part} takes images [64, 64, channels] and vectors [size], but {key} has shape "
                f"{list(shape)}; choose other observations with {part}.keys"
            )
    return chosen


class WorldModel(keras.layers.Layer):
    """Learns what the environment shows, rewards, and does next.

    Loss, averaged over B and T (arXiv 1912.01603, equation 10; numbers of the TF2 release):
    -log p(obs) - log p(reward) + kl_scale * max(mean KL(post || prior), free_nats), and with a
    discount head - scale * log Bernoulli(gamma * cont).

    Args:
        shapes: Observation key -> shape.
        actions: A.
        encoder, decoder, rssm, reward, discount: Keyword arguments of each part; the first two
            with ``keys``, a regular expression over observation names, discount with ``enabled``
            and ``scale``.
        gamma: Discount factor that the discount head's targets carry.
        kl_scale: Weight of the KL term, beta.
        free_nats: KL below which there is no gradient.
        free_nats_per_step: Clip each step's KL (TF1 release) instead of the batch's mean (TF2).
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple],
        actions: int,
        *,
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        rssm: Mapping[str, Any],
        reward: Mapping[str, Any],
        discount: Mapping[str, Any],
        gamma: float,
        kl_scale: float,
        free_nats: float,
        free_nats_per_step: bool,
        **kwargs,
    ):
        super().__init__(**kwargs)
        encoder, decoder, discount = dict(encoder), dict(decoder), dict(discount)
        self.inputs = matching_keys("encoder", encoder.pop("keys"), shapes)
        self.targets = matching_keys("decoder", decoder.pop("keys"), shapes)
        self._gamma, self._kl_scale = gamma, kl_scale
        self._free_nats, self._per_step = free_nats, free_nats_per_step
        has_discount, self._discount_scale = discount.pop("enabled"), discount.pop("scale")
        policy = self.dtype_policy
        self.encoder = Encoder(self.inputs, **encoder, dtype=policy, name="encoder")
        self.rssm = RSSM(actions, self.encoder.size, **rssm, dtype=policy, name="rssm")
        self.decoder = Decoder(self.targets, **decoder, dtype=policy, name="decoder")
        self.reward = Reward(**reward, dtype=policy, name="reward")
        self.discount = (
            Discount(**discount, dtype=policy, name="discount") if has_discount else None
        )

    def build(self, input_shape=None):
        self.encoder.build()
        for head in filter(None, (self.decoder, self.reward, self.discount)):
            head.build((None, self.rssm.feat_size))
        self.built = True

    def preprocess(self, obs: Mapping[str, tf.Tensor]) -> Tensors:
        """uint8 images to float32 in [-0.5, 0.5]; everything else to float32."""
        floats = {k: tf.cast(v, tf.float32) for k, v in obs.items()}
        return {
            k: v / 255.0 - 0.5 if obs[k].dtype == tf.uint8 else v for k, v in floats.items()
        }

    def embed(self, obs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Preprocessed observations [N, ...] -> embeddings [N, E]."""
        return self.encoder({k: obs[k] for k in self.inputs})

    def observe(self, batch: Mapping[str, tf.Tensor], obs: Tensors, noise: tf.Tensor):
        """Filters a batch.

        Args:
            batch: action [B, T, A] and is_first [B, T] are used.
            obs: Preprocessed observations [B, T, ...].
            noise: float32 [B, T, S].
        Returns:
            Posterior and prior states, entries [B, T, ...].
        """
        length = batch["action"].shape[1]
        embed = self.embed({k: flatten_leading(obs[k], len(s)) for k, s in self.inputs.items()})
        embed = tf.reshape(embed, [-1, length, self.encoder.size])  # [B, T, E]
        return self.rssm.observe(embed, batch["action"], batch["is_first"], noise)

    def loss(
        self, batch: Mapping[str, tf.Tensor], noise: tf.Tensor
    ) -> tuple[tf.Tensor, State, Tensors]:
        """Representation loss of a batch of sequences.

        Args:
            batch: Observations [B, T, ...], action [B, T, A], reward, cont, is_first [B, T].
            noise: float32 [B, T, S], standard Normal.
        Returns:
            Loss [], posterior states with entries [B, T, ...], and scalar metrics.
        """
        obs = self.preprocess({k: batch[k] for k in {**self.inputs, **self.targets}})
        post, prior = self.observe(batch, obs, noise)
        feat = flatten_leading(self.rssm.feat(post))  # [B*T, F]
        losses = self._likelihood_losses(feat, obs, batch)
        kl = tfp.distributions.kl_divergence(self.rssm.dist(post), self.rssm.dist(prior))
        losses["kl_loss"] = self._kl_scale * self._free(kl)
        total = tf.add_n(list(losses.values()))
        metrics = {
            "model_loss": total,
            **losses,
            "kl": tf.reduce_mean(kl),
            "prior_entropy": tf.reduce_mean(self.rssm.dist(prior).entropy()),
            "post_entropy": tf.reduce_mean(self.rssm.dist(post).entropy()),
        }
        return total, post, metrics

    def open_loop(
        self, batch: Mapping[str, tf.Tensor], context: int, noise: tf.Tensor
    ) -> tuple[Tensors, Tensors]:
        """Filters `context` steps, then predicts the rest from the actions alone.

        Args:
            batch: Like `loss`'s.
            context: Steps with observations, 1 to T - 1.
            noise: float32 [B, T, S].
        Returns:
            Preprocessed truth and predicted means of the decoded observations, [B, T, ...], and
            under "reward" those of the reward [B, T], on the scale that is learnt.
        """
        obs = self.preprocess({k: batch[k] for k in {**self.inputs, **self.targets}})
        seen, seen_obs = ({k: v[:, :context] for k, v in x.items()} for x in (batch, obs))
        post, _ = self.observe(seen, seen_obs, noise[:, :context])
        state = {k: v[:, -1] for k, v in post.items()}
        feats = [self.rssm.feat(post)]
        for t in range(context, batch["action"].shape[1]):
            state = self.rssm.imagine_step(state, batch["action"][:, t], noise[:, t])
            feats.append(self.rssm.feat(state)[:, None])
        feat = tf.concat(feats, 1)  # [B, T, F]
        length = feat.shape[1]
        means = self.decoder(flatten_leading(feat))
        model = {k: tf.reshape(v, [-1, length, *v.shape[1:]]) for k, v in means.items()}
        model["reward"] = over_leading(self.reward, feat)
        truth = {k: obs[k] for k in self.targets}
        truth["reward"] = self.reward.target(batch["reward"])
        return truth, model

    def _likelihood_losses(
        self, feat: tf.Tensor, obs: Tensors, batch: Mapping[str, tf.Tensor]
    ) -> Tensors:
        target = {k: flatten_leading(obs[k], len(s)) for k, s in self.targets.items()}
        losses = {
            f"{key}_loss": -tf.reduce_mean(log_prob)
            for key, log_prob in self.decoder.log_prob(feat, target).items()
        }
        reward = self.reward.target(tf.reshape(batch["reward"], [-1]))
        losses["reward_loss"] = -tf.reduce_mean(self.reward.dist(feat).log_prob(reward))
        if self.discount:
            cont = self._gamma * tf.reshape(batch["cont"], [-1])
            likelihood = tf.reduce_mean(self.discount.log_prob(feat, cont))
            losses["discount_loss"] = -self._discount_scale * likelihood
        return losses

    def _free(self, kl: tf.Tensor) -> tf.Tensor:
        if self._per_step:
            return tf.reduce_mean(tf.maximum(kl - self._free_nats, 0.0))
        return tf.maximum(tf.reduce_mean(kl), self._free_nats)
