"""Makes Dreamer's agent from its settings: networks, learner and policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras

from dreamer.agent.agent import Agent
from dreamer.agent.devices import Devices
from dreamer.agent.exploration import Exploration
from dreamer.agent.learner import Learner
from dreamer.agent.networks import Networks, make_networks, make_optimizers
from dreamer.agent.policy import Policy, by_actor, by_planner
from dreamer.agent.precision import choose_precision, dtype_policy
from dreamer.agent.settings import AgentSettings, ModelSettings
from dreamer.agent.variants import ExplorerLearner, PlannerLearner
from dreamer.agent.world_model import WorldModel
from dreamer.config.combinations import check_behavior
from dreamer.envs.spec import Space
from dreamer.nets.actor import check_gradient


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
    behavior, actor = settings.behavior, settings.actor
    check_behavior(*map(vars, (behavior, settings.planner, settings.disagreement)))
    check_gradient(actor.gradient, act_space.discrete)
    devices, precision = devices or Devices(), choose_precision(precision)
    spaces = obs_space, act_space
    with devices.scope():
        model = make_world_model(
            *spaces, settings.model, behavior.gamma, precision, seed, model_class
        )
        networks = make_networks(model, act_space, settings, model.dtype_policy)
        optimizers = make_optimizers(networks, settings.optimizer, precision == "float16")
    learner = _learner_class(networks)(
        networks,
        optimizers,
        seed=seed,
        horizon=behavior.horizon,
        gamma=behavior.gamma,
        lambda_=behavior.lambda_,
        gradient=actor.gradient,
        entropy=actor.entropy,
    )
    return Agent(
        *spaces,
        networks,
        learner,
        _make_policy(networks, act_space, settings, seed),
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
    """Makes and builds a world model. Its weights, and those of networks made later, follow `seed`.

    Args:
        obs_space, act_space, settings, seed, model_class: As `make_dreamer`'s.
        gamma: Discount factor in the discount head's targets.
        precision: float32, bfloat16 or float16.
    """
    keras.utils.set_random_seed(seed)
    shapes = {key: space.shape for key, space in obs_space.items()}
    model = model_class(
        shapes,
        act_space.shape[0],
        settings,
        gamma,
        dtype=dtype_policy(precision),
        name="world_model",
    )
    model.build()
    return model


def _learner_class(networks: Networks) -> type[Learner]:
    if networks.explorer is not None:
        return ExplorerLearner
    return Learner if networks.actor is not None else PlannerLearner


def _make_policy(
    networks: Networks, act_space: Space, settings: AgentSettings, seed: int
) -> Policy:
    model, behavior, samples = networks.model, settings.behavior, settings.actor.mode_samples
    if networks.actor is None:
        returns = behavior.gamma, behavior.lambda_
        choose = by_planner(networks, act_space, settings.planner, *returns)
    else:
        choose = by_actor(model, networks.actor, samples)
    explorer = by_actor(model, networks.explorer, samples) if networks.explorer else None
    exploration = Exploration(act_space, **dataclasses.asdict(settings.explore))
    return Policy(model, act_space.shape[0], choose, exploration, seed, explorer)
