"""What a run costs on this machine: the memory of its batches, the hours of its updates."""

from __future__ import annotations

from dreamer.config.config import Config, preset_refusal
from dreamer.data.replay import timestep_bytes
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError
from dreamer.logs.terminal import duration
from dreamer.system.machine import machine
from dreamer.training.schedule import UpdateSchedule

_LONG = 48 * 3600  # seconds; longer runs want a GPU


def check_batch(config: Config, pool: EnvPool) -> None:
    """Raises UserError for batches that can never be drawn.

    Their sequences are longer than any episode, or they need more than the machine's memory.
    """
    train = config.section("train")  # not every agent learns from sequences, or from batches
    length = int(train.get("batch_length", 1))
    longest = longest_episode(config, pool)
    if longest and length > longest:
        raise UserError(
            f"train.batch_length is {length}, but an episode of {config.task} has at most "
            f"{longest} timesteps ({pool.action_repeat} steps a timestep); choose at most {longest}"
        )
    size = int(train.get("batch_size", 1))
    timestep = timestep_bytes(pool.obs_space, pool.act_space)
    batches = config.replay.prefetch + 2  # one is being drawn, another is trained on
    needed, memory = batches * size * length * timestep, machine()["memory"]
    if memory and needed > memory:
        raise UserError(
            f"train.batch_size {size} of train.batch_length {length} is {size * length:,} "
            f"timesteps of {timestep:,} bytes; {batches} such batches in memory (replay.prefetch "
            f"{config.replay.prefetch}) take {needed / 1e9:.0f} GB, but this machine has "
            f"{memory / 1e9:.0f} GB: choose smaller ones"
        )


def longest_episode(config: Config, pool: EnvPool) -> int:
    """Returns the timesteps of the task's longest episodes; 0 if it has no time limit."""
    limit = config.envs.time_limit or int(pool.info.get("time_limit", 0))
    return -(-limit // pool.action_repeat) + 1 if limit else 0


def forecast(
    config: Config, schedule: UpdateSchedule, seconds_per_update: float, frames_per_second: float
) -> str:
    """Returns a sentence on the hours ahead, by what was measured; without a GPU, with advice."""
    import tensorflow as tf

    updates = schedule.due(config.steps)
    seconds = updates * seconds_per_update + config.steps / frames_per_second
    text = (
        f"measured here: {seconds_per_update:.2f} s an update, {frames_per_second:.0f} frames a "
        f"second; {config.steps:,} steps with {updates:,} updates will take about "
        f"{duration(seconds)} (h:mm:ss, without evaluations)"
    )
    takes_small = not preset_refusal("small", config.agent)  # not all agents have its keys
    if seconds > _LONG and takes_small and not tf.config.list_physical_devices("GPU"):
        text += "; this wants a GPU: --configs small is made for pixels on a CPU"
    return text
