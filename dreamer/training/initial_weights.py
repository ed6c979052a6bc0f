"""A new run's initial weights, from another run."""

from __future__ import annotations

from pathlib import Path

from dreamer.config.config import Config
from dreamer.errors import UserError
from dreamer.runs.checkpoints import Arrays, Checkpoint, Checkpoints, check_name
from dreamer.runs.exports import resolve_run
from dreamer.runs.rundir import RunDir
from dreamer.training.interfaces import TrainableAgent

_MODEL = "model"  # begins the names of the world model's arrays
# Groups of keys that say what networks are like.
_GROUPS = {"layers", "encoder", "decoder", "rssm", "reward", "discount", "value", "actor"}


def check_source(source: str) -> Checkpoints | Path:
    """Returns the checkpoints of a run, or the folder of one checkpoint; UserError for others."""
    path = resolve_run(source)
    if (path / "config.yaml").is_file():
        checkpoints = Checkpoints(RunDir.load(path)[0].checkpoints)
        if checkpoints.newest() is None:
            raise UserError(f"init_from: {path} has no checkpoint yet")
        return checkpoints
    try:
        check_name(path)
    except UserError as error:
        raise UserError(
            f"init_from: {path} is neither a run's directory, such as "
            f"runs/dmc_walker_walk/dreamer/0, nor the folder of a checkpoint"
        ) from error
    return path


def take_weights(
    agent: TrainableAgent, source: str, parts: str, config: Config | None = None
) -> str:
    """Gives an agent the weights of another run, and returns what it took and what not, in words.

    A part, such as the encoder or the actor, is taken as a whole, if all of its arrays have the
    same names and shapes there. Optimizers and counters begin anew.

    Args:
        agent: A new agent.
        source: A run's directory or ``pretrained:NAME``, whose newest checkpoint counts, or a
            checkpoint's folder.
        parts: "all", or "world_model" to leave out the networks of behaviour.
        config: The agent's. Where a part does not fit, the keys that differ there are named.

    Raises:
        UserError: There is no sound checkpoint, or no part of it fits.
    """
    own, place = agent.state_arrays(), check_source(source)
    if isinstance(place, Path):
        found: Checkpoint | None = Checkpoints.load(place, own)
    else:
        found = place.load_latest(own)
    assert found is not None
    # A slow copy of the value network that the other run lacks begins as that run's network.
    there = {
        name: found.arrays[of] for name in own if name.startswith("slow_value/")
        if (of := name.replace("slow_value", "value")) in found.arrays
    }  # fmt: skip
    there |= found.arrays
    groups: dict[str, list[str]] = {}
    for name in own:
        if part := _part(name):
            groups.setdefault(part, []).append(name)
    taken, left = {}, []
    for part, names in groups.items():
        if parts != "all" and not part.startswith(_MODEL):
            left.append(f"{part} (as init_parts says)")
        elif reason := _mismatch({name: own[name] for name in names}, there):
            left.append(f"{part} ({reason})")
        else:
            taken[part] = names
    unused = dict.fromkeys(part for name in found.arrays if (part := _part(name)))
    left += [f"{part} (not in this agent)" for part in unused if part not in groups]
    if config and any(not part.endswith("says)") for part in left):
        left += _differing_keys(found.path, config)
    if not taken:
        raise UserError(f"init_from: nothing of {found.path} fits this agent: {'; '.join(left)}")
    # Exported weights have half precision.
    new = {n: there[n].astype(own[n].dtype) for names in taken.values() for n in names}
    agent.load_arrays({**own, **new})
    text = f"initial weights from {found.path}: {', '.join(taken)}"
    return f"{text}; not taken: {'; '.join(left)}" if left else text


def _differing_keys(checkpoint: Path, config: Config) -> list[str]:
    """Returns which keys of the networks differ in the run of a checkpoint, as one text, if any."""
    try:
        there = RunDir.load(checkpoint.parent.parent)[1].flat()
    except UserError:  # the checkpoint was copied to elsewhere
        return []
    own = {k: v for k, v in config.flat().items() if k.partition(".")[0] in _GROUPS}
    differing = [
        f"{key} is {there.get(key, 'no key')} there, {value} here"
        for key, value in own.items()
        if there.get(key) != value
    ]
    return [f"keys that differ: {', '.join(differing)}"] if differing else []


def _part(name: str) -> str:
    """Returns the part of the agent that an array belongs to; "" for an array without weights."""
    first, _, rest = name.partition("/")
    if not rest or rest.startswith("adam/"):
        return ""
    if first != _MODEL:
        return first
    inner = rest.split("/")
    return f"{_MODEL}/{inner[1]}" if inner[0] == "world_model" else f"{_MODEL}/rssm"


def _mismatch(own: Arrays, found: Arrays) -> str:
    """Returns how the arrays of a part differ from those found, or ""."""
    for name, array in own.items():
        if name not in found:
            return f"{name} is not there"
        if found[name].shape != array.shape:
            return f"{name} is {found[name].shape} there, {array.shape} here"
    return ""
