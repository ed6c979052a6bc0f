"""Target networks."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from baselines.torso import copy_every
from dreamer.ops.replicas import follow


def test_copies_after_every_period_th_update():
    source, target = tf.Variable([0.0, 0.0]), tf.Variable([5.0, 5.0])
    seen = []
    step = tf.function(lambda u: copy_every(3, u, [source], [target]), autograph=False)
    for update in range(7):
        source.assign([float(update), -float(update)])
        step(tf.constant(update))
        seen.append(target.numpy()[0])
    assert seen == [0, 0, 0, 3, 3, 3, 6]


def test_following_is_an_exponential_average():
    source, target, literal = tf.Variable([2.0]), tf.Variable([0.0]), 0.0
    for value in (1.0, -3.0, 4.0):
        source.assign([value])
        follow(0.25, [source], [target])
        literal = 0.75 * literal + 0.25 * value
        np.testing.assert_allclose(target.numpy(), [literal], rtol=1e-6)
    follow(1.0, [source], [target])
    assert target.numpy() == [4.0]
