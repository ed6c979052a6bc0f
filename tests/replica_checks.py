"""Compares two virtual CPU devices with one: `python tests/replica_checks.py`, in a
process of its own, since TensorFlow divides a processor only before it is used. Prints JSON."""

import json
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from small_agent import (
    CONTINUOUS,
    IMAGE,
    ONEHOT,
    RECIPE_SIZES,
    VECTORS,
    make_agent,
    make_batch,
)  # fmt: skip

from dreamer.agent.agent import Agent
from dreamer.agent.devices import open_devices
from dreamer.ops.replicas import batch_normal
from dreamer.ops.seeds import Purpose, make_seeds

Arrays = dict[str, np.ndarray]


def differences(one: Arrays, two: Arrays) -> dict[str, float]:
    """Largest difference of each array, by the largest entry of the first."""
    assert one.keys() == two.keys(), sorted(one.keys() ^ two.keys())[:5]
    found = {}
    for name, array in one.items():
        a, b = np.asarray(array, np.float64), np.asarray(two[name], np.float64)
        assert a.shape == b.shape
        found[name] = float(np.max(np.abs(a - b), initial=0.0) / (np.abs(a).max(initial=0) + 1e-6))
    return found


def worst(one: Arrays, two: Arrays) -> tuple[float, str]:
    """The largest of the differences, and whose it is."""
    return max((value, name) for name, value in differences(one, two).items())


def pair(**settings: Any) -> tuple[Agent, Agent]:
    """The same agent on one device and on two."""
    devices = open_devices(2, {"DREAMER_CPU_DEVICES": "2"})
    return make_agent(**settings), make_agent(devices=devices, **settings)


