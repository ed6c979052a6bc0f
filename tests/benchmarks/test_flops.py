"""Operation counts: by hand, by TensorFlow's profiler, and by operators applied to ones."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_agent import CONTINUOUS, IMAGE, RECIPE_SIZES, VECTORS, make_batch

from dreamer.agent.agent import Agent
from dreamer.benchmarks.flops import FlopCounter, convolution_macs, transposed_macs
from dreamer.config.config import load_config
from dreamer.envs.spec import Space
from dreamer.training.build import make_agent as agent_of


def counter_of(
    *presets: str, shapes: Any = None, actions: int = 6, discrete: bool = False,
    task: str = "dmc_walker_walk", **overrides: Any,
) -> FlopCounter:  # fmt: skip
    values = {key.replace("__", "."): value for key, value in overrides.items()}
    config = load_config(*presets, task=task, overrides=values)
    shapes = shapes or {"image": (64, 64, 3)}
    obs_space = {key: Space(shape, np.dtype(np.float32)) for key, shape in shapes.items()}
    act_space = Space((actions,), np.dtype(np.float32), discrete=discrete)
    return FlopCounter(config, obs_space, act_space)


def update_parts(*presets: str, **settings: Any) -> dict[str, int]:
    return counter_of(*presets, **settings).update()


def policy_parts(*presets: str, **settings: Any) -> dict[str, int]:
    return counter_of(*presets, **settings).policy()


# --------------------------------------------------------------- one operator


def profiled_flops(function: Any, *shapes: tuple[int, ...]) -> int:
    """What TensorFlow's profiler counts in a graph of float32 inputs of these shapes."""
    graph = tf.Graph()
    with graph.as_default():
        function(*[tf.compat.v1.placeholder(tf.float32, shape) for shape in shapes])
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    return tf.compat.v1.profiler.profile(graph, options=options).total_float_ops


@pytest.mark.parametrize(
    ("side", "kernel", "channels", "filters", "to", "padding"),
    [
        (64, 4, 3, 32, 31, "VALID"), (31, 4, 32, 64, 14, "VALID"), (14, 4, 64, 128, 6, "VALID"),
        (6, 4, 128, 256, 2, "VALID"), (64, 5, 3, 8, 32, "SAME"), (8, 5, 16, 16, 4, "SAME"),
    ],
)  # fmt: skip
def test_convolutions_as_tensorflow_counts_them(side, kernel, channels, filters, to, padding):
    def convolve(image, weights):
        return tf.nn.conv2d(image, weights, 2, padding)

    shapes = ((1, side, side, channels), (kernel, kernel, channels, filters))
    counted = profiled_flops(convolve, *shapes)
    assert counted == 2 * convolution_macs(to, kernel, channels, filters)


def test_matrix_products_as_tensorflow_counts_them():
    assert profiled_flops(tf.matmul, (50, 1224), (1224, 200)) == 2 * 50 * macs(1224, 200)


# With inputs and weights of ones, every product adds one to the sum of the outputs.


@pytest.mark.parametrize(
    ("side", "kernel", "channels", "filters"), [(1, 5, 4, 3), (5, 5, 2, 2), (13, 6, 1, 3)]
)
def test_transposed_convolutions_of_ones(side, kernel, channels, filters):
    result = 2 * side - 2 + kernel
    ones = tf.nn.conv2d_transpose(
        tf.ones([1, side, side, channels]), tf.ones([kernel, kernel, filters, channels]),
        [1, result, result, filters], 2, "VALID",
    )  # fmt: skip
    assert int(tf.reduce_sum(ones)) == transposed_macs(side, kernel, channels, filters)


# ------------------------------------------------------------ updates by hand


def macs(*sizes: int) -> int:
    """Multiply-adds of dense layers of these widths."""
    return sum(a * b for a, b in pairwise(sizes))


