"""Sequences that start from a latent state of the replay instead of zeros."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from small_agent import BOTH, CONTINUOUS, ONEHOT, VECTORS, make_agent, make_batch, update

from dreamer.config.config import load_config
from dreamer.data.latent_memory import LatentMemory
from dreamer.data.replay import Replay
from dreamer.errors import UserError
from dreamer.ops.seeds import Purpose, make_seeds

pytestmark = pytest.mark.usefixtures("eagerly")


def with_latent(agent, batch, seed: int = 0):
    size = agent.world_model.rssm.feat_size
    latent = np.random.default_rng(seed).normal(size=(len(batch["reward"]), size))
    return batch | {"latent": latent.astype(np.float32)}


@pytest.mark.parametrize("kind", ["full", "stochastic_only", "categories"])
def test_filtering_goes_on_where_it_stopped(kind: str) -> None:
    """Two halves, the second from the first one's last state, are the whole; is_first resets."""
    settings = {"rssm__classes": 4} if kind == "categories" else {"rssm__kind": kind}
    agent = make_agent(loss__overshooting=2, **settings)
    model, batch = agent.world_model, make_batch(length=8)
    tensors = {k: tf.constant(v) for k, v in batch.items()}
    noise = tf.random.stateless_normal([3, 8, model.noise_size], [1, 2])
    loss, post, _ = model.loss(tensors, noise)
    assert np.isfinite(loss)
    halves = [{k: v[:, i : i + 4] for k, v in tensors.items()} for i in (0, 4)]
    first = model.loss(halves[0], noise[:, :4])[1]
    latent = model.rssm.feat(first)[:, -1]
    second = model.loss(halves[1] | {"latent": latent}, noise[:, 4:])[1]
    for key, whole in post.items():
        joined = np.concatenate([first[key], second[key]], 1)
        np.testing.assert_allclose(joined, whole, rtol=1e-4, atol=1e-5)
    assert batch["is_first"][0, 0] and not batch["is_first"][2, 0]
    moved = model.loss(tensors | {"latent": 1.0 + tf.zeros_like(latent)}, noise)[1]
    np.testing.assert_array_equal(moved["stoch"][0], post["stoch"][0])
    assert np.abs(np.subtract(moved["stoch"][2], post["stoch"][2])).max() > 1e-3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_update_returns_the_posterior_states(precision: str) -> None:
    agent, probe = (make_agent(precision=precision, loss__free_nats=0.0) for _ in range(2))
    batch = with_latent(agent, make_batch())
    metrics = update(agent, batch)  # all of them numbers
    assert "model_loss" in metrics and "latents" not in metrics
    noise = tf.random.stateless_normal([3, 6, 4], make_seeds(0, Purpose.LATENT, tf.constant(0))[0])
    post = probe.world_model.loss({k: tf.constant(v) for k, v in batch.items()}, noise)[1]
    assert agent.latents is not None and agent.latents.dtype == tf.float32
    np.testing.assert_allclose(agent.latents, probe.world_model.rssm.feat(post), atol=1e-5)
    update(agent, make_batch(), 1)
    assert agent.latents is None


def test_zeros_are_what_no_state_is() -> None:
    batch = make_batch(VECTORS, ONEHOT)
    plain, zeros = (make_agent(VECTORS, ONEHOT) for _ in range(2))
    none = np.zeros((3, zeros.world_model.rssm.feat_size), np.float32)
    assert update(plain, batch) == update(zeros, batch | {"latent": none})


def test_the_state_has_no_gradient_to_pass_and_a_checked_shape() -> None:
    agent = make_agent(BOTH)
    batch = make_batch(BOTH)
    with pytest.raises(ValueError, match=r"latent should have shape \[3, 20\]"):
        agent.train_step(batch | {"latent": np.zeros((3, 19), np.float32)}, 0)


def test_updates_from_a_replay_repeat_bit_for_bit(tmp_path: Path) -> None:
    """Whatever the prefetching; and they differ from those that start from zeros."""

    agent = make_agent()
    size, begun = agent.world_model.rssm.feat_size, agent.state_arrays()
    begun = {name: value.copy() for name, value in begun.items()}

    def learn(prefetch: int, stored: bool) -> dict[str, np.ndarray]:
        agent.load_arrays(begun)
        replay = Replay(
            tmp_path, cache_bytes=0, seed=0, obs_space=VECTORS, act_space=CONTINUOUS,
            latents=LatentMemory(1e6, size) if stored else None,
        )  # fmt: skip
        if not len(replay):
            rows = make_batch(size=2, length=12)
            for number in range(2):
                episode = {k: v[number].copy() for k, v in rows.items()}
                for flag in ("is_first", "is_last", "is_terminal"):
                    episode[flag][:] = False
                episode["is_first"][0] = episode["is_last"][-1] = True
                episode["cont"][:] = 1.0
                episode["action"][0] = episode["reward"][0] = 0.0
                replay.add(episode, f"0-{number:06d}")
        batches = replay.batches(0, 4, 3, 5, prefetch, lambda: np.asarray(agent.latents))
        seen = 0.0
        for number, batch in enumerate(batches):
            update(agent, batch, number)
            seen += float(np.abs(batch.get("latent", 0.0)).sum())
        assert (seen > 0) == stored
        return {name: value.copy() for name, value in agent.state_arrays().items()}

    zeros, first, again = learn(1, False), learn(1, True), learn(3, True)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    assert any(not np.array_equal(value, zeros[name]) for name, value in first.items())


def test_deterministic_only_is_refused() -> None:
    values = {"replay.latents": "stored"}
    with pytest.raises(UserError, match=r"replay\.latents is stored, but the heads of rssm\.kind"):
        load_config("deterministic_only", overrides=values)
    for agent in ("d4pg", "dqn", "a3c", "random"):
        with pytest.raises(UserError, match=r"replay\.latents"):
            load_config(agent=agent, overrides=values)
    for agent in ("planet", "latent_sac"):
        assert load_config(agent=agent, overrides=values).replay.latents == "stored"
