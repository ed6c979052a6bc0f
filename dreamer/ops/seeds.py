"""Random streams that are functions of counters, so that a resumed run repeats them exactly."""

from __future__ import annotations

from enum import IntEnum

import tensorflow as tf


class Purpose(IntEnum):
    """The random streams; each is keyed by a counter."""

    LATENT = 0  # latent states of an update's batch
    IMAGINED = 1  # latent states in imagination
    ACTIONS = 2  # actions in imagination
    ACTING = 3  # all noise of a policy call
    OPEN_LOOP = 4
    EXPLORED = 5  # the explorer's IMAGINED
    EXPLORED_ACTIONS = 6  # the explorer's ACTIONS
    STARTS = 7  # which states imagination starts from


def make_seeds(seed: int, purpose: Purpose, counter: tf.Tensor, count: int = 1) -> list[tf.Tensor]:
    """Stateless seeds, int32 [2] each.

    Args:
        seed: The run's seed.
        purpose: The stream.
        counter: int32 [], number of the update or of the policy call.
        count: Number of seeds.
    """
    base = tf.constant([seed, int(purpose)], tf.int32)
    folded = tf.random.experimental.stateless_fold_in(base, counter)
    return tf.unstack(tf.random.split(folded, count)) if count > 1 else [folded]
