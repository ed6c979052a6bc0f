import json

import numpy as np
import pytest
from probe_envs import Counting

from dreamer.envs.conformance import check_env
from dreamer.envs.spec import Space, check_timestep, make_timestep
from dreamer.errors import ContractError

OBS = {"image": Space((8, 8, 3), np.uint8, 0, 255), "vector": Space((2,), np.float32)}


def timestep():
    obs = {"image": np.zeros((8, 8, 3), np.uint8), "vector": np.zeros(2, np.float32)}
    return make_timestep(obs, 1.5, is_last=True, is_terminal=True)


@pytest.mark.parametrize("space", [
    *OBS.values(),
    Space((3,), np.float32, np.array([-1, -2, -np.inf]), 4.0),
    Space((5,), np.float32, 0.0, 1.0, discrete=True),
])  # fmt: skip
def test_space_survives_json(space):
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space


def test_spaces_differ_by_bounds():
    assert Space((2,), np.float32, -1, 1) != Space((2,), np.float32, -1, [1, 2])
    assert Space((2,), np.float32, -1, 1) == Space((2,), np.float32, [-1, -1], 1)


def test_samples_lie_in_their_space():
    rng = np.random.default_rng(0)
    one_hot = Space((4,), np.float32, 0, 1, discrete=True).sample(rng)
    assert sorted(one_hot) == [0, 0, 0, 1]
    sample = Space((100,), np.float32, -3, np.full(100, -2)).sample(rng)
    assert sample.dtype == np.float32 and np.all((sample >= -3) & (sample <= -2))
    assert Space((100,), np.uint8, 0, 255).sample(rng).dtype == np.uint8


def test_make_timestep_derives_cont():
    assert timestep()["cont"] == 0 and timestep()["reward"] == np.float32(1.5)
    assert make_timestep({}, is_last=True)["cont"] == 1


@pytest.mark.parametrize("change, message", [
    ({"vector": np.zeros(3, np.float32)}, r"vector: expected shape \(2,\), got \(3,\)"),
    ({"vector": np.zeros(2)}, "vector: expected dtype float32, got float64"),
    ({"vector": np.array([0, np.nan], np.float32)}, "vector: not finite"),
    ({"reward": np.asarray(np.inf, np.float32)}, "reward: not finite"),
    ({"reward": 1.0}, "reward: expected a NumPy array, got float"),
    ({"other": np.zeros(1)}, "unexpected keys \\['other'\\]"),
    ({"cont": np.asarray(1, np.float32)}, "cont must be 0"),
    ({"is_last": np.asarray(False)}, "terminal must also be the last"),
])  # fmt: skip
def test_check_timestep_names_what_is_wrong(change, message):
    check_timestep(timestep(), OBS)
    with pytest.raises(ContractError, match=message):
        check_timestep({**timestep(), **change}, OBS)


class Aliased(Counting):
    """Returns the same array again and again."""

    def _observe(self, action):
        obs = super()._observe(action)
        self._image = getattr(self, "_image", obs["image"])
        self._image[:] = obs["image"]
        return {**obs, "image": self._image}


class Unseeded(Counting):
    """Each episode is longer than the one before it, whatever the seed says."""

    def reset(self, seed=None):
        before, timestep = self._length, super().reset(seed)
        self._length = before + 1
        return {**timestep, "length": np.array([self._length], np.float32)}


class GoesOn(Counting):
    def step(self, action):
        if self._step == self._length:
            self._step = 0
        return super().step(action)


class NeverFirst(Counting):
    def reset(self, seed=None):
        return {**super().reset(seed), "is_first": np.asarray(False)}


class OutOfBounds(Counting):
    def _observe(self, action):
        return {**super()._observe(action), "echo": np.full(2, 7, np.float32)}


@pytest.mark.parametrize("broken, message", [
    (Aliased, "changed after it was returned"),
    (Unseeded, "gave another episode"),
    (GoesOn, "expected an error"),
    (NeverFirst, "expected is_first"),
    (OutOfBounds, "echo: outside"),
])  # fmt: skip
def test_conformance_finds(broken, message):
    with pytest.raises(ContractError, match=message):
        check_env(broken())


def test_conformance_names_what_is_missing():
    with pytest.raises(ContractError, match="obs_space"):
        check_env(object())
