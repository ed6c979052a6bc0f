"""The agent: equal seeds, checkpoints, accepted inputs, acting, predictions."""

import numpy as np
import pytest
import small_agent
import tensorflow as tf
from small_agent import BOTH, ONEHOT, VECTORS, make_agent, make_batch, make_timesteps, update

from dreamer.agent.agent import Agent
from dreamer.envs.spec import Space, one_hot_space
from dreamer.errors import UserError

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.mark.parametrize("discrete", [False, True])
def test_same_seed_same_agent(discrete: bool) -> None:
    space = ONEHOT if discrete else small_agent.CONTINUOUS
    one, two, other = (make_agent(VECTORS, space, seed=seed) for seed in (5, 5, 6))
    batch, timesteps = make_batch(VECTORS, space), make_timesteps()
    metrics = update(one, batch)
    assert metrics == update(two, batch)
    assert metrics["model_loss"] != update(other, batch)["model_loss"]
    state, same = None, None
    for mode in ("train", "eval", "train"):
        action, state = one.policy(timesteps, state, mode)
        twin, same = two.policy(timesteps, same, mode)
        np.testing.assert_array_equal(action, twin)
    first, second = one.state_arrays(), two.state_arrays()
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key], err_msg=key)


@pytest.mark.parametrize("overrides", [
    {}, {"behavior__policy": "planner", "planner__candidates": 8, "planner__num_elites": 3},
    {"actor__gradient": "score", "actor__entropy": 0.01},
])  # fmt: skip
def test_actions_of_several_one_hot_vectors(overrides: dict) -> None:
    space = one_hot_space(2, 3)
    agent = make_agent(VECTORS, space, **overrides)
    assert np.isfinite(update(agent, make_batch(VECTORS, space))["model_loss"])
    for mode in ("train", "eval"):
        action, _ = agent.policy(make_timesteps(VECTORS, 6), None, mode)
        assert np.all((action == 0) | (action == 1))
        assert np.all(action[:, :2].sum(1) == 1) and np.all(action[:, 2:].sum(1) == 1)


def test_an_updates_noise_follows_from_its_number() -> None:
    agent, batch, losses = make_agent(), make_batch(), []
    begun = {k: v.copy() for k, v in agent.state_arrays().items()}
    for number in (0, 1, 0):
        agent.load_arrays(begun)
        losses.append(update(agent, batch, number)["model_loss"])
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize("seed", [0, 2**31, 2**32 - 1])
def test_every_seed_of_the_config_works(seed: int) -> None:
    agent = make_agent(seed=seed)
    assert np.isfinite(update(agent, make_batch())["model_loss"])
    assert np.isfinite(agent.policy(make_timesteps(), None)[0]).all()


def carry_on(agent: Agent, batch: dict, timesteps: dict) -> tuple:
    """Metrics of one more update, an action, and the arrays after these."""
    metrics = update(agent, batch, 1)
    action, _ = agent.policy(timesteps, None)
    return metrics, action, {k: np.array(v) for k, v in agent.state_arrays().items()}


def check_restored(agent: Agent, restored: Agent, space: dict[str, Space]) -> None:
    """Saved and restored, the next update and actions are the same bit for bit."""
    first, second, third = (make_batch(space, seed=seed) for seed in range(3))
    timesteps = make_timesteps(space)
    update(agent, first)
    agent.policy(timesteps, None)
    saved = {k: np.array(v) for k, v in agent.state_arrays().items()}
    metrics, action, arrays = carry_on(agent, second, timesteps)
    update(restored, third, 7)  # whatever it did before
    restored.load_arrays(saved)
    same, twin, theirs = carry_on(restored, second, timesteps)
    assert metrics == same
    np.testing.assert_array_equal(action, twin)
    for key, value in arrays.items():
        np.testing.assert_array_equal(value, theirs[key], err_msg=key)


EXPLORER = {"until": 10, "members": 3, "units": 8, "layers": 1}
PLANNER = {"candidates": 8, "num_elites": 3, "iterations": 2, "horizon": 3, "returns": "lambda"}


