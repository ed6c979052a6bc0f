"""The published count: by hand, by operators that count themselves, and by TensorFlow's own."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from dreamer.config import Config, load_config
from dreamer.flops import flops_by_part, policy_layers, update_layers
from dreamer.flops_layer import Layer, convolution_macs, transposed_macs

SECTIONS = (
    *("encoder", "decoder", "rssm", "reward", "discount", "value", "actor"),
    *("behavior", "planner", "disagreement", "loss", "contrastive"),
)
NOT_TO_ACT = ("decoder", "disagreement", "loss", "contrastive")
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
    rows = 4 * 8
    parts = flops_by_part(layers_of(config, {"a": (5,), "b": (3,)}, 2, True))
    assert parts["encoder"] == 2 * rows * (2 * 5 * 16 + 3 * 16 * 16)
    assert parts["decoder"] == 2 * 3 * rows * (20 * 16 + 16 * 8)
    assert parts["discount"] == 2 * 3 * rows * (20 * 16 + 16)
    head = 20 * 16 + 16
    assert parts["imagined discount"] == 2 * head * rows * (5 + 4)
    assert parts["actor"] == 2 * rows * 5 * (2 * 20 * 16 + 3 * 16 * 2)


def test_without_hidden_layers_vectors_are_embedded_as_they_are():
    config = load_config("debug", overrides={"encoder.mlp_layers": 0, "envs.state": True})
    layers = layers_of(config, {"a": (5,)}, 2)
    assert not [x for x in layers if x.part == "encoder"]
    (post,) = [x for x in layers if x.name == "post hidden"]
    assert post.macs == (16 + 5) * 16


# -------------------------------------------------------------- other behaviour


def parts_of(*presets: str, discrete: bool = False, **values: Any) -> dict[str, int]:
    overrides = {key.replace("__", "."): value for key, value in values.items()}
    config = load_config(*presets, task="dmc_walker_walk", overrides=overrides)
    return flops_by_part(layers_of(config, IMAGE, 6, discrete))


def test_without_a_value_network_every_reward_reaches_the_actor():
    parts = parts_of("no_value")
    reward = 230 * 400 + 400 * 400 + 400
    assert parts["imagined reward"] == 2 * reward * 2 * 2500 * 15
    assert not [name for name in parts if "value" in name]
    assert parts["imagined dynamics"] == parts_of()["imagined dynamics"]


def test_the_score_passes_forward_alone_through_what_is_imagined():
    plain, parts = parts_of(discrete=True), parts_of("score", discrete=True)
    dynamics = 2 * (36 * 200 + 200 * 600 + 200 * 600 + 200 * 200 + 200 * 60)
    assert parts["imagined dynamics"] == dynamics * 2500 * 15
    assert parts["imagined reward"] == 2 * (230 * 400 + 400 * 400 + 400) * 2500 * 16
    # The start is judged too, forward and by the value's own loss.
    first, rest = 230 * 400, 2 * 400 * 400 + 400
    assert parts["imagined value"] == 2 * 2500 * (first * (16 + 15) + rest * (16 + 15 + 15))
    assert parts["actor"] == plain["actor"]


def test_one_imagined_step_moves_the_actor_by_its_value_alone():
    parts = parts_of(behavior__horizon=1)
    assert parts["imagined reward"] == 2 * (230 * 400 + 400 * 400 + 400) * 2500 * 2
    first, rest = 230 * 400, 2 * 400 * 400 + 400
    assert parts["imagined value"] == 2 * 2500 * (first * (2 + 1 + 1) + rest * (2 + 2 + 1))


def test_a_planner_imagines_nothing_and_its_value_learns_from_records():
    parts = parts_of("planet")
    assert set(parts) == {"encoder", "rssm", "decoder", "reward"}
    parts = parts_of("planet", behavior__value=True, planner__returns="lambda")
    first, rest = 230 * 400, 2 * 400 * 400 + 400
    assert parts["value"] == 2 * 50 * (first * (50 + 49) + rest * (50 + 49 + 49))


def test_an_explorer_adds_an_ensemble_and_a_second_behaviour():
    plain, parts = parts_of(), parts_of(disagreement__until=100)
    member = 236 * 400 + 400 * 400 + 400 * 30
    assert parts["ensemble"] == 2 * 5 * 50 * 49 * (3 * member - 236 * 400)
    assert parts["imagined ensemble"] == 2 * 5 * member * 2500 * (15 + 14)
    assert parts["explorer"] == parts["actor"] == plain["actor"]
    assert parts["imagined value"] == 2 * plain["imagined value"]
    assert parts["imagined reward"] == plain["imagined reward"]


def action_flops(*presets: str, amount: int = 1) -> dict[str, int]:
    config = load_config(*presets, task="dmc_walker_walk")
    needed = [name for name in SECTIONS if name not in NOT_TO_ACT]
    sections = {name: config.section(name) for name in needed}
    return flops_by_part(policy_layers(IMAGE, 6, discrete=False, amount=amount, **sections))


def test_an_action_by_hand():
    planned, acted = action_flops("planet"), action_flops()
    steps = 10 * 1000 * 12
    dynamics = 36 * 200 + 200 * 600 + 200 * 600 + 200 * 200 + 200 * 60
    assert planned["planned dynamics"] == 2 * steps * dynamics
    assert planned["planned reward"] == 2 * steps * (230 * 400 + 400 * 400 + 400)
    assert 130e9 < sum(planned.values()) < 135e9
    assert acted["actor"] == 2 * (230 * 400 + 3 * 400 * 400 + 400 * 12)
    filtering = 36 * 200 + 200 * 600 + 200 * 600 + (200 + 1024) * 200 + 200 * 60
    assert acted["rssm"] == planned["rssm"] == 2 * filtering
    assert sum(action_flops(amount=3).values()) == 3 * sum(acted.values())


# ----------------------------------------------------------- other world models


def test_stochastic_only_by_hand():
    parts, plain, steps = parts_of("stochastic_only"), parts_of(), 2500
    step = 200 * 200 + 200 * 60  # both hidden layers and the statistics, of prior and posterior
    rest = 2 * 3 * steps * (2 * step + 1024 * 200)
    inputs = 2 * 30 * 200 * (2 * steps + 50 * 49) + 2 * 2 * steps * 6 * 200
    assert parts["rssm"] == rest + inputs
    imagined, later = steps * 15, steps * 14
    dynamics = (6 * 200 + step) * 2 * imagined + 30 * 200 * (imagined + later)
    assert parts["imagined dynamics"] == 2 * dynamics
    saved = 200 * 400 * 6 * steps  # the reward head reads 30 features instead of 230
    assert parts["reward"] == plain["reward"] - saved


def test_deterministic_only_by_hand():
    parts, steps, later = parts_of("deterministic_only"), 2500, 50 * 49
    prior = 2 * (6 * 200 * 2 * steps + 200 * 600 * (3 * steps + 2 * steps + later))
    post = 2 * (1024 * 200 + 2 * 200 * 600) * (steps + 2 * later)
    assert parts["rssm"] == prior + post
    imagined = steps * 15
    dynamics = (6 * 200 + 200 * 600) * 2 * imagined + 200 * 600 * (imagined + steps * 14)
    assert parts["imagined dynamics"] == 2 * dynamics


def test_overshooting_by_hand():
    ahead = sum(50 * (50 - d + 1) for d in range(2, 6))
    step = 30 * 200 + 2 * 200 * 600 + 200 * 200 + 200 * 60
    parts = parts_of("overshooting")
    assert parts.pop("overshooting") == 2 * ahead * (3 * step + 2 * 6 * 200)
    assert parts == parts_of()


def test_contrastive_by_hand():
    parts, plain, rows = parts_of("contrastive"), parts_of(), 2500
    head = 1024 * 400 + 2 * 400 * 400 + 400 * 460
    assert parts.pop("contrastive") == 2 * 3 * rows * (head + 460 * rows)
    assert parts.pop("decoder") == plain.pop("decoder") - 2 * rows * 230 * 1024
    assert parts == plain
    assert parts_of("reward_only") == {**plain, "decoder": parts_of("contrastive")["decoder"]}


def test_acting_with_either_path():
    embed = 1024 * 200
    acted = {kind: action_flops(kind)["rssm"] for kind in ("stochastic_only", "deterministic_only")}
    assert acted["stochastic_only"] == 2 * (36 * 200 + 200 * 200 + embed + 200 * 60)
    assert acted["deterministic_only"] == 2 * (6 * 200 + 4 * 200 * 600 + embed)
