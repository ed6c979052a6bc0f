"""The representation loss term by term against NumPy, and which observations it takes."""

import math

import numpy as np
import pytest
import tensorflow as tf
from small_agent import CONTINUOUS, IMAGE, VECTORS, make_agent, make_batch, shared_model, tensors

from dreamer.agent.world_model import WorldModel
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.nets.encoder import matching_keys

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def noise_for(model: WorldModel, batch, seed: int = 0) -> tf.Tensor:
    return tf.random.stateless_normal([*batch["reward"].shape, model.rssm.stoch_size], [seed, 1])


def test_loss_terms_are_mean_negative_log_likelihoods() -> None:
    batch = make_batch(VECTORS)
    model = shared_model(discount__enabled=True, behavior__gamma=0.9, decoder__scale=2.0)
    noise = noise_for(model, batch)
    total, post, metrics = model.loss(tensors(batch), noise)
    feat = tf.reshape(model.rssm.feat(post), [-1, model.rssm.feat_size])
    means = model.decoder(feat)
    for key, space in VECTORS.items():
        squares = ((batch[key].reshape(18, -1) - means[key].numpy()) ** 2).sum(-1)
        expected = 2.0 * (0.5 * squares + space.shape[0] * HALF_LOG_2PI).mean()
        np.testing.assert_allclose(metrics[f"{key}_loss"], expected, rtol=1e-5)
    squares = (batch["reward"].reshape(18) - model.reward(feat).numpy()) ** 2
    expected = (0.5 * squares + HALF_LOG_2PI).mean()
    np.testing.assert_allclose(metrics["reward_loss"], expected, rtol=1e-5)
    p, target = model.discount(feat).numpy(), 0.9 * batch["cont"].reshape(18)
    bernoulli = target * np.log(p) + (1 - target) * np.log(1 - p)
    np.testing.assert_allclose(metrics["discount_loss"], -10.0 * bernoulli.mean(), rtol=1e-4)
    terms = ("joints_loss", "speed_loss", "reward_loss", "discount_loss", "kl_loss")
    np.testing.assert_allclose(total, sum(float(metrics[t]) for t in terms), rtol=1e-6)
    np.testing.assert_array_equal(total, metrics["model_loss"])


def test_tanh_rewards_are_learnt_and_compared_as_such() -> None:
    batch = make_batch()
    batch["reward"] *= 5.0
    raw = batch["reward"].copy()
    model = shared_model(reward__transform="tanh")
    noise = noise_for(model, batch)
    _, post, metrics = model.loss(tensors(batch), noise)
    means = model.reward(tf.reshape(model.rssm.feat(post), [18, -1])).numpy()
    expected = (0.5 * (np.tanh(raw).reshape(18) - means) ** 2 + HALF_LOG_2PI).mean()
    np.testing.assert_allclose(metrics["reward_loss"], expected, rtol=1e-5)
    truth, _ = model.open_loop(tensors(batch), 3, noise)
    np.testing.assert_allclose(truth["reward"], np.tanh(raw), rtol=1e-5)
    np.testing.assert_array_equal(batch["reward"], raw)


def test_entropies_are_those_of_the_latents() -> None:
    batch = tensors(make_batch())
    model = shared_model()
    noise = noise_for(model, batch)
    post, prior = model.observe(batch, noise)
    _, _, metrics = model.loss(batch, noise)
    for name, state in (("post_entropy", post), ("prior_entropy", prior)):
        expected = (np.log(state["std"]) + 0.5 + HALF_LOG_2PI).sum(-1).mean()
        np.testing.assert_allclose(metrics[name], expected, rtol=1e-4)


def test_preprocessing() -> None:
    model = shared_model()
    image = np.uint8([0, 51, 255])
    state = np.float64([0.0, 51.0, -3.0])
    result = model.preprocess({"image": tf.constant(image), "state": tf.constant(state)})
    np.testing.assert_allclose(result["image"], [-0.5, -0.3, 0.5], atol=1e-7)
    np.testing.assert_array_equal(result["state"], state)
    assert {v.dtype for v in result.values()} == {tf.float32}


