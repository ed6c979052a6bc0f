"""Presets: files of values, which may inherit others."""

from __future__ import annotations

from pathlib import Path

from dreamer.errors import UserError, suggest
from dreamer.schema import DREAMER, Value, find_key, flatten, load_schema, preset_files
from dreamer.yaml_io import read_yaml


def load_preset(
    name: str,
    agent: str = DREAMER,
    trail: tuple[str, ...] = (),
    loaded: set[str] | None = None,
) -> dict[str, Value]:
    """Reads a preset by dotted names, what it inherits included.

    Args:
        name: Of a preset that comes with the project, or the path of a file.
        agent: Whose keys and presets.
        trail: Files that inherit it.
        loaded: Files that were read before, and are not inherited again: what two presets inherit
            must not undo the first of them. This one's are added.

    Raises:
        UserError: no such preset, a circle, or a key or value that the agent does not take.
    """
    loaded = set() if loaded is None else loaded
    path = _preset_path(name, Path(trail[-1]).parent if trail else Path(), agent)
    if str(path) in trail:
        chain = " -> ".join(Path(step).stem for step in (*trail, str(path)))
        raise UserError(f"presets inherit each other in a circle: {chain}")
    if trail and str(path) in loaded:
        return {}
    where = f" in preset {name!r}"
    content = read_yaml(path)
    parents = content.pop("inherit", [])
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UserError(f"'inherit'{where} must be a list of preset names")
    values: dict[str, Value] = {}
    for parent in parents:
        values.update(load_preset(parent, agent, (*trail, str(path)), loaded))
    loaded.add(str(path))
    taken = load_schema(agent)
    # Of a preset of Dreamer's, one of another agent's own inherits what that agent has.
    heir = Path(trail[-1]).parent.name if trail else ""
    keys = load_schema() if heir == agent and path.parent.name != agent else taken
    for key, value in flatten(content, keys, where).items():
        typed = find_key(str(key), keys, where).coerce(value, where)
        if key in taken:
            values[key] = typed
    return values


def _preset_path(name: str, folder: Path, agent: str) -> Path:
    """Finds a preset's file; a path inside a preset counts from that preset's folder."""
    if is_path(name):
        path = (folder / Path(name).expanduser()).resolve()
        if not path.is_file():
            raise UserError(f"no preset file {name!r} ({path})")
        return path
    files = preset_files(agent)
    if name not in files:
        near = suggest(name, files) or f"; there are {', '.join(sorted(files))}"
        raise UserError(f"unknown preset {name!r}{near}")
    return files[name]


def is_path(name: str) -> bool:
    return "/" in name or name.endswith((".yaml", ".yml"))
