"""The latent dynamics of every kind against literal NumPy loops over rows and time."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from rounding import rounding_error

from dreamer.errors import UserError
from dreamer.nets.layer_style import LayerStyle
from dreamer.nets.recurrent import GRU, Linear
from dreamer.nets.rssm import RSSM, make_rssm

ACTIONS, EMBED, STOCH, DETER, HIDDEN, MIN_STD = 2, 6, 3, 5, 7, 0.1
BATCH, LENGTH = 4, 9
SIZES = {
    "stoch": STOCH, "deter": DETER, "hidden": HIDDEN, "min_std": MIN_STD, "classes": 0,
    "unimix": 0.0,
}  # fmt: skip
CLASSES, UNIMIX = 4, 0.1
KINDS = ("full", "stochastic_only", "deterministic_only")
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
every_kind = pytest.mark.parametrize("kind", KINDS)
V3 = LayerStyle("silu", "rms", "trunc_normal")
# What DreamerV2 and V3 change: the arguments that differ, and the kinds that they fit.
RECIPES = {
    "gru_norm": ({"gru_norm": True}, KINDS),
    "rms": ({"style": V3, "gru_norm": True}, KINDS),
    "blocks": ({"style": V3, "deter": 6, "blocks": 3}, KINDS[:1]),
    "prior of 3 layers": ({"style": V3, "prior_layers": 3}, KINDS[:2]),
    "blocks without a norm": ({"style": LayerStyle("silu"), "deter": 6, "blocks": 2}, KINDS[:1]),
}
every_recipe = pytest.mark.parametrize(
    ("kind", "recipe"), [(kind, name) for name, (_, kinds) in RECIPES.items() for kind in kinds]
)


def make(kind: str = "full", dtype: str = "float32", **other) -> RSSM:
    policy = keras.DTypePolicy(dtype)
    sizes = {"actions": ACTIONS, "embed": EMBED, **SIZES, **other}
    rssm = make_rssm(kind, **sizes, dtype=policy, name="rssm")
    rng = np.random.default_rng(0)
    for variable in rssm.variables:  # biases too, so that they show
        variable.assign(rng.normal(0, 0.4, variable.shape).astype(np.float32))
    return rssm


def sequences(rssm: RSSM, seed: int = 0) -> dict[str, np.ndarray]:
    """Row 1 begins a new episode in the middle, row 2 at the start and right after, row 3 none."""
    rng = np.random.default_rng(seed)
    is_first = np.zeros((BATCH, LENGTH), bool)
    is_first[0, 0] = is_first[1, LENGTH // 2] = is_first[2, 0] = is_first[2, 1] = True

    def normal(size: int) -> np.ndarray:
        return rng.normal(size=(BATCH, LENGTH, size)).astype(np.float32)

    return {
        "embed": normal(EMBED), "action": normal(ACTIONS), "is_first": is_first,
        "noise": normal(rssm.stoch_size),
    }  # fmt: skip


def observe(rssm: RSSM, data: dict, start=None, times: slice = slice(None)):
    """Posterior and prior states of some of the times."""
    return rssm.observe(**{k: tf.constant(v[:, times]) for k, v in data.items()}, start=start)


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gated(reset, candidate, update, h):
    update = sigmoid(update - 1)
    return update * np.tanh(sigmoid(reset) * candidate) + (1 - update) * h


class Literal:
    """The formulas of the classes' docstrings for one row and one step at a time, in float64."""

    def __init__(self, rssm: RSSM, kind: str, recipe: str = ""):
        self.w = {v.path: v.numpy().astype(np.float64) for v in rssm.variables}
        self.recipe = {} if not recipe else RECIPES[recipe][0]
        self.sizes = {"stoch": rssm.stoch_size, "deter": rssm.feat_size - rssm.stoch_size}
        self.prior = getattr(self, f"prior_{kind}")
        self.posterior = getattr(self, f"posterior_{kind}")

    def dense(self, name: str, *x):
        return np.concatenate(x) @ self.w[f"{name}/kernel"] + self.w[f"{name}/bias"]

    def hidden(self, name: str, *x):
        """A hidden layer of the recipe's style: ELU, or SiLU after an RMS norm if there is one."""
        return self.act(f"{name}_finish", self.dense(name, *x))

    def act(self, name: str, x):
        if scale := [v for k, v in self.w.items() if k == f"{name}/norm/scale"]:
            x = x / np.sqrt((x**2).mean() + 1e-4) * scale[0]
        return x * sigmoid(x) if "style" in self.recipe else elu(x)

    def move(self, stoch, action, h):
        """The next deter of the full model."""
        if groups := self.recipe.get("blocks"):
            return self.block_gru(groups, stoch, action, h)
        return self.gru("gru", self.hidden("input", stoch, action), h)

    def block_gru(self, groups: int, stoch, action, h):
        """Each group sees itself and three layers; the cell's own test has the equations."""
        pairs = zip(("deter", "stoch", "action"), (h, stoch, action), strict=True)
        x = np.concatenate([self.hidden(f"from_{name}", value) for name, value in pairs])
        rows = zip(np.split(h, groups), self.w["gru/hidden_kernel"], strict=True)
        y = np.concatenate([np.concatenate([g, x]) @ kernel for g, kernel in rows])
        y = np.split(self.act("hidden_finish", y + self.w["gru/hidden_bias"]), groups)
        raw = np.einsum("gi,gij->gj", y, self.w["gru/gates_kernel"]) + self.w["gru/gates_bias"]
        return gated(*(np.concatenate(gate) for gate in np.split(raw, 3, -1)), h)

    def norm_gru(self, name: str, x, h):
        gates = self.dense(name, x, h)
        centered = gates - gates.mean()
        gates = centered / np.sqrt((centered**2).mean() + 1e-3) * self.w[f"{name}_norm/gamma"]
        return gated(*np.split(gates + self.w[f"{name}_norm/beta"], 3), h)

    def gru(self, name: str, x, h):
        """Keras's cell with reset_after; gates in the order update, reset, candidate."""
        if "gru_norm" in self.recipe:
            return self.norm_gru(name, x, h)
        n = len(h)
        ours = x @ self.w[f"{name}/kernel"] + self.w[f"{name}/bias"][0]
        past = h @ self.w[f"{name}/recurrent"] + self.w[f"{name}/bias"][1]
        z, r = sigmoid(ours[:n] + past[:n]), sigmoid(ours[n : 2 * n] + past[n : 2 * n])
        return z * h + (1 - z) * np.tanh(ours[2 * n :] + r * past[2 * n :])

    def stats(self, name: str, *x):
        x = self.hidden(f"{name}_hidden", *x)
        for i in range(1, self.recipe.get("prior_layers", 1) if name == "prior" else 1):
            x = self.hidden(f"prior_hidden{i}", x)
        mean, std = np.split(self.dense(f"{name}_stats", x), 2)
        return {"mean": mean, "std": np.logaddexp(0, std) + MIN_STD}

    def sample(self, state, noise):
        return state["mean"] + state["std"] * noise

    def mean(self, state):
        return state["mean"]

    # Each prior gives its state, and what the posterior reads of it.

    def prior_full(self, stoch, deter, action):
        deter = self.move(stoch, action, deter)
        return {**self.stats("prior", deter), "deter": deter}, deter

    def posterior_full(self, deter, embed):
        return {**self.stats("post", deter, embed), "deter": deter}

    def prior_stochastic_only(self, stoch, deter, action):
        x = self.hidden("input", stoch, action)
        return {**self.stats("prior", x), "deter": deter}, x

    def posterior_stochastic_only(self, x, embed):
        return {**self.stats("post", x, embed), "deter": np.zeros(0)}

    def prior_deterministic_only(self, stoch, deter, action):
        deter = self.gru("gru", self.hidden("input", action), deter)
        return {"mean": stoch, "std": stoch, "deter": deter}, deter

    def posterior_deterministic_only(self, deter, embed):
        deter = self.gru("post_gru", self.hidden("post_hidden", embed), deter)
        return {"mean": np.zeros(0), "std": np.zeros(0), "deter": deter}

    def observe(self, data, start=None):
        """Posterior and prior of every row and time; a prior's stoch is its mean."""
        found: tuple[dict[str, list], ...] = ({}, {})
        start = start or {k: np.zeros((BATCH, n)) for k, n in self.sizes.items()}
        for row in range(BATCH):
            s, h = start["stoch"][row], start["deter"][row]
            for t in range(data["embed"].shape[1]):
                on = 0.0 if data["is_first"][row, t] else 1.0
                prior, read = self.prior(on * s, on * h, on * data["action"][row, t])
                post = self.posterior(read, data["embed"][row, t])
                s, h = self.sample(post, data["noise"][row, t]), post["deter"]
                states = {**post, "stoch": s}, {**prior, "stoch": self.mean(prior)}
                for every, state in zip(found, states, strict=True):
                    for key, value in state.items():
                        every.setdefault(key, []).append(value)
        shape = data["embed"].shape[:2]
        return tuple(
            {k: np.reshape(v, (*shape, len(v[0]))) for k, v in every.items()} for every in found
        )


