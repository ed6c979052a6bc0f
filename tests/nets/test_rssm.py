"""The recurrent state-space model against a literal NumPy loop over time."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from dreamer.nets.rssm import GRU, RSSM, Linear

ACTIONS, EMBED, STOCH, DETER, HIDDEN, MIN_STD = 2, 6, 3, 5, 7, 0.1
BATCH, LENGTH = 4, 9
SIZES = {"stoch": STOCH, "deter": DETER, "hidden": HIDDEN, "min_std": MIN_STD}


def make(dtype: str = "float32") -> RSSM:
    rssm = RSSM(ACTIONS, EMBED, **SIZES, dtype=keras.DTypePolicy(dtype))
    rng = np.random.default_rng(0)
    for variable in rssm.variables:  # biases too, so that they show
        variable.assign(rng.normal(0, 0.4, variable.shape).astype(np.float32))
    return rssm


def sequences(seed: int = 0, length: int = LENGTH) -> dict[str, np.ndarray]:
    """Row 1 begins a new episode in the middle, row 2 at the start and right after, row 3 none."""
    rng = np.random.default_rng(seed)
    is_first = np.zeros((BATCH, length), bool)
    is_first[0, 0] = is_first[1, length // 2] = is_first[2, 0] = is_first[2, 1] = True
    return {
        "embed": rng.normal(size=(BATCH, length, EMBED)).astype(np.float32),
        "action": rng.normal(size=(BATCH, length, ACTIONS)).astype(np.float32),
        "is_first": is_first,
        "noise": rng.normal(size=(BATCH, length, STOCH)).astype(np.float32),
    }


# ------------------------------------------------------------- literal version


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Literal:
    """DESIGN's formulas for one row and one step at a time, in float64."""

    def __init__(self, rssm: RSSM):
        self.w = {v.path: v.numpy().astype(np.float64) for v in rssm.variables}

    def dense(self, name: str, x):
        return x @ self.w[f"{name}/kernel"] + self.w[f"{name}/bias"]

    def gru(self, x, h):
        """Keras's cell with reset_after; gates in the order update, reset, candidate."""
        n = len(h)
        ours = x @ self.w["gru/kernel"] + self.w["gru/bias"][0]
        past = h @ self.w["gru/recurrent"] + self.w["gru/bias"][1]
        z = sigmoid(ours[:n] + past[:n])
        r = sigmoid(ours[n : 2 * n] + past[n : 2 * n])
        candidate = np.tanh(ours[2 * n :] + r * past[2 * n :])
        return z * h + (1 - z) * candidate

    def stats(self, name: str, hidden):
        mean, std = np.split(self.dense(name, hidden), 2)
        return mean, np.logaddexp(0, std) + MIN_STD

    def prior(self, stoch, deter, action):
        x = elu(self.dense("input", np.concatenate([stoch, action])))
        deter = self.gru(x, deter)
        mean, std = self.stats("prior_stats", elu(self.dense("prior_hidden", deter)))
        return mean, std, deter

    def posterior(self, deter, embed):
        x = elu(self.dense("post_hidden", np.concatenate([deter, embed])))
        return self.stats("post_stats", x)

    def observe(self, data, stoch=None, deter=None):
        """Post and prior of every row and time: mean, std, stoch, deter (prior without stoch)."""
        posts = {k: [] for k in ("mean", "std", "stoch", "deter")}
        priors = {k: [] for k in ("mean", "std", "deter")}
        for row in range(len(data["embed"])):
            s = np.zeros(STOCH) if stoch is None else stoch[row]
            h = np.zeros(DETER) if deter is None else deter[row]
            for t in range(data["embed"].shape[1]):
                action = data["action"][row, t]
                if data["is_first"][row, t]:
                    s, h, action = 0 * s, 0 * h, 0 * action
                mean, std, h = self.prior(s, h, action)
                for key, value in {"mean": mean, "std": std, "deter": h}.items():
                    priors[key].append(value)
                mean, std = self.posterior(h, data["embed"][row, t])
                s = mean + std * data["noise"][row, t]
                for key, value in {"mean": mean, "std": std, "stoch": s, "deter": h}.items():
                    posts[key].append(value)
        shape = data["embed"].shape[:2]
        return tuple(
            {k: np.reshape(v, (*shape, -1)) for k, v in state.items()} for state in (posts, priors)
        )


def assert_states(actual, expected, **tolerance) -> None:
    tolerance = tolerance or {"rtol": 1e-4, "atol": 1e-5}
    for key, value in expected.items():
        np.testing.assert_allclose(actual[key], value, err_msg=key, **tolerance)


# ----------------------------------------------------------------------- tests


