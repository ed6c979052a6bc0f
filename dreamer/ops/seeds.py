"""Random streams that are functions of counters, so that a resumed run repeats them exactly."""

from __future__ import annotations

from enum import IntEnum

import tensorflow as tf


class Purpose(IntEnum):
    """The random streams; each is keyed by a counter."""

    LATENT = 0
    IMAGINED = 1
    ACTIONS = 2
    ACTING = 3
    OPEN_LOOP = 4
    EXPLORED = 5
    EXPLORED_ACTIONS = 6


def make_seeds(seed: int, purpose: Purpose, counter: tf.Tensor, count: int = 1) -> list[tf.Tensor]:
    """Stateless seeds, int32 [2] each.

    Args:
        seed: The run's.
        purpose: The stream.
        counter: int32 [], of updates or policy calls.
        count: How many.
    """
    base = tf.constant([seed, int(purpose)], tf.int32)
    folded = tf.random.experimental.stateless_fold_in(base, counter)
    return tf.unstack(tf.random.split(folded, count)) if count > 1 else [folded]
