"""Representation losses: the contrastive term, and decoders that train no other part."""

import importlib
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_agent import VECTORS, make_agent, make_batch, shared_model, tensors
from whole_runs import additions

from dreamer.agent import representation
from dreamer.config.schema import add_configs
from dreamer.errors import UserError
from dreamer.nets.layer_style import PUBLISHED

B, T = 3, 6
WITHOUT = ("contrastive", "reward_only")


def model_and_batch(representation: str, **overrides):
    model = shared_model(loss__representation=representation, **overrides)
    batch = tensors(make_batch())
    return model, batch, tf.random.stateless_normal([B, T, model.noise_size], [0, 1])


def normal_log_prob(x, mean, std) -> float:
    parts = -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * math.log(2 * math.pi)
    return parts.sum()


@pytest.mark.parametrize("kind", ["full", "deterministic_only"])
@pytest.mark.parametrize("negatives", ["observations", "features"])
def test_contrastive_loss_is_the_literal_loop(negatives: str, kind: str) -> None:
    window = {"contrastive__batch_shifts": 2, "contrastive__time_shifts": 4}
    model, batch, noise = model_and_batch(
        "contrastive", contrastive__negatives=negatives, rssm__kind=kind, **window
    )
    _, _, metrics = model.loss(batch, noise)
    obs = model.preprocess({k: batch[k] for k in model.inputs})
    feat = model.rssm.feat(model.rssm.head_state(*model.observe(batch, noise)))
    feat = feat.numpy().astype(np.float64)
    losses = []
    for b in range(B):
        for t in range(T):
            terms = []
            for i in range(2):
                for j in range(4):
                    other = ((b - i) % B, (t - j) % T)
                    seen, state = ((b, t), other) if negatives == "features" else (other, (b, t))
                    row = {k: v[seen][None] for k, v in obs.items()}
                    mean, std = (x.numpy()[0] for x in model.representation(model.embed(row)))
                    terms.append(normal_log_prob(feat[state], mean, std))
            losses.append(np.log(np.sum(np.exp(terms))) - terms[0])
    np.testing.assert_allclose(metrics["contrastive_loss"], np.mean(losses), rtol=1e-4)


def gradients(model, loss_of) -> dict[str, bool]:
    """By the model's parts: whether the loss has a gradient for every one of their variables."""
    with tf.GradientTape() as tape:
        loss = loss_of()
    variables = model.trainable_variables
    found: dict[str, list[bool]] = {}
    for variable, g in zip(variables, tape.gradient(loss, variables), strict=True):
        part = variable.path.split("/")[1]
        found.setdefault(part, []).append(g is not None and bool(np.any(g)))
    return {part: all(each) if any(each) else False for part, each in found.items()}


def test_the_contrastive_term_teaches_encoder_rssm_and_head() -> None:
    model, batch, noise = model_and_batch("contrastive")

    def term():
        return model.loss(batch, noise)[2]["contrastive_loss"]

    found = gradients(model, term)
    assert found["encoder"] and found["contrastive"]
    assert not found["decoder"] and not found["reward"]
    with tf.GradientTape() as tape:
        loss = term()
    assert np.any(tape.gradient(loss, model.rssm._transition.gru.kernel.value))


@pytest.mark.parametrize("representation", WITHOUT)
def test_the_decoder_learns_and_nothing_learns_from_it(representation: str) -> None:
    model, batch, noise = model_and_batch(representation)

    def watching():
        _, _, metrics = model.loss(batch, noise)
        return sum(metrics[f"{key}_loss"] for key in VECTORS)

    found = gradients(model, watching)
    assert found.pop("decoder") and not any(found.values())
    decoder = {id(v) for v in model.decoder.trainable_variables}
    assert {id(v) for v in model.diagnostic_variables} == decoder


@pytest.mark.parametrize("representation", WITHOUT)
def test_what_is_differentiated_and_what_is_reported(representation: str) -> None:
    """The loss has the decoder's own; model_loss and all else are the same without any decoder."""
    model, batch, noise = model_and_batch(representation, loss__free_nats=0.0)
    total, _, metrics = model.loss(batch, noise)
    terms = {"reward_loss", "kl_loss"} | {"contrastive_loss"} & set(metrics)
    assert ("contrastive_loss" in terms) == (representation == "contrastive")
    learnt = sum(float(metrics[name]) for name in terms)
    np.testing.assert_allclose(metrics["model_loss"], learnt, rtol=1e-5)
    shown = sum(float(metrics[f"{key}_loss"]) for key in VECTORS)
    np.testing.assert_allclose(total, learnt + shown, rtol=1e-5)
    found = gradients(model, lambda: model.loss(batch, noise)[0])
    assert all(found.values())  # nothing is left without a gradient
    bias = model.decoder.trainable_variables[-1]
    bias.assign_add([9.0] * 5)
    changed = model.loss(batch, noise)[2]
    bias.assign_add([-9.0] * 5)
    np.testing.assert_array_equal(changed["model_loss"], metrics["model_loss"])


def test_reconstruction_has_no_diagnostics() -> None:
    model, batch, noise = model_and_batch("reconstruction")
    total, _, metrics = model.loss(batch, noise)
    assert model.diagnostic_variables == []
    np.testing.assert_array_equal(total, metrics["model_loss"])


def test_a_loss_from_outside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, added_configs: None
) -> None:
    """CONTRIBUTING's example, with its own config key, is a term of the loss that learns."""
    loss, *_, defaults, _ = additions()
    (tmp_path / "mean_feature.py").write_text(loss, encoding="utf-8")
    (tmp_path / "defaults.yaml").write_text(defaults, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(representation, "_FACTORIES", dict(representation._FACTORIES))
    add_configs(tmp_path)
    factory = importlib.import_module("mean_feature").MeanFeature
    representation.register_representation("mean_feature", factory)
    terms = []
    for scale in (1.0, 3.0):
        chosen = {"loss__representation": "mean_feature", "loss__free_nats": 0.0}
        model = make_agent(**chosen, mean_feature__scale=scale).world_model
        batch, noise = tensors(make_batch()), tf.zeros([B, T, model.noise_size])
        terms.append(float(model.loss(batch, noise)[2]["mean_feature_loss"]))
    assert terms[1] == pytest.approx(3.0 * terms[0], rel=1e-5) and terms[0] > 0.0
    assert all(gradients(model, lambda: model.loss(batch, noise)[0]).values())


def test_an_unknown_representation_loss_is_refused() -> None:
    with pytest.raises(UserError, match="'contrastiv'; registered are .*reward_only"):
        policy = keras.DTypePolicy("float32")
        representation.make_representation("contrastiv", 4, {}, policy, PUBLISHED)


def test_an_update_of_the_rest_is_the_same_whatever_the_decoder_shows() -> None:
    """Not even by the global norm does the decoder reach the others."""
    batch, found = tensors(make_batch()), []
    for offset in (0.0, 1e4):  # the decoder's gradient is then far above the clipping norm
        agent = make_agent(loss__representation="reward_only", optimizer__clip=1.0)
        model, optimizer = agent.world_model, agent._learner.optimizers["model"]
        model.decoder.trainable_variables[-1].assign_add([offset] * 5)
        with tf.GradientTape() as tape:
            loss, _, _ = model.loss(batch, tf.zeros([B, T, model.noise_size]))
        report = optimizer.apply(tape.gradient(loss, model.trainable_variables))
        slots = {k: v.numpy() for k, v in optimizer.state.items() if "decoder" not in k}
        found.append({**slots, "norm": report["grad_norm"].numpy()})
    assert any("momentum" in name for name in found[0])
    for name, value in found[0].items():
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)
