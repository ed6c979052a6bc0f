"""The gradients that make one product of many steps are those of a plain tape."""

import numpy as np
import pytest
import tensorflow as tf
from rounding import rounding_error
from small_agent import CONTINUOUS, ONEHOT, VECTORS, make_agent, make_batch, tensors

from dreamer.agent import learner

V3 = {
    "layers__activation": "silu", "layers__norm": "rms", "rssm__deter": 16, "rssm__blocks": 4,
    "rssm__classes": 4, "reward__bins": 9, "rssm__prior_layers": 2,
}  # fmt: skip
KINDS = {
    "full": {},
    "stochastic_only": {"rssm__kind": "stochastic_only"},
    "deterministic_only": {"rssm__kind": "deterministic_only"},
    "gru_norm": {"rssm__gru_norm": True, "layers__norm": "layer"},
    "v3": V3,
    "replayed": {"value__replay_scale": 0.3, "value__slow_rate": 0.1},
    "score": {"actor__gradient": "score", "actor__entropy": 0.1},
    "overshooting": {"loss__overshooting": 3, "loss__free_nats": 0.0},
    "explorer": {"disagreement__until": 100},
}
# In float32 sums of hundreds of numbers are added in another order; some nearly cancel.
LIMITS = {"float32": 1e-5, "bfloat16": rounding_error("bfloat16", 50)}


class Plain:
    """Takes the place of JointGradients: a tape's own gradients."""

    def __init__(self, tape: tf.GradientTape):
        self.gradient = tape.gradient

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass


def differentiate(agent, batch):
    exploring = agent.networks.explorer is not None
    return agent._learner.gradients(tensors(batch), tf.constant(0), exploring)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_tapes(kind: str, precision: str, monkeypatch) -> None:
    act_space = ONEHOT if kind in ("v3", "score") else CONTINUOUS
    agent = make_agent(VECTORS, act_space, precision=precision, **KINDS[kind])
    batch = make_batch(VECTORS, act_space)
    found, losses, metrics = differentiate(agent, batch)
    monkeypatch.setattr(learner, "JointGradients", Plain)
    expected, plain_losses, plain_metrics = differentiate(agent, batch)
    for ours, plain in ((losses, plain_losses), (metrics, plain_metrics)):
        assert {k: float(v) for k, v in ours.items()} == {k: float(v) for k, v in plain.items()}
    assert found.keys() == expected.keys()
    limit = LIMITS[precision]
    for network, gradients in expected.items():
        variables = agent.networks.named()[network].trainable_variables
        for variable, ours, plain in zip(variables, found[network], gradients, strict=True):
            if plain is None:
                assert ours is None
                continue
            error = np.linalg.norm(ours - plain)
            assert error <= limit * np.linalg.norm(plain) + 1e-9, (variable.path, error)
