"""The block-diagonal GRU against a literal loop over its groups; DreamerV2's GRU likewise."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from rounding import rounding_error

from dreamer.nets.block_gru import BlockGRU
from dreamer.nets.layer_style import LayerStyle
from dreamer.nets.recurrent import NormGRU

STYLE = LayerStyle("silu", "rms", "trunc_normal")
STOCH, ACTIONS, HIDDEN, DETER, BLOCKS = 5, 2, 4, 6, 3


def make(dtype: str = "float32", style: LayerStyle = STYLE, **sizes: int) -> BlockGRU:
    given = {"deter": DETER, "blocks": BLOCKS} | sizes
    policy = keras.DTypePolicy(dtype)
    cell = BlockGRU(STOCH, ACTIONS, HIDDEN, style, **given, dtype=policy, name="gru")
    rng = np.random.default_rng(0)
    for variable in cell.variables:
        variable.assign(rng.normal(0.1, 0.5, variable.shape).astype(np.float32))
    return cell


def inputs(n: int = 7, seed: int = 1) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    sizes = STOCH, ACTIONS, DETER
    return tuple(rng.normal(size=(n, size)).astype(np.float32) for size in sizes)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def act(x, scale):
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * scale
    return x * sigmoid(x)


def gated(reset, candidate, update, h):
    update = sigmoid(update - 1)
    return update * np.tanh(sigmoid(reset) * candidate) + (1 - update) * h


def literal(cell: BlockGRU, stoch, action, h) -> np.ndarray:
    """The class's formulas for one row, group by group."""
    w = {v.path: np.float64(v.numpy()) for v in cell.variables}

    def hidden(name: str, x):
        affine = x @ w[f"{name}/kernel"] + w[f"{name}/bias"]
        return act(affine, w[f"{name}_finish/norm/scale"])

    x = np.concatenate([
        hidden("from_deter", h), hidden("from_stoch", stoch), hidden("from_action", action)
    ])  # fmt: skip
    groups = np.split(h, BLOCKS)
    rows = zip(groups, w["gru/hidden_kernel"], strict=True)
    y = np.concatenate([np.concatenate([own, x]) @ kernel for own, kernel in rows])
    y = np.split(act(y + w["gru/hidden_bias"], w["hidden_finish/norm/scale"]), BLOCKS)
    rows = zip(groups, y, w["gru/gates_kernel"], w["gru/gates_bias"], strict=True)
    return np.concatenate(
        [gated(*np.split(part @ kernel + bias, 3), own) for own, part, kernel, bias in rows]
    )


def test_block_gru_is_the_loop_over_its_groups() -> None:
    cell, (stoch, action, deter) = make(), inputs()
    path, found = cell(stoch, action, deter)
    expected = [literal(cell, *row) for row in zip(stoch, action, deter, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(path, found)
    prepared = cell.prepare(tf.constant(action))
    np.testing.assert_allclose(cell.make_step()(stoch, deter, prepared)[1], found, rtol=1e-5)


def test_groups_learn_of_each_other_through_one_layer_only() -> None:
    """Without that layer's output a group depends on itself alone, but for the norm of all."""
    cell, (stoch, action, deter) = make(style=LayerStyle("silu")), inputs()
    changed = deter.copy()
    changed[:, 0] += 1.0  # of the first group of two units
    differs = (cell(stoch, action, deter)[1] != cell(stoch, action, changed)[1]).numpy()
    assert differs.any(0).all()
    kernel = cell._kernel.numpy()
    kernel[:, DETER // BLOCKS : DETER // BLOCKS + HIDDEN] = 0.0  # the rows of act(W_h h)
    cell._kernel.assign(kernel)
    differs = (cell(stoch, action, deter)[1] != cell(stoch, action, changed)[1]).numpy()
    np.testing.assert_array_equal(differs.any(0), [True, True, False, False, False, False])


def test_published_shapes() -> None:
    """Size 12m: 2048 units in 8 groups, layers of 256, 32 x 16 categories."""
    cell = BlockGRU(512, 6, 256, STYLE, deter=2048, blocks=8)
    kernels = [tuple(v.shape) for v in cell.variables if len(v.shape) > 1]
    assert kernels == [
        (8, 256 + 3 * 256, 256), (8, 256, 768), (8, 768), (2048, 256), (512, 256), (6, 256)
    ]  # fmt: skip
    stds = [v.numpy().std() for v in cell.variables if len(v.shape) == 3]
    np.testing.assert_allclose(stds, [1024**-0.5, 256**-0.5], rtol=0.01)  # by a group's inputs
    assert len({v.path for v in cell.variables}) == len(cell.variables)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_keeps_states_in_float32(precision: str) -> None:
    low, full, given = make(f"mixed_{precision}"), make(), inputs(200)
    found, expected = low(*given)[1], full(*given)[1]
    assert found.dtype == tf.float32 and {v.dtype for v in low.variables} == {"float32"}
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 0 < error <= rounding_error(precision, 4 * 3)


def test_gradients_reach_every_weight_and_input() -> None:
    cell, given = make(), [tf.constant(x) for x in inputs()]
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = tf.reduce_sum(cell(*given)[1] ** 2)
    variables = [v.value for v in cell.trainable_variables]
    for gradient in tape.gradient(loss, [*given, *variables]):
        assert gradient is not None and np.abs(gradient).max() > 0


def test_norm_gru_is_its_formula() -> None:
    cell = NormGRU(4, 5)
    rng = np.random.default_rng(1)
    for variable in cell.variables:
        variable.assign(rng.normal(0.1, 0.5, variable.shape).astype(np.float32))
    kernel, bias, scale, offset = (np.float64(v.numpy()) for v in cell.variables)
    x, h = rng.normal(size=(6, 4)), rng.normal(size=(6, 5))
    gates = np.concatenate([x, h], -1) @ kernel + bias
    gates -= gates.mean(-1, keepdims=True)
    gates = gates / np.sqrt((gates**2).mean(-1, keepdims=True) + 1e-3) * scale + offset
    found = cell(np.float32(x), np.float32(h))
    np.testing.assert_allclose(found, gated(*np.split(gates, 3, -1), h), rtol=1e-4, atol=1e-5)
