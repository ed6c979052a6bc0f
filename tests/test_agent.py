"""The agent: gradient routing, sameness, acting, checkpoints, precision, predictions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf
from small_agent import CONTINUOUS, IMAGE, ONEHOT, VECTORS, make_agent, make_batch, make_records

from dreamer.agent import Agent
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.ops.seeds import Purpose, make_seeds

BOTH = {**IMAGE, **VECTORS}


@pytest.fixture(autouse=True)
def _eagerly() -> Iterator[None]:
    """Runs tf.functions eagerly unless a test says otherwise: tracing takes ten times as long."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def weights(agent: Agent) -> dict[str, np.ndarray]:
    return {k: v for k, v in agent.state_arrays().items() if "/adam/" not in k}


def parts_that_differ(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {k.partition("/")[0] for k in before if not np.array_equal(before[k], after[k])}


def update(agent: Agent, batch, number: int = 0) -> dict[str, float]:
    return {k: float(v) for k, v in agent.train_step(batch, number).items()}


# ---------------------------------------------------------- gradient routing


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


# ------------------------------------------------------------------ sameness


@pytest.mark.parametrize("discrete", [False, True])
def test_same_seed_same_agent(discrete: bool) -> None:
    space = ONEHOT if discrete else CONTINUOUS
    one, two, other = (make_agent(VECTORS, space, seed=seed) for seed in (5, 5, 6))
    batch, records = make_batch(VECTORS, space), make_records()
    for number in range(2):
        assert update(one, batch, number) == update(two, batch, number)
    other_metrics = update(other, batch)
    state, same = None, None
    for mode in ("train", "eval", "train"):
        action, state = one.policy(records, state, mode)
        twin, same = two.policy(records, same, mode)
        np.testing.assert_array_equal(action, twin)
    first, second = one.state_arrays(), two.state_arrays()
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key], err_msg=key)
    assert other_metrics["model_loss"] != update(one, batch)["model_loss"]


