"""`affine` with joint gradients: one product for each kernel, whatever the number of its uses."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from dreamer.ops.affine import JointGradients, affine

STEPS = 5


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("groups", [(), (2,)])
def test_gradients_of_a_loop(groups: tuple[int, ...]) -> None:
    """Of a kernel in parts, a bias, and a variable outside of `affine`, as by a plain tape."""
    kernel, bias = tf.Variable(numbers(*groups, 7, 4)), tf.Variable(numbers(4, seed=1))
    gain, start = tf.Variable(numbers(4, seed=2)), tf.constant(numbers(*groups, 3, 4, seed=3))

    def loss() -> tf.Tensor:
        own, other = tf.split(tf.convert_to_tensor(kernel), [4, 3], -2)
        x, seen = start, tf.constant(numbers(*groups, 3, 3, seed=4))
        for _ in range(STEPS):
            x = tf.tanh(affine(x, own, bias) + affine(seen, other)) * gain
        return tf.reduce_sum(x**2)

    variables = [kernel, bias, gain]
    with tf.GradientTape() as tape:
        plain = loss()
    with tf.GradientTape(persistent=True) as persistent, JointGradients(persistent) as joint:
        ours = loss()
    assert float(ours) == float(plain)
    found = joint.gradient(ours, variables)
    for mine, expected in zip(found, tape.gradient(plain, variables), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)
    assert joint.gradient(ours, [tf.Variable(1.0)]) == [None]


def test_one_product_for_all_steps() -> None:
    """And none for weights that no gradient is asked for."""
    kernel, fixed = tf.Variable(numbers(4, 4)), tf.Variable(numbers(4, 4, seed=1))

    @tf.function(autograph=False)
    def gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(persistent=True) as tape, JointGradients(tape) as joint:
            for _ in range(STEPS):
                x = tf.tanh(affine(tf.tanh(affine(x, kernel)), fixed))
            loss = tf.reduce_sum(x)
        return joint.gradient(loss, [kernel])[0]

    graph = gradient.get_concrete_function(tf.constant(numbers(3, 4))).graph
    by_name, wanted, todo = {op.name: op for op in graph.get_operations()}, set(), []
    todo += [output.op for output in graph.outputs]
    while todo:  # what the result needs: the rest is never executed
        op = todo.pop()
        if op.name not in wanted:
            wanted.add(op.name)
            todo += [tensor.op for tensor in op.inputs]
    counts = Counter(by_name[name].type for name in wanted)
    # Forwards two a step; backwards the same to inputs, but to the first one; and the kernel's.
    assert counts["MatMul"] == 2 * STEPS + 2 * STEPS - 1 + 1
    assert counts["AddN"] == 0


def test_products_in_half_precision_are_summed_in_float32() -> None:
    x = tf.ones([4096, 1])
    bias = tf.Variable([0.0])
    with tf.GradientTape(persistent=True) as tape, JointGradients(tape) as joint:
        y = affine(x, tf.Variable([[1.0]]), bias, "bfloat16", "bfloat16")
        loss = tf.reduce_sum(tf.cast(y, tf.float32))
    assert y.dtype == tf.bfloat16
    np.testing.assert_array_equal(joint.gradient(loss, [bias])[0], [4096.0])