def test_gru_is_keras() -> None:
    ours, cell = GRU(4, 5), keras.layers.GRUCell(5, reset_after=True)
    cell.build((None, 4))
    rng = np.random.default_rng(1)
    for mine, theirs in zip(ours.variables, cell.trainable_variables, strict=True):
        mine.assign(rng.normal(0, 0.5, mine.shape).astype(np.float32))
        theirs.assign(mine)
    x, h = tf.random.stateless_normal([6, 4], [0, 1]), tf.random.stateless_normal([6, 5], [0, 2])
    np.testing.assert_allclose(ours(x, h), cell(x, h)[0], rtol=1e-5, atol=1e-6)


def test_gru_starts_as_keras_does() -> None:
    gru = GRU(4, 5)
    recurrent = gru.recurrent.numpy()
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(5), atol=1e-5)
    assert not gru.bias.numpy().any()


def test_gru_is_the_literal_formula() -> None:
    rssm = make()
    literal = Literal(rssm)
    rng = np.random.default_rng(2)
    x, h = rng.normal(size=(6, HIDDEN)), rng.normal(size=(6, DETER))
    expected = [literal.gru(a, b) for a, b in zip(x, h, strict=True)]
    actual = rssm._gru(tf.constant(x, tf.float32), tf.constant(h, tf.float32))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_published_sizes() -> None:
    sizes = {"stoch": 30, "deter": 200, "hidden": 200, "min_std": 0.1}
    rssm = RSSM(6, 1024, **sizes)
    shapes = {v.path: tuple(v.shape) for v in rssm.variables if v.path.endswith("kernel")}
    assert shapes == {
        "input/kernel": (36, 200), "gru/kernel": (200, 600), "prior_hidden/kernel": (200, 200),
        "prior_stats/kernel": (200, 60), "post_hidden/kernel": (1224, 200),
        "post_stats/kernel": (200, 60),
    }  # fmt: skip
    assert rssm.feat_size == 230 and rssm.stoch_size == 30


def test_observe_is_the_loop_over_time() -> None:
    rssm, data = make(), sequences()
    post, prior = rssm.observe(**{k: tf.constant(v) for k, v in data.items()})
    expected_post, expected_prior = Literal(rssm).observe(data)
    assert_states(post, expected_post)
    assert_states(prior, expected_prior)
    np.testing.assert_array_equal(prior["stoch"], prior["mean"])
    np.testing.assert_array_equal(prior["deter"], post["deter"])
    assert {k: tuple(v.shape) for k, v in post.items()} == {
        "mean": (BATCH, LENGTH, STOCH), "std": (BATCH, LENGTH, STOCH),
        "stoch": (BATCH, LENGTH, STOCH), "deter": (BATCH, LENGTH, DETER),
    }  # fmt: skip


def test_observe_goes_on_from_a_state() -> None:
    rssm, data = make(), sequences()
    tensors = {k: tf.constant(v) for k, v in data.items()}
    whole, _ = rssm.observe(**tensors)
    first, _ = rssm.observe(**{k: v[:, :4] for k, v in tensors.items()})
    state = {k: v[:, -1] for k, v in first.items()}
    second, _ = rssm.observe(**{k: v[:, 4:] for k, v in tensors.items()}, start=state)
    for key, value in whole.items():
        joined = np.concatenate([first[key], second[key]], 1)
        np.testing.assert_allclose(joined, value, rtol=1e-5, atol=1e-6)
    expected, _ = Literal(rssm).observe(
        {k: v[:, 4:] for k, v in data.items()}, state["stoch"].numpy(), state["deter"].numpy()
    )
    assert_states(second, expected)


def test_a_sequence_cut_at_is_first_is_two_sequences() -> None:
    rssm, data = make(), sequences()
    cut = 5
    data["is_first"][:] = False
    data["is_first"][:, cut] = True
    tensors = {k: tf.constant(v) for k, v in data.items()}
    whole = rssm.observe(**tensors)
    parts = [
        rssm.observe(**{k: v[:, :cut] for k, v in tensors.items()}),
        rssm.observe(**{k: v[:, cut:] for k, v in tensors.items()}),
    ]
    for which in (0, 1):
        for key, value in whole[which].items():
            joined = np.concatenate([parts[0][which][key], parts[1][which][key]], 1)
            np.testing.assert_allclose(joined, value, rtol=1e-5, atol=1e-6)


def test_nothing_before_is_first_matters() -> None:
    rssm, data = make(), sequences()
    cut = LENGTH // 2  # row 1's
    before, _ = rssm.observe(**{k: tf.constant(v) for k, v in data.items()})
    for key in ("embed", "action", "noise"):
        data[key][:, :cut] += 1.0
    data["action"][:, cut] += 1.0  # the action that led to a first timestep is none
    after, _ = rssm.observe(**{k: tf.constant(v) for k, v in data.items()})
    for key, value in before.items():
        np.testing.assert_array_equal(value[1, cut:], after[key][1, cut:])
        assert not np.allclose(value[3, cut:], after[key][3, cut:])


