"""The optimizer against Adam written in NumPy; clipping, refusal and loss scaling."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dreamer.ops.optimizers import GROWTH_INTERVAL, INITIAL_SCALE, Optimizer, RateSchedule

RATE, EPS = 1e-2, 1e-3  # neither is the default of Keras


def variables() -> list[keras.Variable]:
    return [
        keras.Variable(np.float32([[1.0, -2.0], [3.0, 4.0]]), name="kernel"),
        keras.Variable(np.float32([0.5, -0.5]), name="bias"),
    ]


def optimizer(targets: list, clip: float = 1e9, scale_loss: bool = False) -> Optimizer:
    return Optimizer(targets, RATE, EPS, clip, scale_loss, "adam")


def gradients(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=s).astype(np.float32) for s in ((2, 2), (2,))]


def adam(weights: list[np.ndarray], steps: list[list[np.ndarray]]) -> list[np.ndarray]:
    """arXiv 1412.6980, algorithm 1 in the order of its section 2's last remark (epsilon hat)."""
    weights = [w.astype(np.float64) for w in weights]
    first, second = [0.0 * w for w in weights], [0.0 * w for w in weights]
    for t, step in enumerate(steps, 1):
        rate = RATE * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        for i, g in enumerate(step):
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
            weights[i] = weights[i] - rate * first[i] / (np.sqrt(second[i]) + EPS)
    return weights


def values(targets: list) -> list[np.ndarray]:
    return [v.numpy().copy() for v in targets]


def apply(opt: Optimizer, step: list[np.ndarray]) -> dict[str, float]:
    return {k: float(v) for k, v in opt.apply([tf.constant(g) for g in step]).items()}


def laprop(weights: list[np.ndarray], steps: list[list[np.ndarray]]) -> list[np.ndarray]:
    """arXiv 2002.04839, algorithm 1."""
    weights = [w.astype(np.float64) for w in weights]
    first, second = [0.0 * w for w in weights], [0.0 * w for w in weights]
    for t, step in enumerate(steps, 1):
        for i, g in enumerate(step):
            second[i] = 0.999 * second[i] + 0.001 * g**2
            divided = g / (np.sqrt(second[i] / (1 - 0.999**t)) + EPS)
            first[i] = 0.9 * first[i] + 0.1 * divided
            weights[i] = weights[i] - RATE * first[i] / (1 - 0.9**t)
    return weights


