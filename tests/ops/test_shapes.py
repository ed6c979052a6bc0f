"""Shape errors name the tensor, what was expected and what came; folding keeps the order."""

import numpy as np
import pytest
import tensorflow as tf

from dreamer.ops.shapes import check_shape, flatten_leading, over_leading


@pytest.mark.parametrize("expected", [(2,), (2, 4), (2, 3, 1), ()])
def test_check_refuses_what_does_not(expected: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^obs should have shape \[.*\], but has \[2, 3\]$"):
        check_shape("obs", np.zeros((2, 3)), expected)


def test_flatten_leading() -> None:
    x = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(flatten_leading(x), x.reshape(6, 4))
    np.testing.assert_array_equal(flatten_leading(x, 2), x)
    np.testing.assert_array_equal(flatten_leading(x, 0), x.reshape(24))
    assert flatten_leading(tf.zeros([2, 3, 0])).shape == (6, 0)


def test_over_leading_applies_to_every_row_in_place() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    rows = over_leading(lambda a: a @ tf.ones([4, 5], tf.float64), tf.constant(x))
    np.testing.assert_array_equal(rows, np.repeat(x.sum(-1)[..., None], 5, -1))
    scalars = over_leading(lambda a: tf.reduce_sum(a, -1), tf.constant(x))
    np.testing.assert_array_equal(scalars, x.sum(-1))
    assert scalars.shape == (2, 3)
