"""The agent: which networks each loss trains."""

import numpy as np
import pytest
import tensorflow as tf
from small_agent import (
    ONEHOT,
    VECTORS,
    make_agent,
    make_batch,
    parts_that_differ,
    update,
    weights,
)

from dreamer.agent.agent import Agent
from dreamer.ops.seeds import Purpose, make_seeds

pytestmark = pytest.mark.usefixtures("eagerly")


def test_behaviour_waits_for_the_model() -> None:
    agent = make_agent(behavior__after=2)
    for number, parts in ((1, {"model"}), (2, {"model", "actor", "value"})):
        before = weights(agent)
        update(agent, make_batch(), number)
        assert parts_that_differ(before, weights(agent)) == parts


def test_the_slow_value_follows_unless_the_update_is_skipped() -> None:
    agent, batch = make_agent(value__slow_rate=0.25), make_batch()

    def copies() -> list[np.ndarray]:
        value, slow = agent.networks.value, agent.networks.slow_value
        assert value is not None and slow is not None
        return [np.concatenate([v.numpy().ravel() for v in x.variables]) for x in (value, slow)]

    first, slow = copies()
    np.testing.assert_array_equal(first, slow)
    update(agent, batch)
    value, moved = copies()
    np.testing.assert_allclose(moved, 0.75 * first + 0.25 * value, atol=1e-7)
    assert np.abs(value - first).max() > 1e-6
    batch["reward"][0, 1] = np.nan
    update(agent, batch, 1)
    np.testing.assert_array_equal(copies()[1], moved)


