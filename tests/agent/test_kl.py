"""The KL terms: balancing by its gradients, overshooting against one path at a time."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from small_agent import make_agent, make_batch, shared_model, tensors

from dreamer.agent.kl import KLLoss, features_ahead
from dreamer.errors import UserError

SETTINGS = {
    "kl_scale": 1.0, "free_nats": 0.0, "free_nats_per_step": False, "kl_balance": 0.0,
    "overshooting": 1, "overshooting_scale": 1.0,
}  # fmt: skip


def kl_loss(**settings) -> KLLoss:
    return KLLoss(**{**SETTINGS, **settings})


def model_of(**overrides):
    return shared_model(**{f"loss__{k}": v for k, v in overrides.items()})


def filtered(model, batch, noise):
    return model.observe(tensors(batch), noise[..., : model.rssm.stoch_size])


def normals(shape, seed: int = 0) -> tf.Tensor:
    return tf.random.stateless_normal(shape, [seed, 7])


def kl_of(post: dict, prior: dict) -> np.ndarray:
    """KL(post || prior) in nats between the Normals of states, in float64."""
    m, s, n, r = (np.array(x[k], np.float64) for x in (post, prior) for k in ("mean", "std"))
    return (np.log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - 0.5).sum(-1)


def gradients(terms: KLLoss, states) -> tuple[float, list[np.ndarray]]:
    """KL term, and its gradients by the posterior's and the prior's mean and std."""
    model, post, prior = states
    sources = [state[k] for state in (post, prior) for k in ("mean", "std")]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        losses, _ = terms.losses(model.rssm, post, prior, {}, None)
    return float(losses["kl_loss"]), [g.numpy() for g in tape.gradient(losses["kl_loss"], sources)]


@pytest.fixture(scope="module")
def states():
    model, batch = model_of(), make_batch()
    post, prior = filtered(model, batch, normals([3, 6, model.rssm.stoch_size]))
    return model, post, prior


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("alpha", [0.8, 0.5, 1.0])
def test_balancing_shares_the_gradient_and_keeps_the_value(states, alpha, per_step) -> None:
    plain = {"kl_scale": 0.3, "free_nats_per_step": per_step, "free_nats": 1e-3}
    value, ordinary = gradients(kl_loss(**plain), states)
    same, balanced = gradients(kl_loss(**plain, kl_balance=alpha), states)
    np.testing.assert_allclose(same, value, rtol=1e-5)
    for i, (part, whole) in enumerate(zip(balanced, ordinary, strict=True)):
        share = 1.0 - alpha if i < 2 else alpha
        np.testing.assert_allclose(part, share * whole, rtol=1e-4, atol=1e-7)
        assert np.any(whole)


def test_dreamer_v3s_two_losses_are_a_scale_and_a_balance(states) -> None:
    """mean 1.0 max(f, KL(stop(post) || prior)) + 0.1 max(f, KL(post || stop(prior))) of arXiv
    2301.04104 has the gradient of kl_scale 1.1 and kl_balance 1/1.1 with free nats per step."""
    model, post, prior = states
    free = float(np.median(kl_of(post, prior)))
    scaled = kl_loss(kl_scale=1.1, kl_balance=0.90909, free_nats=free, free_nats_per_step=True)
    value, found = gradients(scaled, states)
    sources = [state[k] for state in (post, prior) for k in ("mean", "std")]

    def kl(post: dict, prior: dict) -> tf.Tensor:
        return tfp.distributions.kl_divergence(model.rssm.dist(post), model.rssm.dist(prior))

    with tf.GradientTape() as tape:
        tape.watch(sources)
        stopped = [{k: tf.stop_gradient(v) for k, v in state.items()} for state in (post, prior)]
        dynamics = tf.maximum(free, kl(stopped[0], prior))
        representation = tf.maximum(free, kl(post, stopped[1]))
        loss = tf.reduce_mean(1.0 * dynamics + 0.1 * representation)
    for mine, theirs in zip(found, tape.gradient(loss, sources), strict=True):
        assert np.any(mine) and not np.all(mine)
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-8)
    assert value + 1.1 * free == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999, 1.001, 3.0])
def test_free_nats(states, per_step: bool, share: float) -> None:
    """On the batch's mean max(mean KL, free); per step, as TF1, mean max(0, KL - free). What is
    below them does not pull."""
    kl = kl_of(*states[1:])
    free = share * kl.mean()
    terms = kl_loss(kl_scale=0.7, free_nats=free, free_nats_per_step=per_step)
    value, pulls = gradients(terms, states)
    expected = np.maximum(kl - free, 0.0).mean() if per_step else max(kl.mean(), free)
    np.testing.assert_allclose(value, 0.7 * expected, rtol=1e-4, atol=1e-6)
    above = kl > free if per_step else np.full(kl.shape, share < 1)
    for pull in pulls:
        np.testing.assert_array_equal(np.abs(pull).sum(-1) > 0, above)


def test_balanced_kl_below_the_free_nats_pulls_nothing(states) -> None:
    _, pulls = gradients(kl_loss(kl_balance=0.8, free_nats=1e3), states)
    assert not any(np.any(pull) for pull in pulls)


def literal_overshooting(model, batch, noise, distance: int) -> list[list[float]]:
    """KL(posterior at t || prior at t from d steps before), for each d a list, one path at a time.

    Row by row, step by step; a path starts at a posterior, or at zeros before a sequence or an
    episode, and does not cross the beginning of an episode.
    """
    rssm, (size, length) = model.rssm, batch["reward"].shape
    s = rssm.stoch_size
    post, _ = filtered(model, batch, noise)
    further = noise.numpy()[..., s:].reshape(size, length, distance - 1, s)
    found: list[list[float]] = [[] for _ in range(distance + 1)]
    for b in range(size):
        for d in range(1, distance + 1):
            for t in range(d - 1, length):
                first = t - d + 1  # of the d times that are predicted
                if any(batch["is_first"][b, u] for u in range(first + 1, t + 1)):
                    continue
                state = rssm.initial(1)
                if first > 0 and not batch["is_first"][b, first]:
                    state = {k: v[b : b + 1, first - 1] for k, v in post.items()}
                for i, u in enumerate(range(first, t + 1)):
                    eps = further[b, u, i][None] if u < t else np.zeros((1, s), np.float32)
                    on = 0.0 if batch["is_first"][b, u] else 1.0
                    action = on * batch["action"][b, u][None]
                    state = rssm.imagine_step(state, tf.constant(action, tf.float32), eps)
                found[d].append(kl_of({k: v[b, t] for k, v in post.items()}, state)[0])
    return found[1:]


@pytest.mark.parametrize("kind", ["full", "stochastic_only"])
@pytest.mark.parametrize("per_step", [False, True])
def test_overshooting_is_the_literal_sum(kind: str, per_step: bool) -> None:
    distance, batch, free = 4, make_batch(), 0.05
    overrides = {"loss__overshooting": distance, "loss__overshooting_scale": 0.7,
                 "loss__kl_scale": 0.4, "loss__free_nats": free, "rssm__kind": kind,
                 "loss__free_nats_per_step": per_step}  # fmt: skip
    model = shared_model(**overrides)
    assert model.noise_size == distance * model.rssm.stoch_size
    noise = normals([3, 6, model.noise_size])
    _, _, metrics = model.loss(tensors(batch), noise)
    kls = literal_overshooting(model, batch, noise, distance)
    # Row 1 begins anew at time 3: of its 6, 5, 4, 3 starts some would cross that.
    assert [len(kl) for kl in kls] == [18, 14, 10, 6]
    clipped = [
        np.maximum(np.array(kl) - free, 0).sum() / 18 if per_step
        else max(np.mean(kl), free) * len(kl) / 18
        for kl in kls
    ]  # fmt: skip
    np.testing.assert_allclose(metrics["kl_loss"], 0.4 / 4 * clipped[0], rtol=1e-4)
    expected = 0.7 * 0.4 / 4 * sum(clipped[1:])
    np.testing.assert_allclose(metrics["overshooting_loss"], expected, rtol=1e-4)
    further = np.concatenate(kls[1:]).mean()
    np.testing.assert_allclose(metrics["overshooting_kl"], further, rtol=1e-4)
    total = sum(float(v) for k, v in metrics.items() if k.endswith("_loss") and k != "model_loss")
    np.testing.assert_allclose(metrics["model_loss"], total, rtol=1e-5)


def overshooting_loss(model, post, prior, batch) -> tf.Tensor:
    terms = kl_loss(overshooting=3)
    noise = normals([3, 6, 2 * model.rssm.stoch_size])
    return terms.losses(model.rssm, post, prior, batch, noise)[0]["overshooting_loss"]


def test_predictions_are_trained_towards_posteriors_and_not_the_other_way_around(states) -> None:
    model, post, prior = states
    batch = tensors(make_batch())
    with tf.GradientTape() as tape:
        sources = [post["mean"], post["std"], prior["mean"], prior["std"]]
        tape.watch(sources)
        loss = overshooting_loss(model, post, prior, batch)
    by_post_mean, by_post_std, by_prior_mean, by_prior_std = tape.gradient(loss, sources)
    assert by_post_mean is None and by_post_std is None
    assert np.any(by_prior_mean) and np.any(by_prior_std)


def test_posterior_and_encoder_are_trained_by_what_is_predicted_from_them() -> None:
    """In the whole model: through the samples that predictions start from, alone."""
    model = model_of(overshooting=3, free_nats=0.0)
    batch = tensors(make_batch())
    with tf.GradientTape(persistent=True) as tape:
        _, _, metrics = model.loss(batch, normals([3, 6, model.noise_size]))
    rssm, loss = model.rssm, metrics["overshooting_loss"]
    for part in (model.encoder, rssm._post_hidden, rssm._post_stats, rssm._prior_stats):
        found = tape.gradient(loss, [v.value for v in part.trainable_variables])
        assert all(np.any(gradient) for gradient in found)
    assert not any(tape.gradient(loss, [v.value for v in model.reward.trainable_variables]))


def test_one_step_is_dreamers_term_alone(states) -> None:
    model, post, prior = states
    losses, metrics = kl_loss().losses(model.rssm, post, prior, {}, None)
    assert set(losses) == {"kl_loss"} and "overshooting_kl" not in metrics
    np.testing.assert_allclose(metrics["kl"], kl_of(post, prior).mean(), rtol=1e-4)
    assert model.noise_size == model.rssm.stoch_size


def test_without_a_latent_there_is_no_kl() -> None:
    model = shared_model(rssm__kind="deterministic_only")
    batch = tensors(make_batch())
    assert model.noise_size == 0
    _, _, metrics = model.loss(batch, tf.zeros([3, 6, 0]))
    assert not [name for name in metrics if "kl" in name or "entropy" in name]


def test_without_a_latent_the_heads_learn_from_predictions_over_drawn_distances() -> None:
    """Each timestep's prediction is rolled out by itself, from the posterior that it begins at."""
    steps, batch = 4, make_batch()
    model = shared_model(rssm__kind="deterministic_only", loss__overshooting=steps)
    rssm, (size, length) = model.rssm, batch["reward"].shape
    noise = normals([size, length, model.noise_size])
    post, _ = model.observe(tensors(batch), tf.zeros([size, length, 0]))
    errors, used = [], set()
    for b in range(size):
        for t in range(length):
            uniform = 0.5 * (1.0 + math.erf(float(noise[b, t, 0]) / math.sqrt(2.0)))
            began = max([0, *(u for u in range(t + 1) if batch["is_first"][b, u])])
            distance = min(1 + int(steps * uniform), t + 1 - began)
            first, state = t + 1 - distance, rssm.initial(1)
            if first > began:
                state = {k: v[b : b + 1, first - 1] for k, v in post.items()}
            for u in range(first, t + 1):
                action = tf.constant(batch["action"][b : b + 1, u])
                state = rssm.imagine_step(state, action, tf.zeros([1, 0]))
            errors.append(float(model.reward(rssm.feat(state))[0]) - batch["reward"][b, t])
            used.add(distance)
    assert used == {1, 2, 3, 4}
    expected = 0.5 * np.square(errors).mean() + 0.5 * np.log(2 * np.pi)
    _, states, metrics = model.loss(tensors(batch), noise)
    np.testing.assert_allclose(metrics["reward_loss"], expected, rtol=1e-5)
    for key, value in post.items():  # what behaviour starts from is filtered as ever
        np.testing.assert_array_equal(states[key], value)


