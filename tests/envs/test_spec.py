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


class Broken(Counting):
    def __init__(self, fault):
        super().__init__()
        self._fault = fault

    def reset(self, seed=None):
        before, timestep = self._length, super().reset(seed)
        if self._fault == "unseeded":  # each episode is longer than the one before it
            self._length = before + 1
            timestep["length"] = np.array([self._length], np.float32)
        return {**timestep, "is_first": np.asarray(self._fault != "never first")}

    def step(self, action):
        if self._fault == "goes on" and self._step == self._length:
            self._step = 0
        return super().step(action)

    def _observe(self, action):
        obs = super()._observe(action)
        if self._fault == "aliased":  # the same array again and again
            self._image = getattr(self, "_image", obs["image"])
            self._image[:] = obs["image"]
            obs["image"] = self._image
        return {**obs, "echo": np.full(2, 7, np.float32)} if self._fault == "bounds" else obs


@pytest.mark.parametrize("fault, message", [
    ("aliased", "changed after it was returned"),
    ("unseeded", "gave another episode"),
    ("goes on", "expected an error"),
    ("never first", "expected is_first"),
    ("bounds", "echo: outside"),
])  # fmt: skip
def test_conformance_finds(fault, message):
    with pytest.raises(ContractError, match=message):
        check_env(Broken(fault))


def test_conformance_names_what_is_missing():
    with pytest.raises(ContractError, match="obs_space"):
        check_env(object())