class LiteralCategorical(Literal):
    """The same with categories, one variable after the other."""

    def stats(self, name: str, *x):
        logits = self.dense(f"{name}_stats", self.hidden(f"{name}_hidden", *x))
        probs = [np.exp(own) / np.exp(own).sum() for own in np.split(logits, STOCH)]
        mixed = [(1 - UNIMIX) * own + UNIMIX / CLASSES for own in probs]
        return {"logits": np.log(np.concatenate(mixed))}

    def sample(self, state, noise):
        """By the Gumbel trick, from uniform numbers 0.5 (1 + erf(noise / sqrt(2)))."""
        onehots = []
        pairs = np.split(state["logits"], STOCH), np.split(np.float64(noise), STOCH)
        for logits, eps in zip(*pairs, strict=True):
            uniform = [0.5 * (1 + math.erf(x / math.sqrt(2))) for x in eps]
            onehots.append(np.eye(CLASSES)[np.argmax(logits - np.log(-np.log(uniform)))])
        return np.concatenate(onehots)

    def mean(self, state):
        return np.exp(state["logits"])


def assert_states(actual, expected, **tolerance) -> None:
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(actual[key], value, err_msg=key, **(tolerance or CLOSE))


LOOSE = {"rtol": 1e-4, "atol": 1e-5}  # against float64