def test_the_slow_value_can_be_copied_now_and_then() -> None:
    """DreamerV2's target network: bit for bit the value network, after every second update."""
    agent = make_agent(value__slow_rate=1.0, value__slow_every=2)
    value, slow = agent.networks.value, agent.networks.slow_value
    assert value is not None and slow is not None
    for number in range(4):
        kept = [v.numpy().copy() for v in slow.variables]
        update(agent, make_batch(), number)
        expected = [v.numpy() for v in value.variables] if number % 2 else kept
        for mine, theirs in zip(slow.variables, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_fewer_starts_are_drawn_from_the_batch() -> None:
    agent, batch = make_agent(behavior__starts=5, discount__enabled=True), make_batch()
    tensors = {k: tf.constant(batch[k]) for k in agent._batch_keys()}
    noise = tf.random.stateless_normal([3, 6, 4], [1, 2])
    _, post, _ = agent.world_model.loss(tensors, noise)
    purposes = Purpose.IMAGINED, Purpose.ACTIONS
    states = agent.world_model.rssm.feat(post).numpy().reshape(18, -1)
    chosen = set()
    for number in range(4):
        found = agent._learner.imagine(agent.actor, post, tensors, tf.constant(number), *purposes)
        assert found.feat.shape[0] == found.cont.shape[0] == 5
        rows = [int(np.argmin(np.abs(states - s).sum(1))) for s in found.start.numpy()]
        np.testing.assert_array_equal(found.start, states[rows])
        np.testing.assert_array_equal(found.cont, batch["cont"].ravel()[rows])
        assert len(set(rows)) == 5
        chosen |= set(rows)
    assert len(chosen) > 8


def losses_on_one_tape(agent: Agent, batch):
    """The three losses with every variable of the agent in reach, as in an update."""
    tensors = {k: tf.constant(batch[k]) for k in agent._batch_keys()}
    noise = tf.random.stateless_normal([*batch["reward"].shape, 4], [1, 2])
    with tf.GradientTape(persistent=True) as tape:
        model_loss, post, _ = agent.world_model.loss(tensors, noise)
        losses, _ = agent._learner.behavior_losses(post, tensors, tf.constant(0))
    return tape, {"model": model_loss, **losses}


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


def test_the_actors_loss_is_the_one_that_the_config_names() -> None:
    """The score-function loss trains no dynamics, reward or value; and entropy counts."""
    batch = make_batch(VECTORS, ONEHOT)
    plain, varied = (
        make_agent(VECTORS, ONEHOT, actor__gradient="score", actor__entropy=entropy)
        for entropy in (0.0, 0.5)
    )
    tape, losses = losses_on_one_tape(varied, batch)
    assert touched(tape, losses["actor"], varied.actor)
    for part in (varied.world_model.rssm, varied.world_model.reward, varied.value):
        assert not touched(tape, losses["actor"], part)
    bonus = losses_on_one_tape(plain, batch)[1]["actor"] - losses["actor"]
    assert 0.25 * np.log(3) < float(bonus) <= 0.5 * np.log(3)  # its policy is near uniform yet


def test_the_explorers_loss_reaches_the_ensemble() -> None:
    """The gradient passes through its disagreement, as through the reward head's reward."""
    small = {"members": 2, "units": 8, "layers": 1, "until": 10}
    agent = make_agent(**{f"disagreement__{key}": value for key, value in small.items()})
    batch = make_batch()
    tensors = {k: tf.constant(batch[k]) for k in agent._batch_keys()}
    _, post, _ = agent.world_model.loss(tensors, tf.zeros([*batch["reward"].shape, 4]))
    with tf.GradientTape(persistent=True) as tape:
        loss = agent._learner.explorer_losses(post, tensors, tf.constant(0))[0]["explorer"]
    parts = agent.networks
    for part in (parts.explorer, parts.ensemble, parts.explorer_value, agent.world_model.rssm):
        assert touched(tape, loss, part)
    assert not touched(tape, loss, parts.actor) and not touched(tape, loss, agent.value)
    assert not touched(tape, loss, agent.world_model.reward)


def test_the_update_gives_each_optimizer_the_gradient_of_its_loss() -> None:
    """All three with the weights before the update; the first step is against the gradient."""
    agent, probe = make_agent(), make_agent()
    batch = make_batch()
    received: dict[str, list] = {}
    for name, optimizer in agent._learner.optimizers.items():

        def keep(gradients, name=name, prepare=optimizer.prepare):
            received[name] = gradients
            return prepare(gradients)

        optimizer.prepare, optimizer.step = keep, lambda prepared, allowed: {}
    tensors = {k: tf.constant(batch[k]) for k in agent._batch_keys()}
    agent._learner.update(tensors, tf.constant(0), False)

    noise = tf.random.stateless_normal([3, 6, 4], make_seeds(0, Purpose.LATENT, tf.constant(0))[0])
    tensors = {k: tf.constant(batch[k]) for k in probe._batch_keys()}
    with tf.GradientTape(persistent=True) as tape:
        loss, post, _ = probe.world_model.loss(tensors, noise)
        losses, _ = probe._learner.behavior_losses(post, tensors, tf.constant(0))
    losses["model"] = loss
    for name, part in probe.networks.named().items():
        expected = tape.gradient(losses[name], [v.value for v in part.trainable_variables])
        for mine, theirs in zip(received[name], expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


VARIANTS = ({}, {"behavior__horizon": 1}, {"behavior__value": False})


@pytest.mark.parametrize("values", VARIANTS, ids=["usual", "one step", "no value"])
@pytest.mark.parametrize("enabled", [False, True])
def test_with_a_discount_head_nothing_is_imagined_from_terminal_timesteps(values, enabled) -> None:
    """A terminal timestep may lie amid a sequence of short episodes. Without a discount head, the
    agent ignores the ends of episodes."""
    agent = make_agent(discount__enabled=enabled, **values)
    batch = {k: tf.constant(v) for k, v in make_batch().items()}
    assert float(batch["cont"][1, 2]) == 0.0 and not batch["is_last"][0, 5]
    sizes = {"mean": 4, "std": 4, "stoch": 4, "deter": 16}
    states = {k: tf.random.stateless_normal([3, 6, s], [0, 1]) for k, s in sizes.items()}

    def moved_by(row: int, time: int) -> bool:
        """Whether the actor's gradient depends on the state there."""
        there = np.zeros((3, 6, 1), np.float32)
        there[row, time] = 1.0
        some, other = (actor_gradient(agent, s, batch) for s in (
            states, {k: v + there for k, v in states.items()}
        ))  # fmt: skip
        return any(np.abs(x - y).max() > 1e-7 for x, y in zip(some, other, strict=True))

    assert moved_by(1, 1) and moved_by(0, 5)
    assert moved_by(1, 2) != enabled


def actor_gradient(agent: Agent, states: dict, batch: dict) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        losses, _ = agent._learner.behavior_losses(states, batch, tf.constant(0))
    variables = agent.actor.trainable_variables
    return [tf.convert_to_tensor(g).numpy() for g in tape.gradient(losses["actor"], variables)]


def test_deterministic_dynamics_judge_the_start_by_what_their_heads_learnt_from() -> None:
    """The reward at f_0 has the error that the reward head is told of, timestep by timestep."""
    agent = make_agent(rssm__kind="deterministic_only", behavior__horizon=1)
    batch = make_batch()
    tensors = {k: tf.constant(batch[k]) for k in agent._batch_keys()}
    noise = tf.zeros([3, 6, 0])
    _, post, metrics = agent.world_model.loss(tensors, noise)
    trajectory = agent._learner.imagine(
        agent.actor, post, tensors, tf.constant(0), Purpose.IMAGINED, Purpose.ACTIONS
    )
    error = agent.world_model.reward(trajectory.start).numpy() - batch["reward"].reshape(-1)
    told = (0.5 * error**2 + 0.5 * np.log(2 * np.pi)).mean()
    assert told == pytest.approx(float(metrics["reward_loss"]), rel=1e-5)
    _, judged = agent._learner.behavior_losses(post, tensors, tf.constant(0))
    whole = tf.concat([trajectory.start[:, None], trajectory.feat], 1)
    rewards = agent.world_model.reward(tf.reshape(whole, [-1, 16]))
    assert float(judged["imagined_reward"]) == pytest.approx(np.mean(rewards), rel=1e-5)