N, LAST, H = 50 * 50, 50 * 49, 15  # rows of a batch; those with a successor; horizon
IMAGINED, LATER = N * H, N * (H - 1)
HEAD = macs(230, 400, 400, 1)
FIRST, REST = macs(230, 400), macs(400, 400, 400, 1)  # of the value network
GRU = 200 * 600
STATS = macs(200, 200, 60)  # hidden layer, then mean and std
MEMBER = macs(236, 400, 400, 30)  # of the ensemble
FULL = {
    "encoder": N * 2 * (
        2 * 31**2 * 4**2 * 3 * 32  # no gradient to the image
        + 3 * (14**2 * 4**2 * 32 * 64 + 6**2 * 4**2 * 64 * 128 + 2**2 * 4**2 * 128 * 256)
    ),
    "rssm": 2 * 3 * N * (GRU + STATS + 1224 * 200 + 200 * 60)
    + 2 * (30 * 200 + GRU) * (2 * N + LAST) + 2 * 2 * N * 6 * 200,
    "decoder": N * 6 * (
        230 * 1024 + 5**2 * 1024 * 128 + 5**2 * 5**2 * 128 * 64
        + 13**2 * 6**2 * 64 * 32 + 30**2 * 6**2 * 32 * 3
    ),
    "reward": N * 6 * HEAD,
    "actor": IMAGINED * 2 * (2 * 230 * 400 + 3 * macs(400, 400, 400, 400, 12)),
    "imagined dynamics": 2 * (
        (6 * 200 + GRU + STATS) * 2 * IMAGINED + (30 * 200 + GRU) * (IMAGINED + LATER)
    ),
    "imagined reward": HEAD * 2 * (IMAGINED + LATER),
    "imagined value": 2 * (FIRST * (IMAGINED + 2 * LATER) + REST * (IMAGINED + 3 * LATER)),
}  # fmt: skip
NO_IMAGINATION = dict.fromkeys(("actor", "imagined dynamics", "imagined reward", "imagined value"))
CONTRASTIVE_DECODER = FULL["decoder"] - 2 * N * 230 * 1024  # its features get no gradient


