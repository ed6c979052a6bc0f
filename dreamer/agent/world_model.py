"""World model: encoder, RSSM, decoder and reward, trained together on replayed sequences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from dreamer.agent.kl import Divergence
from dreamer.errors import UserError
from dreamer.nets.contrastive import Contrastive
from dreamer.nets.decoder import Decoder
from dreamer.nets.discount import Discount
from dreamer.nets.encoder import Encoder
from dreamer.nets.reward import Reward
from dreamer.nets.rssm import State
from dreamer.nets.rssm_kinds import make_rssm
from dreamer.ops.contrast import contrastive_loss, pairwise_log_prob
from dreamer.ops.replicas import gather, replicas
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
    discount head - scale * log Bernoulli(gamma * cont). dreamer.agent.kl has the KL's variants.
    In place of -log p(obs), loss.representation may put (paper, section 4 and figure 8):

    - contrastive: -log q(s|o) + log sum_o' q(s|o'), `contrastive_term`;
    - reward_only: nothing.

    Then the decoder is a diagnostic: it learns from features whose gradient is stopped, and its
    variables are `diagnostic_variables`, for the optimizer to clip apart.

    Args:
        shapes: Observation key -> shape.
        actions: A.
        encoder, decoder, rssm, reward, discount, loss, contrastive: The config's sections: keyword
            arguments of each part; the first two with ``keys``, a regular expression over
            observation names, rssm with ``kind``, discount with ``enabled`` and ``scale``, loss
            with ``representation``, contrastive with the window and ``negatives``.
        gamma: Discount factor that the discount head's targets carry.
    Raises:
        UserError: If observations do not fit, or settings do not fit each other.
        ValueError: If representation is contrastive and that section is missing.
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
        loss: Mapping[str, Any],
        gamma: float,
        contrastive: Mapping[str, Any] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        encoder, decoder, discount, loss = map(dict, (encoder, decoder, discount, loss))
        self.inputs = matching_keys("encoder", encoder.pop("keys"), shapes)
        self.targets = matching_keys("decoder", decoder.pop("keys"), shapes)
        _check_names(self.targets)
        self._gamma, self._representation = gamma, loss.pop("representation")
        self._divergence = Divergence(**loss)
        _check_kind(rssm["kind"], self._divergence)
        has_discount, self._discount_scale = discount.pop("enabled"), discount.pop("scale")
        policy = self.dtype_policy
        self.encoder = Encoder(self.inputs, **encoder, dtype=policy, name="encoder")
        embed = self.encoder.size
        self.rssm = make_rssm(actions=actions, embed=embed, **rssm, dtype=policy, name="rssm")
        self.decoder = Decoder(self.targets, **decoder, dtype=policy, name="decoder")
        self.reward = Reward(**reward, dtype=policy, name="reward")
        self.discount = (
            Discount(**discount, dtype=policy, name="discount") if has_discount else None
        )
        self._make_contrastive(dict(contrastive or {}))

    def _make_contrastive(self, settings: dict[str, Any]) -> None:
        self.contrastive: Contrastive | None = None
        if self._representation != "contrastive":
            return
        if not settings:
            raise ValueError("representation contrastive needs the config's section contrastive")
        names = ("negatives", "batch_shifts", "time_shifts")
        self._window = {name: settings.pop(name) for name in names}
        size, policy = self.rssm.feat_size, self.dtype_policy
        self.contrastive = Contrastive(size, **settings, dtype=policy, name="contrastive")

    def build(self, input_shape=None):
        self.encoder.build()
        for head in filter(None, (self.decoder, self.reward, self.discount)):
            head.build((None, self.rssm.feat_size))
        if self.contrastive:
            self.contrastive.build((None, self.encoder.size))
        self.built = True

    @property
    def diagnostic_variables(self) -> list:
        """Trainable variables of which nothing but themselves depends; none by default."""
        if self._representation == "reconstruction":
            return []
        return self.decoder.trainable_variables

    @property
    def noise_size(self) -> int:
        """Width of the noise that `loss` takes: S, and more with overshooting."""
        return self._divergence.noise_size(self.rssm.stoch_size)

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
        embed = self._embed_sequences(obs)
        return self.rssm.observe(embed, batch["action"], batch["is_first"], noise)

    def loss(
        self, batch: Mapping[str, tf.Tensor], noise: tf.Tensor
    ) -> tuple[tf.Tensor, State, Tensors]:
        """Representation loss of a batch of sequences.

        Args:
            batch: Observations [B, T, ...], action [B, T, A], reward, cont, is_first [B, T].
            noise: float32 [B, T, noise_size], standard Normal.
        Returns:
            Loss [] with the diagnostics' own, posterior states with entries [B, T, ...], and
            scalar metrics, of which model_loss is without diagnostics.
        """
        obs = self.preprocess({k: batch[k] for k in {**self.inputs, **self.targets}})
        stoch = self.rssm.stoch_size
        filtering, further = noise[..., :stoch], noise[..., stoch:]
        embed = self._embed_sequences(obs)
        post, prior = self.rssm.observe(embed, batch["action"], batch["is_first"], filtering)
        feat = self.rssm.feat(self.rssm.explaining(post, prior))  # [B, T, F]
        shown = self._observation_losses(flatten_leading(feat), obs)
        losses = {} if self.diagnostic_variables else shown
        if self.contrastive:
            losses["contrastive_loss"] = self.contrastive_term(embed, feat)
        losses |= self._head_losses(flatten_leading(feat), batch)
        divergence, metrics = self._divergence.losses(self.rssm, post, prior, batch, further)
        losses |= divergence
        total = tf.add_n(list(losses.values()))
        metrics = {"model_loss": total, **shown, **losses, **metrics}
        if self.diagnostic_variables:
            total += tf.add_n(list(shown.values()))
        return total, post, metrics

    def contrastive_term(self, embed: tf.Tensor, feat: tf.Tensor) -> tf.Tensor:
        """Mean of -log q(s|o) + log sum_o' q(s|o'), q being a Normal over features given o.

        With negatives "observations" (the paper) the state is held, and o' are the observations of
        other sequences and times; with "features" (TF1 release) the observation is held, and the
        sum is over the states of others. `contrastive_loss` says which others; gradients reach the
        encoder and the RSSM.

        Args:
            embed: [B, T, E].
            feat: float32 [B, T, F].
        Returns:
            float32 [].
        """
        assert self.contrastive is not None, "no head was made: representation is not contrastive"
        b, t = feat.shape[:2]
        rows = flatten_leading(feat), *self.contrastive(flatten_leading(embed))
        states, mean, std = map(gather, rows)  # [B*T, F], of the whole batch
        log_prob = pairwise_log_prob(states, mean, std)  # [state, observation]
        if self._window["negatives"] == "features":
            log_prob = tf.transpose(log_prob)
        shifts = self._window["batch_shifts"], self._window["time_shifts"]
        return contrastive_loss(log_prob, b * replicas(), t, *shifts)

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
        post, prior = self.observe(seen, seen_obs, noise[:, :context])
        state = {k: v[:, -1] for k, v in post.items()}
        feats = [self.rssm.feat(self.rssm.explaining(post, prior))]
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

    def _embed_sequences(self, obs: Tensors) -> tf.Tensor:
        """Preprocessed observations [B, T, ...] -> embeddings [B, T, E]."""
        lead = next(iter(obs.values())).shape[:2]
        embed = self.embed({k: flatten_leading(obs[k], len(s)) for k, s in self.inputs.items()})
        return tf.reshape(embed, [*lead, self.encoder.size])

    def _observation_losses(self, feat: tf.Tensor, obs: Tensors) -> Tensors:
        feat = tf.stop_gradient(feat) if self.diagnostic_variables else feat
        target = {k: flatten_leading(obs[k], len(s)) for k, s in self.targets.items()}
        return {
            f"{key}_loss": -tf.reduce_mean(log_prob)
            for key, log_prob in self.decoder.log_prob(feat, target).items()
        }

    def _head_losses(self, feat: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> Tensors:
        reward = self.reward.target(tf.reshape(batch["reward"], [-1]))
        losses = {"reward_loss": -tf.reduce_mean(self.reward.dist(feat).log_prob(reward))}
        if self.discount:
            cont = self._gamma * tf.reshape(batch["cont"], [-1])
            likelihood = tf.reduce_mean(self.discount.log_prob(feat, cont))
            losses["discount_loss"] = -self._discount_scale * likelihood
        return losses


def _check_names(targets: Iterable[str]) -> None:
    """Refuses observations whose loss would go by the name of another one."""
    for key in targets:
        if key in ("kl", "overshooting", "contrastive", "reward", "discount", "model"):
            raise UserError(
                f"an observation is named {key!r}, and so is a loss of the model: rename it, or "
                "leave it out with decoder.keys"
            )


def _check_kind(kind: str, divergence: Divergence) -> None:
    """Refuses KL settings for latent dynamics that have no KL."""
    if kind != "deterministic_only":
        return
    for name, value, off in (
        ("overshooting", divergence.overshooting, 1),
        ("kl_balance", divergence.kl_balance, 0),
    ):
        if value != off:
            raise UserError(
                f"loss.{name} is {value}, but rssm.kind deterministic_only has no latent and so "
                f"no KL; leave loss.{name} at {off}, or choose another rssm.kind"
            )
