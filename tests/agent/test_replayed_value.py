"""The value loss on replayed sequences, which imagined returns close: against literal NumPy."""

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_agent import ONEHOT, VECTORS, make_agent, make_batch, parts_that_differ, update, weights

from dreamer.agent.agent import Agent
from dreamer.agent.behavior import Behavior, Imagination
from dreamer.agent.value_losses import Replayed
from dreamer.config.config import load_config
from dreamer.errors import UserError
from dreamer.ops.scalars import UnitNormal

pytestmark = pytest.mark.usefixtures("eagerly")
B, T, H, F = 2, 6, 3, 4
GAMMA, LAMBDA, SCALE = 0.9, 0.8, 0.3
CHOSEN = [7, 2, 10, 0]  # in no order


def sigmoid(x: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.float64(x)))


class Head:
    """Reads one feature; the prediction is a Normal."""

    def __init__(self, index: int, squash: Any = tf.identity):
        self.index, self.squash = index, squash

    def __call__(self, feat: tf.Tensor) -> tf.Tensor:
        return self.squash(feat[..., self.index])

    def predict(self, feat: tf.Tensor) -> UnitNormal:
        return UnitNormal(self(feat))


REWARD, VALUE, DISCOUNT, SLOW = Head(0), Head(1), Head(2, tf.sigmoid), Head(3)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def replayed_sequences() -> Replayed:
    """In row 0 a terminal and a new episode; in row 1 a cut and a new episode."""
    is_first, cont = np.zeros((B, T), bool), np.ones((B, T), np.float32)
    is_first[0, 3] = is_first[1, 2] = True
    cont[0, 2] = 0.0
    feat, reward = numbers(B, T, F), numbers(B, T, seed=1)
    return Replayed(*map(tf.constant, (feat, reward, cont, is_first)))


def trajectories(replayed: Replayed, chosen: list[int] | None, discount: bool) -> Imagination:
    rows = list(range(B * T)) if chosen is None else chosen
    start = replayed.feat.numpy().reshape(-1, F)[rows]
    n = len(rows)
    rest = [numbers(n, H, 2), numbers(n, H, seed=5), numbers(n, H, seed=6)]
    found = Imagination(*map(tf.constant, (start, numbers(n, H, F, seed=2), *rest)))
    cont = tf.constant(replayed.cont.numpy().ravel()[rows]) if discount else None
    return found._replace(cont=cont, chosen=None if chosen is None else tf.constant(chosen))


def literal(
    replayed: Replayed, imagined: Imagination, values_of: int, pull: bool, discount: bool
) -> float:
    """The loss, state by state. `values_of` is the feature that the values in returns are."""
    annotation = np.float64(replayed.feat)[..., values_of].copy()
    rows = range(B * T) if imagined.chosen is None else imagined.chosen.numpy()
    for n, row in enumerate(rows):
        path = np.float64(np.concatenate([imagined.start[n : n + 1], imagined.feat[n]]))
        value, returns = path[:, values_of], path[-1, values_of]
        for i in reversed(range(H)):  # f_0 .. f_H
            pcont = sigmoid(path[i, 2]) if discount else GAMMA
            if i == 0 and imagined.cont is not None:
                pcont *= float(imagined.cont[n])
            returns = path[i, 0] + pcont * ((1 - LAMBDA) * value[i + 1] + LAMBDA * returns)
        annotation[divmod(row, T)] = returns
    reward, cont = np.float64(replayed.reward), np.float64(replayed.cont)
    feat, is_first = np.float64(replayed.feat), replayed.is_first.numpy()
    losses = []
    for b in range(B):
        following = annotation[b, -1]
        for t in reversed(range(T - 1)):
            if is_first[b, t + 1] and cont[b, t] == 1.0:  # a cut: what follows is unknown
                following = annotation[b, t]
                losses.append(0.0)
                continue
            mixed = (1 - LAMBDA) * annotation[b, t + 1] + LAMBDA * following
            following = reward[b, t] + GAMMA * cont[b, t] * mixed
            constant = 0.5 * math.log(2 * math.pi)
            losses.append(0.5 * (following - feat[b, t, 1]) ** 2 + constant)
            if pull:
                losses[-1] += 0.5 * (feat[b, t, 3] - feat[b, t, 1]) ** 2 + constant
    return float(np.mean(losses))


@pytest.mark.parametrize("gradient", ["score", "dynamics"])
@pytest.mark.parametrize("chosen", [None, CHOSEN], ids=["every state", "some"])
@pytest.mark.parametrize("role", [None, "target", "pull"])
@pytest.mark.parametrize("discount", [False, True])
def test_the_loss_is_the_literal_one(gradient, chosen, role, discount) -> None:
    replayed = replayed_sequences()
    imagined = trajectories(replayed, chosen, discount)
    own = {"gradient": gradient, "slow_role": role or "target", "replay_scale": SCALE}
    behavior = Behavior(GAMMA, LAMBDA, **own)
    heads = REWARD, VALUE, DISCOUNT if discount else None, SLOW if role else None, None
    losses, metrics = behavior.losses(imagined, *heads, replayed)
    expected = literal(replayed, imagined, 3 if role == "target" else 1, role == "pull", discount)
    assert float(losses["replayed"]) == pytest.approx(SCALE * expected, rel=1e-4)
    assert float(metrics["replayed_value_loss"]) == pytest.approx(expected, rel=1e-4)
    without, _ = behavior.losses(imagined, *heads)  # the other losses are what they were
    assert all(float(losses[name]) == float(without[name]) for name in ("actor", "value"))