def test_is_laprop() -> None:
    targets = variables()
    start, steps = values(targets), [gradients(seed) for seed in range(5)]
    opt = Optimizer(targets, RATE, EPS, 1e9, False, "laprop", algorithm="laprop")
    for step in steps:
        apply(opt, step)
    for actual, expected in zip(targets, laprop(start, steps), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert len(opt.state) == 2 + 2 * 2 + 2  # step and rate, two averages a variable, the scale's


def test_adaptive_clipping_goes_by_the_size_of_each_variable() -> None:
    """A gradient along its weights of 30 times their norm, one of a hundredth, weights of 0."""
    targets = [*variables(), keras.Variable(np.zeros(2, np.float32), name="zeros")]
    steps = [30 * targets[0].numpy(), 0.01 * targets[1].numpy(), np.ones(2, np.float32)]
    opt = Optimizer(targets, RATE, EPS, 1e9, False, "adam", adaptive_clip=0.3)
    clipped, norm, finite = opt.prepare([tf.constant(step) for step in steps])
    assert finite
    np.testing.assert_allclose(norm, np.sqrt(sum((g**2).sum() for g in steps)), rtol=1e-5)
    expected = [0.3 * targets[0].numpy(), steps[1], np.full(2, 0.3 * 1e-3 / np.sqrt(2))]
    for actual, right in zip(clipped, expected, strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-5)


def test_weights_decay_apart_from_the_step() -> None:
    """arXiv 1711.05101, algorithm 2, line 12, with a schedule of 1; the bias is left alone."""
    targets = variables()
    opt = Optimizer(targets, RATE, EPS, 1e9, False, "adam", weight_decay=0.01)
    before = [w.astype(np.float64) for w in values(targets)]
    steps = [gradients(seed) for seed in range(3)]
    plain, expected = before, before
    for t in range(1, 4):
        after = adam(before, steps[:t])
        decay = (0.01, 0.0)
        expected = [
            (1 - d) * w + new - old
            for d, w, new, old in zip(decay, expected, after, plain, strict=True)
        ]
        plain = after
    for step in steps:
        apply(opt, step)
    for ours, theirs in zip(values(targets), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    apply(opt, [g * np.nan for g in steps[0]])
    for ours, theirs in zip(values(targets), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_is_adam() -> None:
    targets = variables()
    start, steps = values(targets), [gradients(seed) for seed in range(5)]
    opt = optimizer(targets)
    for step in steps:
        report = apply(opt, step)
        norm = np.sqrt(sum((g**2).sum() for g in step))
        assert report == {"grad_norm": pytest.approx(norm, rel=1e-5), "grad_finite": 1.0}
    for actual, expected in zip(targets, adam(start, steps), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_learning_rates_follow_their_schedule() -> None:
    """Each step is Adam's of the scheduled rate; a resumed run continues it from the number."""
    schedule = RateSchedule(warmup=2, decay="linear", decay_updates=4, final=0.2)
    factors = [0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2]
    assert [schedule.factor(update) for update in range(8)] == pytest.approx(factors)
    cosine = RateSchedule(decay="cosine", decay_updates=2)
    assert [cosine.factor(update) for update in range(4)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert RateSchedule().is_constant and RateSchedule().factor(10**6) == 1.0
    targets, plain = variables(), variables()
    opt = Optimizer(targets, RATE, EPS, 1e9, False, "adam", schedule=schedule)
    for update, factor in enumerate(factors):
        opt.begin(update)
        before, constant = values(targets), optimizer(plain)
        for (name, slot), other in zip(opt.state.items(), constant.state.values(), strict=True):
            if name != "adam/learning_rate":
                other.assign(slot)
        for target, value in zip(plain, before, strict=True):
            target.assign(value)
        apply(opt, gradients(update)), apply(constant, gradients(update))
        for new, old, unscaled in zip(values(targets), before, values(plain), strict=True):
            np.testing.assert_allclose(new - old, factor * (unscaled - old), rtol=1e-3, atol=1e-7)


def test_clips_by_the_global_norm() -> None:
    """Adam hardly minds a constant factor, so the steps differ in size."""
    steps = [gradients(0), [100 * g for g in gradients(1)], gradients(2)]
    clip, clipped = 0.9, []
    for step in steps:
        norm = np.sqrt(sum((g**2).sum() for g in step))
        assert norm > clip
        clipped.append([g * clip / norm for g in step])
    targets = variables()
    start, opt = values(targets), optimizer(targets, clip=clip)
    norms = [apply(opt, step)["grad_norm"] for step in steps]
    assert norms[1] > 50 * norms[0]  # the norm before clipping is what is reported
    for actual, expected in zip(targets, adam(start, clipped), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    loose = variables()
    opt = optimizer(loose)
    for step in steps:
        apply(opt, step)
    assert not np.allclose(loose[0], targets[0], rtol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float, compiled: bool) -> None:
    targets = variables()
    opt = optimizer(targets)
    step_fn = tf.function(opt.apply) if compiled else opt.apply
    step_fn([tf.constant(g) for g in gradients(0)])
    weights, slots = values(targets), {k: v.numpy().copy() for k, v in opt.state.items()}
    broken = gradients(1)
    broken[1][0] = bad
    report = step_fn([tf.constant(g) for g in broken])
    assert float(report["grad_finite"]) == 0.0
    for before, after in zip(weights, targets, strict=True):
        np.testing.assert_array_equal(before, after)
    for key, value in opt.state.items():
        np.testing.assert_array_equal(value.numpy(), slots[key], err_msg=key)
    report = step_fn([tf.constant(g) for g in gradients(2)])
    assert float(report["grad_finite"]) == 1.0
    assert not np.array_equal(weights[0], targets[0])


def test_without_scaling_the_loss_is_itself() -> None:
    opt = optimizer(variables())
    assert float(opt.scaled(tf.constant(3.0))) == 3.0
    apply(opt, [np.full((2, 2), np.nan, np.float32), np.zeros(2, np.float32)])
    assert float(opt.scale) == 1.0


def test_scaled_gradients_step_like_plain_ones() -> None:
    scaled, plain = variables(), variables()
    scaling, usual = optimizer(scaled, scale_loss=True), optimizer(plain)
    assert float(scaling.scaled(tf.constant(2.0))) == 2.0 * INITIAL_SCALE
    for seed in range(3):
        a = apply(scaling, [g * INITIAL_SCALE for g in gradients(seed)])
        b = apply(usual, gradients(seed))
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-6)
    np.testing.assert_allclose(scaled[0], plain[0], rtol=1e-6)


def test_scale_halves_on_overflow_and_doubles_after_good_updates() -> None:
    opt = optimizer(variables(), scale_loss=True)
    overflow = [np.full((2, 2), np.inf, np.float32), np.zeros(2, np.float32)]
    apply(opt, overflow)
    apply(opt, overflow)
    assert float(opt.scale) == INITIAL_SCALE / 4 and int(opt.good_updates) == 0
    opt.good_updates.assign(GROWTH_INTERVAL - 2)
    apply(opt, gradients(0))
    assert float(opt.scale) == INITIAL_SCALE / 4
    apply(opt, gradients(0))
    assert float(opt.scale) == INITIAL_SCALE / 2 and int(opt.good_updates) == 0
    opt.good_updates.assign(GROWTH_INTERVAL - 1)
    apply(opt, overflow)  # starts the count again
    assert float(opt.scale) == INITIAL_SCALE / 4 and int(opt.good_updates) == 0


def test_variables_apart_are_clipped_by_their_own_norm() -> None:
    targets, clip = variables(), 0.5
    kernel, bias = gradients(0)
    bias *= 1e3
    alone, both = variables(), Optimizer(targets, RATE, EPS, clip, False, "adam", [targets[1]])
    report = apply(both, [kernel, bias])
    assert report["grad_norm"] == pytest.approx(np.linalg.norm(kernel), rel=1e-5)
    for i, gradient in enumerate((kernel, bias)):
        other = Optimizer([alone[i]], RATE, EPS, clip, False, "adam")
        apply(other, [gradient])
        slots = {k: v for k, v in other.state.items() if v.shape == targets[i].shape}
        assert len(slots) == 2
        for name, slot in slots.items():
            np.testing.assert_allclose(both.state[name], slot, rtol=1e-5)


def test_a_non_finite_gradient_apart_is_refused_too() -> None:
    targets = variables()
    before = values(targets)
    opt = Optimizer(targets, RATE, EPS, 1.0, False, "adam", [targets[1]])
    assert apply(opt, [gradients(0)[0], np.float32([np.nan, 0.0])])["grad_finite"] == 0.0
    for some, same in zip(before, values(targets), strict=True):
        np.testing.assert_array_equal(some, same)