@pytest.mark.slow
@pytest.mark.parametrize(("space", "settings"), [
    (VECTORS, {"precision": "float16", "discount__enabled": True}),
    (VECTORS, {f"disagreement__{key}": value for key, value in EXPLORER.items()}),
    (VECTORS, {"behavior__policy": "planner", **{f"planner__{k}": v for k, v in PLANNER.items()}}),
], ids=["float16", "explorer", "planner"])  # fmt: skip
def test_another_agent_is_restored_bit_for_bit(space, settings) -> None:
    check_restored(make_agent(space, **settings), make_agent(space, **settings), space)


@pytest.fixture(scope="module")
def agent() -> Agent:
    """For tests that change nothing of it."""
    return make_agent()


@pytest.fixture(scope="module")
def traced() -> Agent:
    """An agent that runs its graphs, which tests share because tracing takes long."""
    return make_agent(
        explore__decay_steps=100, discount__enabled=True, inputs__normalize=True,
        reward__transform="normalize", behavior__normalize="percentile", value__slow_rate=0.1,
    )  # fmt: skip


def test_graphs_restore_bit_for_bit(traced: Agent) -> None:
    tf.config.run_functions_eagerly(False)
    check_restored(traced, traced, VECTORS)


def test_nothing_is_traced_twice(traced: Agent) -> None:
    """Traced graphs are never freed: numbers and new arrays must not make new ones."""
    tf.config.run_functions_eagerly(False)
    for number in range(4):
        traced.train_step(make_batch(seed=number), number)
    assert traced._update.experimental_get_tracing_count() == 1
    state = None
    for number in range(4):
        traced.progress(number, number)
        _, state = traced.policy(make_timesteps(seed=number, first=number == 2), state)
    assert traced._act.experimental_get_tracing_count() == 1
    for number in range(3):
        _, state = traced.policy(make_timesteps(seed=number), state, "eval")
    assert traced._act.experimental_get_tracing_count() == 2


def test_a_checkpoint_holds_every_variable_once() -> None:
    agent = make_agent(BOTH, discount__enabled=True, loss__free_nats=0.0)
    update(agent, make_batch(BOTH, size=2, length=4))
    arrays = agent.state_arrays()
    count = 0
    for name, part in agent.networks.named().items():
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


def test_other_arrays_are_refused_and_change_nothing(agent: Agent) -> None:
    before = {k: v.copy() for k, v in agent.state_arrays().items()}
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


@pytest.mark.parametrize("space", [VECTORS, small_agent.IMAGE, BOTH])
def test_observations_of_every_kind(space) -> None:
    agent = make_agent(space)
    metrics = update(agent, make_batch(space, size=2, length=4))
    assert {f"{key}_loss" for key in space} <= metrics.keys()
    assert all(np.isfinite(v) for v in metrics.values())
    assert agent.policy(make_timesteps(space), None)[0].shape == (4, 2)


def test_an_actor_that_does_not_fit_the_actions_is_refused() -> None:
    for space, distribution in ((ONEHOT, "tanh_normal"), (small_agent.CONTINUOUS, "onehot")):
        with pytest.raises(UserError, match=f"actor.distribution {distribution} does not fit"):
            make_agent(VECTORS, space, actor__distribution=distribution)


@pytest.mark.parametrize(("key", "shape", "message"), [
    ("action", (3, 6, 5), r"action should have shape \[3, 6, 2\], but has \[3, 6, 5\]"),
    ("reward", (3, 5), r"reward should have shape \[3, 6\], but has \[3, 5\]"),
    ("joints", (3, 6, 4, 1), r"joints should have shape \[3, 6, 4\]"),
    ("is_first", (3, 6, 1), r"is_first should have shape \[3, 6\]"),
])  # fmt: skip
def test_batches_of_another_shape_are_refused(
    agent: Agent, key: str, shape: tuple[int, ...], message: str
) -> None:
    batch = {**make_batch(), key: np.zeros(shape, np.float32)}
    with pytest.raises(ValueError, match=message):
        agent.train_step(batch, 0)


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
def test_predictions_need_a_context_and_something_to_predict(agent: Agent, context: int) -> None:
    with pytest.raises(ValueError, match=rf"context should be in 1..5, but is {context}"):
        agent.predict(make_batch(), context)


