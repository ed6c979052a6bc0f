"""The agent: what acts, what learns, and what a checkpoint holds of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dreamer.agent.devices import Devices, OneDevice
from dreamer.agent.exploration import Exploration
from dreamer.agent.learner import Learner
from dreamer.agent.networks import Section, make_optimizers, make_parts
from dreamer.agent.policy import Acting, by_actor, by_planner
from dreamer.agent.precision import choose_precision, dtype_policy
from dreamer.agent.world_model import Tensors, WorldModel
from dreamer.config.combinations import check_behavior
from dreamer.envs.spec import Space
from dreamer.nets.actor import Actor, check_gradient
from dreamer.nets.value import Value
from dreamer.ops.images import as_shown
from dreamer.ops.seeds import Purpose, make_seeds
from dreamer.ops.shapes import check_shape
from dreamer.system.threads import run_interruptibly

_NO_PLANNER: Section = {}
_NO_DISAGREEMENT: Section = {"until": 0}


class Agent:
    """Dreamer (arXiv 1912.01603), and what the config makes of it.

    With behavior.policy planner no actor is learnt: actions are planned (PlaNet, arXiv
    1811.04551). With disagreement.until a second actor, which seeks what an ensemble of one-step
    predictors disagrees about, collects the first steps (after Plan2Explore, arXiv 2005.05960);
    the first one learns the task in imagination all along, acts in evaluations, and from then on.

    Args:
        obs_space: Observation key -> Space: uint8 images [64, 64, C], float vectors [size].
        act_space: Continuous in [-1, 1], or one-hot.
        encoder, decoder, rssm, reward, discount, value, actor, loss, behavior, optimizer,
            explore: The sections of configs/defaults.yaml, as mappings.
        contrastive: Likewise; needed where loss.representation is contrastive.
        planner: Likewise; needed where behavior.policy is planner.
        disagreement: Likewise; left out, there is none.
        precision: auto, float32, bfloat16 or float16.
        jit: auto, on or off: compile the update with XLA.
        seed: Of the initial weights and all random streams.
        devices: Those that learn; left out, one.

    Attributes:
        policy_calls: Calls of `policy` so far, which key its noise. Who gives up what he has done
            with the policy (a stopped evaluation) sets it back.

    Raises:
        UserError: If the observations do not fit the networks, or settings do not fit each other.
    """

    world_model_class: type[WorldModel] = WorldModel

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
        contrastive: Section | None = None,
        planner: Section = _NO_PLANNER,
        disagreement: Section = _NO_DISAGREEMENT,
        precision: str = "auto",
        jit: str = "auto",
        seed: int = 0,
        devices: Devices | None = None,
    ):
        check_behavior(behavior, planner, disagreement)
        check_gradient(actor["gradient"], act_space.discrete)
        keras.utils.set_random_seed(seed)
        self.precision = choose_precision(precision)
        dtype = dtype_policy(self.precision)
        self._seed, self._until = seed, disagreement["until"]
        self._obs_space, self._act_space = dict(obs_space), act_space
        self._explore = Exploration(act_space, **explore)
        self._devices = devices or OneDevice()
        with self._devices.scope():
            self.world_model = self.world_model_class(
                {k: s.shape for k, s in obs_space.items()},
                act_space.shape[0],
                encoder=encoder,
                decoder=decoder,
                rssm=rssm,
                reward=reward,
                discount=discount,
                contrastive=contrastive,
                loss=loss,
                gamma=behavior["gamma"],
                dtype=dtype,
                name="world_model",
            )
            self.world_model.build()
            self.parts = make_parts(
                self.world_model,
                act_space.shape[0],
                act_space.discrete,
                dtype,
                actor=actor,
                value=value,
                behavior=behavior,
                planner=planner,
                disagreement=disagreement,
            )
            self._optimizers = make_optimizers(self.parts, optimizer, self.precision == "float16")
        self._compiled = self._devices.choose_jit(jit)
        self._kept: dict[str, np.ndarray] | None = None
        self._make_functions(actor, behavior, planner, self._compiled)

    def _make_functions(
        self, actor: Section, behavior: Section, planner: Section, jit: bool
    ) -> None:
        returns = {"gamma": behavior["gamma"], "lambda_": behavior["lambda_"]}
        self._learner = Learner(
            self.parts,
            self._optimizers,
            seed=self._seed,
            horizon=behavior["horizon"],
            **returns,
            gradient=actor["gradient"],
            entropy=actor["entropy"],
        )
        if self.parts.actor is None:
            choose = by_planner(self.parts, self._act_space, planner, **returns)
        else:
            choose = by_actor(self.parts, self.parts.actor, actor["mode_samples"])
        explorer = self.parts.explorer
        seek = by_actor(self.parts, explorer, actor["mode_samples"]) if explorer else choose
        self.policy_calls = self._step = self._updates = 0
        self._update = self._devices.compile(self._learner, jit)
        # Whether the explorer acts or learns is a Python value: each gets a graph of its own.
        self._act, self._seek = (
            tf.function(Acting(self.parts, c, self._explore, self._seed).step, autograph=False)
            for c in (choose, seek)
        )

    @property
    def actor(self) -> Actor | None:
        """The task's actor, or None where actions are planned."""
        return self.parts.actor

    @property
    def value(self) -> Value | None:
        """The task's value network, if there is one."""
        return self.parts.value

    @property
    def exploring(self) -> bool:
        """Whether the explorer collects, by the steps that `progress` told last."""
        return self._step < self._until

    # ---------------------------------------------------------------- acting

    def progress(self, step: int, update: int) -> None:
        """Tells how far training has come, for what changes with it: explore.decay_steps and
        disagreement.until. An agent that is told nothing stays at the start.

        Args:
            step: Environment frames collected so far.
            update: Updates made so far.
        """
        self._step, self._updates = step, update

    def policy(
        self, timesteps: Mapping[str, np.ndarray], state: Tensors | None, mode: str = "train"
    ) -> tuple[np.ndarray, Tensors]:
        """Chooses actions.

        Args:
            timesteps: Observations [n, ...] and is_first [n] of n environments.
            state: What the call before returned; None at the very start. Rows with is_first
                start anew whatever it holds.
            mode: "train" samples and adds exploration noise; "eval" takes the mode. A planner
                takes its best action in both.
        Returns:
            Actions float32 [n, A], and the state for the next call.
        """
        if mode not in ("train", "eval"):
            raise ValueError(f"mode should be 'train' or 'eval', but is {mode!r}")
        n = len(timesteps["is_first"])
        if state is None:
            initial = self.world_model.rssm.initial(n)
            state = {"action": tf.zeros([n, self._act_space.shape[0]]), **initial}
        keys = [*self.world_model.inputs, "is_first"]
        tensors = {k: tf.convert_to_tensor(timesteps[k]) for k in keys}
        # Of NumPy's numbers: TensorFlow keeps a tensor for ever of each Python number it is given.
        calls = tf.constant(np.int32(self.policy_calls))
        self.policy_calls += 1
        noise_scale = tf.constant(np.float32(self._explore.noise_scale(self._step, self._updates)))
        training = mode == "train"
        act = self._seek if training and self.exploring else self._act
        action, state = act(tensors, state, calls, noise_scale, training)
        return action.numpy(), state

    # -------------------------------------------------------------- learning

    def train_step(self, batch: Mapping[str, np.ndarray], update: int) -> Tensors:
        """One update of the world model, the actor and the value network, or what there is of them.

        The losses are computed with the weights before the update, then the optimizers step.

        Args:
            batch: Replay.sample's keys, [B, T, ...].
            update: Number of this update; its random numbers follow from it and the seed.
        Returns:
            Scalar metrics.
        Raises:
            ValueError: If a tensor of the batch has another shape than the spaces say.
        """
        return self._update(*self._update_inputs(batch, update))

    def trace(self, batch: Mapping[str, np.ndarray]) -> None:
        """Builds what `train_step` runs, and updates nothing; long, and may be broken off."""
        inputs = self._update_inputs(batch, 0)
        self._update.get_concrete_function(*inputs)
        if self._compiled:  # which XLA does within the first update: that one is taken back
            self._kept = {k: v.copy() for k, v in self.state_arrays().items()}
            run_interruptibly(lambda: self._update(*inputs))
            self.load_arrays(self._kept)
            self._kept = None

    def _update_inputs(self, batch: Mapping[str, np.ndarray], update: int) -> tuple:
        self._check(batch)
        placed = self._devices.place({k: batch[k] for k in self._batch_keys()})
        return placed, tf.constant(np.int32(update)), self.exploring

    def _batch_keys(self) -> list[str]:
        keys = {**self.world_model.inputs, **self.world_model.targets}
        return [*keys, "action", "reward", "cont", "is_first"]

    def _check(self, batch: Mapping[str, np.ndarray]) -> None:
        b, t = batch["action"].shape[:2]
        shapes = {k: s.shape for k, s in self._obs_space.items()}
        shapes |= {"action": self._act_space.shape, "reward": (), "cont": (), "is_first": ()}
        for key in self._batch_keys():
            check_shape(key, batch[key], (b, t, *shapes[key]))

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
        seed = make_seeds(self._seed, Purpose.OPEN_LOOP, tf.constant(0))[0]
        noise = tf.random.stateless_normal(shape, seed)
        truth, model = self.world_model.open_loop(tensors, context, noise)
        shown = {f"truth/{k}": as_shown(v) for k, v in truth.items()}
        return shown | {f"model/{k}": as_shown(v) for k, v in model.items()}

    # ----------------------------------------------------------- checkpoints

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Everything learnt and counted, by name: weights, slots, loss scales, random streams."""
        return self._kept or to_arrays(self._variables(), self.policy_calls)

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Puts back what state_arrays gave.

        Raises:
            ValueError: If names or shapes differ from this agent's; nothing is changed then.
        """
        self.policy_calls = from_arrays(self._variables(), arrays)

    def _variables(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, part in self.parts.named().items():
            named = {f"{name}/{v.path}": v for v in part.variables}
            named |= {f"{name}/adam/{k}": v for k, v in self._optimizers[name].state.items()}
            found |= named
        return found


_CALLS = "policy_calls"  # what the random stream of acting is keyed by


def to_arrays(variables: Mapping[str, Any], policy_calls: int) -> dict[str, np.ndarray]:
    """TensorFlow variables by name, and the number of policy calls, as arrays."""
    arrays = {name: np.asarray(variable) for name, variable in variables.items()}
    return arrays | {_CALLS: np.asarray(policy_calls, np.int64)}


def from_arrays(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    """Puts back what `to_arrays` gave; returns the number of policy calls.

    Raises:
        ValueError: If names or shapes differ from the variables'; nothing is changed then.
    """
    differing = {*variables, _CALLS} ^ set(arrays)
    if differing:
        raise ValueError(f"the arrays are not this agent's; differing: {sorted(differing)[:5]}")
    for name, variable in variables.items():
        check_shape(name, arrays[name], tuple(variable.shape))
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return int(arrays[_CALLS])
