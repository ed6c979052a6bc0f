"""The stopwatch of a run, and the counts of operations."""

import threading
import time
from collections.abc import Iterator

import tensorflow as tf

from dreamer.benchmarks.operations import executed_operations
from dreamer.benchmarks.run_times import START, Stopwatch


def test_time_counts_for_the_innermost_work_of_the_thread() -> None:
    watch = Stopwatch()

    def wait() -> None:
        time.sleep(0.02)

    def numbers() -> Iterator[int]:
        for number in range(2):
            wait()
            yield number

    act, draw = watch.timed(wait, "acting"), watch.timed_items(numbers, "drawing")
    evaluate = watch.timed(act, "evaluation")

    def learn() -> None:
        for _ in draw():
            act()
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()

    watch.timed(learn, "updates")()
    evaluate()
    watch.stop()
    assert set(watch.seconds) == {"acting", "drawing", "evaluation", "updates", START}
    assert all(watch.seconds[kind] >= 0.04 for kind in ("acting", "drawing"))
    assert watch.seconds["evaluation"] >= 0.02 and watch.seconds["updates"] >= 0.02


def test_operations_are_counted_after_tensorflows_rewrites() -> None:
    @tf.function(autograph=False)
    def function(x: tf.Tensor) -> tf.Tensor:
        tf.exp(x)  # of which nothing comes
        return tf.tanh(tf.reshape(x, [4]) * tf.ones([4]) + 2.0)

    x = tf.random.normal([2, 2])
    assert executed_operations(lambda: function(x)) == 2  # the product with ones is left out
