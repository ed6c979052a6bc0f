import numpy as np
import pytest
from probe_envs import Counting

from dreamer.envs.spec import Space
from dreamer.envs.wrappers import NormalizeActions, Repeat
from dreamer.errors import ContractError


class Native(Counting):
    """Remembers the actions that reach it, in a range of its own."""

    def __init__(self, low, high):
        super().__init__()
        self.act_space, self.actions = Space((3,), np.float32, np.array(low), np.array(high)), []
        self.reset(0)

    def step(self, action):
        self.actions.append(action)
        return super().step(action[:2])


def test_actions_are_mapped_to_their_bounds():
    env = Native([-2, 0, -1e10], [4, 10, 1e10])
    wrapped = NormalizeActions(env)
    assert wrapped.act_space == Space((3,), np.float32, -1, 1)
    for value in (-1, 0, 0.5, 1, 1.5):
        wrapped.step(np.full(3, value, np.float32))
    expected = [[-2, 0, -1], [1, 5, 0], [2.5, 7.5, 0.5], [4, 10, 1], [4, 10, 1]]
    np.testing.assert_allclose(env.actions, expected)
    assert env.actions[0].dtype == np.float32
    assert wrapped.info["range of actions without bounds"] == "[-1, 1]"


def test_a_range_with_one_end_begins_there():
    env = NormalizeActions(inner := Native([0, -np.inf, -np.inf], [np.inf, 3, np.inf]))
    for value in (-1, 0, 1):
        env.step(np.full(3, value, np.float32))
    np.testing.assert_allclose(inner.actions, [[0, 1, -1], [1, 2, 0], [2, 3, 1]])
    assert env.info["range of actions without bounds"] == "[0, 2] [1, 3] [-1, 1]"
    bounded = NormalizeActions(Native([0] * 3, [2] * 3))
    assert bounded.info == bounded.env.info


@pytest.mark.parametrize("action", [
    np.zeros(2, np.float32), np.zeros(3), np.full(3, np.nan, np.float32),
])  # fmt: skip
def test_actions_that_are_none_are_refused(action):
    with pytest.raises(ContractError, match="action"):
        NormalizeActions(Native([-1] * 3, [1] * 3)).step(action)


def test_repeat_sums_rewards_and_stops_at_the_end():
    env = Repeat(Counting(), 4, 100)
    assert env.action_repeat == 4
    length = int(env.reset(0)["length"][0])  # 5 to 9: the second or third repeat is cut short
    timestep, rewards = None, []
    while timestep is None or not timestep["is_last"]:
        timestep = env.step(np.zeros(2, np.float32))
        rewards.append(float(timestep["reward"]))
    assert rewards[0] == 1 + 2 + 3 + 4
    assert sum(rewards) == length * (length + 1) / 2
    assert timestep["is_terminal"] and timestep["cont"] == 0
    assert timestep["image"][0, 0, 0] == length


@pytest.mark.parametrize("repeat, steps", [(1, 4), (2, 2)])
def test_time_limit_counts_frames_and_is_last_but_not_terminal(repeat, steps):
    env = Repeat(Counting(), repeat, 4)
    for _ in range(2):
        env.reset(0)
        timesteps = [env.step(np.zeros(2, np.float32)) for _ in range(steps)]
        assert [bool(t["is_last"]) for t in timesteps] == [False] * (steps - 1) + [True]
        assert not timesteps[-1]["is_terminal"] and timesteps[-1]["cont"] == 1
        with pytest.raises(RuntimeError, match="reset"):
            env.step(np.zeros(2, np.float32))