def test_rows_do_not_know_of_each_other() -> None:
    agent, twin = make_agent(), make_agent()
    timesteps, changed = make_timesteps(), make_timesteps(seed=9)
    for key in timesteps:
        changed[key][2] = timesteps[key][2]
    state, other = None, None
    for mode in ("train", "eval", "train"):
        action, state = agent.policy(timesteps, state, mode)
        twins, other = twin.policy(changed, other, mode)
        np.testing.assert_array_equal(action[2], twins[2])
        assert (action[[0, 1, 3]] != twins[[0, 1, 3]]).any(-1).all()


def test_rows_with_is_first_start_anew() -> None:
    """Whatever the state holds: like a policy that begins, at the same count of calls."""
    agent, fresh = make_agent(), make_agent()
    timesteps = make_timesteps()
    state = None
    for seed in range(3):
        _, state = agent.policy(make_timesteps(seed=seed), state)
        fresh.policy(make_timesteps(seed=seed), None)
    timesteps["is_first"][1] = True
    action, after = agent.policy(timesteps, state)
    anew, started = fresh.policy({**timesteps, "is_first": np.ones(4, bool)}, None)
    np.testing.assert_array_equal(action[1], anew[1])
    np.testing.assert_array_equal(after["deter"][1], started["deter"][1])
    assert (after["deter"].numpy()[[0, 2, 3]] != started["deter"].numpy()[[0, 2, 3]]).any(-1).all()


def test_the_policys_state_is_the_models_filter() -> None:
    """Acting filters as learning does: deter after three timesteps is that of `observe`."""
    agent = make_agent()
    model, state, rows, actions = agent.world_model, None, [], [np.zeros((4, 2), np.float32)]
    stochs, deters = [], []
    for t in range(3):
        timesteps = make_timesteps(seed=t, first=t == 0)
        action, state = agent.policy(timesteps, state)
        rows.append(timesteps)
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
    wild = make_agent(explore__noise_scale=50.0)
    calm = make_agent(explore__kind="none")
    assert (np.abs(wild.policy(make_timesteps(), None, "train")[0]) == 1.0).all()
    assert (np.abs(calm.policy(make_timesteps(), None, "train")[0]) < 1.0).any()
    action, state = wild.policy(make_timesteps(), None, "eval")
    twin, _ = calm.policy(make_timesteps(), None, "eval")
    np.testing.assert_array_equal(action, twin)
    latent = {k: v for k, v in state.items() if k != "action"}
    dist = wild.actor.dist(wild.world_model.rssm.feat(latent))
    _, densities = dist.from_noise(tf.random.stateless_normal([50, 4, 2], [1, 2]))
    assert (dist.log_prob(action) > np.median(densities, 0)).numpy().all()


def test_the_stored_action_is_the_noisy_one() -> None:
    agent = make_agent(explore__noise_scale=50.0)
    action, state = agent.policy(make_timesteps(), None)
    np.testing.assert_array_equal(state["action"], action)


def test_onehot_actions() -> None:
    agent = make_agent(VECTORS, ONEHOT, explore__kind="epsilon", explore__noise_scale=0.0)
    timesteps = make_timesteps(count=50)
    for mode in ("train", "eval"):
        action, state = agent.policy(timesteps, None, mode)
        assert action.dtype == np.float32
        np.testing.assert_allclose(action.sum(-1), 1.0, rtol=1e-6)
        assert set(np.unique(action.round(6))) == {0.0, 1.0}
    logits = agent.actor(agent.world_model.rssm.feat(state))
    np.testing.assert_array_equal(action.argmax(-1), np.argmax(logits, -1))
    metrics = update(agent, make_batch(VECTORS, ONEHOT))
    assert all(np.isfinite(v) for v in metrics.values())
    assert 0.0 < metrics["actor_entropy"] < 2 * np.log(3)