def test_gru_is_keras() -> None:
    ours, cell = GRU(4, 5), keras.layers.GRUCell(5, reset_after=True)
    cell.build((None, 4))
    rng = np.random.default_rng(1)
    for mine, theirs in zip(ours.variables, cell.trainable_variables, strict=True):
        mine.assign(rng.normal(0, 0.5, mine.shape).astype(np.float32))
        theirs.assign(mine)
    x, h = tf.random.stateless_normal([6, 4], [0, 1]), tf.random.stateless_normal([6, 5], [0, 2])
    np.testing.assert_allclose(ours(x, h), cell(x, h)[0], **CLOSE)


def test_gru_starts_as_keras_does() -> None:
    gru = GRU(4, 5)
    recurrent = gru.recurrent.numpy()
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(5), atol=1e-5)
    assert not gru.bias.numpy().any()


def test_linear_can_be_used_in_parts() -> None:
    layer = Linear(5, 4)
    x = np.random.default_rng(7).normal(size=(3, 5)).astype(np.float32)
    first, second = layer.parts(2, 3)
    np.testing.assert_allclose(x[:, :2] @ first + x[:, 2:] @ second, layer(x), **CLOSE)


def test_published_sizes() -> None:
    sizes = {**SIZES, "stoch": 30, "deter": 200, "hidden": 200}
    rssm = make_rssm("full", actions=6, embed=1024, **sizes)
    shapes = {v.path: tuple(v.shape) for v in rssm.variables if v.path.endswith("kernel")}
    assert shapes == {
        "input/kernel": (36, 200), "gru/kernel": (200, 600), "prior_hidden/kernel": (200, 200),
        "prior_stats/kernel": (200, 60), "post_hidden/kernel": (1224, 200),
        "post_stats/kernel": (200, 60),
    }  # fmt: skip
    assert rssm.feat_size == 230 and rssm.stoch_size == 30


@pytest.mark.parametrize(
    ("kind", "stoch", "deter"), list(zip(KINDS, (3, 3, 0), (5, 0, 5), strict=True))
)
def test_sizes_of_states_and_features(kind: str, stoch: int, deter: int) -> None:
    rssm = make(kind)
    assert (rssm.stoch_size, rssm.feat_size) == (stoch, stoch + deter)
    post, prior = observe(rssm, sequences(rssm))
    widths = {"mean": stoch, "std": stoch, "stoch": stoch, "deter": deter}
    initial = rssm.initial(4)
    assert all(not v.numpy().any() for v in initial.values())
    ahead = rssm.imagine_step(initial, tf.ones([4, ACTIONS]), tf.ones([4, stoch]))
    for state, lead in ((post, (4, 9)), (prior, (4, 9)), (initial, (4,)), (ahead, (4,))):
        assert {k: tuple(v.shape) for k, v in state.items()} == {
            k: (*lead, width) for k, width in widths.items()
        }
        joined = tf.concat([state["stoch"], state["deter"]], -1)
        np.testing.assert_array_equal(rssm.feat(state), joined)


