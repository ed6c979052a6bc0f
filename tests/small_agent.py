"""Tiny agents and batches of random timesteps, for tests of learning."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dreamer.agent.agent import Agent
from dreamer.agent.devices import Devices
from dreamer.agent.world_model import WorldModel
from dreamer.config.config import load_config
from dreamer.envs.spec import Space
from dreamer.training.build import make_agent as agent_of

IMAGE = {"image": Space((64, 64, 3), np.dtype(np.uint8), 0, 255)}
VECTORS = {
    "joints": Space((4,), np.dtype(np.float32)),
    "speed": Space((1,), np.dtype(np.float32)),
}
BOTH = {**IMAGE, **VECTORS}
CONTINUOUS = Space((2,), np.dtype(np.float32), -1.0, 1.0)
ONEHOT = Space((3,), np.dtype(np.float32), 0.0, 1.0, discrete=True)
# Sizes for `make_agent` with the preset v2_atari or v3, which are large.
RECIPE_SIZES: dict[str, Any] = {
    "discount__enabled": True, "rssm__stoch": 3, "rssm__classes": 4, "rssm__deter": 16,
    "rssm__hidden": 8, "encoder__cnn_depth": 2, "decoder__cnn_depth": 2, "encoder__mlp_units": 8,
    "decoder__mlp_units": 8, "reward__units": 8, "discount__units": 8, "value__units": 8,
    "actor__units": 8, "train__batch_size": 4, "train__batch_length": 6, "loss__overshooting": 1,
}  # fmt: skip


def make_agent(
    obs_space: Mapping[str, Space] = VECTORS,
    act_space: Space = CONTINUOUS,
    *,
    precision: str = "float32",
    seed: int = 0,
    preset: str = "debug",
    devices: Devices | None = None,
    **overrides: Any,
) -> Agent:
    """An agent of the debug preset's size, without a discount head, which traces fast.

    Args:
        obs_space, act_space: Spaces of its observations and actions.
        precision: Precision of the networks.
        seed: Seed of its weights and noise.
        preset: Presets that change debug's values, separated by spaces.
        devices: Devices that learn.
        overrides: Config values, `loss__free_nats=0.0` for the key loss.free_nats.
    """
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    fixed = {"discount.enabled": False, "behavior.horizon": 3, "jit": "off"}
    fixed |= {"contrastive.layers": 1, "contrastive.units": 16}
    fixed |= {"precision": precision, "seed": seed}
    config = load_config(
        "debug", *preset.split(), task="small:agent", overrides={**fixed, **dotted}
    )
    return agent_of(config, obs_space, act_space, devices)


def shared_model(obs_space: Mapping[str, Space] = VECTORS, **overrides: Any) -> WorldModel:
    """The world model of `make_agent`'s agent; the same one for the same arguments.

    For tests that leave its weights alone: making an agent takes longer than its loss.
    """
    key = repr((sorted(obs_space.items()), sorted(overrides.items())))
    if key not in _SHARED:
        _SHARED[key] = make_agent(obs_space, **overrides).world_model
    return _SHARED[key]


_SHARED: dict[str, WorldModel] = {}


def make_batch(
    obs_space: Mapping[str, Space] = VECTORS,
    act_space: Space = CONTINUOUS,
    size: int = 3,
    length: int = 6,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Random timesteps [size, length, ...]; row 1 begins a new episode in the middle."""
    rng = np.random.default_rng(seed)

    def draw(space: Space) -> np.ndarray:
        rows = [[space.sample(rng) for _ in range(length)] for _ in range(size)]
        return np.array(rows, space.dtype)

    batch = {key: draw(space) for key, space in obs_space.items()}
    batch["action"] = draw(act_space)
    batch["reward"] = rng.normal(size=(size, length)).astype(np.float32)
    is_last, is_first = np.zeros((2, size, length), bool)
    is_first[0, 0] = is_first[1, length // 2] = is_last[1, length // 2 - 1] = True
    batch |= {"is_first": is_first, "is_last": is_last, "is_terminal": is_last.copy()}
    batch["cont"] = 1.0 - is_last.astype(np.float32)
    for row, t in np.argwhere(is_first):
        batch["action"][row, t], batch["reward"][row, t] = 0.0, 0.0
    return batch


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """Arrays as TensorFlow's."""
    return {key: tf.constant(array) for key, array in arrays.items()}


def make_timesteps(
    obs_space: Mapping[str, Space] = VECTORS, count: int = 4, seed: int = 0, first: bool = False
) -> dict[str, np.ndarray]:
    """Random timesteps [count, ...] as a policy takes them."""
    rng = np.random.default_rng(seed)
    timesteps = {k: np.stack([s.sample(rng) for _ in range(count)]) for k, s in obs_space.items()}
    flags = {"is_last": np.zeros(count, bool), "is_terminal": np.zeros(count, bool)}
    return {
        **timesteps, **flags, "is_first": np.full(count, first),
        "reward": np.zeros(count, np.float32), "cont": np.ones(count, np.float32),
    }  # fmt: skip


def update(agent: Agent, batch: Mapping[str, np.ndarray], number: int = 0) -> dict[str, float]:
    """One update's metrics."""
    return {k: float(v) for k, v in agent.train_step(batch, number).items()}


def weights(agent: Agent) -> dict[str, np.ndarray]:
    """Its arrays without the optimizers' own."""
    return {k: v for k, v in agent.state_arrays().items() if "/adam/" not in k}


def parts_that_differ(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> set[str]:
    """Names of the parts of which an array changed."""
    return {k.partition("/")[0] for k in before if not np.array_equal(before[k], after[k])}