def test_an_updates_noise_follows_from_its_number() -> None:
    batch = make_batch()
    losses = [update(make_agent(), batch, number)["model_loss"] for number in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize("seed", [0, 2**31, 2**32 - 1])
def test_every_seed_of_the_config_works(seed: int) -> None:
    agent = make_agent(seed=seed)
    assert np.isfinite(update(agent, make_batch())["model_loss"])
    assert np.isfinite(agent.policy(make_records(), None)[0]).all()


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(("precision", "eager"), [("float32", False), ("float16", True)])
def test_saved_and_restored_the_next_update_is_the_same_bit_for_bit(
    precision: str, eager: bool
) -> None:
    tf.config.run_functions_eagerly(eager)
    batches = [make_batch(BOTH, size=2, length=4, seed=seed) for seed in range(4)]
    agent = make_agent(BOTH, precision=precision, discount__enabled=True)
    for number in (0, 1):
        update(agent, batches[number], number)
    agent.policy(make_records(BOTH), None)
    saved = {k: np.array(v) for k, v in agent.state_arrays().items()}
    restored = make_agent(BOTH, precision=precision, discount__enabled=True, seed=0)
    update(restored, batches[3], 7)  # whatever it did before
    restored.load_arrays(saved)
    for number in (2, 3):
        assert update(agent, batches[number], number) == update(restored, batches[number], number)
    action, _ = agent.policy(make_records(BOTH), None)
    np.testing.assert_array_equal(action, restored.policy(make_records(BOTH), None)[0])
    final, same = agent.state_arrays(), restored.state_arrays()
    for key, value in final.items():
        np.testing.assert_array_equal(value, same[key], err_msg=key)


def test_a_checkpoint_holds_every_variable_once() -> None:
    agent = make_agent(BOTH, discount__enabled=True, loss__free_nats=0.0)
    update(agent, make_batch(BOTH, size=2, length=4))
    arrays = agent.state_arrays()
    count = 0
    for name, part in agent.parts.named().items():
        own = [k for k in arrays if k.startswith(f"{name}/") and "/adam/" not in k]
        slots = [k for k in arrays if k.startswith(f"{name}/adam/")]
        assert len(own) == len(part.variables) == len(part.trainable_variables)
        # two moments each, iterations, learning rate, loss scale, good updates
        assert len(slots) == 2 * len(own) + 4
        moments = [arrays[k] for k in slots if k.endswith(("momentum", "velocity"))]
        assert len(moments) == 2 * len(own)
        assert all(np.any(m) for m in moments)
        count += len(own) + len(slots)
    assert len(arrays) == count + 1
    assert not any(isinstance(v, np.ndarray) and v.dtype == object for v in arrays.values())


def test_other_arrays_are_refused_and_change_nothing() -> None:
    agent = make_agent()
    before = agent.state_arrays()
    other = make_agent(seed=1).state_arrays()
    name = next(k for k in other if k.startswith("value/") and k.endswith("kernel"))
    cases = [
        {k: v for k, v in other.items() if k != name},
        {**other, "model/unknown": np.zeros(3)},
        {**other, name: np.zeros((2, 2), np.float32)},
        {k: v for k, v in other.items() if k != "policy_calls"},
        make_agent(BOTH).state_arrays(),
        {},
    ]
    for arrays in cases:
        with pytest.raises(ValueError, match="should have shape|not this agent's"):
            agent.load_arrays(arrays)
    after = agent.state_arrays()
    for key, value in before.items():
        np.testing.assert_array_equal(value, after[key], err_msg=key)


# --------------------------------------------------------------------- acting


def test_rows_do_not_know_of_each_other() -> None:
    agent, twin = make_agent(), make_agent()
    records, changed = make_records(), make_records(seed=9)
    for key in records:
        changed[key][2] = records[key][2]
    state, other = None, None
    for mode in ("train", "eval", "train"):
        action, state = agent.policy(records, state, mode)
        twins, other = twin.policy(changed, other, mode)
        np.testing.assert_array_equal(action[2], twins[2])
        assert (action[[0, 1, 3]] != twins[[0, 1, 3]]).any(-1).all()


def test_rows_with_is_first_start_anew() -> None:
    """Whatever the state holds: like a policy that begins, at the same count of calls."""
    agent, fresh = make_agent(), make_agent()
    records = make_records()
    state = None
    for seed in range(3):
        _, state = agent.policy(make_records(seed=seed), state)
        fresh.policy(make_records(seed=seed), None)
    records["is_first"][1] = True
    action, after = agent.policy(records, state)
    anew, started = fresh.policy({**records, "is_first": np.ones(4, bool)}, None)
    np.testing.assert_array_equal(action[1], anew[1])
    np.testing.assert_array_equal(after["deter"][1], started["deter"][1])
    assert (after["deter"].numpy()[[0, 2, 3]] != started["deter"].numpy()[[0, 2, 3]]).any(-1).all()


def test_the_policy_remembers() -> None:
    """The state carries the past: the same record after other records gives another state."""
    agent, twin = make_agent(), make_agent()
    _, one = agent.policy(make_records(seed=1, first=True), None)
    _, two = twin.policy(make_records(seed=2, first=True), None)
    _, one = agent.policy(make_records(seed=3), one)
    _, two = twin.policy(make_records(seed=3), two)
    assert not np.allclose(one["deter"], two["deter"])


def test_the_policys_state_is_the_models_filter() -> None:
    """Acting filters as learning does: deter after three records is that of `observe`."""
    agent = make_agent()
    model, state, rows, actions = agent.world_model, None, [], [np.zeros((4, 2), np.float32)]
    stochs, deters = [], []
    for t in range(3):
        records = make_records(seed=t, first=t == 0)
        action, state = agent.policy(records, state)
        rows.append(records)
        actions.append(action)
        stochs.append(state["stoch"].numpy())
        deters.append(state["deter"].numpy())
    for t in range(3):
        before = {"stoch": np.zeros((4, 4)), "deter": np.zeros((4, 16))}
        if t:
            before = {"stoch": stochs[t - 1], "deter": deters[t - 1]}
        before = {k: tf.constant(v, tf.float32) for k, v in before.items()}
        expected = model.rssm.imagine_step(before, actions[t], tf.zeros([4, 4]))["deter"]
        np.testing.assert_allclose(deters[t], expected, rtol=1e-4, atol=1e-6)


def test_evaluation_takes_the_mode_and_no_noise() -> None:
    wild = make_agent(explore__amount=50.0)
    calm = make_agent(explore__kind="none")
    assert (np.abs(wild.policy(make_records(), None, "train")[0]) == 1.0).all()
    assert (np.abs(calm.policy(make_records(), None, "train")[0]) < 1.0).any()
    action, state = wild.policy(make_records(), None, "eval")
    twin, _ = calm.policy(make_records(), None, "eval")
    np.testing.assert_array_equal(action, twin)
    latent = {k: v for k, v in state.items() if k != "action"}
    dist = wild.actor.dist(wild.world_model.rssm.feat(latent))
    _, densities = dist.from_noise(tf.random.stateless_normal([50, 4, 2], [1, 2]))
    assert (dist.log_prob(action) > np.median(densities, 0)).numpy().all()


def test_exploration_noise_has_the_size_asked_for() -> None:
    """Around the sample of an actor without noise of its own; clipped to the actions' range."""
    settings = {"actor__init_std": 0.01, "actor__min_std": 0.0}
    records = make_records(count=2000)
    plain = make_agent(**settings, explore__kind="none").policy(records, None)[0]
    noisy = make_agent(**settings, explore__amount=0.2).policy(records, None)[0]
    assert np.abs(noisy).max() <= 1.0
    inside = np.abs(plain) < 0.3
    assert inside.sum() > 200
    difference = (noisy - plain)[inside]
    assert np.std(difference) == pytest.approx(0.2, rel=0.15)
    assert np.mean(difference) == pytest.approx(0.0, abs=0.03)


def test_the_stored_action_is_the_noisy_one() -> None:
    agent = make_agent(explore__amount=50.0)
    action, state = agent.policy(make_records(), None)
    np.testing.assert_array_equal(state["action"], action)


def test_onehot_actions() -> None:
    agent = make_agent(VECTORS, ONEHOT, explore__kind="epsilon", explore__amount=0.0)
    records = make_records(count=50)
    for mode in ("train", "eval"):
        action, state = agent.policy(records, None, mode)
        assert action.dtype == np.float32
        np.testing.assert_allclose(action.sum(-1), 1.0, rtol=1e-6)
        assert set(np.unique(action.round(6))) == {0.0, 1.0}
    logits = agent.actor(agent.world_model.rssm.feat(state))
    np.testing.assert_array_equal(action.argmax(-1), np.argmax(logits, -1))
    metrics = update(agent, make_batch(VECTORS, ONEHOT))
    assert all(np.isfinite(v) for v in metrics.values())
    assert 0.0 < metrics["actor_entropy"] < 2 * np.log(3)


def test_epsilon_is_the_share_of_uniform_actions() -> None:
    """A sure actor leaves its choice only by exploring: epsilon * (A - 1) / A of the time."""
    records = make_records(count=3000)
    agent = make_agent(VECTORS, ONEHOT, explore__kind="epsilon", explore__amount=0.3)
    agent.actor.trainable_variables[-1].assign([0.0, 500.0, 0.0])
    action, _ = agent.policy(records, None)
    share = np.mean(action.argmax(-1) != 1)
    assert share == pytest.approx(0.3 * 2 / 3, abs=0.03)
    evaluated, _ = agent.policy(records, None, "eval")
    assert (evaluated.argmax(-1) == 1).all()


def test_exploration_follows_the_progress_that_the_agent_is_told() -> None:
    agent = make_agent(
        VECTORS, ONEHOT, explore__kind="epsilon", explore__amount=1.0, explore__over=100,
        explore__unit="updates",
    )  # fmt: skip
    agent.actor.trainable_variables[-1].assign([0.0, 500.0, 0.0])
    records = make_records(count=2000)
    for update, epsilon in ((0, 1.0), (50, 0.5), (100, 0.0), (1000, 0.0)):
        agent.progress(10**6, update)
        action, _ = agent.policy(records, None)
        share = np.mean(action.argmax(-1) != 1)
        assert share == pytest.approx(epsilon * 2 / 3, abs=0.04)


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="'train' or 'eval', but is 'test'"):
        make_agent().policy(make_records(), None, "test")


