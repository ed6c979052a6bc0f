"""World model: encoder, RSSM, decoder and heads, trained together on replayed sequences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import keras
import tensorflow as tf

from dreamer.agent.kl import KLLoss
from dreamer.agent.representation import make_representation
from dreamer.agent.settings import CoderSettings, ModelSettings
from dreamer.errors import UserError
from dreamer.nets.decoder import Decoder
from dreamer.nets.discount import Discount
from dreamer.nets.encoder import Encoder
from dreamer.nets.reward import Reward
from dreamer.nets.rssm import State
from dreamer.nets.rssm_kinds import make_rssm
from dreamer.ops.shapes import flatten_leading, over_leading

Tensors = dict[str, tf.Tensor]


class WorldModel(keras.layers.Layer):
    """Learns what the environment shows, rewards, and does next.

    Loss, averaged over B and T (arXiv 1912.01603, equation 10; numbers of the TF2 release):

        -log p(obs) - log p(reward) + kl_scale * max(mean KL(post || prior), free_nats)

    and with a discount head - scale * log Bernoulli(gamma * cont). `KLLoss` has the KL's variants.
    A representation loss (`dreamer.agent.representation`) may replace -log p(obs). The decoder is
    then a diagnostic: it learns from features whose gradient is stopped, and the optimizer clips
    its variables, `diagnostic_variables`, apart.

    Args:
        shapes: Observation key -> shape.
        actions: A.
        settings: Sizes of the networks and weights of the losses.
        gamma: Discount factor in the discount head's targets.
    Raises:
        UserError: If observations do not fit, or settings do not fit each other.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple],
        actions: int,
        settings: ModelSettings,
        gamma: float,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.inputs = matching_keys("encoder", settings.encoder.keys, shapes)
        self.targets = matching_keys("decoder", settings.decoder.keys, shapes)
        _check_names(self.targets, settings.representation)
        _check_kind(settings.rssm.kind, settings.kl)
        self._gamma, self._kl = gamma, settings.kl
        self._discount_scale = settings.discount.scale
        policy, rssm, reward = self.dtype_policy, settings.rssm, settings.reward
        self.encoder = Encoder(
            self.inputs, **_sizes(settings.encoder), dtype=policy, name="encoder"
        )
        self.rssm = make_rssm(
            rssm.kind,
            actions,
            self.encoder.size,
            stoch=rssm.stoch,
            deter=rssm.deter,
            hidden=rssm.hidden,
            min_std=rssm.min_std,
            dtype=policy,
            name="rssm",
        )
        self.decoder = Decoder(
            self.targets, **_sizes(settings.decoder), dtype=policy, name="decoder"
        )
        self.reward = Reward(
            layers=reward.layers,
            units=reward.units,
            transform=reward.transform,
            dtype=policy,
            name="reward",
        )
        self.discount: Discount | None = None
        if settings.discount.enabled:
            layers, units = settings.discount.layers, settings.discount.units
            self.discount = Discount(layers=layers, units=units, dtype=policy, name="discount")
        self.representation = make_representation(
            settings.representation,
            self.rssm.feat_size,
            settings.representation_settings,
            dtype=policy,
        )

    def build(self, input_shape=None):
        self.encoder.build()
        for head in filter(None, (self.decoder, self.reward, self.discount)):
            head.build((None, self.rssm.feat_size))
        self.representation.build((None, self.encoder.size))
        self.built = True

    @property
    def diagnostic_variables(self) -> list:
        """Trainable variables that affect no loss but their own; none by default."""
        return [] if self.representation.reconstructs else self.decoder.trainable_variables

    @property
    def noise_size(self) -> int:
        """Width of the noise that `loss` takes: S, and more with overshooting."""
        return self._kl.noise_size(self.rssm.stoch_size)

    def preprocess(self, obs: Mapping[str, tf.Tensor]) -> Tensors:
        """uint8 images to float32 in [-0.5, 0.5]; everything else to float32."""
        floats = {k: tf.cast(v, tf.float32) for k, v in obs.items()}
        return {
            k: v / 255.0 - 0.5 if obs[k].dtype == tf.uint8 else v for k, v in floats.items()
        }

    def embed(self, obs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Preprocessed observations [N, ...] -> embeddings [N, E]."""
        return self.encoder({k: obs[k] for k in self.inputs})

    def observe(
        self, batch: Mapping[str, tf.Tensor], obs: Tensors, noise: tf.Tensor
    ) -> tuple[State, State]:
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
        """Loss of a batch of sequences.

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
        feat = self.rssm.feat(self.rssm.head_state(post, prior))  # [B, T, F]
        decoded = self._decoder_losses(flatten_leading(feat), obs)
        losses = dict(decoded) if self.representation.reconstructs else {}
        losses |= self.representation.losses(embed, feat)
        losses |= self._head_losses(flatten_leading(feat), batch)
        kl_losses, kl_metrics = self._kl.losses(self.rssm, post, prior, batch, further)
        losses |= kl_losses
        total = tf.add_n(list(losses.values()))
        metrics = {"model_loss": total, **decoded, **losses, **kl_metrics}
        if not self.representation.reconstructs:
            total += tf.add_n(list(decoded.values()))
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
        post, prior = self.observe(seen, seen_obs, noise[:, :context])
        state = {k: v[:, -1] for k, v in post.items()}
        feats = [self.rssm.feat(self.rssm.head_state(post, prior))]
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

    def _decoder_losses(self, feat: tf.Tensor, obs: Tensors) -> Tensors:
        feat = feat if self.representation.reconstructs else tf.stop_gradient(feat)
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


def _sizes(settings: CoderSettings) -> dict[str, int]:
    sizes = settings.cnn_depth, settings.mlp_layers, settings.mlp_units
    return dict(zip(("cnn_depth", "mlp_layers", "mlp_units"), sizes, strict=True))


def _check_names(targets: Iterable[str], representation: str) -> None:
    """Refuses observations whose loss would have the name of another loss."""
    for key in targets:
        if key in ("kl", "overshooting", representation, "reward", "discount", "model"):
            raise UserError(
                f"an observation is named {key!r}, and so is a loss of the model: rename it, or "
                "leave it out with decoder.keys"
            )


def _check_kind(kind: str, kl: KLLoss) -> None:
    """Refuses KL settings for latent dynamics that have no KL."""
    if kind != "deterministic_only":
        return
    for name, value, off in (
        ("overshooting", kl.overshooting, 1),
        ("kl_balance", kl.kl_balance, 0),
    ):
        if value != off:
            raise UserError(
                f"loss.{name} is {value}, but rssm.kind deterministic_only has no latent and so "
                f"no KL; leave loss.{name} at {off}, or choose another rssm.kind"
            )
