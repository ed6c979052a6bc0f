"""Choosing actions: filter the observation, ask the actor or the planner, explore."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import tensorflow as tf

from dreamer.agent.behavior import Behavior
from dreamer.agent.exploration import Exploration
from dreamer.agent.networks import Networks
from dreamer.agent.planner import plan
from dreamer.agent.world_model import Tensors, WorldModel
from dreamer.envs.spec import Space
from dreamer.nets.actor import Actor
from dreamer.nets.rssm import State
from dreamer.ops.seeds import Purpose, make_seeds

# Latent states [n, ...], a stateless seed, whether to sample -> actions [n, A], without noise.
Choose = Callable[[State, tf.Tensor, bool], tf.Tensor]


class Policy:
    """Acts in environments.

    Args:
        model: The world model that filters observations.
        actions: A.
        choose: Picks actions; see `by_actor` and `by_planner`.
        exploration: Noise while training.
        seed: Seed of the random streams.
        explorer: Picks actions instead of `choose` while the agent explores; None: `choose` does.
    """

    def __init__(
        self, model: WorldModel, actions: int, choose: Choose, exploration: Exploration, seed: int,
        explorer: Choose | None = None,
    ):  # fmt: skip
        self._model, self._actions, self._seed = model, actions, seed
        self.choose, self._explorer = choose, explorer or choose
        self.exploration = exploration

    def initial(self, n: int) -> Tensors:
        """The state before the first timestep of n environments, entries [n, ...]."""
        return {"action": tf.zeros([n, self._actions]), **self._model.rssm.initial(n)}

    def step(
        self, timesteps: Tensors, state: Tensors, calls: tf.Tensor, noise_scale: tf.Tensor,
        training: bool, exploring: bool,
    ) -> tuple[tf.Tensor, Tensors]:  # fmt: skip
        """One action for each environment, float32 [n, A], and the next state.

        Args:
            timesteps: Observations [n, ...] and is_first [n].
            state: Latent state and last action, entries [n, ...].
            calls: int32 [], policy calls before this one; the random numbers follow from it.
            noise_scale: float32 [], of exploration.
            training: Whether to sample and to add noise.
            exploring: Whether the explorer picks the actions.
        """
        model = self._model
        rssm, n = model.rssm, timesteps["is_first"].shape[0]
        seeds = make_seeds(self._seed, Purpose.ACTING, calls, 4)
        embed = model.embed(model.preprocess({k: timesteps[k] for k in model.inputs}))
        noise = tf.random.stateless_normal([n, 1, rssm.stoch_size], seeds[0])
        post, _ = rssm.observe(
            embed[:, None], state["action"][:, None], timesteps["is_first"][:, None], noise, state
        )
        latent = {k: v[:, 0] for k, v in post.items()}
        choose = self._explorer if exploring else self.choose
        action = choose(latent, seeds[1], training)
        if training:
            action = self.exploration(action, noise_scale, seeds[2:])
        return action, {"action": action, **latent}


def by_actor(model: WorldModel, actor: Actor) -> Choose:
    """Returns a function that samples from an actor while training.

    In evaluations it takes the mode, or a sample, as `Actor.evaluation` says.
    """

    def choose(latent: State, seed: tf.Tensor, training: bool) -> tf.Tensor:
        dist = actor.dist(model.rssm.feat(latent))
        if not training and actor.evaluation == "mode":
            return dist.mode(actor.mode_samples, seed)
        normal = tf.random.stateless_normal([latent["deter"].shape[0], actor.actions], seed)
        return dist.from_noise(normal)[0]

    return choose


def by_planner(
    networks: Networks, act_space: Space, behavior: Behavior, *, horizon: int, returns: str,
    **search: int,
) -> Choose:  # fmt: skip
    """The first action of the best plan, in training as in evaluation (PlaNet, arXiv 1811.04551).

    A plan's return is R_1, the sum of the expected rewards, each weighted by the discount head's
    probability that the episode lasts so long (PlaNet has no such head; without one the sum is
    plain). With ``returns`` "lambda" a plan's return is V_1, which the value network closes.

    Args:
        networks, act_space: The agent's.
        behavior: Judges the plans.
        horizon: H.
        returns: "reward" or "lambda".
        search: Further arguments of `plan`: candidates, num_elites, iterations.
    """
    model, value = networks.model, networks.value if returns == "lambda" else None
    judging = behavior if value else replace(behavior, gamma=1.0)

    def choose(latent: State, seed: tf.Tensor, training: bool) -> tf.Tensor:
        del training  # both execute the mean; exploration adds its noise

        def judge(actions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            n, k, h, a = actions.shape
            flat = tf.reshape(actions, [n * k, h, a])
            noise = tf.random.stateless_normal([h, n * k, model.rssm.stoch_size], seed)
            state = {key: tf.repeat(v, k, 0) for key, v in latent.items()}
            feats = []
            for t in range(h):
                state = model.rssm.imagine_step(state, flat[:, t], noise[t])
                feats.append(model.rssm.feat(state))
            judged = judging.judge(tf.stack(feats, 1), model.reward, value, model.discount)
            return tf.reshape(judged.returns[:, 0], [n, k])

        shape = latent["deter"].shape[0], horizon, act_space.shape[0]
        discrete, parts = act_space.discrete, act_space.parts
        return plan(judge, shape, seed, discrete=discrete, parts=parts, **search)[:, 0]

    return choose