# ------------------------------------------------------------ spaces, batches


@pytest.mark.parametrize("space", [VECTORS, IMAGE, BOTH], ids=["vectors", "images", "both"])
def test_observations_of_every_kind(space) -> None:
    agent = make_agent(space)
    metrics = update(agent, make_batch(space, size=2, length=4))
    assert {f"{key}_loss" for key in space} <= metrics.keys()
    assert all(np.isfinite(v) for v in metrics.values())
    assert agent.policy(make_records(space), None)[0].shape == (4, 2)


def test_an_actor_that_does_not_fit_the_actions_is_refused() -> None:
    for space, distribution in ((ONEHOT, "tanh_normal"), (CONTINUOUS, "onehot")):
        with pytest.raises(UserError, match=f"actor.distribution {distribution} does not fit"):
            make_agent(VECTORS, space, actor__distribution=distribution)


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("action", (3, 6, 5), r"action should have shape \[3, 6, 2\], but has \[3, 6, 5\]"),
        ("reward", (3, 5), r"reward should have shape \[3, 6\], but has \[3, 5\]"),
        ("joints", (3, 6, 4, 1), r"joints should have shape \[3, 6, 4\]"),
        ("is_first", (3, 6, 1), r"is_first should have shape \[3, 6\]"),
    ],
)
def test_batches_of_another_shape_are_refused(key: str, shape, message: str) -> None:
    batch = {**make_batch(), key: np.zeros(shape, np.float32)}
    with pytest.raises(ValueError, match=message):
        make_agent().train_step(batch, 0)