def test_without_a_latent_predictions_far_ahead_train_transition_and_posterior() -> None:
    model = shared_model(rssm__kind="deterministic_only", loss__overshooting=3)
    rssm, batch = model.rssm, tensors(make_batch())
    with tf.GradientTape(persistent=True) as tape:
        _, prior = model.observe(batch, tf.zeros([3, 6, 0]))
        draws = (tf.fill([3, 6, 1], x) for x in (-9.0, 9.0))
        near, far = (features_ahead(rssm, prior, batch, x, 3) for x in draws)
        losses = [tf.reduce_sum(feat[2, 2:]) for feat in (near, far)]
    np.testing.assert_array_equal(near, rssm.feat(prior))
    assert np.all(np.any(near[2, 1:] != far[2, 1:], axis=-1))
    for part in (model.encoder, rssm._post_gru, rssm._transition):
        for loss in losses:
            found = tape.gradient(loss, [v.value for v in part.trainable_variables])
            assert all(np.any(gradient) for gradient in found)


@pytest.mark.parametrize(("key", "value"), [("overshooting_scale", 0.5), ("kl_balance", 0.8)])
def test_settings_of_a_kl_that_is_not_there_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"loss.{key} is {value}, but rssm.kind deterministic_only"):
        make_agent(rssm__kind="deterministic_only", **{f"loss__{key}": value})
