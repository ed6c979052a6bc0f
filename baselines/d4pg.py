"""D4PG (Barth-Maron et al., arXiv 1804.08617): a deterministic actor and a distributional critic.

It runs in one process. The paper's many actors change how fast experience comes, not what is learnt
from it. Observations are states or pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import tensorflow as tf

from baselines.off_policy import OffPolicy, Tensors
from baselines.torso import Head, Heads
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.ops.shapes import check_shape
from dreamer.training.collector import Episode


class ValueRangeWarning(UserWarning):
    """Returns lie beyond the critic's atoms, where it cannot tell them apart."""


class D4PG(OffPolicy):
    """The agent.

    The actor's actions are tanh of its output. The critic takes features and an action and returns
    the logits of a distribution over the atoms. Both share the convolutions. Z is the critic's
    distribution; a prime (') marks the target networks and the end of the n-step transition (arXiv
    1804.08617, algorithm 1):

        target      = project(return + factor Z'(o', actor'(o')))
        critic loss = mean weight * cross-entropy(target, Z(o, a))
        actor loss  = - mean E[Z(o, actor(o))], differentiated by the actor alone

    The torso learns from the critic's loss alone. A transition's cross-entropy is its priority.
    Raises UserError if actions are one-hot, or observations do not fit.
    """

    def __init__(self, config: Config, obs_space: Mapping[str, Space], act_space: Space):
        d4pg, actions = config.d4pg, act_space.shape[0]
        if act_space.discrete:
            raise UserError("d4pg takes continuous actions, but this task's are one-hot; try dqn")
        if not d4pg.v_min < d4pg.v_max:
            raise UserError(f"d4pg.v_min ({d4pg.v_min}) must be below d4pg.v_max")
        heads = {
            "actor": Head(actions, init_scale=1e-3), "critic": Head(d4pg.atoms, others=actions)
        }  # fmt: skip
        super().__init__(config, obs_space, act_space, heads)
        self._gamma, self._range, self._warned = d4pg.gamma, (d4pg.v_min, d4pg.v_max), False
        self._z = tf.linspace(tf.constant(d4pg.v_min), tf.constant(d4pg.v_max), d4pg.atoms)
        torso, actor, critic = (
            getattr(self._nets, name).trainable_variables for name in ("torso", "actor", "critic")
        )
        self.add_optimizer("critic", torso + critic, d4pg.critic_lr, "critic_adam")
        self.add_optimizer("actor", actor, d4pg.actor_lr, "actor_adam")

    def remember(self, episode: Episode) -> None:
        """Takes an episode in; warns once if its returns leave the range of the atoms."""
        super().remember(episode)
        low = high = following = 0.0
        for reward in episode["reward"][:0:-1].tolist():
            following = reward + self._gamma * following
            low, high = min(low, following), max(high, following)
        if not self._warned and (low < self._range[0] or high > self._range[1]):
            self._warned = True
            warnings.warn(
                f"an episode's returns go from {low:.4g} to {high:.4g}, beyond d4pg.v_min "
                f"({self._range[0]:g}) or d4pg.v_max ({self._range[1]:g}), where the critic cannot "
                "tell them apart: give the task's own range in a new run",
                ValueRangeWarning, stacklevel=2,
            )  # fmt: skip

    def greedy(self, obs: Tensors) -> tf.Tensor:
        """Returns the actor's actions [n, A]."""
        return act(self._nets, self._nets.torso(obs))

    def losses(
        self, batch: Tensors, obs: Tensors, later: Tensors
    ) -> tuple[Tensors, Tensors, tf.Tensor]:
        """Returns both losses, metrics, and each transition's cross-entropy [B]."""
        feat = self._target.torso(later)
        probs = tf.nn.softmax(logits(self._target, feat, act(self._target, feat)))
        target = tf.stop_gradient(project(batch["return"], batch["factor"], probs, self._z))
        feat = self._nets.torso(obs)
        entropy = tf.nn.softmax_cross_entropy_with_logits(
            target, logits(self._nets, feat, batch["action"])
        )  # [B]
        feat = tf.stop_gradient(feat)
        values = tf.nn.softmax(logits(self._nets, feat, act(self._nets, feat)))
        value = tf.reduce_mean(tf.linalg.matvec(values, self._z))
        losses = {"critic": tf.reduce_mean(batch["weight"] * entropy), "actor": -value}
        metrics = {f"{name}_loss": loss for name, loss in losses.items()}
        means = {"value": value, "target": tf.reduce_mean(tf.linalg.matvec(target, self._z))}
        return losses, metrics | means, entropy


def act(nets: Heads, feat: tf.Tensor) -> tf.Tensor:
    """Features [N, E] -> actions [N, A] in (-1, 1)."""
    return tf.tanh(nets.actor(feat))


def logits(nets: Heads, feat: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """Features [N, E] and actions [N, A] -> the critic's logits [N, K]."""
    return nets.critic(tf.concat([feat, action], -1))


def project(returns: tf.Tensor, factor: tf.Tensor, probs: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """Projects the distribution of R + factor * Z on the atoms (arXiv 1707.06887, algorithm 1).

    The mass of atom j goes to x_j = clip(R + factor z_j, z_0, z_(K-1)), and from there to the two
    nearest atoms in proportion to nearness: atom i takes max(0, 1 - |x_j - z_i| / spacing) of it.

    Args:
        returns: float32 [B], R.
        factor: float32 [B], the discount of Z; 0 at a terminal.
        probs: float32 [B, K], of Z.
        z: float32 [K], evenly spaced.
    Returns:
        float32 [B, K]; each row has the same sum as its row of `probs`.
    """
    check_shape("probs", probs, (None, None))
    b, k = probs.shape
    check_shape("returns", returns, (b,))
    check_shape("factor", factor, (b,))
    check_shape("z", z, (k,))
    moved = tf.clip_by_value(returns[:, None] + factor[:, None] * z, z[0], z[-1])  # [B, K]
    distance = tf.abs(moved[:, None, :] - z[:, None]) / (z[1] - z[0])  # [B, K to, K from]
    share = tf.maximum(0.0, 1.0 - distance)
    return tf.einsum("bij,bj->bi", share, probs)
