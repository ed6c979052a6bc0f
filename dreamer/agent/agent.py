"""The agent: acts, learns, predicts, and says what a checkpoint must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dreamer.agent.behavior import Behavior
from dreamer.agent.devices import Devices
from dreamer.agent.exploration import Exploration
from dreamer.agent.learner import LATENTS, Learner
from dreamer.agent.networks import OF_LOSS, SHARED, make_networks, make_optimizers
from dreamer.agent.policy import Policy, by_actor, by_planner
from dreamer.agent.precision import choose_jit, choose_precision
from dreamer.agent.variants import ExplorerLearner, PlannerLearner
from dreamer.agent.world_model import Sections, Tensors, WorldModel, make_world_model
from dreamer.config.config import check_behavior
from dreamer.envs.spec import Space
from dreamer.nets.rssm import State
from dreamer.ops.seeds import Purpose, make_seeds
from dreamer.ops.shapes import check_shape, flatten_leading, over_leading
from dreamer.system.threads import run_interruptibly
from dreamer.system.xla_cache import first_update

_PIECE = 50  # timesteps of episodes that are filtered at a time
_ACTING = ("model", "actor", "value")  # networks that act, or judge what is dreamt


class Agent:
    """An agent with a world model, for batches of NumPy arrays; `make_dreamer` makes Dreamer's.

    Args:
        obs_space: Observation key -> Space: uint8 images [64, 64, C], float vectors [size].
        act_space: Continuous in [-1, 1], or one-hot.
        learner: Makes the updates; has the networks.
        policy: Chooses the actions.
        seed: Seed of the predictions' noise.
        precision: float32, bfloat16 or float16, the number format of the networks.
        jit: Whether XLA compiles the update.
        explore_until: The step (environment frames) at which the policy's explorer stops.
        behave_after: Updates of the world model alone, before behaviour learns.
        devices: The devices that learn; None: one.

    Attributes:
        networks: All networks; world_model, and the task's actor and value where there are any.
        latents: Posterior features [B, T, F] of the last batch that came with "latent", or None.
        policy_calls: Calls of `policy` so far, which key its noise. Reset this after an aborted
            evaluation, so that its noise is reused.
    """

    def __init__(
        self, obs_space: Mapping[str, Space], act_space: Space, learner: Learner, policy: Policy,
        *, seed: int, precision: str, jit: bool, explore_until: int = 0,
        behave_after: int = 0, devices: Devices | None = None,
    ):  # fmt: skip
        self.networks, self.precision = learner.networks, precision
        self.world_model, self.actor = self.networks.model, self.networks.actor
        self.value = self.networks.value
        self._obs_space, self._act_space = dict(obs_space), act_space
        self._learner, self._policy = learner, policy
        self._seed, self._until, self._compiled = seed, explore_until, jit
        self._behave_after = behave_after
        self._devices = devices or Devices()
        self._before_trace: dict[str, np.ndarray] | None = None
        self.latents: tf.Tensor | None = None
        self.policy_calls = self._step = self._updates = 0
        self._update = self._devices.compile(learner, jit)
        # Whether it trains or explores is a Python value: each case gets a graph of its own.
        self._act = tf.function(policy.step, autograph=False)

    @property
    def exploring(self) -> bool:
        """Whether the explorer collects, at the step that `progress` told last."""
        return self._step < self._until

    # ---------------------------------------------------------------- acting

    def progress(self, step: int, update: int) -> None:
        """Tells how far training has come: environment frames collected, updates made.

        Exploration noise and the explorer's phase depend on these numbers, which are 0 before the
        first call.
        """
        self._step, self._updates = step, update

    def policy(
        self, timesteps: Mapping[str, np.ndarray], state: Tensors | None, mode: str = "train"
    ) -> tuple[np.ndarray, Tensors]:
        """Chooses actions.

        Args:
            timesteps: Observations [n, ...] and is_first [n] of n environments.
            state: The state that the last call returned, or None. Rows with is_first start anew.
            mode: "train" samples and adds exploration noise; "eval" takes the mode, or a sample if
                actor.evaluation says so. A planner takes its best action in both. Anything else is
                a ValueError.
        Returns:
            Actions float32 [n, A], and the state for the next call.
        """
        if mode not in ("train", "eval"):
            raise ValueError(f"mode should be 'train' or 'eval', but is {mode!r}")
        if state is None:
            state = self._policy.initial(len(timesteps["is_first"]))
        keys = *self.world_model.inputs, "is_first"
        tensors = {k: tf.convert_to_tensor(timesteps[k]) for k in keys}
        # From NumPy numbers, because TensorFlow keeps a tensor of each Python number for ever.
        calls = tf.constant(np.int32(self.policy_calls))
        self.policy_calls += 1
        noise_scale = self._policy.exploration.noise_scale(self._step, self._updates)
        scale, training = tf.constant(np.float32(noise_scale)), mode == "train"
        exploring = training and self.exploring
        action, state = self._act(tensors, state, calls, scale, training, exploring)
        return action.numpy(), state

    def choose(self, latent: State, seed: tf.Tensor, sample: bool) -> tf.Tensor:
        """The actions [n, A] for latent states, without exploration noise; a part of a graph.

        Args:
            latent: Entries [n, ...].
            seed: Stateless seed, int32 [2].
            sample: Whether to sample from the actor; else as in evaluations. A planner plans in
                both cases.
        """
        return self._policy.choose(latent, seed, sample)

    # -------------------------------------------------------------- learning

    def train_step(self, batch: Mapping[str, np.ndarray], update: int) -> Tensors:
        """Makes one update of all networks; returns scalar metrics.

        Args:
            batch: Replay.sample's keys, [B, T, ...], and perhaps "latent", float32 [B, F], features
                of the states before the sequences; without it these are zeros.
            update: Number of this update; its random numbers follow from it and the seed.
        Raises:
            ValueError: If a tensor of the batch has another shape than the spaces say.
        """
        inputs = self._update_inputs(batch, update)
        for optimizer in self._learner.optimizers.values():
            optimizer.begin(update)
        metrics = self._update(*inputs)
        self.latents = metrics.pop(LATENTS, None)
        return metrics

    def trace(self, batch: Mapping[str, np.ndarray]) -> None:
        """Builds the graph of `train_step` without updating anything.

        This takes long and can be interrupted. XLA compiles only when an update runs, so with XLA
        one update is run and undone.
        """
        inputs = self._update_inputs(batch, 0)
        self._update.get_concrete_function(*inputs)
        if self._compiled:
            self._before_trace = {k: v.copy() for k, v in self.state_arrays().items()}
            with first_update():
                run_interruptibly(lambda: self._update(*inputs))
            self.load_arrays(self._before_trace)
            self._before_trace = None

    def compiled(self, batch: Mapping[str, np.ndarray]) -> str:
        """The program that XLA makes of `train_step` for such a batch, in its own language, HLO."""
        program = self._update.experimental_get_compiler_ir(*self._update_inputs(batch, 0))
        return program(stage="optimized_hlo")

    def _update_inputs(self, batch: Mapping[str, np.ndarray], update: int) -> tuple:
        b, t = batch["action"].shape[:2]
        shapes = {k: s.shape for k, s in self._obs_space.items()}
        shapes |= {"action": self._act_space.shape, "reward": (), "cont": (), "is_first": ()}
        for key in self._batch_keys():
            check_shape(key, batch[key], (b, t, *shapes[key]))
        taken = {k: batch[k] for k in self._batch_keys()}
        if "latent" in batch:
            check_shape("latent", batch["latent"], (b, self.world_model.rssm.feat_size))
            taken["latent"] = batch["latent"]
        placed = self._devices.place(taken)
        phase = (self.exploring, False) if update < self._behave_after else (self.exploring,)
        return placed, tf.constant(np.int32(update)), *phase

    def _batch_keys(self) -> list[str]:
        keys = {**self.world_model.inputs, **self.world_model.targets}
        return [*keys, "action", "reward", "cont", "is_first"]

    # ----------------------------------------------------------- predictions

    def predict(self, batch: Mapping[str, np.ndarray], context: int = 5) -> dict[str, np.ndarray]:
        """Open-loop predictions (arXiv 1912.01603, figure 5).

        Args:
            batch: Like train_step's, [B, T, ...].
            context: Timesteps that the model observes, 1 to T - 1; else ValueError.
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
        both = self.world_model.open_loop(tensors, context, noise)
        pairs = zip(("truth", "model"), both, strict=True)
        return {f"{name}/{k}": _as_shown(v) for name, found in pairs for k, v in found.items()}

    def foresee(
        self, batch: Mapping[str, np.ndarray], starts: Sequence[int], horizon: int
    ) -> dict[str, np.ndarray]:
        """What the model expects along episodes, and along futures that it imagines from them.

        Args:
            batch: Like train_step's, [B, T, ...].
            starts: n timesteps, below T - horizon. From each of them the model imagines `horizon`
                steps with the batch's actions.
            horizon: H.
        Returns:
            float32 "reward", "pcont" and, of agents with a value network, "value" of the states
            that have seen the observations, [B, T]. The same of the imagined states, the start
            first, as "imagined/<name>", [B, n, 1 + H]. The true reward on the scale that is learnt
            is "truth", [B, T].
        """
        model, (b, t) = self.world_model, batch["action"].shape[:2]
        if not starts or not 0 <= min(starts) <= max(starts) < t - horizon:
            raise ValueError(f"starts should be in 0..{t - horizon - 1}, but are {list(starts)}")
        tensors = {k: tf.convert_to_tensor(batch[k]) for k in self._batch_keys()}
        seeds = make_seeds(self._seed, Purpose.OPEN_LOOP, tf.constant(1), 2)
        size = model.rssm.stoch_size
        filtering = tf.random.stateless_normal([b, t, size], seeds[0])
        post, feat = self._filtered(tensors, filtering)  # [B, T, ...]
        feats = [flatten_leading(tf.gather(feat, starts, axis=1))]
        state = {k: flatten_leading(tf.gather(v, starts, axis=1)) for k, v in post.items()}
        noise = tf.random.stateless_normal([horizon, b * len(starts), size], seeds[1])
        for step in range(horizon):
            after = [start + step + 1 for start in starts]
            action = flatten_leading(tf.gather(tensors["action"], after, axis=1))
            state = model.rssm.imagine_step(state, action, noise[step])
            feats.append(model.rssm.feat(state))
        imagined = tf.reshape(tf.stack(feats, 1), [b, len(starts), horizon + 1, feat.shape[-1]])
        found = {**self._expected(feat), "truth": model.reward.target(tensors["reward"])}
        found |= {f"imagined/{k}": v for k, v in self._expected(imagined).items()}
        return {k: v.numpy() for k, v in found.items()}

    def _filtered(self, batch: Tensors, noise: tf.Tensor) -> tuple[Tensors, tf.Tensor]:
        """Posterior states and the heads' features of long sequences, a piece at a time."""
        model, state, found = self.world_model, self.world_model.rssm.initial(noise.shape[0]), []

        def observe(piece: Tensors, noise: tf.Tensor, start: Tensors) -> tuple[Tensors, tf.Tensor]:
            embed = model.embed(model.preprocess({k: piece[k] for k in model.inputs}))
            post, prior = model.rssm.observe(
                embed, piece["action"], piece["is_first"], noise, start
            )
            return post, model.rssm.feat(model.rssm.head_state(post, prior))

        graph = tf.function(observe, autograph=False)
        for at in range(0, noise.shape[1], _PIECE):
            piece = {k: v[:, at : at + _PIECE] for k, v in batch.items()}
            post, feat = graph(piece, noise[:, at : at + _PIECE], state)
            state = {k: v[:, -1] for k, v in post.items()}
            found.append((post, feat))
        posts, feats = zip(*found, strict=True)
        return {k: tf.concat([post[k] for post in posts], 1) for k in state}, tf.concat(feats, 1)

    def _expected(self, feat: tf.Tensor) -> Tensors:
        """Reward, discount factor and value of features [..., F]."""
        found = {"reward": over_leading(self.world_model.reward, feat)}
        head, gamma = self.world_model.discount, self._learner.behavior.gamma
        found["pcont"] = over_leading(head, feat) if head else tf.fill(feat.shape[:-1], gamma)
        if self.value is not None:
            found["value"] = over_leading(self.value, feat)
        return found

    # ----------------------------------------------------------- checkpoints

    def state_arrays(self) -> dict[str, np.ndarray]:
        """All state that changes, by name: weights, slots, loss scales, policy_calls."""
        return self._before_trace or to_arrays(self._variables(), self.policy_calls)

    def acting_arrays(self) -> dict[str, np.ndarray]:
        """The part of state_arrays that acting and dreaming need: no optimizer, no slow copy."""
        training = {id(v) for v in self.world_model.representation.variables}
        networks = {n: x for n, x in self.networks.named().items() if n in _ACTING}
        found = {
            f"{name}/{variable.path}": variable
            for name, network in networks.items()
            for variable in network.variables
            if id(variable) not in training
        }
        return to_arrays(found, self.policy_calls)

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restores what state_arrays returned, except learning rates: they are the config's.

        Raises:
            ValueError: If names or shapes differ from this agent's; nothing is changed then.
        """
        self.policy_calls = from_arrays(self._variables(), arrays)
        for optimizer in self._learner.optimizers.values():
            optimizer.reset_learning_rate()

    def _variables(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, network in self.networks.named().items():
            found |= {f"{name}/{v.path}": v for v in network.variables}
            if name in self._learner.optimizers:
                state = self._learner.optimizers[name].state
                found |= {f"{name}/adam/{k}": v for k, v in state.items()}
        if SHARED in self._learner.optimizers:
            state = self._learner.optimizers[SHARED].state
            found |= {f"{SHARED}/adam/{k}": v for k, v in state.items()}
        return found


def make_dreamer(
    obs_space: Mapping[str, Space], act_space: Space, sections: Sections, *,
    precision: str = "auto", jit: str = "auto", seed: int = 0, devices: Devices | None = None,
    model_class: type[WorldModel] = WorldModel,
) -> Agent:  # fmt: skip
    """Makes Dreamer (arXiv 1912.01603) or one of its variants.

    With behavior.policy planner no actor is learnt: actions are planned (PlaNet, arXiv
    1811.04551). With disagreement.until an explorer, a second actor, collects the first steps: it
    seeks what an ensemble of one-step predictors disagrees about (after Plan2Explore, arXiv
    2005.05960). The task's actor learns in imagination meanwhile, and acts in evaluations.

    Args:
        obs_space, act_space, devices: As Agent's.
        sections: The config's sections, by name.
        precision: auto, float32, bfloat16 or float16.
        jit: auto, on or off: whether to compile the update with XLA.
        seed: Seed of the initial weights and of all random streams.
        model_class: WorldModel, or a class derived from it.
    Raises:
        UserError: If the observations do not fit the networks, or settings do not fit each other.
    """
    own, actor, until = sections["behavior"], sections["actor"], sections["disagreement"]["until"]
    check_behavior(own, sections["planner"], sections["disagreement"], sections["value"])
    behavior = Behavior(
        own["gamma"], own["lambda_"], **{key: actor[key] for key in OF_LOSS},
        slow_role=sections["value"]["slow_role"], replay_scale=sections["value"]["replay_scale"],
    )  # fmt: skip
    devices, precision = devices or Devices(), choose_precision(precision)
    with devices.scope():
        model = make_world_model(
            obs_space, act_space, sections, gamma=behavior.gamma, precision=precision, seed=seed,
            model_class=model_class,
        )  # fmt: skip
        networks = make_networks(model, act_space, sections)
        optimizers = make_optimizers(networks, precision == "float16", **sections["optimizer"])
    learner: type[Learner] = Learner
    explorer = None
    if networks.actor is None:
        learner = PlannerLearner
        choose = by_planner(networks, act_space, behavior, **sections["planner"])
    else:
        choose = by_actor(model, networks.actor)
    if networks.explorer is not None:
        learner, explorer = ExplorerLearner, by_actor(model, networks.explorer)
    exploration = Exploration(act_space, **sections["explore"])
    return Agent(
        obs_space,
        act_space,
        learner(
            networks, optimizers, behavior, seed=seed, horizon=own["horizon"],
            slow_rate=sections["value"]["slow_rate"], slow_every=sections["value"]["slow_every"],
            starts=own["starts"],
        ),  # fmt: skip
        Policy(model, act_space.shape[0], choose, exploration, seed, explorer),
        seed=seed,
        precision=precision,
        jit=devices.count == 1 and choose_jit(jit),  # XLA compiles for one device
        explore_until=until,
        behave_after=own["after"],
        devices=devices,
    )


def _as_shown(tensor: tf.Tensor) -> np.ndarray:
    """Images [B, T, H, W, C] in [-0.5, 0.5] as uint8, clipped; any other rank as it is."""
    if tensor.shape.rank == 5:
        return np.round(np.clip(tensor.numpy() + 0.5, 0.0, 1.0) * 255.0).astype(np.uint8)
    return tensor.numpy()


def to_arrays(variables: Mapping[str, Any], policy_calls: int) -> dict[str, np.ndarray]:
    """TensorFlow variables by name, and the number of policy calls, as arrays."""
    arrays = {name: np.asarray(variable) for name, variable in variables.items()}
    return arrays | {"policy_calls": np.asarray(policy_calls, np.int64)}


def from_arrays(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    """Restores what `to_arrays` returned; returns the number of policy calls.

    Raises:
        ValueError: If names or shapes differ from the variables'; nothing is changed then.
    """
    differing = {*variables, "policy_calls"} ^ set(arrays)
    if differing:
        raise ValueError(f"the arrays are not this agent's; differing: {sorted(differing)[:5]}")
    for name, variable in variables.items():
        check_shape(name, arrays[name], tuple(variable.shape))
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return int(arrays["policy_calls"])
