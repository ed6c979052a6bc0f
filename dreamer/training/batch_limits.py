"""How large a batch can be: as long as the task's episodes, and as much as memory holds."""

from __future__ import annotations

from dreamer.config.config import Config
from dreamer.data.replay import layout_of, timestep_bytes
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError
from dreamer.system.machine import machine


def check_batch(config: Config, pool: EnvPool) -> None:
    """Refuses batches that could never be drawn.

    Raises:
        UserError: sequences are longer than any episode of the task can be, or the batches kept
            ready take more than the machine's memory.
    """
    train = config.section("train")  # not every agent learns from sequences, or from batches
    length = int(train.get("batch_length", 1))
    longest = longest_episode(config, pool)
    if longest and length > longest:
        raise UserError(
            f"train.batch_length is {length}, but an episode of {config.task} "
            f"has at most {longest} timesteps ({pool.action_repeat} steps a timestep); "
            f"choose at most {longest}"
        )
    size = int(train.get("batch_size", 1))
    timestep = timestep_bytes(layout_of(pool.obs_space, pool.act_space))
    batches = config.replay.prefetch + 2  # one is being drawn, one trained on
    needed, memory = batches * size * length * timestep, machine()["memory"]
    if memory and needed > memory:
        raise UserError(
            f"train.batch_size {size} of train.batch_length {length} is {size * length:,} "
            f"timesteps of {timestep:,} bytes; {batches} such batches in memory (replay.prefetch "
            f"{config.replay.prefetch}) take {needed / 1e9:.0f} GB, but this machine has "
            f"{memory / 1e9:.0f} GB: choose smaller ones"
        )


def longest_episode(config: Config, pool: EnvPool) -> int:
    """Timesteps of the task's longest episodes; 0 if it says no limit."""
    limit = config.envs.time_limit or int(pool.info.get("time_limit", 0))
    return -(-limit // pool.action_repeat) + 1 if limit else 0