def test_first_step_starts_from_zeros_with_or_without_the_flag() -> None:
    rssm, data = make(), sequences()
    data["is_first"][:] = False
    data["action"][:, 0] = 0.0
    flagged = {**data, "is_first": data["is_first"].copy()}
    flagged["is_first"][:, 0] = True
    some, _ = rssm.observe(**{k: tf.constant(v) for k, v in data.items()})
    same, _ = rssm.observe(**{k: tf.constant(v) for k, v in flagged.items()})
    for key, value in some.items():
        np.testing.assert_array_equal(value, same[key])


def test_later_timesteps_do_not_reach_back() -> None:
    rssm, data = make(), sequences()
    before, prior_before = rssm.observe(**{k: tf.constant(v) for k, v in data.items()})
    data["embed"][:, 6:] += 1.0
    after, prior_after = rssm.observe(**{k: tf.constant(v) for k, v in data.items()})
    for key in before:
        np.testing.assert_array_equal(before[key][:, :6], after[key][:, :6])
        # The prior at 6 has not seen the observation at 6.
        np.testing.assert_array_equal(prior_before[key][:, :7], prior_after[key][:, :7])
    assert not np.allclose(before["mean"][:, 6], after["mean"][:, 6])


def test_imagine_step_is_the_literal_prior() -> None:
    rssm, rng = make(), np.random.default_rng(5)
    stoch, deter = rng.normal(size=(8, STOCH)), rng.normal(size=(8, DETER))
    actions, noises = rng.normal(size=(4, 8, ACTIONS)), rng.normal(size=(4, 8, STOCH))
    state = {
        "stoch": tf.constant(stoch, tf.float32), "deter": tf.constant(deter, tf.float32)
    }  # fmt: skip
    literal = Literal(rssm)
    for action, noise in zip(actions, noises, strict=True):
        state = rssm.imagine_step(
            state, tf.constant(action, tf.float32), tf.constant(noise, tf.float32)
        )
        rows = [literal.prior(s, h, a) for s, h, a in zip(stoch, deter, action, strict=True)]
        mean, std, deter = (np.stack(x) for x in zip(*rows, strict=True))
        stoch = mean + std * noise
        assert_states(state, {"mean": mean, "std": std, "stoch": stoch, "deter": deter})


def test_imagining_is_the_prior_of_observing() -> None:
    """The state that filtering expects next is the one that imagination gives."""
    rssm, data = make(), sequences()
    data["is_first"][:] = False
    post, prior = rssm.observe(**{k: tf.constant(v) for k, v in data.items()})
    state = {k: v[:, 3] for k, v in post.items()}
    ahead = rssm.imagine_step(state, data["action"][:, 4], tf.zeros([BATCH, STOCH]))
    for key in ("mean", "std", "deter", "stoch"):
        np.testing.assert_allclose(ahead[key], prior[key][:, 4], rtol=1e-5, atol=1e-6)


def test_feat_and_initial_state() -> None:
    rssm = make()
    initial = rssm.initial(3)
    assert all(not v.numpy().any() for v in initial.values())
    state = {"stoch": tf.ones([2, STOCH]), "deter": tf.zeros([2, DETER])}
    np.testing.assert_array_equal(rssm.feat(state), [[1] * STOCH + [0] * DETER] * 2)


def test_dist_is_the_latent_normal() -> None:
    rssm, rng = make(), np.random.default_rng(6)
    mean, x = rng.normal(size=(2, 4, STOCH))
    std = rng.uniform(0.2, 2, (4, STOCH))
    state = {k: tf.constant(v, tf.float32) for k, v in {"mean": mean, "std": std}.items()}
    expected = -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(
        rssm.dist(state).log_prob(x.astype(np.float32)), expected.sum(-1), rtol=1e-4
    )


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_states_in_float32(precision: str) -> None:
    rssm, data = make(precision), sequences()
    post, prior = rssm.observe(**{k: tf.constant(v) for k, v in data.items()})
    last = {k: v[:, -1] for k, v in post.items()}
    ahead = rssm.imagine_step(last, data["action"][:, 0], data["noise"][:, 0])
    for state in (post, prior, ahead):
        assert {v.dtype for v in state.values()} == {tf.float32}
    expected, _ = Literal(rssm).observe(data)
    assert_states(post, expected, rtol=0.1, atol=0.15)
    assert {v.dtype for v in rssm.variables} == {"float32"}


def test_linear_can_be_used_in_parts() -> None:
    layer = Linear(5, 4)
    x = np.random.default_rng(7).normal(size=(3, 5)).astype(np.float32)
    first, second = layer.parts(2, 3)
    np.testing.assert_allclose(x[:, :2] @ first + x[:, 2:] @ second, layer(x), rtol=1e-5, atol=1e-6)