@every_kind
def test_observe_is_the_loop_over_time(kind: str) -> None:
    rssm = make(kind)
    data = sequences(rssm)
    found = observe(rssm, data)
    for actual, expected in zip(found, Literal(rssm, kind).observe(data), strict=True):
        assert_states(actual, expected, **LOOSE)
    np.testing.assert_array_equal(found[1]["stoch"], found[1]["mean"])


@every_recipe
def test_other_layers_are_filtered_as_in_the_loop_over_time(kind: str, recipe: str) -> None:
    rssm = make(kind, **RECIPES[recipe][0])
    data = sequences(rssm)
    post, prior = observe(rssm, data)
    expected = Literal(rssm, kind, recipe).observe(data)
    for actual, literal in zip((post, prior), expected, strict=True):
        assert_states(actual, literal, **LOOSE)
    state = {k: v[:, 3] for k, v in post.items()}
    ahead = rssm.imagine_step(state, data["action"][:, 4], data["noise"][:, 4])
    for key in ("mean", "std", "deter"):
        np.testing.assert_allclose(ahead[key][3], prior[key][3, 4], **LOOSE)
    paths = [v.path for v in rssm.variables]
    assert len(set(paths)) == len(paths)  # they name variables in checkpoints


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@every_recipe
def test_other_layers_keep_states_in_float32(kind: str, recipe: str, precision: str) -> None:
    rssm = make(kind, f"mixed_{precision}", **RECIPES[recipe][0])
    data = sequences(rssm)
    limit = rounding_error(precision, 8 * 3)
    post, _ = observe(rssm, data)
    for key, value in Literal(rssm, kind, recipe).observe(data)[0].items():
        assert post[key].dtype == tf.float32
        assert np.linalg.norm(post[key] - value) <= limit * np.linalg.norm(value), key


