"""n-step transitions and draws by mass against slow versions; a full ring, and priorities."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.memory import EPSILON, Transitions, draw
from baselines.observations import Observations
from dreamer.envs.spec import Space

GAMMA = 0.9
VECTOR = {"vector": Space((1,), np.dtype(np.float32))}
IMAGE = {"image": Space((64, 64, 3), np.dtype(np.uint8), 0, 255)}


def episode(number: int, length: int, terminal: bool) -> dict[str, np.ndarray]:
    """Every number in it tells the episode and the time."""
    time = np.arange(length)
    code = (100 * number + time).astype(np.float32)
    cont = np.ones(length, np.float32)
    cont[-1] = 0.0 if terminal else 1.0
    image = np.broadcast_to((code[:, None, None, None] % 250), (length, 64, 64, 3))
    return {
        "vector": code[:, None], "image": image.astype(np.uint8), "action": -code[:, None],
        "reward": np.where(time > 0, code / 7, 0).astype(np.float32), "cont": cont,
    }  # fmt: skip


def memory(n=3, capacity=1000, space=VECTOR, frames=1, **options) -> Transitions:
    options = {"alpha": 0.0, "beta": 1.0, "seed": 0, "n": n, "gamma": GAMMA, **options}
    obs = Observations(space, frames, gray=False)
    return Transitions(observations=obs, actions=1, capacity=capacity, **options)


def slow(code: float, episodes: dict[int, dict[str, np.ndarray]], n: int):
    """Action, return, factor and end of the transition from a timestep, by the definition."""
    number, t = int(code) // 100, int(code) % 100
    e = episodes[number]
    total, discount, k = 0.0, 1.0, 0
    while k < n and t + k < len(e["reward"]) - 1:
        k += 1
        total += discount * e["reward"][t + k]
        discount *= GAMMA
    return e["action"][t + 1, 0], total, discount * e["cont"][t + k], e["vector"][t + k, 0]


def check(batch: dict[str, np.ndarray], episodes: dict[int, dict[str, np.ndarray]], n: int):
    """Asserts that every transition of a batch is the one that begins at its timestep."""
    for place in np.ndindex(batch["return"].shape):
        action, total, factor, end = slow(batch["vector"][place][0], episodes, n)
        assert batch["action"][place][0] == action and batch["next_vector"][place][0] == end
        np.testing.assert_allclose(batch["return"][place], total, rtol=1e-5)
        np.testing.assert_allclose(batch["factor"][place], factor, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 3, 20])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_transitions_at_ends_and_time_limits(n: int, alpha: float):
    episodes = {1: episode(1, 6, True), 2: episode(2, 9, False), 3: episode(3, 2, True)}
    m = memory(n, alpha=alpha)
    for e in episodes.values():
        m.add(e)
    batch = m.sample(0, 4, 100)
    assert batch["vector"].shape == (4, 100, 1) and batch["weight"].shape == (4, 100)
    check(batch, episodes, n)
    # Every timestep but the last of an episode begins a transition, and no other does.
    begun = {100 * k + t for k, e in episodes.items() for t in range(len(e["reward"]) - 1)}
    assert set(batch["vector"].astype(int).ravel()) == begun


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_full_ring_forgets_the_oldest_and_mixes_nothing_up(alpha: float):
    m, episodes = memory(3, capacity=25, alpha=alpha), {}
    for number in range(1, 30):
        episodes[number] = episode(number, 4 + number % 5, number % 2 == 0)
        m.add(episodes[number])
    assert len(m) == 25
    batch = m.sample(1, 2, 200)
    check(batch, episodes, 3)
    lengths = [len(e["reward"]) for e in episodes.values()]
    oldest = 29 - int(np.searchsorted(np.cumsum(lengths[::-1]), 25, side="left"))
    assert batch["vector"].min() >= 100 * oldest


def test_an_episode_longer_than_the_memory_leaves_its_end():
    m = memory(1, capacity=10)
    m.add(episode(1, 30, False))
    assert set(m.sample(0, 1, 200)["vector"][0, :, 0] - 100) == set(range(20, 29))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_frames_are_stacked_within_their_episode(alpha: float):
    m = memory(2, capacity=31, space=IMAGE, frames=3, alpha=alpha)
    for number in range(5):
        m.add({**episode(number, 10, False), "vector": np.zeros((10, 1), "f")})
    batch = m.sample(0, 1, 60)
    for key in ("image", "next_image"):
        assert batch[key].shape == (1, 60, 64, 64, 9)
        stacks = batch[key][0, :, 5, 5, ::3].astype(int)  # one channel of each frame
        codes = {(100 * k + t) % 250: (k, t) for k in range(5) for t in range(10)}
        for stack in stacks:
            k, t = codes[stack[-1]]
            assert stack.tolist() == [(100 * k + max(t - back, 0)) % 250 for back in (2, 1, 0)]


@pytest.mark.parametrize("beta", [0.0, 0.7, 1.0])
def test_priorities_decide_how_often_and_weights_make_up_for_it(beta: float):
    m = memory(1, alpha=0.5, beta=beta)
    m.add(episode(0, 5, False))
    first = m.sample(0, 1, 400)
    assert (first["weight"] == 1.0).all()  # new ones are alike
    slots = {int(c): i for c, i in zip(first["vector"][0, :, 0], first["index"][0], strict=True)}
    order = np.array([slots[code] for code in range(4)])
    errors = np.array([1.0, -4.0, 9.0, 0.0])
    m.prioritise(order, errors)
    masses = (np.abs(errors) + EPSILON) ** 0.5
    batch = m.sample(1, 1, 20000)
    drawn = np.bincount(batch["vector"][0, :, 0].astype(int), minlength=4) / 20000
    np.testing.assert_allclose(drawn, masses / masses.sum(), atol=2e-4)  # drawn by strata
    chosen = masses[batch["vector"][0, :, 0].astype(int)]
    literal = (4 * chosen / masses.sum()) ** -beta
    np.testing.assert_allclose(batch["weight"][0], literal / literal.max(), rtol=1e-5)
    # What comes new has the largest priority there was.
    m.add(episode(1, 2, False))
    new = (m.sample(2, 1, 20000)["vector"][0, :, 0] == 100).mean()
    np.testing.assert_allclose(new, 3 / (masses.sum() + 3), atol=2e-3)


def test_equal_updates_draw_equal_batches():
    one, other = memory(alpha=0.0), memory(alpha=0.0)
    for m in (one, other):
        m.add(episode(1, 50, False))
    a, b, c = one.sample(5, 1, 10), other.sample(5, 1, 10), one.sample(6, 1, 10)
    assert (a["index"] == b["index"]).all() and (a["index"] != c["index"]).any()


def test_draws_are_in_proportion_and_none_is_without_mass():
    drawn = draw(np.array([1.0, 0.0, 2.0, 5.0, 0.0]), (np.arange(8000) + 0.5) / 8000)
    assert np.bincount(drawn).tolist() == [1000, 0, 2000, 5000]
    masses = np.where(np.arange(100) % 3, 0.0, 0.1)[1:]  # none at the start
    shares = np.concatenate([np.linspace(0, 1, 1000), [np.nextafter(1, 0)]])
    assert (masses[draw(masses, shares)] > 0).all()
