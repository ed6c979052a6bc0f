"""The agent: which part each loss moves."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from small_agent import (
    make_agent,
    make_batch,
    parts_that_differ,
    update,
    weights,
)

from dreamer.agent import Agent
from dreamer.ops.seeds import Purpose, make_seeds

pytestmark = pytest.mark.usefixtures("eagerly")


def step_with_gradients_of(agent: Agent, keep: str, batch) -> dict[str, np.ndarray]:
    """One update in which every other optimizer gets zeros; returns the weights after it."""
    for name, optimizer in agent._optimizers.items():
        if name != keep:
            original = optimizer.apply
            optimizer.apply = lambda g, sound, original=original: original(
                [0.0 * x for x in g], sound
            )
    agent.train_step(batch, 0)
    return weights(agent)


@pytest.mark.parametrize("part", ["model", "actor", "value"])
def test_each_optimizer_moves_its_own_part_alone(part: str) -> None:
    agent = make_agent(discount__enabled=True)
    before = weights(agent)
    after = step_with_gradients_of(agent, part, make_batch())
    assert parts_that_differ(before, after) == {part}
    moved = [k for k in before if k.startswith(f"{part}/") and (before[k] != after[k]).any()]
    assert len(moved) > 3


def losses_on_one_tape(agent: Agent, batch):
    """The three losses with every variable of the agent in reach, as in an update."""
    tensors = {k: tf.constant(batch[k]) for k in agent._batch_keys()}
    noise = tf.random.stateless_normal([*batch["reward"].shape, 4], [1, 2])
    with tf.GradientTape(persistent=True) as tape:
        model_loss, post, _ = agent.world_model.loss(tensors, noise)
        losses = agent._learner.behavior_losses(post, tf.constant(0))
    return tape, {"model": model_loss, "actor": losses.actor, "value": losses.value}


def touched(tape, loss, part) -> bool:
    gradients = tape.gradient(loss, [v.value for v in part.trainable_variables])
    return any(g is not None and np.any(g) for g in gradients)


def test_where_each_loss_reaches() -> None:
    """By the whole graph: what stop-gradients hold back, and what only the optimizers do."""
    agent = make_agent(discount__enabled=True)
    tape, losses = losses_on_one_tape(agent, make_batch())
    model, actor, value = agent.world_model, agent.actor, agent.value
    assert touched(tape, losses["model"], model)
    assert not touched(tape, losses["model"], actor) and not touched(tape, losses["model"], value)
    assert touched(tape, losses["actor"], actor)
    assert touched(tape, losses["value"], value)
    # The starts are data: no imagined loss reaches what only filtering uses.
    for name in ("actor", "value"):
        for part in (model.encoder, model.decoder):
            assert not touched(tape, losses[name], part)
        posterior = [model.rssm._post_hidden, model.rssm._post_stats]
        assert not any(touched(tape, losses[name], layer) for layer in posterior)
    # The value targets are data: the reward and discount heads enter by them alone. (The weights
    # of the value loss come from the discount head, and are data too.)
    assert not touched(tape, losses["value"], model.reward)
    assert not touched(tape, losses["value"], model.discount)
    assert touched(tape, losses["actor"], model.reward)
    assert touched(tape, losses["actor"], model.discount)


def test_the_update_gives_each_optimizer_the_gradient_of_its_loss() -> None:
    """All three with the weights before the update; the first step is against the gradient."""
    agent, probe = make_agent(), make_agent()
    batch = make_batch()
    received: dict[str, list] = {}
    for name, optimizer in agent._optimizers.items():
        optimizer.apply = lambda g, sound, name=name: received.update({name: g}) or {}
    tensors = {k: tf.constant(batch[k]) for k in agent._batch_keys()}
    agent._learner.update(tensors, tf.constant(0), False)

    noise = tf.random.stateless_normal([3, 6, 4], make_seeds(0, Purpose.LATENT, tf.constant(0))[0])
    tensors = {k: tf.constant(batch[k]) for k in probe._batch_keys()}
    with tf.GradientTape(persistent=True) as tape:
        loss, post, _ = probe.world_model.loss(tensors, noise)
        behavior = probe._learner.behavior_losses(post, tf.constant(0))
    losses = {"model": loss, "actor": behavior.actor, "value": behavior.value}
    for name, part in probe.parts.named().items():
        expected = tape.gradient(losses[name], [v.value for v in part.trainable_variables])
        for mine, theirs in zip(received[name], expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("enabled", [False, True])
def test_with_a_discount_head_the_last_state_is_no_start(enabled: bool) -> None:
    """It may be terminal: nothing follows it."""
    agent = make_agent(discount__enabled=enabled)
    sizes = {"mean": 4, "std": 4, "stoch": 4, "deter": 16}
    states = {k: tf.random.stateless_normal([3, 6, s], [0, 1]) for k, s in sizes.items()}
    moved = {k: tf.concat([v[:, :-1], v[:, -1:] + 1.0], 1) for k, v in states.items()}
    some = agent._learner.behavior_losses(states, tf.constant(0))
    other = agent._learner.behavior_losses(moved, tf.constant(0))
    assert (float(some.actor) == float(other.actor)) == enabled


def test_an_update_that_is_not_finite_is_refused_and_told() -> None:
    agent, batch = make_agent(), make_batch()
    update(agent, batch)
    before = agent.state_arrays()
    batch["reward"][0, 1] = np.inf
    metrics = update(agent, batch, 1)
    assert metrics["model_grad_finite"] == 0.0
    after = agent.state_arrays()
    for key, value in before.items():
        if key.startswith("model/"):
            np.testing.assert_array_equal(value, after[key], err_msg=key)
    assert update(agent, make_batch(), 2)["model_grad_finite"] == 1.0
