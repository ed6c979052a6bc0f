"""The agent: world model, actor and value network, their optimizers, acting and learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dreamer import behavior
from dreamer.envs.spec import Space
from dreamer.exploration import Exploration
from dreamer.nets.actor import Actor, choose_distribution
from dreamer.nets.value import Value
from dreamer.ops.optimizers import Optimizer
from dreamer.ops.shapes import check_shape, flatten_leading
from dreamer.precision import choose_jit, choose_precision, dtype_policy
from dreamer.world_model import Tensors, WorldModel

Section = Mapping[str, Any]

# What the random streams are for; each has its own, keyed by a counter, so that a resumed run
# draws what the uninterrupted one would have drawn.
_LATENT, _IMAGINED, _ACTIONS, _ACTING, _OPEN_LOOP = range(5)


class Agent:
    """Dreamer (arXiv 1912.01603).

    Args:
        obs_space: Observation key -> Space: uint8 images [64, 64, C], float vectors [size].
        act_space: Continuous in [-1, 1], or one-hot.
        encoder, decoder, rssm, reward, discount, value, actor, loss, behavior, optimizer,
            explore: The sections of configs/defaults.yaml, as mappings.
        precision: auto, float32, bfloat16 or float16.
        jit: auto, on or off: compile the update with XLA.
        seed: Of the initial weights and all random streams.
    Raises:
        UserError: If the observations do not fit the networks.
    """

    def __init__(
        self,
        obs_space: Mapping[str, Space],
        act_space: Space,
        *,
        encoder: Section,
        decoder: Section,
        rssm: Section,
        reward: Section,
        discount: Section,
        value: Section,
        actor: Section,
        loss: Section,
        behavior: Section,
        optimizer: Section,
        explore: Section,
        precision: str = "auto",
        jit: str = "auto",
        seed: int = 0,
    ):
        keras.utils.set_random_seed(seed)
        self.precision = choose_precision(precision)
        self._dtype = dtype_policy(self.precision)
        self._seed, self._explore = seed, Exploration(act_space, **explore)
        self._horizon = behavior["horizon"]
        self._returns = {"gamma": behavior["gamma"], "lambda_": behavior["lambda_"]}
        self._obs_space, self._act_space = dict(obs_space), act_space
        self.world_model = WorldModel(
            {k: s.shape for k, s in obs_space.items()},
            act_space.shape[0],
            encoder=encoder,
            decoder=decoder,
            rssm=rssm,
            reward=reward,
            discount=discount,
            gamma=behavior["gamma"],
            **loss,
            dtype=self._dtype,
            name="world_model",
        )
        self.world_model.build()
        self._build_behavior(dict(actor), value)
        self._build_optimizers(optimizer)
        self._policy_calls = 0
        self._step, self._updates = 0, 0
        compiled = choose_jit(jit) or None
        self._update = tf.function(self._train_step, autograph=False, jit_compile=compiled)
        self._act = tf.function(self._policy_step, autograph=False)

    def _build_behavior(self, actor: dict[str, Any], value: Section) -> None:
        discrete = self._act_space.discrete
        actor["distribution"] = choose_distribution(actor["distribution"], discrete)
        self._mode_samples = actor.pop("mode_samples")
        size = self.world_model.rssm.feat_size
        self.actor = Actor(self._act_space.shape[0], **actor, dtype=self._dtype, name="actor")
        self.value = Value(**value, dtype=self._dtype, name="value")
        self.actor.build((None, size))
        self.value.build((None, size))

    def _build_optimizers(self, section: Section) -> None:
        shared = {
            "eps": section["eps"],
            "clip": section["clip"],
            "scale_loss": self.precision == "float16",
        }
        self._optimizers = {
            name: Optimizer(
                part.trainable_variables, section[f"{name}_lr"], **shared, name=f"{name}_adam"
            )
            for name, part in self._parts().items()
        }

    def _parts(self) -> dict[str, keras.layers.Layer]:
        return {"model": self.world_model, "actor": self.actor, "value": self.value}

    # ---------------------------------------------------------------- acting

    def progress(self, step: int, update: int) -> None:
        """Tells how far training has come, for what changes with it (``explore.over``).

        Args:
            step: Environment frames collected so far.
            update: Updates made so far.
        """
        self._step, self._updates = step, update

    def policy(
        self, records: Mapping[str, np.ndarray], state: Tensors | None, mode: str = "train"
    ) -> tuple[np.ndarray, Tensors]:
        """Chooses actions.

        Args:
            records: Observations [n, ...] and is_first [n] of n environments.
            state: What the call before returned; None at the very start. Rows with is_first
                start anew whatever it holds.
            mode: "train" samples and adds exploration noise; "eval" takes the mode.
        Returns:
            Actions float32 [n, A], and the state for the next call.
        """
        if mode not in ("train", "eval"):
            raise ValueError(f"mode should be 'train' or 'eval', but is {mode!r}")
        n = len(records["is_first"])
        if state is None:
            initial = self.world_model.rssm.initial(n)
            state = {"action": tf.zeros([n, self._act_space.shape[0]]), **initial}
        keys = [*self.world_model.inputs, "is_first"]
        tensors = {k: tf.convert_to_tensor(records[k]) for k in keys}
        calls = tf.constant(self._policy_calls, tf.int32)
        self._policy_calls += 1
        amount = tf.constant(self._explore.amount(self._step, self._updates), tf.float32)
        action, state = self._act(tensors, state, calls, amount, mode == "train")
        return action.numpy(), state

    def _policy_step(
        self,
        records: Tensors,
        state: Tensors,
        calls: tf.Tensor,
        amount: tf.Tensor,
        training: bool,
    ) -> tuple[tf.Tensor, Tensors]:
        rssm, n = self.world_model.rssm, records["is_first"].shape[0]
        seeds = self._seeds(_ACTING, calls, 4)
        obs = self.world_model.preprocess({k: records[k] for k in self.world_model.inputs})
        embed = self.world_model.embed(obs)
        noise = tf.random.stateless_normal([n, 1, rssm.stoch_size], seeds[0])
        post, _ = rssm.observe(
            embed[:, None], state["action"][:, None], records["is_first"][:, None], noise, state
        )
        latent = {k: v[:, 0] for k, v in post.items()}
        dist = self.actor.dist(rssm.feat(latent))
        if training:
            normal = tf.random.stateless_normal([n, self._act_space.shape[0]], seeds[1])
            action = self._explore(dist.from_noise(normal)[0], amount, seeds[2:])
        else:
            action = dist.mode(self._mode_samples, seeds[1])
        return action, {"action": action, **latent}

    # -------------------------------------------------------------- learning

    def train_step(self, batch: Mapping[str, np.ndarray], update: int) -> Tensors:
        """One update of the world model, the actor and the value network.

        The three losses are computed with the weights before the update, then the three
        optimizers step.

        Args:
            batch: Replay.sample's keys, [B, T, ...].
            update: Number of this update; its random numbers follow from it and the seed.
        Returns:
            Scalar metrics.
        Raises:
            ValueError: If a tensor of the batch has another shape than the spaces say.
        """
        self._check(batch)
        tensors = {k: tf.convert_to_tensor(batch[k]) for k in self._batch_keys()}
        return self._update(tensors, tf.constant(update, tf.int32))

    def _batch_keys(self) -> list[str]:
        keys = {**self.world_model.inputs, **self.world_model.targets}
        return [*keys, "action", "reward", "cont", "is_first"]

    def _check(self, batch: Mapping[str, np.ndarray]) -> None:
        b, t = batch["action"].shape[:2]
        shapes = {k: s.shape for k, s in self._obs_space.items()}
        shapes |= {"action": self._act_space.shape, "reward": (), "cont": (), "is_first": ()}
        for key in self._batch_keys():
            check_shape(key, batch[key], (b, t, *shapes[key]))

    def _train_step(self, batch: Tensors, update: tf.Tensor) -> Tensors:
        gradients: dict[str, list[tf.Tensor]] = {}
        rssm = self.world_model.rssm
        b, t = batch["reward"].shape
        noise = tf.random.stateless_normal([b, t, rssm.stoch_size], self._seeds(_LATENT, update)[0])
        with tf.GradientTape() as tape:
            loss, post, metrics = self.world_model.loss(batch, noise)
            scaled = self._optimizers["model"].scaled(loss)
        gradients["model"] = tape.gradient(scaled, self.world_model.trainable_variables)
        with tf.GradientTape(persistent=True) as tape:
            losses = self._behavior_losses(post, update)
            scaled_losses = {
                "actor": self._optimizers["actor"].scaled(losses.actor),
                "value": self._optimizers["value"].scaled(losses.value),
            }
        for name, scaled in scaled_losses.items():
            gradients[name] = tape.gradient(scaled, self._parts()[name].trainable_variables)
        metrics |= losses.metrics
        for name, optimizer in self._optimizers.items():
            report = optimizer.apply(gradients[name])
            metrics |= {f"{name}_{k}": v for k, v in report.items()}
        return metrics

    def _behavior_losses(self, post: Tensors, update: tf.Tensor) -> behavior.BehaviorLosses:
        model = self.world_model
        if model.discount:
            # The last state of a sequence may be terminal: nothing follows it.
            post = {k: v[:, :-1] for k, v in post.items()}
        start = {k: tf.stop_gradient(flatten_leading(v)) for k, v in post.items()}
        n, h = start["stoch"].shape[0], self._horizon
        latent_noise = tf.random.stateless_normal(
            [h, n, model.rssm.stoch_size], self._seeds(_IMAGINED, update)[0]
        )
        action_noise = tf.random.stateless_normal(
            [h, n, self._act_space.shape[0]], self._seeds(_ACTIONS, update)[0]
        )
        trajectory = behavior.imagine(model.rssm, self.actor, start, latent_noise, action_noise)
        return behavior.behavior_losses(
            trajectory, model.reward, self.value, model.discount, **self._returns
        )

    def _seeds(self, purpose: int, counter: tf.Tensor, count: int = 1) -> list[tf.Tensor]:
        base = tf.constant([self._seed, purpose], tf.int32)
        folded = tf.random.experimental.stateless_fold_in(base, counter)
        return tf.unstack(tf.random.split(folded, count)) if count > 1 else [folded]

    # ----------------------------------------------------------- predictions

    def predict(self, batch: Mapping[str, np.ndarray], context: int = 5) -> dict[str, np.ndarray]:
        """Open-loop predictions (arXiv 1912.01603, figure 5).

        Args:
            batch: Like train_step's, [B, T, ...].
            context: Steps whose observations are seen, 1 to T - 1.
        Returns:
            For every decoded observation and the reward, ``truth/<key>`` and ``model/<key>``,
            [B, T, ...]: images as uint8, everything else float32.
        """
        length = batch["action"].shape[1]
        if not 0 < context < length:
            raise ValueError(f"context should be in 1..{length - 1}, but is {context}")
        tensors = {k: tf.convert_to_tensor(batch[k]) for k in self._batch_keys()}
        shape = [*batch["action"].shape[:2], self.world_model.rssm.stoch_size]
        seed = self._seeds(_OPEN_LOOP, tf.constant(0))[0]
        noise = tf.random.stateless_normal(shape, seed)
        truth, model = self.world_model.open_loop(tensors, context, noise)
        named = {f"truth/{k}": v for k, v in truth.items()}
        named |= {f"model/{k}": v for k, v in model.items()}
        return {k: _as_shown(v) for k, v in named.items()}

    # ----------------------------------------------------------- checkpoints

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Everything learnt and counted, by name: weights, slots, loss scales, random streams."""
        arrays = {name: v.numpy() for name, v in self._variables().items()}
        return arrays | {"policy_calls": np.int64(self._policy_calls)}

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Puts back what state_arrays gave.

        Raises:
            ValueError: If names or shapes differ from this agent's; nothing is changed then.
        """
        variables = self._variables()
        differing = {*variables, "policy_calls"} ^ set(arrays)
        if differing:
            raise ValueError(f"the arrays are not this agent's; differing: {sorted(differing)[:5]}")
        for name, variable in variables.items():
            check_shape(name, arrays[name], tuple(variable.shape))
        for name, variable in variables.items():
            variable.assign(arrays[name])
        self._policy_calls = int(arrays["policy_calls"])

    def _variables(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, part in self._parts().items():
            named = {f"{name}/{v.path}": v for v in part.variables}
            named |= {f"{name}/adam/{k}": v for k, v in self._optimizers[name].state.items()}
            found |= named
        return found


def _as_shown(tensor: tf.Tensor) -> np.ndarray:
    if tensor.shape.rank == 5:
        return np.round(np.clip(tensor.numpy() + 0.5, 0.0, 1.0) * 255.0).astype(np.uint8)
    return tensor.numpy()