def test_every_part_learns_from_the_loss() -> None:
    space = {**VECTORS, **IMAGE}
    batch = tensors(make_batch(space, size=2, length=4))
    model = shared_model(space, discount__enabled=True, loss__free_nats=0.0)
    with tf.GradientTape() as tape:
        total, _, _ = model.loss(batch, noise_for(model, batch))
    gradients = tape.gradient(total, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None and np.any(gradient), variable.path


def test_open_loop_filters_its_context_and_then_sees_nothing() -> None:
    batch, context = make_batch(), 3
    batch["is_first"][:] = False
    model = shared_model()
    noise = noise_for(model, batch)
    truth, expected = model.open_loop(tensors(batch), context, noise)
    for key in VECTORS:
        np.testing.assert_array_equal(truth[key], batch[key])
    np.testing.assert_array_equal(truth["reward"], batch["reward"])

    post, _ = model.observe(tensors(batch), noise)  # of the whole sequence
    feat = model.rssm.feat(post)[:, :context]
    np.testing.assert_allclose(
        expected["joints"][:, :context],
        model.decoder(tf.reshape(feat, [-1, feat.shape[-1]]))["joints"].numpy().reshape(3, 3, 4),
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip
    state = {k: v[:, context - 1] for k, v in post.items()}
    for t in range(context, 6):
        state = model.rssm.imagine_step(state, batch["action"][:, t], noise[:, t])
        feat = model.rssm.feat(state)
        joints = model.decoder(feat)["joints"]
        np.testing.assert_allclose(expected["joints"][:, t], joints, rtol=1e-4, atol=1e-6)
        reward = model.reward(feat)
        np.testing.assert_allclose(expected["reward"][:, t], reward, rtol=1e-4, atol=1e-6)

    for key in (*VECTORS, "reward"):
        batch[key][:, context:] += 1.0  # neither later observations nor rewards are seen
    _, same = model.open_loop(tensors(batch), context, noise)
    for key, value in expected.items():
        np.testing.assert_array_equal(same[key], value)
    batch["joints"][:, context - 1] += 1.0
    _, other = model.open_loop(tensors(batch), context, noise)
    assert not np.allclose(other["joints"][:, context:], expected["joints"][:, context:])


def test_keys_match_whole_names() -> None:
    shapes = {"image": (64, 64, 3), "image_depth": (64, 64, 1), "joints": (3,)}
    assert set(matching_keys("encoder", "image", shapes)) == {"image"}
    assert set(matching_keys("encoder", "image.*", shapes)) == {"image", "image_depth"}
    assert set(matching_keys("encoder", ".*", shapes)) == set(shapes)


@pytest.mark.parametrize(("pattern", "message"), [
    ("[", r"encoder.keys '\[' is not a regular expression"),
    ("lidar", "encoder.keys 'lidar' matches none of image, wide"),
    ("wide", r"wide has shape \[84, 84, 3\]; choose other observations with encoder.keys"),
])  # fmt: skip
def test_bad_keys_are_the_users_to_mend(pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        matching_keys("encoder", pattern, {"image": (64, 64, 3), "wide": (84, 84, 3)})


@pytest.mark.parametrize("shape", [(64, 64), (), (64, 64, 3, 2), (3, 64, 64)])
def test_what_is_no_vector_and_no_image_is_refused(shape: tuple[int, ...]) -> None:
    space = {"odd": Space(shape, np.dtype(np.float32)), **VECTORS}
    message = r"encoder takes images \[64, 64, channels\] and vectors \[size\], but odd has shape"
    with pytest.raises(UserError, match=message):
        make_agent(space, CONTINUOUS)


@pytest.mark.parametrize("name", ["kl", "contrastive", "overshooting", "model"])
def test_an_observation_that_would_lose_its_loss_is_refused(name: str) -> None:
    spaces = {**VECTORS, name: VECTORS["speed"]}
    contrastive = {"loss__representation": "contrastive"}
    with pytest.raises(UserError, match=f"named '{name}', and so is a loss .* with decoder.keys"):
        shared_model(spaces, **contrastive)
    assert name in shared_model(spaces, decoder__keys="speed", **contrastive).inputs


def test_encoder_and_decoder_choose_apart() -> None:
    model = shared_model(encoder__keys="joints", decoder__keys="speed")
    assert set(model.inputs) == {"joints"} and set(model.targets) == {"speed"}
    batch = make_batch()
    _, _, metrics = model.loss(tensors(batch), noise_for(model, batch))
    assert "speed_loss" in metrics and "joints_loss" not in metrics
