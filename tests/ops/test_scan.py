"""The unrolled recurrence against a Python loop."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from dreamer.ops.scan import static_scan


def test_is_the_loop_it_says() -> None:
    rng = np.random.default_rng(0)
    start, inputs = rng.normal(size=(3, 2)), rng.normal(size=(3, 5, 2))

    def step(state, x):
        return {"sum": state["sum"] + x["in"], "last": x["in"] * state["sum"]}

    state = {"sum": start, "last": np.zeros_like(start)}
    expected: dict[str, list] = {"sum": [], "last": []}
    for t in range(5):
        state = step(state, {"in": inputs[:, t]})
        for key, value in state.items():
            expected[key].append(value)
    begin = {"sum": tf.constant(start), "last": tf.zeros([3, 2], tf.float64)}
    actual = static_scan(step, begin, {"in": tf.constant(inputs)}, 5)
    for key, values in expected.items():
        assert actual[key].shape == (3, 5, 2)
        np.testing.assert_allclose(actual[key], np.stack(values, 1), rtol=1e-12)


def test_runs_with_an_unknown_batch_size() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 4, 1])])
    def sums(x):
        return static_scan(lambda s, x: s + x, tf.zeros_like(x[:, 0]), x, 4)

    np.testing.assert_array_equal(sums(tf.ones([2, 4, 1]))[0, :, 0], [1, 2, 3, 4])