def test_nothing_is_traced_twice() -> None:
    """Traced graphs are never freed: numbers and new arrays must not make new ones."""
    tf.config.run_functions_eagerly(False)
    agent = make_agent(explore__over=100)
    for number in range(4):
        agent.train_step(make_batch(seed=number), number)
    assert agent._update.experimental_get_tracing_count() == 1
    state = None
    for number in range(4):
        agent.progress(number, number)
        _, state = agent.policy(make_records(seed=number, first=number == 2), state)
    assert agent._act.experimental_get_tracing_count() == 1
    for number in range(3):
        _, state = agent.policy(make_records(seed=number), state, "eval")
    assert agent._act.experimental_get_tracing_count() == 2


# ------------------------------------------------------------------ precision


@pytest.mark.parametrize(("precision", "eager"), [("bfloat16", False), ("float16", True)])
def test_mixed_precision_learns_the_same_in_float32(precision: str, eager: bool) -> None:
    tf.config.run_functions_eagerly(eager)
    batch = make_batch(BOTH, size=2, length=5)
    full = make_agent(BOTH, discount__enabled=True)
    mixed = make_agent(BOTH, precision=precision, discount__enabled=True)
    before = mixed.state_arrays()
    expected = update(full, batch)
    metrics = mixed.train_step(batch, 0)
    assert {v.dtype for v in metrics.values()} == {tf.float32}
    actual = {k: float(v) for k, v in metrics.items()}
    for key in ("model_loss", "image_loss", "reward_loss", "joints_loss", "discount_loss"):
        assert actual[key] == pytest.approx(expected[key], rel=0.02), key
    for key in ("kl", "imagined_return", "actor_loss", "value_loss", "post_entropy"):
        assert actual[key] == pytest.approx(expected[key], rel=0.1, abs=0.05), key
    for _ in range(4):  # float16's first scale may be too large; each refusal halves it
        if actual["model_grad_finite"]:
            break
        actual = update(mixed, batch)
    assert [actual[f"{p}_grad_finite"] for p in ("model", "actor", "value")] == [1.0] * 3
    assert actual["model_grad_norm"] == pytest.approx(expected["model_grad_norm"], rel=0.1)
    after = mixed.state_arrays()
    for value in after.values():
        assert np.isfinite(value).all() and value.dtype != np.float16
    assert parts_that_differ(before, after) >= {"model", "actor", "value"}
    action, _ = mixed.policy(make_records(BOTH), None)
    assert action.dtype == np.float32


def test_float16_scales_its_losses_and_others_do_not() -> None:
    scaling = make_agent(precision="float16").state_arrays()
    plain = make_agent(precision="bfloat16").state_arrays()
    for part in ("model", "actor", "value"):
        assert scaling[f"{part}/adam/loss_scale"] == 2.0**15
        assert plain[f"{part}/adam/loss_scale"] == 1.0


def test_an_overflow_halves_the_scale_and_skips_the_update() -> None:
    agent, batch = make_agent(precision="float16"), make_batch()
    batch["reward"][0, 1] = np.inf
    before = agent.state_arrays()
    agent.train_step(batch, 0)
    after = agent.state_arrays()
    assert after["model/adam/loss_scale"] == 2.0**14
    for key, value in before.items():
        if key.startswith("model/") and not key.endswith(("loss_scale", "good_updates")):
            np.testing.assert_array_equal(value, after[key], err_msg=key)


# ---------------------------------------------------------------- predictions


def test_predictions_see_their_context_alone() -> None:
    agent = make_agent(BOTH)
    batch = make_batch(BOTH, size=2, length=6)
    result = agent.predict(batch, context=3)
    names = (*BOTH, "reward")
    assert set(result) == {f"{which}/{k}" for which in ("truth", "model") for k in names}
    for key in names:
        np.testing.assert_array_equal(result[f"truth/{key}"], batch[key])
        model = result[f"model/{key}"]
        assert (model.shape, model.dtype) == (batch[key].shape, batch[key].dtype)

    changed = {k: v.copy() for k, v in batch.items()}
    for key in BOTH:
        changed[key][:, 3:] = changed[key][:, :3]
    for key, value in agent.predict(changed, context=3).items():
        if key.startswith("model/"):
            np.testing.assert_array_equal(value, result[key], err_msg=key)
    changed["joints"][:, 2] += 1.0
    other = agent.predict(changed, context=3)["model/joints"]
    assert not np.allclose(other[:, 3:], result["model/joints"][:, 3:])


@pytest.mark.parametrize("context", [0, 6, -1])
def test_predictions_need_a_context_and_something_to_predict(context: int) -> None:
    with pytest.raises(ValueError, match=rf"context should be in 1..5, but is {context}"):
        make_agent().predict(make_batch(), context)


def test_images_that_are_too_large_are_the_users_to_mend() -> None:
    space = {"image": Space((84, 84, 3), np.dtype(np.uint8), 0, 255)}
    with pytest.raises(UserError, match=r"image has shape \[84, 84, 3\]"):
        make_agent(space)
