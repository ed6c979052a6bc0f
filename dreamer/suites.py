"""Lists of tasks by name, as papers report them."""

from __future__ import annotations

_DMC20 = (
    "acrobot_swingup", "cartpole_balance", "cartpole_balance_sparse", "cartpole_swingup",
    "cartpole_swingup_sparse", "cheetah_run", "cup_catch", "finger_spin", "finger_turn_easy",
    "finger_turn_hard", "hopper_hop", "hopper_stand", "pendulum_swingup", "quadruped_run",
    "quadruped_walk", "reacher_easy", "reacher_hard", "walker_run", "walker_stand", "walker_walk",
)  # fmt: skip
_DMC6 = (
    "cartpole_swingup", "reacher_easy", "cheetah_run", "finger_spin", "cup_catch", "walker_walk",
)  # fmt: skip
_ATARI11 = (
    "assault", "boxing", "fishing_derby", "freeway", "frostbite", "hero", "ice_hockey",
    "kung_fu_master", "montezuma_revenge", "pong", "tennis",
)  # fmt: skip
_DMLAB = (
    "collect", "collect_few", "compare", "doors_large", "doors_small", "explore_small",
    "find_large", "find_small", "keys", "lasertag_1", "lasertag_3", "recognize", "watermaze",
)  # fmt: skip

TASK_LISTS: dict[str, tuple[str, ...]] = {
    "dmc20": tuple(f"dmc_{name}" for name in _DMC20),
    "dmc6": tuple(f"dmc_{name}" for name in _DMC6),
    "atari11": tuple(f"atari_{name}" for name in _ATARI11),
    "dmlab13": tuple(f"dmlab_{name}" for name in _DMLAB),
}
"""The Dreamer paper's 20 control tasks in its order, PlaNet's six, the Atari games with published
scores, and the DeepMind Lab tasks of the published code."""
