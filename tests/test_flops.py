"""The published count: by hand, by operators that count themselves, and by TensorFlow's own."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from dreamer.config import Config, load_config
from dreamer.flops import (
    Layer,
    convolution_macs,
    flops_by_part,
    transposed_macs,
    update_layers,
)

SECTIONS = ("encoder", "decoder", "rssm", "reward", "discount", "value", "actor")
IMAGE = {"image": (64, 64, 3)}


def layers_of(
    config: Config, shapes: dict[str, Any], actions: int, discrete: bool = False
) -> list[Layer]:
    return update_layers(
        shapes,
        actions,
        discrete=discrete,
        batch_size=config.train.batch_size,
        batch_length=config.train.batch_length,
        horizon=config.behavior.horizon,
        **{name: config.section(name) for name in SECTIONS},
    )


@pytest.fixture(scope="module")
def full() -> dict[tuple[str, str], Layer]:
    """The layers of a full-size update on dmc_walker_walk, by part and name."""
    return {(x.part, x.name): x for x in layers_of(load_config(), IMAGE, 6)}


def profiled_flops(function: Any, *shapes: tuple[int, ...]) -> int:
    """What TensorFlow's profiler counts in a graph of float32 inputs of these shapes."""
    graph = tf.Graph()
    with graph.as_default():
        function(*[tf.compat.v1.placeholder(tf.float32, shape) for shape in shapes])
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    return tf.compat.v1.profiler.profile(graph, options=options).total_float_ops


@pytest.mark.parametrize(
    ("side", "kernel", "channels", "filters"),
    [(64, 4, 3, 32), (31, 4, 32, 64), (14, 4, 64, 128), (6, 4, 128, 256), (7, 3, 2, 5)],
)
def test_convolutions_as_tensorflow_counts_them(side, kernel, channels, filters):
    def convolve(image, weights):
        return tf.nn.conv2d(image, weights, 2, "VALID")

    shapes = ((1, side, side, channels), (kernel, kernel, channels, filters))
    counted = profiled_flops(convolve, *shapes)
    assert counted == 2 * convolution_macs(side, kernel, 2, channels, filters)


def test_matrix_products_as_tensorflow_counts_them(full):
    layer = full["rssm", "post hidden"]
    counted = profiled_flops(tf.matmul, (2500, 200 + 1024), (200 + 1024, 200))
    assert counted == 2 * layer.macs * layer.forward


@pytest.mark.parametrize(
    ("side", "kernel", "channels", "filters"), [(1, 5, 4, 3), (5, 5, 2, 2), (13, 6, 1, 3)]
)
def test_transposed_convolutions_count_themselves(side, kernel, channels, filters):
    # Of ones, every product of an input with a weight adds one to the sum of the outputs.
    result = 2 * side - 2 + kernel
    ones = tf.nn.conv2d_transpose(
        tf.ones([1, side, side, channels]), tf.ones([kernel, kernel, filters, channels]),
        [1, result, result, filters], 2, "VALID",
    )  # fmt: skip
    assert int(tf.reduce_sum(ones)) == transposed_macs(side, kernel, channels, filters)


def test_convolutions_count_themselves_too():
    ones = tf.nn.conv2d(tf.ones([1, 31, 31, 3]), tf.ones([4, 4, 3, 8]), 2, "VALID")
    assert int(tf.reduce_sum(ones)) == convolution_macs(31, 4, 2, 3, 8)