@pytest.mark.parametrize(
    ("kind", "values", "reason"),
    [
        ("full", {"gru_norm": True}, "rssm.gru_norm is true, but its norm is layers.norm"),
        ("stochastic_only", {}, "rssm.kind is stochastic_only, but only rssm.kind full"),
        ("deterministic_only", {}, "rssm.kind is deterministic_only, but only rssm.kind full"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(kind: str, values: dict, reason: str) -> None:
    with pytest.raises(UserError, match=f"rssm.blocks is 5 and {reason}.*; set rssm.blocks to 0"):
        make(kind, blocks=5, **values)


@every_kind
def test_observe_goes_on_from_a_state(kind: str) -> None:
    rssm = make(kind)
    data = sequences(rssm)
    whole = observe(rssm, data)
    first = observe(rssm, data, times=slice(4))
    start = {k: v[:, -1] for k, v in first[0].items()}
    second = observe(rssm, data, start, slice(4, None))
    for joined, *halves in zip(whole, first, second, strict=True):
        assert_states({k: np.concatenate([h[k] for h in halves], 1) for k in joined}, joined)
    rest = {k: v[:, 4:] for k, v in data.items()}
    arrays = {k: v.numpy() for k, v in start.items()}
    assert_states(second[0], Literal(rssm, kind).observe(rest, arrays)[0], **LOOSE)


@every_kind
def test_nothing_before_is_first_matters(kind: str) -> None:
    rssm = make(kind)
    data, cut = sequences(rssm), LENGTH // 2  # row 1's
    before, _ = observe(rssm, data)
    for key in ("embed", "action", "noise"):
        data[key][:, :cut] += 1.0
    data["action"][:, cut] += 1.0  # the action that led to a first timestep is none
    after, _ = observe(rssm, data)
    for key, value in before.items():
        np.testing.assert_array_equal(value[1, cut:], after[key][1, cut:])
        assert 0 in value.shape or not np.allclose(value[3, cut:], after[key][3, cut:])


@every_kind
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_keeps_states_in_float32(kind: str, precision: str) -> None:
    rssm = make(kind, f"mixed_{precision}")
    data = sequences(rssm)
    post, prior = observe(rssm, data)
    last = {k: v[:, -1] for k, v in post.items()}
    ahead = rssm.imagine_step(last, data["action"][:, 0], data["noise"][:, 0])
    for state in (post, prior, ahead):
        assert {v.dtype for v in state.values()} == {tf.float32}
    assert {v.dtype for v in rssm.variables} == {"float32"}
    # Five products round two factors and a result. The gates forget the errors of earlier steps.
    limit = rounding_error(precision, 5 * 3)
    for key, value in Literal(rssm, kind).observe(data)[0].items():
        assert np.linalg.norm(post[key] - value) <= limit * np.linalg.norm(value), key


@every_kind
def test_imagining_is_the_prior_of_observing(kind: str) -> None:
    """The state that filtering expects next is the one that imagination gives."""
    rssm = make(kind)
    data = sequences(rssm)
    data["is_first"][:] = False
    post, prior = observe(rssm, data)
    state = {k: v[:, 3] for k, v in post.items()}
    ahead = rssm.imagine_step(state, data["action"][:, 4], tf.zeros([BATCH, rssm.stoch_size]))
    assert_states(ahead, {k: v[:, 4] for k, v in prior.items()})
    sampled = rssm.imagine_step(state, data["action"][:, 4], tf.ones([BATCH, rssm.stoch_size]))
    np.testing.assert_allclose(sampled["stoch"], ahead["mean"] + ahead["std"], **CLOSE)


def test_heads_learn_from_the_posterior_or_without_a_latent_from_the_prior() -> None:
    post, prior = {"stoch": tf.zeros([1])}, {"stoch": tf.ones([1])}
    chosen = [make(kind).head_state(post, prior) for kind in KINDS]
    assert chosen[0] is post and chosen[1] is post and chosen[2] is prior


@every_kind
def test_head_features_are_found_again_from_the_posteriors(kind: str) -> None:
    rssm = make(kind)
    data = sequences(rssm)
    post, prior = observe(rssm, data)
    found = rssm.head_features(post, tf.constant(data["action"]), tf.constant(data["is_first"]))
    expected = rssm.feat(rssm.head_state(post, prior))
    np.testing.assert_allclose(found, expected, **CLOSE)
    other = post if kind == "deterministic_only" else prior
    assert not np.allclose(expected, rssm.feat(other))


def test_categories_are_filtered_as_in_the_loop_over_time() -> None:
    rssm = make(classes=CLASSES, unimix=UNIMIX)
    assert (rssm.stoch_size, rssm.feat_size) == (STOCH * CLASSES, STOCH * CLASSES + DETER)
    data = sequences(rssm)
    post, prior = observe(rssm, data)
    for actual, expected in zip(
        (post, prior), LiteralCategorical(rssm, "full").observe(data), strict=True
    ):
        assert_states(actual, expected, **LOOSE)
    state = {k: v[:, 3] for k, v in post.items()}
    ahead = rssm.imagine_step(state, data["action"][:, 4], data["noise"][:, 4])
    np.testing.assert_allclose(ahead["logits"][3], prior["logits"][3, 4], **CLOSE)
    onehots = tf.reshape(ahead["stoch"], [BATCH, STOCH, CLASSES]).numpy()
    np.testing.assert_allclose(np.sort(onehots, -1)[..., -1], 1)
    np.testing.assert_allclose(onehots.sum(-1), 1)


def test_the_kl_of_categories_is_the_sum_over_the_variables() -> None:
    rssm = make(classes=CLASSES, unimix=UNIMIX)
    post, prior = observe(rssm, sequences(rssm))
    p, q = (np.float64(np.exp(x["logits"])) for x in (post, prior))
    found = rssm.dist(post).kl_divergence(rssm.dist(prior))
    np.testing.assert_allclose(found, (p * np.log(p / q)).sum(-1), **LOOSE)


def test_samples_of_categories_pass_their_gradient_to_the_probabilities() -> None:
    latent = make(classes=CLASSES, unimix=UNIMIX).latent
    logits, noise, direction = tf.random.stateless_normal([3, 2, STOCH * CLASSES], [1, 2])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        state = latent.parameters(logits)
        sampled = tf.reduce_sum(latent.sample(state, noise) * direction)
        expected = tf.reduce_sum(latent.mean(state) * direction)
    gradients = [tape.gradient(x, logits) for x in (sampled, expected)]
    np.testing.assert_allclose(*gradients, **CLOSE)


@pytest.mark.parametrize(
    ("kind", "classes", "reason"),
    [("full", 1, "a choice needs 2 or more"), ("deterministic_only", 4, "no stochastic state")],
)
def test_classes_that_do_not_do_are_refused(kind: str, classes: int, reason: str) -> None:
    with pytest.raises(UserError, match=f"rssm.classes is {classes}, but .*{reason}"):
        make(kind, classes=classes)
