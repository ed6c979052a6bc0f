"""The RSSMs with one path against literal NumPy loops over time."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from dreamer.nets.rssm import RSSM
from dreamer.nets.rssm_kinds import DeterministicSSM, StochasticSSM, make_rssm

ACTIONS, EMBED, STOCH, DETER, HIDDEN, MIN_STD = 2, 6, 3, 5, 7, 0.1
BATCH, LENGTH = 3, 6
SIZES = {"stoch": STOCH, "deter": DETER, "hidden": HIDDEN, "min_std": MIN_STD}
KINDS = ("stochastic_only", "deterministic_only")


def make(kind: str, dtype: str = "float32") -> RSSM:
    policy = keras.DTypePolicy(dtype)
    rssm = make_rssm(kind, ACTIONS, EMBED, **SIZES, dtype=policy, name="rssm")
    rng = np.random.default_rng(0)
    for variable in rssm.variables:  # biases too, so that they show
        variable.assign(rng.normal(0, 0.4, variable.shape).astype(np.float32))
    return rssm


def sequences(rssm: RSSM, seed: int = 0) -> dict[str, tf.Tensor]:
    """Row 0 begins a new episode at its start, row 1 in the middle, row 2 nowhere."""
    rng = np.random.default_rng(seed)
    is_first = np.zeros((BATCH, LENGTH), bool)
    is_first[0, 0] = is_first[1, LENGTH // 2] = True

    def normal(size: int) -> tf.Tensor:
        return tf.constant(rng.normal(size=(BATCH, LENGTH, size)), tf.float32)

    return {
        "embed": normal(EMBED), "action": normal(ACTIONS),
        "is_first": tf.constant(is_first), "noise": normal(rssm.stoch_size),
    }  # fmt: skip


# ------------------------------------------------------------ literal versions


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Literal:
    """The formulas of the classes' docstrings for one row and one step, in float64."""

    def __init__(self, rssm: RSSM):
        weights = {v.path: v.numpy().astype(np.float64) for v in rssm.variables}
        self.w = {path.removeprefix("rssm/"): value for path, value in weights.items()}

    def dense(self, name: str, *x):
        return np.concatenate(x) @ self.w[f"{name}/kernel"] + self.w[f"{name}/bias"]

    def gru(self, name: str, x, h):
        n = len(h)
        ours = x @ self.w[f"{name}/kernel"] + self.w[f"{name}/bias"][0]
        past = h @ self.w[f"{name}/recurrent"] + self.w[f"{name}/bias"][1]
        z, r = sigmoid(ours[:n] + past[:n]), sigmoid(ours[n : 2 * n] + past[n : 2 * n])
        return z * h + (1 - z) * np.tanh(ours[2 * n :] + r * past[2 * n :])

    def stats(self, name: str, *x):
        mean, std = np.split(self.dense(f"{name}_stats", elu(self.dense(f"{name}_hidden", *x))), 2)
        return {"mean": mean, "std": np.logaddexp(0, std) + MIN_STD}

    def stochastic(self, before, action, embed, noise):
        x = elu(self.dense("input", before, action))
        prior, post = self.stats("prior", x), self.stats("post", x, embed)
        return prior, {**post, "stoch": post["mean"] + post["std"] * noise}

    def deterministic(self, before, action, embed, noise):
        prior = self.gru("gru", elu(self.dense("input", action)), before)
        post = self.gru("post_gru", elu(self.dense("post_hidden", embed)), prior)
        return {"deter": prior}, {"deter": post}


def literal_states(rssm: RSSM, data, kind: str):
    """Posterior and prior entries [B, T, ...] by one row and one step after the other."""
    literal = Literal(rssm)
    step, key, size = {
        "stochastic_only": (literal.stochastic, "stoch", STOCH),
        "deterministic_only": (literal.deterministic, "deter", DETER),
    }[kind]
    found: list[dict[str, list]] = [{}, {}]
    arrays = {k: v.numpy() for k, v in data.items()}
    for b in range(BATCH):
        before = np.zeros(size)
        for t in range(LENGTH):
            on = 0.0 if arrays["is_first"][b, t] else 1.0
            rest = arrays["embed"][b, t], arrays["noise"][b, t]
            prior, post = step(on * before, on * arrays["action"][b, t], *rest)
            before = post[key]
            for states, state in zip(found, (post, prior), strict=True):
                for name, value in state.items():
                    states.setdefault(name, []).append(value)
    return [{k: np.reshape(v, (BATCH, LENGTH, -1)) for k, v in states.items()} for states in found]


# ----------------------------------------------------------------------- tests