def test_exploration_follows_the_progress_that_the_agent_is_told() -> None:
    agent = make_agent(
        VECTORS, ONEHOT, explore__kind="epsilon", explore__noise_scale=1.0,
        explore__decay_steps=100, explore__unit="updates",
    )  # fmt: skip
    agent.actor.trainable_variables[-1].assign([0.0, 500.0, 0.0])
    timesteps = make_timesteps(count=2000)
    for number, epsilon in ((0, 1.0), (50, 0.5), (100, 0.0), (1000, 0.0)):
        agent.progress(10**6, number)
        action, _ = agent.policy(timesteps, None)
        share = np.mean(action.argmax(-1) != 1)
        assert share == pytest.approx(epsilon * 2 / 3, abs=0.04)


def test_evaluation_samples_if_the_config_says_so() -> None:
    """As in training without exploration noise; with one-hot actions, too."""
    for act in (small_agent.CONTINUOUS, ONEHOT):
        quiet = {"actor__evaluation": "sample", "explore__kind": "none"}
        one, two = (make_agent(VECTORS, act, **quiet) for _ in range(2))
        for _ in range(3):
            trained, _ = one.policy(make_timesteps(), None, "train")
            evaluated, _ = two.policy(make_timesteps(), None, "eval")
            np.testing.assert_array_equal(trained, evaluated)


def test_unknown_mode_is_refused(agent: Agent) -> None:
    with pytest.raises(ValueError, match="'train' or 'eval', but is 'test'"):
        agent.policy(make_timesteps(), None, "test")


def test_all_learning_rates_follow_the_schedule_of_the_config():
    """By the number of the update alone, so that a resumed run continues it."""
    agent = make_agent(optimizer__decay="linear", optimizer__decay_updates=10, optimizer__final=0.5)
    agent.train_step(make_batch(), 5)
    rates = {k: v for k, v in agent.state_arrays().items() if k.endswith("/learning_rate")}
    assert {k.partition("/")[0] for k in rates} == {"model", "actor", "value"}
    for name, rate in (("model", 6e-4), ("actor", 8e-5), ("value", 8e-5)):
        (found,) = (v for k, v in rates.items() if k.startswith(f"{name}/"))
        assert found == pytest.approx(0.75 * rate)


def test_futures_are_imagined_from_observed_states_with_the_actions_alone(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(length=12)
    found = agent.foresee(batch, [2, 5], 4)
    for name in ("reward", "pcont", "value"):
        assert found[name].shape == (3, 12)
        imagined = found[f"imagined/{name}"]
        assert imagined.shape == (3, 2, 5)
        np.testing.assert_array_equal(imagined[..., 0], found[name][:, [2, 5]])
    np.testing.assert_array_equal(found["truth"], batch["reward"])
    unseen = {key: array.copy() for key, array in batch.items()}
    unseen["joints"][:, 6:] += 1.0
    other = agent.foresee(unseen, [2, 5], 4)
    np.testing.assert_array_equal(other["imagined/value"], found["imagined/value"])
    assert np.all(other["value"][:, 6:] != found["value"][:, 6:])
    unseen["action"][:, 6] += 0.5
    moved = agent.foresee(unseen, [2, 5], 4)["imagined/value"] != found["imagined/value"]
    assert moved[:, 1, 1:].all() and not moved[:, 0, :4].any() and moved[:, 0, 4].all()
    monkeypatch.setattr("dreamer.agent.agent._PIECE", 5)  # long sequences are filtered in pieces
    pieces = agent.foresee(batch, [2, 5], 4)
    for name, array in found.items():
        np.testing.assert_allclose(pieces[name], array, rtol=1e-5, atol=1e-6)
    for starts in ([], [8], [-1]):
        with pytest.raises(ValueError, match=r"in 0\.\.7, but are"):
            agent.foresee(batch, starts, 4)
