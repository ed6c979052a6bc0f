"""Makes Dreamer's agent from its settings: networks, learner and policy."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from dreamer.agent.agent import Agent
from dreamer.agent.devices import Devices, OneDevice
from dreamer.agent.exploration import Exploration
from dreamer.agent.learner import Learner
from dreamer.agent.networks import Networks, make_networks, make_optimizers
from dreamer.agent.policy import Policy, by_actor, by_planner
from dreamer.agent.precision import choose_precision, dtype_policy
from dreamer.agent.settings import AgentSettings, ExploreSettings, ModelSettings
from dreamer.agent.variants import ExplorerLearner, PlannerLearner
from dreamer.agent.world_model import WorldModel
from dreamer.config.combinations import check_behavior
from dreamer.envs.spec import Space
from dreamer.nets.actor import check_gradient
from dreamer.ops.optimizers import Optimizer


def make_dreamer(
    obs_space: Mapping[str, Space],
    act_space: Space,
    settings: AgentSettings,
    *,
    precision: str = "auto",
    jit: str = "auto",
    seed: int = 0,
    devices: Devices | None = None,
    model_class: type[WorldModel] = WorldModel,
) -> Agent:
    """Makes Dreamer (arXiv 1912.01603) or one of its variants.

    With behavior.policy planner no actor is learnt: actions are planned (PlaNet, arXiv
    1811.04551). With disagreement.until an explorer, a second actor, collects the first steps: it
    seeks what an ensemble of one-step predictors disagrees about (after Plan2Explore, arXiv
    2005.05960). The task's actor learns in imagination meanwhile, and acts in evaluations.

    Args:
        obs_space: Observation key -> Space: uint8 images [64, 64, C], float vectors [size].
        act_space: Continuous in [-1, 1], or one-hot.
        settings: The config's sections.
        precision: auto, float32, bfloat16 or float16.
        jit: auto, on or off: compile the update with XLA.
        seed: Of the initial weights and all random streams.
        devices: Those that learn; left out, one.
        model_class: WorldModel, or a class derived from it.
    Raises:
        UserError: If the observations do not fit the networks, or settings do not fit each other.
    """
    check_behavior(*map(vars, (settings.behavior, settings.planner, settings.disagreement)))
    check_gradient(settings.actor.gradient, act_space.discrete)
    devices, precision = devices or OneDevice(), choose_precision(precision)
    with devices.scope():
        model = make_world_model(
            obs_space, act_space, settings.model, settings.behavior.gamma, precision, seed,
            model_class,
        )  # fmt: skip
        networks = make_networks(model, act_space, settings, model.dtype_policy)
        optimizers = make_optimizers(networks, settings.optimizer, precision == "float16")
    return Agent(
        obs_space,
        act_space,
        networks,
        make_learner(networks, optimizers, settings, seed),
        make_policy(networks, act_space, settings, seed),
        seed=seed,
        precision=precision,
        jit=devices.choose_jit(jit),
        explore_until=settings.disagreement.until,
        devices=devices,
    )


def make_world_model(
    obs_space: Mapping[str, Space],
    act_space: Space,
    settings: ModelSettings,
    gamma: float,
    precision: str,
    seed: int,
    model_class: type[WorldModel] = WorldModel,
) -> WorldModel:
    """Seeds Keras, then makes and builds a world model. Networks made afterwards follow the seed.

    Args:
        obs_space, act_space: Of the environment.
        settings: Its settings.
        gamma: Discount factor in the discount head's targets.
        precision: float32, bfloat16 or float16.
        seed: Of the initial weights.
        model_class: WorldModel, or a class derived from it.
    """
    keras.utils.set_random_seed(seed)
    shapes, dtype = {k: s.shape for k, s in obs_space.items()}, dtype_policy(precision)
    model = model_class(
        shapes, act_space.shape[0], settings, gamma, dtype=dtype, name="world_model"
    )
    model.build()
    return model


def make_learner(
    networks: Networks, optimizers: Mapping[str, Optimizer], settings: AgentSettings, seed: int
) -> Learner:
    """The learner that fits the networks: with an explorer, with a planner, or Dreamer's own."""
    kind = PlannerLearner if networks.actor is None else Learner
    behavior, actor = settings.behavior, settings.actor
    return (ExplorerLearner if networks.explorer else kind)(
        networks,
        optimizers,
        seed=seed,
        horizon=behavior.horizon,
        gamma=behavior.gamma,
        lambda_=behavior.lambda_,
        gradient=actor.gradient,
        entropy=actor.entropy,
    )


def make_policy(
    networks: Networks, act_space: Space, settings: AgentSettings, seed: int
) -> Policy:
    """The policy that fits the networks: an actor's or the planner's, and an explorer's."""
    behavior, samples = settings.behavior, settings.actor.mode_samples
    if networks.actor is None:
        choose = by_planner(
            networks, act_space, settings.planner, gamma=behavior.gamma, lambda_=behavior.lambda_
        )
    else:
        choose = by_actor(networks.model, networks.actor, samples)
    explorer = by_actor(networks.model, networks.explorer, samples) if networks.explorer else None
    exploration = make_exploration(act_space, settings.explore)
    return Policy(networks.model, act_space.shape[0], choose, exploration, seed, explorer)


def make_exploration(act_space: Space, settings: ExploreSettings) -> Exploration:
    """Noise on the actions of a task.

    Raises:
        UserError: The kind does not fit the actions, or an epsilon is no probability.
    """
    return Exploration(
        act_space,
        kind=settings.kind,
        noise_scale=settings.noise_scale,
        final=settings.final,
        decay_steps=settings.decay_steps,
        unit=settings.unit,
    )