def test_which_is_which() -> None:
    assert type(make_rssm("full", ACTIONS, EMBED, **SIZES)) is RSSM
    assert isinstance(make("stochastic_only"), StochasticSSM)
    assert isinstance(make("deterministic_only"), DeterministicSSM)
    with pytest.raises(ValueError, match="rssm.kind should be one of"):
        make_rssm("half", ACTIONS, EMBED, **SIZES)


@pytest.mark.parametrize(("kind", "stoch", "deter"), [(KINDS[0], 3, 0), (KINDS[1], 0, 5)])
def test_sizes_of_states_and_features(kind: str, stoch: int, deter: int) -> None:
    rssm = make(kind)
    assert (rssm.stoch_size, rssm.feat_size) == (stoch, stoch + deter)
    post, prior = rssm.observe(**sequences(rssm))
    widths = {"mean": stoch, "std": stoch, "stoch": stoch, "deter": deter}
    ahead = rssm.imagine_step(rssm.initial(4), tf.ones([4, ACTIONS]), tf.ones([4, stoch]))
    for state, lead in ((post, (3, 6)), (prior, (3, 6)), (rssm.initial(4), (4,)), (ahead, (4,))):
        assert {k: tuple(v.shape) for k, v in state.items()} == {
            k: (*lead, width) for k, width in widths.items()
        }
        assert rssm.feat(state).shape == (*lead, stoch + deter)


@pytest.mark.parametrize("kind", KINDS)
def test_observe_is_the_loop_over_time(kind: str) -> None:
    rssm = make(kind)
    data = sequences(rssm)
    literal = literal_states(rssm, data, kind)
    for actual, expected in zip(rssm.observe(**data), literal, strict=True):
        for key, value in expected.items():
            np.testing.assert_allclose(actual[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("kind", KINDS)
def test_observe_goes_on_from_a_state(kind: str) -> None:
    rssm = make(kind)
    data = sequences(rssm)
    whole = rssm.observe(**data)
    first = rssm.observe(**{k: v[:, :4] for k, v in data.items()})
    start = {k: v[:, -1] for k, v in first[0].items()}
    second = rssm.observe(**{k: v[:, 4:] for k, v in data.items()}, start=start)
    for which in (0, 1):
        for key, value in whole[which].items():
            joined = np.concatenate([first[which][key], second[which][key]], 1)
            np.testing.assert_allclose(joined, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_imagining_is_the_prior_of_observing(kind: str) -> None:
    rssm = make(kind)
    data = sequences(rssm)
    post, prior = rssm.observe(**data)
    state = {k: v[:, 3] for k, v in post.items()}
    ahead = rssm.imagine_step(state, data["action"][:, 4], tf.zeros([BATCH, rssm.stoch_size]))
    for key, value in ahead.items():
        np.testing.assert_allclose(value, prior[key][:, 4], rtol=1e-5, atol=1e-6)
    noise = tf.ones([BATCH, rssm.stoch_size])
    sampled = rssm.imagine_step(state, data["action"][:, 4], noise)
    np.testing.assert_allclose(sampled["stoch"], ahead["mean"] + ahead["std"], rtol=1e-5, atol=1e-6)


def test_the_deterministic_prior_has_not_seen_what_it_explains() -> None:
    rssm = make("deterministic_only")
    data = sequences(rssm)
    before = rssm.head_state(*rssm.observe(**data))["deter"]
    embed = data["embed"].numpy()
    embed[:, 4] += 1.0
    after = rssm.head_state(*rssm.observe(**{**data, "embed": tf.constant(embed)}))["deter"]
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert not np.allclose(before[:, 5], after[:, 5])


@pytest.mark.parametrize("kind", ["full", *KINDS])
def test_what_explains_is_found_again_from_the_posteriors(kind: str) -> None:
    rssm = make(kind)
    data = sequences(rssm)
    post, prior = rssm.observe(**data)
    found = rssm.head_features(post, data["action"], data["is_first"])
    expected = rssm.feat(rssm.head_state(post, prior))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    other = post if kind == "deterministic_only" else prior
    assert not np.allclose(expected, rssm.feat(other))


@pytest.mark.parametrize("kind", ["full", "stochastic_only"])
def test_with_a_latent_the_posterior_explains(kind: str) -> None:
    post, prior = {"stoch": tf.zeros([1])}, {"stoch": tf.ones([1])}
    assert make(kind).head_state(post, prior) is post


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_states_in_float32(kind: str, precision: str) -> None:
    rssm = make(kind, precision)
    data = sequences(rssm)
    post, prior = rssm.observe(**data)
    expected, _ = literal_states(rssm, data, kind)
    for key, value in expected.items():
        assert post[key].dtype == prior[key].dtype == tf.float32
        np.testing.assert_allclose(post[key], value, rtol=0.1, atol=0.15)