#: Presets, overrides, and the parts that differ from FULL. None: the part is absent.
VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, Any], dict[str, int | None]]] = {
    "full": ((), {}, {}),
    # Every reward reaches the actor.
    "no_value": (("no_value",), {}, {
        "imagined reward": 2 * HEAD * 2 * IMAGINED, "imagined value": None,
    }),
    # Imagination runs forward only. The start is judged too, by the value's own loss as well.
    "score": (("score",), {"discrete": True}, {
        "actor": IMAGINED * 2 * (2 * 230 * 400 + 3 * macs(400, 400, 400, 400, 6)),
        "imagined dynamics": 2 * (macs(36, 200) + 2 * GRU + STATS) * IMAGINED,
        "imagined reward": 2 * HEAD * N * 16,
        "imagined value": 2 * N * (FIRST * (16 + 15) + REST * (16 + 15 + 15)),
    }),
    # The value alone moves the actor.
    "one imagined step": ((), {"behavior__horizon": 1}, {
        "actor": FULL["actor"] // H,
        "imagined dynamics": 2 * N * ((6 * 200 + GRU + STATS) * 2 + 30 * 200 + GRU),
        "imagined reward": 2 * HEAD * N * 2,
        "imagined value": 2 * N * (FIRST * (2 + 1 + 1) + REST * (2 + 2 + 1)),
    }),
    "few starts": ((), {"behavior__starts": N // 2}, {
        part: FULL[part] // 2
        for part in ("actor", "imagined dynamics", "imagined reward", "imagined value")
    }),
    # The slow copy judges, and passes on the gradient to the actor.
    "slow target": ((), {"value__slow_rate": 0.02}, {
        "imagined slow value": 2 * (FIRST + REST) * (IMAGINED + LATER),
        "imagined value": 2 * (FIRST * (IMAGINED + LATER) + REST * (IMAGINED + 2 * LATER)),
    }),
    # The starts' returns need their rewards. The gradient passes through the features.
    "replayed values": (
        (), {"value__slow_rate": 0.02, "value__slow_role": "pull", "value__replay_scale": 0.3}, {
            "imagined reward": FULL["imagined reward"] + 2 * HEAD * N,
            "imagined slow value": 2 * (FIRST + REST) * LATER,
            "replayed value": 2 * (FIRST + REST) * LAST * 4,
        },
    ),
    "planner": (("planet",), {}, NO_IMAGINATION),
    "planner with a value": (
        ("planet",), {"behavior__value": True, "planner__returns": "lambda"}, {
            "value": 2 * 50 * (FIRST * (50 + 49) + REST * (50 + 49 + 49)),
            **NO_IMAGINATION,
        },
    ),
    "explorer": ((), {"disagreement__until": 100}, {
        "ensemble": 2 * 5 * LAST * (3 * MEMBER - 236 * 400),
        "imagined ensemble": 2 * 5 * MEMBER * (IMAGINED + LATER),
        "explorer": FULL["actor"],
        "imagined dynamics": 2 * FULL["imagined dynamics"],
        "imagined value": 2 * FULL["imagined value"],
    }),
    "overshooting": (("overshooting",), {}, {
        "overshooting": 2 * sum(50 * (50 - d + 1) for d in range(2, 6))
        * (3 * (30 * 200 + 2 * GRU + STATS) + 2 * 6 * 200),
    }),
    "contrastive": (("contrastive",), {}, {
        "contrastive": 2 * 3 * N * (macs(1024, 400, 400, 400, 460) + 460 * N),
        "decoder": CONTRASTIVE_DECODER,
    }),
    "reward_only": (("reward_only",), {}, {"decoder": CONTRASTIVE_DECODER}),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_updates_by_hand(variant: str):
    presets, overrides, changed = VARIANTS[variant]
    expected = {name: count for name, count in {**FULL, **changed}.items() if count is not None}
    assert update_parts(*presets, **overrides) == expected
    assert sum(FULL.values()) == 903_305_720_000  # as published


def test_one_path_alone_by_hand():
    parts = update_parts("stochastic_only")
    inputs = 2 * 30 * 200 * (2 * N + LAST) + 2 * 2 * N * 6 * 200
    assert parts["rssm"] == 2 * 3 * N * (2 * STATS + 1024 * 200) + inputs
    assert parts["imagined dynamics"] == 2 * (
        (6 * 200 + STATS) * 2 * IMAGINED + 30 * 200 * (IMAGINED + LATER)
    )
    assert parts["reward"] == FULL["reward"] - 200 * 400 * 6 * N  # 30 features instead of 230
    parts = update_parts("deterministic_only")
    prior = 2 * (6 * 200 * 2 * N + GRU * (3 * N + 2 * N + LAST))
    assert parts["rssm"] == prior + 2 * (1024 * 200 + 2 * GRU) * (N + 2 * LAST)
    dynamics = (6 * 200 + GRU) * 2 * IMAGINED + GRU * (IMAGINED + LATER)
    assert parts["imagined dynamics"] == 2 * dynamics
    ahead = sum(50 * (50 - d + 1) for d in range(2, 16))  # predictions over 2 to 15 steps
    assert parts["overshooting"] == 2 * ahead * (2 * 6 * 200 + 3 * 2 * GRU)


def test_convolutions_of_dreamer_v3_by_hand():
    settings = {f"{part}__{key}": value for part in ("encoder", "decoder")
                for key, value in (("cnn", "v3"), ("cnn_depth", 2))}  # fmt: skip
    parts = update_parts(**settings)
    assert parts["encoder"] == 2 * N * 25 * (
        2 * 32**2 * 3 * 4 + 3 * (16**2 * 4 * 6 + 8**2 * 6 * 8 + 4**2 * 8 * 8)
    )
    assert parts["decoder"] == 2 * 3 * N * (
        230 * 128 + 25 * (4**2 * 8 * 8 + 8**2 * 8 * 6 + 16**2 * 6 * 4 + 32**2 * 4 * 3)
    )
    assert FULL["rssm"] - parts["rssm"] == 2 * 3 * N * (1024 - 4 * 4 * 8) * 200


def test_categories_bins_and_blocks_by_hand():
    settings = {
        "rssm__stoch": 8, "rssm__classes": 4, "rssm__deter": 64, "rssm__hidden": 16,
        "rssm__blocks": 4, "rssm__prior_layers": 2, "reward__bins": 255,
    }  # fmt: skip
    parts = update_parts(**settings)
    from_state = 32 * 16 + 64 * 16 + 64 * 64 // 4
    rest = 3 * 16 * 64 + 64 * 3 * 64 // 4
    prior, posterior = macs(64, 16, 16, 32), macs(64 + 1024, 16, 32)
    assert parts["rssm"] == 2 * (
        2 * N * 6 * 16 + (2 * N + LAST) * from_state + 3 * N * (rest + prior + posterior)
    )
    assert parts["imagined dynamics"] == 2 * (
        2 * IMAGINED * (6 * 16 + rest + prior) + (IMAGINED + LATER) * from_state
    )
    assert parts["reward"] == 2 * 3 * N * macs(96, 400, 400, 255)


def test_vectors_have_dense_layers_and_the_discount_head_counts():
    parts = update_parts(
        "debug", task="gym_CartPole-v1", encoder__mlp_layers=2, encoder__keys="a",
        shapes={"a": (5,), "b": (3,)}, actions=2, discrete=True,
    )  # fmt: skip
    rows, head = 4 * 8, macs(20, 16, 1)
    assert parts["encoder"] == 2 * rows * (2 * 5 * 16 + 3 * 16 * 16)
    assert parts["decoder"] == 2 * 3 * rows * macs(20, 16, 8)
    assert parts["discount"] == 2 * 3 * rows * head
    assert parts["imagined discount"] == 2 * head * rows * (5 + 4)
    assert parts["actor"] == 2 * rows * 5 * (2 * 20 * 16 + 3 * 16 * 2)


def test_without_hidden_layers_vectors_are_embedded_as_they_are():
    settings = {"encoder__mlp_layers": 0, "envs__state": True}
    few, many = (policy_parts("debug", shapes={"a": (n,)}, **settings) for n in (5, 8))
    assert "encoder" not in few and many["rssm"] - few["rssm"] == 2 * 3 * 16


# ------------------------------------------------------------ actions by hand


@pytest.mark.parametrize(
    ("presets", "rssm"),
    [
        ((), macs(36, 200) + 2 * GRU + (200 + 1024) * 200 + 200 * 60),
        (("planet",), macs(36, 200) + 2 * GRU + (200 + 1024) * 200 + 200 * 60),
        (("stochastic_only",), 36 * 200 + 200 * 200 + 1024 * 200 + 200 * 60),
        (("deterministic_only",), 6 * 200 + 4 * GRU + 1024 * 200),
    ],
)
def test_filtering_for_an_action(presets: tuple[str, ...], rssm: int):
    assert policy_parts(*presets)["rssm"] == 2 * rssm


def test_an_action_by_hand():
    planned, acted = policy_parts("planet"), policy_parts()
    steps = 10 * 1000 * 12
    assert planned["planned dynamics"] == 2 * steps * (macs(36, 200) + 2 * GRU + STATS)
    assert planned["planned reward"] == 2 * steps * HEAD
    assert 130e9 < sum(planned.values()) < 135e9
    assert acted["actor"] == 2 * macs(230, 400, 400, 400, 400, 12)
    assert sum(policy_parts(envs__num_envs=3).values()) == 3 * sum(acted.values())


# ------------------------------------------------- updates as TensorFlow makes them


def graph_flops(agent: Agent, batch: dict[str, np.ndarray]) -> int:
    """The operations of matrix products and convolutions in the graph of an update."""
    graph, found = agent._update.get_concrete_function(*agent._update_inputs(batch, 0)).graph, 0
    used, left = set(), [t.op for t in graph.outputs] + list(graph.control_outputs)
    while left:  # gradients that nothing uses are in the graph, but never run
        op = left.pop()
        if op not in used:
            used.add(op)
            left += [t.op for t in op.inputs] + list(op.control_inputs)
    for op in used:
        if op.type == "MatMul":
            inner = op.inputs[0].shape[0 if op.get_attr("transpose_a") else 1]
            found += 2 * op.outputs[0].shape.num_elements() * inner
        elif op.type == "BatchMatMulV2":
            inner = op.inputs[0].shape[-2 if op.get_attr("adj_x") else -1]
            found += 2 * op.outputs[0].shape.num_elements() * inner
        elif op.type in ("Conv2D", "Conv2DBackpropInput"):
            pixels = op.outputs[0] if op.type == "Conv2D" else op.inputs[2]
            found += 2 * pixels.shape.num_elements() * int(np.prod(op.inputs[1].shape[:3]))
        elif op.type == "Conv2DBackpropFilter":
            pixels, kernel = op.inputs[2].shape, op.outputs[0].shape
            found += 2 * pixels.num_elements() * int(np.prod(kernel[:3]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("obs_space", [VECTORS, IMAGE], ids=["states", "pixels"])
@pytest.mark.parametrize("preset", ["dmc", "v2_atari", "v3"])
def test_updates_as_tensorflow_counts_them(preset: str, obs_space: dict[str, Space]):
    """TensorFlow's graph has a little more: gradients of 0 for the rows of f_1, where only later
    states move the actor, and of imagination's starts; and the borders of narrow convolutions."""
    sizes = {**RECIPE_SIZES, "train__batch_length": 8, "behavior__horizon": 5}
    sizes |= {"rssm__classes": 0 if preset == "dmc" else 4, "decoder__cnn_depth": 8}
    if preset == "v3":  # the means over bins are no layers, so they are not counted
        sizes |= {"reward__bins": 9, "value__bins": 9}
    overrides = {key.replace("__", "."): value for key, value in sizes.items()}
    config = load_config("debug", preset, task="small:agent", overrides={**overrides, "jit": "off"})
    agent = agent_of(config, obs_space, CONTINUOUS)
    batch = make_batch(obs_space, size=4, length=8)
    counted = sum(FlopCounter(config, obs_space, CONTINUOUS).update().values())
    share = counted / graph_flops(agent, batch)
    assert 0.92 < share <= 1.0
