"""The agent: acts, learns, predicts, and says what a checkpoint must hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dreamer.agent.devices import Devices
from dreamer.agent.learner import Learner
from dreamer.agent.networks import Networks
from dreamer.agent.policy import Policy
from dreamer.agent.world_model import Tensors, WorldModel
from dreamer.envs.spec import Space
from dreamer.nets.actor import Actor
from dreamer.nets.value import Value
from dreamer.ops.seeds import Purpose, make_seeds
from dreamer.ops.shapes import check_shape
from dreamer.system.threads import run_interruptibly


class Agent:
    """An agent with a world model, between NumPy and TensorFlow.

    `dreamer.agent.build` makes Dreamer's.

    Args:
        obs_space: Observation key -> Space: uint8 images [64, 64, C], float vectors [size].
        act_space: Continuous in [-1, 1], or one-hot.
        networks: What learns and what a checkpoint holds.
        learner: Makes the updates.
        policy: Chooses the actions.
        seed: Of the predictions' random stream.
        precision: float32, bfloat16 or float16, the number format of the networks.
        jit: Whether XLA compiles the update.
        explore_until: Environment frames that the policy's explorer collects.
        devices: Those that learn; left out, one.

    Attributes:
        policy_calls: Calls of `policy` so far, which key its noise. Reset this after an aborted
            evaluation, so that its noise is reused.
    """

    def __init__(
        self,
        obs_space: Mapping[str, Space],
        act_space: Space,
        networks: Networks,
        learner: Learner,
        policy: Policy,
        *,
        seed: int,
        precision: str,
        jit: bool,
        explore_until: int = 0,
        devices: Devices | None = None,
    ):
        self.networks, self.precision = networks, precision
        self._obs_space, self._act_space = dict(obs_space), act_space
        self._learner, self._policy = learner, policy
        self._seed, self._until, self._compiled = seed, explore_until, jit
        self._devices = devices or Devices()
        self._before_trace: dict[str, np.ndarray] | None = None
        self.policy_calls = self._step = self._updates = 0
        self._update = self._devices.compile(learner, jit)
        # Whether it trains or explores is a Python value: each case gets a graph of its own.
        self._act = tf.function(policy.step, autograph=False)

    @property
    def world_model(self) -> WorldModel:
        """The world model."""
        return self.networks.model

    @property
    def actor(self) -> Actor | None:
        """The task's actor, or None where actions are planned."""
        return self.networks.actor

    @property
    def value(self) -> Value | None:
        """The task's value network, if there is one."""
        return self.networks.value

    @property
    def exploring(self) -> bool:
        """Whether the explorer collects, by the steps that `progress` told last."""
        return self._step < self._until

    # ---------------------------------------------------------------- acting

    def progress(self, step: int, update: int) -> None:
        """Tells how far training has come; exploration noise and the explorer's phase follow it.

        An agent that is told nothing stays at the start.

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
        if state is None:
            state = self._policy.initial(len(timesteps["is_first"]))
        keys = [*self.world_model.inputs, "is_first"]
        tensors = {k: tf.convert_to_tensor(timesteps[k]) for k in keys}
        # From NumPy numbers, because TensorFlow keeps a tensor of each Python number for ever.
        calls = tf.constant(np.int32(self.policy_calls))
        self.policy_calls += 1
        scale = tf.constant(np.float32(self._policy.noise_scale(self._step, self._updates)))
        training = mode == "train"
        exploring = training and self.exploring
        action, state = self._act(tensors, state, calls, scale, training, exploring)
        return action.numpy(), state

    # -------------------------------------------------------------- learning

    def train_step(self, batch: Mapping[str, np.ndarray], update: int) -> Tensors:
        """Makes one update of all networks.

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
        """Builds the graph of `train_step` without updating anything.

        This takes long and can be interrupted. XLA compiles only when an update runs, so with XLA
        one update is run and undone.
        """
        inputs = self._update_inputs(batch, 0)
        self._update.get_concrete_function(*inputs)
        if self._compiled:
            self._before_trace = {k: v.copy() for k, v in self.state_arrays().items()}
            run_interruptibly(lambda: self._update(*inputs))
            self.load_arrays(self._before_trace)
            self._before_trace = None

    def _update_inputs(self, batch: Mapping[str, np.ndarray], update: int) -> tuple:
        b, t = batch["action"].shape[:2]
        shapes = {k: s.shape for k, s in self._obs_space.items()}
        shapes |= {"action": self._act_space.shape, "reward": (), "cont": (), "is_first": ()}
        for key in self._batch_keys():
            check_shape(key, batch[key], (b, t, *shapes[key]))
        placed = self._devices.place({k: batch[k] for k in self._batch_keys()})
        return placed, tf.constant(np.int32(update)), self.exploring

    def _batch_keys(self) -> list[str]:
        keys = {**self.world_model.inputs, **self.world_model.targets}
        return [*keys, "action", "reward", "cont", "is_first"]

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
        shown = {f"truth/{k}": _as_shown(v) for k, v in truth.items()}
        return shown | {f"model/{k}": _as_shown(v) for k, v in model.items()}

    # ----------------------------------------------------------- checkpoints

    def state_arrays(self) -> dict[str, np.ndarray]:
        """All state that changes, by name: weights, slots, loss scales, random streams."""
        return self._before_trace or to_arrays(self._variables(), self.policy_calls)

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restores what state_arrays returned.

        Raises:
            ValueError: If names or shapes differ from this agent's; nothing is changed then.
        """
        self.policy_calls = from_arrays(self._variables(), arrays)

    def _variables(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, network in self.networks.named().items():
            found |= {f"{name}/{v.path}": v for v in network.variables}
            if name in self._learner.optimizers:
                state = self._learner.optimizers[name].state
                found |= {f"{name}/adam/{k}": v for k, v in state.items()}
        return found


def _as_shown(tensor: tf.Tensor) -> np.ndarray:
    """Images [B, T, H, W, C] in [-0.5, 0.5] as uint8, clipped; any other rank as it is."""
    if tensor.shape.rank == 5:
        return np.round(np.clip(tensor.numpy() + 0.5, 0.0, 1.0) * 255.0).astype(np.uint8)
    return tensor.numpy()


_CALLS = "policy_calls"  # keys the random stream of acting


def to_arrays(variables: Mapping[str, Any], policy_calls: int) -> dict[str, np.ndarray]:
    """TensorFlow variables by name, and the number of policy calls, as arrays."""
    arrays = {name: np.asarray(variable) for name, variable in variables.items()}
    return arrays | {_CALLS: np.asarray(policy_calls, np.int64)}


def from_arrays(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    """Restores what `to_arrays` returned; returns the number of policy calls.

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
