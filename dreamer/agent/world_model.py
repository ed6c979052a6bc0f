"""World model: encoder, RSSM, decoder and heads, trained together on replayed sequences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from dreamer.agent.kl import KLLoss, features_ahead
from dreamer.agent.precision import dtype_policy
from dreamer.agent.representation import Representation, make_representation
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.nets.decoder import Decoder
from dreamer.nets.encoder import Encoder
from dreamer.nets.heads import Discount, Reward
from dreamer.nets.layer_style import LayerStyle
from dreamer.nets.rssm import RSSM, State, make_rssm
from dreamer.nets.scaling import VectorScaling
from dreamer.ops.shapes import flatten_leading, over_leading

Tensors = dict[str, tf.Tensor]
# The config's sections by name. A section's keys are keyword arguments of the class that it is for,
# which declares their types; configs/defaults.yaml explains them.
Sections = Mapping[str, Mapping[str, Any]]


class WorldModel(keras.layers.Layer):
    """Learns to predict observations, rewards and the next latent states.

    Loss, averaged over B and T (arXiv 1912.01603, equation 10; numbers of the TF2 release):

        -log p(obs) - log p(reward) + kl_scale * max(mean KL(post || prior), free_nats)

    and with a discount head - scale * log Bernoulli(gamma * cont). `KLLoss` has the KL's variants.
    A representation loss (`dreamer.agent.representation`) may replace -log p(obs). The decoder is
    then a diagnostic: it learns from features whose gradient is stopped, and the optimizer clips
    its variables, `diagnostic_variables`, apart.

    Args:
        encoder, rssm, decoder, reward, discount, representation: The parts; the discount head may
            be None.
        scaling: Of vectors.
        kl: The loss of prior and posterior.
    """

    def __init__(
        self, encoder: Encoder, rssm: RSSM, decoder: Decoder, reward: Reward,
        discount: Discount | None, representation: Representation, scaling: VectorScaling,
        kl: KLLoss, **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.encoder, self.rssm, self.decoder = encoder, rssm, decoder
        self.reward, self.discount, self.representation = reward, discount, representation
        self.scaling = scaling
        self.inputs, self.targets, self._kl = encoder.shapes, decoder.shapes, kl

    def build(self, input_shape=None):
        self.scaling.build()
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
        steps = self._kl.overshooting
        return self.rssm.stoch_size * steps or int(steps > 1)  # 1 for `features_ahead`

    def preprocess(self, obs: Mapping[str, tf.Tensor]) -> Tensors:
        """uint8 images to float32 in [-0.5, 0.5]; everything else to float32, vectors scaled."""
        floats = {k: tf.cast(v, tf.float32) for k, v in obs.items()}
        return {
            k: v / 255.0 - 0.5 if obs[k].dtype == tf.uint8 else self.scaling.scaled(k, v)
            for k, v in floats.items()
        }

    def learn_scales(self, batch: Mapping[str, tf.Tensor]) -> None:
        """Updates the statistics that normalise what the model sees; call it once an update."""
        self.scaling.learn(batch)
        if self.reward.scale:
            self.reward.scale.learn(batch["reward"][..., None])

    def embed(self, obs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Preprocessed observations [..., *shape] -> embeddings [..., E]."""
        flat = {k: flatten_leading(obs[k], len(s)) for k, s in self.inputs.items()}
        key, shape = next(iter(self.inputs.items()))
        lead = obs[key].shape[: -len(shape)]
        return tf.reshape(self.encoder(flat), [*lead, self.encoder.size])

    def observe(self, batch: Mapping[str, tf.Tensor], noise: tf.Tensor) -> tuple[State, State]:
        """Filters a batch like `loss`'s: posterior and prior states, entries [B, T, ...]."""
        embed = self.embed(self.preprocess({k: batch[k] for k in self.inputs}))
        return self.rssm.observe(embed, batch["action"], batch["is_first"], noise)

    def loss(
        self, batch: Mapping[str, tf.Tensor], noise: tf.Tensor
    ) -> tuple[tf.Tensor, State, Tensors]:
        """Loss of a batch of sequences.

        Args:
            batch: Observations [B, T, ...], action [B, T, A], reward, cont, is_first [B, T]; and
                perhaps latent [B, F], features of the states before the sequences.
            noise: float32 [B, T, noise_size], standard Normal.
        Returns:
            Loss [], the diagnostics' included; posterior states, entries [B, T, ...]; and scalar
            metrics, of which model_loss leaves the diagnostics out.
        """
        rssm, steps = self.rssm, self._kl.overshooting
        obs = self.preprocess({k: batch[k] for k in {**self.inputs, **self.targets}})
        filtering, further = noise[..., : rssm.stoch_size], noise[..., rssm.stoch_size :]
        embed = self.embed(obs)
        start = rssm.state(batch["latent"]) if "latent" in batch else None
        post, prior = rssm.observe(embed, batch["action"], batch["is_first"], filtering, start)
        feat = rssm.feat(rssm.head_state(post, prior))  # [B, T, F]
        if steps > 1 and not rssm.stoch_size:
            feat = features_ahead(rssm, prior, batch, further, steps)
        decoded = self._decoder_losses(feat, obs)
        losses = dict(decoded) if self.representation.reconstructs else {}
        losses |= self.representation.losses(embed, feat)
        losses |= self._head_losses(feat, batch)
        kl_losses, kl_metrics = self._kl.losses(rssm, post, prior, batch, further)
        losses |= kl_losses
        total = tf.add_n(list(losses.values()))
        metrics = {"model_loss": total, **decoded, **losses, **kl_metrics}
        metrics |= self.scaling.scalars()
        if self.reward.scale:
            metrics["reward_scale"] = self.reward.scale.std[0]
        if not self.representation.reconstructs:
            total += tf.add_n(list(decoded.values()))
        return total, post, metrics

    def _decoder_losses(self, feat: tf.Tensor, obs: Mapping[str, tf.Tensor]) -> Tensors:
        """Losses of the decoded observations [B, T, ...], given features [B, T, F]."""
        seen = flatten_leading(feat if self.representation.reconstructs else tf.stop_gradient(feat))
        shown = {k: flatten_leading(obs[k], len(s)) for k, s in self.targets.items()}
        log_probs, scale = self.decoder.log_prob(seen, shown), self.decoder.scale
        return {f"{key}_loss": -scale * tf.reduce_mean(x) for key, x in log_probs.items()}

    def _head_losses(self, feat: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> Tensors:
        """Losses of the reward head and the discount head, given features [B, T, F]."""
        flat, reward = flatten_leading(feat), self.reward.target(tf.reshape(batch["reward"], [-1]))
        losses = {"reward_loss": -tf.reduce_mean(self.reward.log_prob(flat, reward))}
        if self.discount:
            losses["discount_loss"] = self.discount.loss(flat, tf.reshape(batch["cont"], [-1]))
        return losses

    def open_loop(
        self, batch: Mapping[str, tf.Tensor], context: int, noise: tf.Tensor
    ) -> tuple[Tensors, Tensors]:
        """Filters `context` timesteps, then predicts the others from the actions alone.

        Args:
            batch: Like `loss`'s.
            context: Timesteps with observations, 1 to T - 1.
            noise: float32 [B, T, S].
        Returns:
            Truth and predicted means, by decoded observation, [B, T, ...]: images preprocessed,
            vectors in the environment's units. Both have the reward too, under "reward", [B, T],
            on the scale that is learnt.
        """
        obs = self.preprocess({k: batch[k] for k in self.targets})
        seen = {k: v[:, :context] for k, v in batch.items()}
        post, prior = self.observe(seen, noise[:, :context])
        state = {k: v[:, -1] for k, v in post.items()}
        feats = [self.rssm.feat(self.rssm.head_state(post, prior))]
        for t in range(context, batch["action"].shape[1]):
            state = self.rssm.imagine_step(state, batch["action"][:, t], noise[:, t])
            feats.append(self.rssm.feat(state)[:, None])
        feat = tf.concat(feats, 1)  # [B, T, F]
        means = self.decoder(flatten_leading(feat))
        model = {k: tf.reshape(v, [*feat.shape[:2], *v.shape[1:]]) for k, v in means.items()}
        truth, model = (
            {k: self.scaling.unscaled(k, v) for k, v in found.items()} for found in (obs, model)
        )
        model["reward"] = over_leading(self.reward, feat)
        return {**truth, "reward": self.reward.target(batch["reward"])}, model


def make_world_model(
    obs_space: Mapping[str, Space], act_space: Space, sections: Sections, *, gamma: float,
    precision: str, seed: int, model_class: type[WorldModel] = WorldModel,
) -> WorldModel:  # fmt: skip
    """Makes and builds a world model. Its weights, and those of networks made later, follow `seed`.

    Args:
        obs_space, act_space, sections, seed, model_class: As `make_dreamer`'s.
        gamma: Discount factor in the discount head's targets.
        precision: float32, bfloat16 or float16.
    Raises:
        UserError: If observations do not fit, or settings do not fit each other.
    """
    keras.utils.set_random_seed(seed)
    policy = dtype_policy(precision)
    shapes = {key: space.shape for key, space in obs_space.items()}
    loss, head = dict(sections["loss"]), dict(sections["discount"])
    name, enabled = loss.pop("representation"), head.pop("enabled")
    style = LayerStyle(**sections["layers"])
    styled = {"style": style, "dtype": policy}
    kl = KLLoss(**loss)
    encoder = Encoder(shapes, **sections["encoder"], **styled, name="encoder")
    rssm = make_rssm(
        actions=act_space.shape[0], embed=encoder.size, **sections["rssm"], **styled, name="rssm",
    )  # fmt: skip
    decoder = Decoder(shapes, **sections["decoder"], **styled, name="decoder")
    _check(decoder.shapes, name, rssm, kl)
    model = model_class(
        encoder,
        rssm,
        decoder,
        Reward(**sections["reward"], **styled, name="reward"),
        Discount(**head, gamma=gamma, **styled, name="discount") if enabled else None,
        make_representation(name, rssm.feat_size, sections.get(name, {}), policy, style),
        VectorScaling(encoder.shapes | decoder.shapes, **sections["inputs"], name="scaling"),
        kl,
        dtype=policy,
        name="world_model",
    )
    model.build()
    return model


def _check(targets: Iterable[str], representation: str, rssm: RSSM, kl: KLLoss) -> None:
    """Refuses two losses of one name, and KL settings for latent dynamics that have no KL."""
    for key in targets:
        if key in ("kl", "overshooting", representation, "reward", "discount", "model"):
            raise UserError(
                f"an observation is named {key!r}, and so is a loss of the model: rename it, or "
                "leave it out with decoder.keys"
            )
    for name, off in (("overshooting_scale", 1), ("kl_balance", 0)):
        value = getattr(kl, name)
        if value != off and not rssm.stoch_size:
            raise UserError(
                f"loss.{name} is {value}, but rssm.kind deterministic_only has no latent and so "
                f"no KL; leave loss.{name} at {off}, or choose another rssm.kind"
            )
