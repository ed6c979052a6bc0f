"""One optimizer for model, actor and value network, instead of three."""

import numpy as np
import pytest
import tensorflow as tf
from small_agent import make_agent, make_batch, parts_that_differ, update, weights

from dreamer.agent.agent import Agent
from dreamer.ops.optimizers import INITIAL_SCALE

pytestmark = pytest.mark.usefixtures("eagerly")
RATE, CLIP, EPS = 1e-2, 1.0, 1e-3
OWN = {"optimizer__model_lr": RATE, "optimizer__clip": CLIP, "optimizer__eps": EPS}
PARTS = ("model", "actor", "value")


def gradients(agent: Agent, number: int) -> dict[str, np.ndarray]:
    """The gradients of an update, by the variable's name in a checkpoint."""
    tensors = {k: tf.constant(v) for k, v in make_batch(seed=number).items()}
    found, _, _ = agent._learner.gradients(tensors, tf.constant(number), False)
    named = agent.networks.named()
    return {
        f"{part}/{v.path}": g.numpy()
        for part, every in found.items()
        for v, g in zip(named[part].trainable_variables, every, strict=True)
    }


def test_all_networks_make_one_step_of_adam() -> None:
    """Clipped by one global norm, at the model's rate; Adam and the clipping in NumPy."""
    agent, separate = make_agent(optimizer__shared=True, **OWN), make_agent(**OWN)
    first, second, expected = {}, {}, weights(agent)
    for number in range(2):
        found = gradients(agent, number)
        if number == 0:  # each loss trains what it trains with three optimizers
            for name, other in gradients(separate, number).items():
                np.testing.assert_array_equal(found[name], other)
        norm = np.sqrt(sum(np.sum(np.float64(g) ** 2) for g in found.values()))
        assert norm > CLIP
        for name, g in found.items():
            g = np.float64(g) * CLIP / norm
            first[name] = 0.9 * first.get(name, 0.0) + 0.1 * g
            second[name] = 0.999 * second.get(name, 0.0) + 0.001 * g**2
            rate = RATE * np.sqrt(1 - 0.999 ** (number + 1)) / (1 - 0.9 ** (number + 1))
            step = rate * first[name] / (np.sqrt(second[name]) + EPS)
            expected[name] = expected[name] - step
        metrics = update(agent, make_batch(seed=number), number)
        assert metrics["shared_grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert {name.partition("/")[0] for name in first} == set(PARTS)
    for name, value in weights(agent).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=2e-5, err_msg=name)


def test_its_state_is_in_the_checkpoint_once() -> None:
    settings = {"optimizer__shared": True, "optimizer__algorithm": "laprop"}
    agent, other = make_agent(**settings), make_agent(**settings)
    update(agent, make_batch())
    arrays = {k: v.copy() for k, v in agent.state_arrays().items()}
    slots = [k for k in arrays if "/adam/" in k]
    assert all(k.startswith("shared/adam/") for k in slots)
    trained = sum(len(agent.networks.named()[part].trainable_variables) for part in PARTS)
    assert len(slots) == 2 * trained + 4  # steps, rate, loss scale, good updates
    other.load_arrays(arrays)
    assert update(agent, make_batch(), 1) == update(other, make_batch(), 1)
    for name, value in agent.state_arrays().items():
        np.testing.assert_array_equal(value, other.state_arrays()[name], err_msg=name)


def test_behaviour_can_wait() -> None:
    agent = make_agent(optimizer__shared=True, behavior__after=2)
    for number, parts in ((1, {"model"}), (2, set(PARTS))):
        before = weights(agent)
        update(agent, make_batch(), number)
        assert parts_that_differ(before, weights(agent)) == parts


def test_a_loss_that_is_not_finite_stops_all() -> None:
    agent, batch = make_agent(optimizer__shared=True), make_batch()
    batch["reward"][0, 1] = np.nan
    before = agent.state_arrays()
    assert update(agent, batch)["skipped"] == 1.0
    for name, value in agent.state_arrays().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_float16_has_one_loss_scale() -> None:
    agent = make_agent(precision="float16", optimizer__shared=True)
    scale = agent._learner.optimizers["shared"].scale
    scale.assign(2.0**24)  # overflows
    metrics = update(agent, make_batch())
    assert metrics["skipped"] == 1.0 and metrics["nonfinite"] == 0.0
    assert float(scale) == 2.0**23
    scale.assign(INITIAL_SCALE)
    before = weights(agent)
    assert update(agent, make_batch(), 1)["skipped"] == 0.0
    assert parts_that_differ(before, weights(agent)) == set(PARTS)


def test_the_explorers_networks_keep_their_own() -> None:
    small = {"members": 2, "units": 8, "layers": 1, "until": 10}
    settings = {f"disagreement__{key}": value for key, value in small.items()}
    agent = make_agent(optimizer__shared=True, **settings)
    own = {"ensemble", "explorer", "explorer_value"}
    assert set(agent._learner.optimizers) == {"shared", *own}
    before = weights(agent)
    update(agent, make_batch())
    assert parts_that_differ(before, weights(agent)) == {*PARTS, *own}