def uneven(size: int = 4, seed: int = 0, **spaces: Any) -> Arrays:
    """A batch whose second half has larger observations and rewards."""
    batch = make_batch(size=size, seed=seed, **spaces)
    for key in (*VECTORS, "reward"):
        batch[key][size // 2 :] *= 5.0
    return batch


def gradients_on(agent: Agent, batch: Arrays, exploring: bool = False) -> Arrays:
    """Gradients, losses and metrics of one update, without a graph."""
    placed, number, _ = agent._update_inputs(batch, 3)
    learner, devices = agent._learner, agent._devices

    def on_replica(share: Any) -> Any:
        return learner.gradients(share, number, exploring)

    if devices.strategy:
        found = devices.strategy.run(on_replica, args=(placed,))
        found = tf.nest.map_structure(devices.first, found)
    else:
        found = on_replica(placed)
    gradients, losses, metrics = found
    named = {f"metric {k}": v.numpy() for k, v in metrics.items()}
    named |= {f"loss {k}": v.numpy() for k, v in losses.items()}
    for part, every in gradients.items():
        variables = agent.networks.named()[part].trainable_variables
        named |= {f"{part} {v.path}": g.numpy() for v, g in zip(variables, every, strict=True)}
    return named


def copies_differ(agent: Agent) -> int:
    """Variables of which the two devices do not hold the same bits."""
    local = agent._devices.strategy.experimental_local_results
    found = 0
    for variable in agent._variables().values():
        mirrored = variable.value if isinstance(variable, keras.Variable) else variable
        first, second = (copy.numpy() for copy in local(mirrored))
        found += not np.array_equal(first, second)
    return found


def updates() -> dict[str, Any]:
    """Several updates, the clipping in force; then one with a reward that is not finite."""
    spaces = {"obs_space": {**IMAGE, **VECTORS}}
    one, two = pair(**spaces, optimizer__clip=1.0, discount__enabled=True, loss__free_nats=0.0)
    start = worst(one.state_arrays(), two.state_arrays())
    lines = []
    for number in range(5):
        batch = uneven(seed=number, **spaces)
        metrics, other = one.train_step(batch, number), two.train_step(batch, number)
        lines.append((*worst(metrics, other), float(metrics["model_grad_norm"])))
    weights = worst(one.state_arrays(), two.state_arrays())
    batch["reward"][3, 2] = np.nan  # the second device's
    before = two.state_arrays()
    metrics = two.train_step(batch, 5)
    kept = all(np.array_equal(before[k], v) for k, v in two.state_arrays().items())
    one.load_arrays(before)  # a checkpoint of two devices is one of one, and the other way round
    two.load_arrays(one.state_arrays())
    again = all(np.array_equal(before[k], v) for k, v in two.state_arrays().items())
    return {
        "start": start, "metrics": lines, "weights": weights, "copies_differ": copies_differ(two),
        "skipped": float(metrics["skipped"]), "nonfinite": float(metrics["nonfinite"]),
        "kept": kept, "loaded": again,
    }  # fmt: skip


def clipping() -> dict[str, Any]:
    """Whether clipping each half by itself would show, and what two devices have done."""
    one, two = pair(optimizer__clip=1.0)
    batch = uneven()
    halves = [{k: v[i : i + 2] for k, v in batch.items()} for i in (0, 2)]
    whole = model_part(gradients_on(one, batch))
    scale = 1.0 / max(1.0, float(np.sqrt(sum(np.sum(g**2) for g in whole.values()))))
    clipped = {k: g * scale for k, g in whole.items()}
    parts = []
    for half in halves:
        own = model_part(gradients_on(one, half))
        parts.append({k: g / max(1.0, norm(own)) for k, g in own.items()})
    by_halves = {k: (parts[0][k] + parts[1][k]) / 2 for k in clipped}
    tf.config.run_functions_eagerly(True)  # faster, once, than making a graph
    two.train_step(batch, 3)
    tf.config.run_functions_eagerly(False)
    # After one step Adam's first moment is a tenth of the gradient that it got.
    names = {v.path.replace("/", "_"): v.path for v in two.world_model.trainable_variables}
    arrays, prefix = two.state_arrays(), "model/adam/model_adam/"
    moments = {
        f"model {path}": 10.0 * arrays[f"{prefix}{flat}_momentum"] for flat, path in names.items()
    }
    return {"clipped": worst(clipped, moments), "by_halves": worst(clipped, by_halves)}


def norm(gradients: Arrays) -> float:
    return float(np.sqrt(sum(np.sum(np.square(g)) for g in gradients.values())))


def model_part(found: Arrays) -> Arrays:
    return {k: v for k, v in found.items() if k.startswith("model ")}


def free_nats() -> dict[str, Any]:
    """The free nats between the KL of one half and of the whole, on either side of the whole."""
    batch = uneven()
    plain, _ = pair(loss__free_nats=0.0)
    whole = float(gradients_on(plain, batch)["metric kl"])
    found: dict[str, Any] = {"whole": whole}
    for name, free in (("above", 0.97 * whole), ("below", 1.03 * whole)):
        one, two = pair(loss__free_nats=free)
        first, second = gradients_on(one, batch), gradients_on(two, batch)
        prior = [k for k in first if k.startswith("model ") and "prior" in k]
        size = max(float(np.abs(second[k]).max()) for k in prior)
        halves = halves_kl(two, batch)
        found[name] = {
            "free": free, "halves": halves, "kl_loss": float(second["metric kl_loss"]),
            "worst": worst(first, second), "prior_gradient": size,
        }  # fmt: skip
    return found


def halves_kl(agent: Agent, batch: Arrays) -> list[float]:
    """The mean KL of each device's share, by the noise that an update gives it."""
    placed, number, _ = agent._update_inputs(batch, 3)
    learner, devices = agent._learner, agent._devices

    def on_replica(share: Any) -> tf.Tensor:
        model = learner.networks.model
        seed = make_seeds(learner._seed, Purpose.LATENT, number)[0]
        noise = batch_normal([*share["reward"].shape, model.noise_size], seed, 0)
        return model.loss(share, noise)[2]["kl"]

    found = devices.strategy.run(on_replica, args=(placed,))
    return [float(x) for x in devices.strategy.experimental_local_results(found)]


VARIANTS: dict[str, dict[str, Any]] = {
    "contrastive": {"preset": "contrastive"},
    "contrastive features": {"preset": "contrastive", "contrastive__negatives": "features"},
    "overshooting": {"preset": "overshooting", "loss__overshooting": 3, "loss__free_nats": 0.5},
    "kl_balance": {"preset": "kl_balance", "loss__free_nats": 0.0},
    "disagreement": {"disagreement__until": 100},
    "planner": {"preset": "planet", "planner__returns": "lambda", "behavior__value": True},
    "score": {"preset": "score", "act_space": ONEHOT, "discount__enabled": True},
    "predictions ahead": {"preset": "deterministic_only", "loss__overshooting": 3},
    "v2": {"preset": "v2_atari", "act_space": ONEHOT, **RECIPE_SIZES},
    "v3": {"preset": "v3", **RECIPE_SIZES},
    "start states": {},
    "replayed values": {
        "value__replay_scale": 0.3, "value__slow_rate": 0.1, "value__slow_role": "pull",
        "actor__gradient": "score", "discount__enabled": True,
    },
}


def variants() -> dict[str, Any]:
    """Every objective that takes something of the batch as a whole, or draws noise."""
    found = {}
    for name, settings in VARIANTS.items():
        space = settings.get("act_space", CONTINUOUS)
        batch = uneven(act_space=space)
        exploring = name == "disagreement"
        if name == "start states":  # metrics then have the posterior states of the whole batch
            batch["latent"] = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
        one, two = (gradients_on(agent, batch, exploring) for agent in pair(**settings))
        found[name] = worst(one, two)
    return found


def statistics() -> dict[str, Any]:
    """Scales of inputs, rewards and returns; slow copies; LaProp with all that it has besides."""
    one, two = pair(
        inputs__normalize=True, reward__transform="normalize", behavior__normalize="percentile",
        value__slow_rate=0.3, behavior__after=1, loss__free_nats=0.0, optimizer__algorithm="laprop",
        optimizer__warmup=2, optimizer__adaptive_clip=0.3, optimizer__weight_decay=0.1,
        optimizer__shared=True, value__slow_every=2, value__replay_scale=0.3,
    )  # fmt: skip
    for number in range(3):
        batch = uneven(seed=number)
        one.train_step(batch, number)
        two.train_step(batch, number)
    found = worst(one.state_arrays(), two.state_arrays())
    return {"worst": found, "copies_differ": copies_differ(two)}


if __name__ == "__main__":
    checks = (updates, clipping, free_nats, variants, statistics)
    print(json.dumps({check.__name__: check() for check in checks}))