def test_the_full_update_by_hand(full):
    images, imagined = 50 * 50, 50 * 50 * 15
    later = 50 * 50 * 14
    encoder = images * 2 * (
        2 * 31 * 31 * 4 * 4 * 3 * 32  # no gradient to the image
        + 3 * 14 * 14 * 4 * 4 * 32 * 64
        + 3 * 6 * 6 * 4 * 4 * 64 * 128
        + 3 * 2 * 2 * 4 * 4 * 128 * 256
    )
    decoder = images * 6 * (
        230 * 1024
        + 1 * 5 * 5 * 1024 * 128
        + 5 * 5 * 5 * 5 * 128 * 64
        + 13 * 13 * 6 * 6 * 64 * 32
        + 30 * 30 * 6 * 6 * 32 * 3
    )
    actor_hidden = 3 * 400 * 400 + 400 * 12
    actor = imagined * 2 * (2 * 230 * 400 + 3 * actor_hidden)
    reward = (230 * 400 + 400 * 400 + 400) * 2 * (imagined + later)
    value_hidden = 2 * 400 * 400 + 400
    value = 2 * (230 * 400 * (imagined + 2 * later) + value_hidden * (imagined + 3 * later))
    dynamics = 2 * (
        (6 * 200 + 200 * 600 + 200 * 200 + 200 * 60) * 2 * imagined
        + (30 * 200 + 200 * 600) * (imagined + later)
    )
    parts = flops_by_part(list(full.values()))
    assert parts["encoder"] == encoder
    assert parts["decoder"] == decoder
    assert parts["actor"] == actor
    assert parts["imagined reward"] == reward
    assert parts["imagined value"] == value
    assert parts["imagined dynamics"] == dynamics
    assert parts["reward"] == images * 6 * (230 * 400 + 400 * 400 + 400)
    assert sum(parts.values()) == 903_305_720_000


def test_filtering_by_hand(full):
    steps, later = 50 * 50, 50 * 49
    everything = 2 * 3 * steps * (200 * 600 + 200 * 200 + 1224 * 200 + 2 * 200 * 60)
    state = 2 * (30 * 200 + 200 * 600) * (2 * steps + later)
    action = 2 * 2 * steps * 6 * 200
    found = flops_by_part(list(full.values()))["rssm"]
    assert found == everything + state + action


def test_what_needs_no_gradient_gets_none(full):
    assert full["encoder", "convolution 1"].inputs == 0
    assert full["rssm", "input, action"].inputs == 0
    assert full["actor", "dense 1"].inputs == 0
    frozen = [x for x in full.values() if x.part in ("imagined dynamics", "imagined reward")]
    assert frozen and all(x.weights == 0 and x.inputs > 0 for x in frozen)


def test_one_hot_actions_have_one_output_each():
    config = load_config()
    by_kind = {
        discrete: {x.name: x for x in layers_of(config, IMAGE, 6, discrete) if x.part == "actor"}
        for discrete in (False, True)
    }
    assert by_kind[False]["output"].macs == 400 * 12
    assert by_kind[True]["output"].macs == 400 * 6


def test_vectors_have_dense_layers_and_the_discount_head_counts():
    config = load_config(
        "debug", task="gym_CartPole-v1", overrides={"encoder.mlp_layers": 2, "encoder.keys": "a"}
    )
    rows, starts = 4 * 8, 4 * 7  # the last state of a sequence starts nothing
    parts = flops_by_part(layers_of(config, {"a": (5,), "b": (3,)}, 2, True))
    assert parts["encoder"] == 2 * rows * (2 * 5 * 16 + 3 * 16 * 16)
    assert parts["decoder"] == 2 * 3 * rows * (20 * 16 + 16 * 8)
    assert parts["discount"] == 2 * 3 * rows * (20 * 16 + 16)
    head = 20 * 16 + 16
    assert parts["imagined discount"] == 2 * head * starts * (5 + 4)
    assert parts["actor"] == 2 * starts * 5 * (2 * 20 * 16 + 3 * 16 * 2)


def test_without_hidden_layers_vectors_are_embedded_as_they_are():
    config = load_config("debug", overrides={"encoder.mlp_layers": 0, "envs.state": True})
    layers = layers_of(config, {"a": (5,)}, 2)
    assert not [x for x in layers if x.part == "encoder"]
    (post,) = [x for x in layers if x.name == "post hidden"]
    assert post.macs == (16 + 5) * 16