def test_the_gradient_reaches_the_features_by_the_prediction_alone() -> None:
    """d loss / d v_t = known_t (v_t - G_t) / count, and no gradient by rewards or annotations."""
    replayed = replayed_sequences()
    imagined = trajectories(replayed, None, True)
    behavior = Behavior(GAMMA, LAMBDA, "score", replay_scale=SCALE)
    with tf.GradientTape() as tape:
        tape.watch([replayed.feat, imagined.feat, imagined.start])
        loss = behavior.losses(imagined, REWARD, VALUE, DISCOUNT, SLOW, None, replayed)[0]
    found = tape.gradient(loss["replayed"], [replayed.feat, imagined.feat, imagined.start])
    assert found[1] is None and found[2] is None
    slopes = found[0].numpy()
    assert not slopes[..., [0, 2, 3]].any() and not slopes[:, -1].any()
    assert not slopes[1, 1].any() and np.abs(slopes[0, :-1, 1]).min() > 0  # a cut, a terminal


V3 = {
    "value__replay_scale": SCALE, "value__slow_rate": 0.1, "value__slow_role": "pull",
    "actor__gradient": "score", "discount__enabled": True,
}  # fmt: skip


def gradients(agent: Agent, batch: Any) -> dict[str, list[np.ndarray]]:
    tensors = {k: tf.constant(v) for k, v in batch.items()}
    found, _, _ = agent._learner.gradients(tensors, tf.constant(0), False)
    return {name: [g.numpy() for g in every] for name, every in found.items()}


def test_it_trains_value_network_and_world_model_and_no_other() -> None:
    """What it adds to each gradient is its own gradient."""
    batch = make_batch(VECTORS, ONEHOT)
    agents = [make_agent(VECTORS, ONEHOT, **V3 | {"value__replay_scale": s}) for s in (0.0, SCALE)]
    without, found = (gradients(agent, batch) for agent in agents)
    agent = agents[1]
    tensors = {k: tf.constant(v) for k, v in batch.items()}
    with tf.GradientTape(persistent=True) as tape:
        noise = seeded_noise(agent, batch)
        post = agent.world_model.loss(tensors, noise)[1]
        loss = agent._learner.behavior_losses(post, tensors, tf.constant(0))[0]["replayed"]
    for name, network in agent.networks.named().items():
        if name not in found:
            continue
        own = tape.gradient(loss, network.trainable_variables)
        for mine, before, added in zip(found[name], without[name], own, strict=True):
            expected = before if added is None else before + added.numpy()
            np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-6)
    model = agent.world_model
    for part in (model.encoder, model.rssm, agent.value):
        reached = tape.gradient(loss, part.trainable_variables)
        assert any(g is not None and np.any(g) for g in reached)
    for part in (model.reward, model.discount, model.decoder, agent.actor):
        assert all(g is None for g in tape.gradient(loss, part.trainable_variables))


def seeded_noise(agent: Agent, batch: Any) -> tf.Tensor:
    from dreamer.ops.seeds import Purpose, make_seeds

    shape = [*batch["reward"].shape, agent.world_model.noise_size]
    return tf.random.stateless_normal(shape, make_seeds(0, Purpose.LATENT, tf.constant(0))[0])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision(precision: str) -> None:
    batch = make_batch(VECTORS, ONEHOT, size=4, length=8)
    exact, rough = (
        make_agent(VECTORS, ONEHOT, precision=p, loss__free_nats=0.0, **V3)
        for p in ("float32", precision)
    )
    scale = 2.0**8 if precision == "float16" else 1.0
    for optimizer in rough._learner.optimizers.values():
        optimizer.scale.assign(scale)
    for name, every in gradients(exact, batch).items():
        others = gradients(rough, batch)[name]
        a, b = (np.concatenate([g.ravel() for g in gs]) for gs in (every, others))
        b = b / scale
        assert np.linalg.norm(a - b) < 0.1 * np.linalg.norm(a), name


def test_with_an_explorer_waiting_and_few_starts() -> None:
    small = {"disagreement__members": 2, "disagreement__until": 10}
    values = {"value__replay_scale": SCALE, "behavior__starts": 4, "behavior__after": 1}
    agent = make_agent(optimizer__shared=True, **small, **values)
    agent.progress(0, 0)
    before = weights(agent)
    assert "replayed_value_loss" not in update(agent, make_batch(), 0)
    metrics = update(agent, make_batch(), 1)
    assert np.isfinite(metrics["replayed_value_loss"]) and "explorer_value_loss" in metrics
    changed = parts_that_differ(before, weights(agent))
    assert {"model", "actor", "value", "explorer", "explorer_value", "ensemble"} <= changed


@pytest.mark.parametrize("preset", ["no_value", "planet"])
def test_what_has_no_imagined_values_is_refused(preset: str) -> None:
    with pytest.raises(UserError, match=r"value\.replay_scale needs behavior\.policy actor"):
        load_config(preset, overrides={"value.replay_scale": 0.3})
