"""Gradients in bfloat16 are those of float32, rounded: no sum over a batch is lost on the way.

TensorFlow's BiasAddGrad sums bfloat16 in bfloat16 on CPUs. Over the pixels of a batch such a sum
stops growing, and an agent whose decoder used it learned at a fraction of the pace.
"""

import numpy as np
import pytest
import tensorflow as tf
from rounding import rounding_error

from dreamer.config.config import load_config
from dreamer.envs.spec import Space
from dreamer.nets import contrastive
from dreamer.training.build import make_agent

OBS = {"image": Space((64, 64, 3), np.dtype(np.uint8), 0, 255)}
ACT = Space((2,), np.dtype(np.float32), -1.0, 1.0)
B, T = 32, 4  # long sums, and few steps of the filter that add rounding errors
# A gradient passes the filter's products forwards and backwards: 5 a step, each of which rounds two
# factors and a result; and 4 layers of the encoder, with a bias each.
LIMIT = rounding_error("bfloat16", 2 * (5 * 3 * T + 4 * 4))

# Presets of the world model's variants, two at a time where they concern different parts.
VARIANTS = (
    (),
    ("contrastive", "stochastic_only"),
    ("deterministic_only", "reward_only"),
    ("kl_balance", "overshooting"),
    ("v3_layers",),
)
V3_LAYERS = {
    "layers.activation": "silu", "layers.norm": "rms", "layers.init": "trunc_normal",
    "encoder.cnn": "v3", "decoder.cnn": "v3", "rssm.blocks": 4, "rssm.classes": 4, "reward.bins": 9,
}  # fmt: skip


@pytest.fixture(scope="module", params=VARIANTS, ids="+".join)
def gradients(request: pytest.FixtureRequest) -> dict[str, dict[str, np.ndarray]]:
    """Gradients on one batch, by precision and variable: of all three losses by default, of the
    world model's alone for its variants. Under "sizes" those that errors are compared with."""
    found: dict[str, dict[str, np.ndarray]] = {}
    arrays = None
    for precision in ("float32", "bfloat16"):
        overrides = {"precision": precision, "encoder.cnn_depth": 4, "decoder.cnn_depth": 4}
        overrides |= {"contrastive.layers": 1, "contrastive.units": 16}
        overrides |= {"loss.free_nats": 0.0} if request.param else {}  # the prior then has some
        overrides |= {"loss.overshooting": T - 1} if "overshooting" in request.param else {}
        overrides |= V3_LAYERS if "v3_layers" in request.param else {}
        presets = [name for name in request.param if name != "v3_layers"]
        agent = make_agent(load_config("debug", *presets, overrides=overrides), OBS, ACT)
        arrays = arrays or agent.state_arrays()
        agent.load_arrays(arrays)
        found[precision] = _gradients(agent, behavior=not request.param)
        if precision == "float32":
            uncancelled = _uncancelled(agent) if "contrastive" in request.param else {}
            found["sizes"] = {**found[precision], **uncancelled}
    return found


def _uncancelled(agent) -> dict[str, np.ndarray]:
    """Gradients of the contrastive head by the loss's first term alone, -log q(s|o).

    The second term nearly cancels it, because what tells observations apart has a gradient that
    sums to almost zero over them. Rounding errors are relative to each term, not to the rest.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            contrastive, "contrastive_loss", lambda log_prob, *_: -tf.linalg.trace(log_prob) / B / T
        )
        return {k: g for k, g in _gradients(agent, False).items() if "/contrastive/" in k}


def _gradients(agent, behavior: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shades = rng.integers(150, 250, (B, T, 1, 1, 1)).astype(np.uint8)
    batch = {
        "image": np.tile(shades, (1, 1, 64, 64, 3)),  # all of one sign: sums grow large
        "action": rng.uniform(-1, 1, (B, T, 2)).astype(np.float32),
        "reward": rng.uniform(0, 2, (B, T)).astype(np.float32),
        "cont": np.ones((B, T), np.float32),
        "is_first": np.zeros((B, T), bool),
    }
    tensors = {k: tf.constant(v) for k, v in batch.items()}
    noise = tf.random.stateless_normal([B, T, agent.world_model.noise_size], [1, 2])
    with tf.GradientTape() as tape:
        loss, post, _ = agent.world_model.loss(tensors, noise)
    variables = agent.world_model.trainable_variables
    found = dict(zip([v.path for v in variables], tape.gradient(loss, variables), strict=True))
    if behavior:
        with tf.GradientTape(persistent=True) as tape:
            losses, _ = agent._learner.behavior_losses(post, tensors, tf.constant(0))
        for part, loss in ((agent.actor, losses["actor"]), (agent.value, losses["value"])):
            grads = tape.gradient(loss, part.trainable_variables)
            found |= dict(zip([v.path for v in part.trainable_variables], grads, strict=True))
    return {path: gradient.numpy() for path, gradient in found.items()}


def test_every_gradient_agrees_between_precisions(gradients):
    exact, rounded = gradients["float32"], gradients["bfloat16"]
    sizes = {path: np.linalg.norm(g) for path, g in gradients["sizes"].items()}
    errors = {
        path: np.linalg.norm(rounded[path] - g) / sizes[path]
        for path, g in exact.items()
        if sizes[path] > 1e-6  # the prior has none while the KL is below the free nats
    }
    assert len(errors) > 30
    assert {path: error for path, error in errors.items() if not error < LIMIT} == {}
