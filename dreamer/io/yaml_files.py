"""Plain YAML: mappings of scalars and lists, and no tags that construct other objects.

ruamel.yaml in its safe and pure mode reads YAML 1.2, where ``1e-4`` is a float (PyYAML reads a
string) and ``on`` a string, knows no Python tags and refuses duplicate keys.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dreamer.errors import UserError
from dreamer.io.files import open_to_read

MAX_BYTES = 1_000_000


def read_yaml(path: Path | str, of_run: bool = False) -> dict[str, Any]:
    """Reads a YAML file that holds one mapping.

    A file of a run, perhaps a stranger's, must be a regular file (`of_run`), while a file that the
    user names may be a link or a pipe. Raises UserError if the file is absent, unreadable, larger
    than `MAX_BYTES`, not UTF-8, not YAML, repeats a key, holds a tag (``!!python/...``), or is no
    mapping with strings as keys.
    """
    path = Path(path)
    try:
        with open(open_to_read(path) if of_run else path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES} bytes: this is no config file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    return parse_yaml(text, name=str(path))


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """Parses YAML `text` that holds one mapping; errors begin with `name`, as `read_yaml`."""
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        # The first line of ruamel's message says what is wrong.
        problem = str(getattr(error, "problem", None) or error).strip() or "not YAML"
        raise UserError(
            f"{name}{where}: {problem.splitlines()[0]}; plain 'key: value' lines are expected"
        ) from None
    if not isinstance(content, dict | None):
        raise UserError(f"{name}: holds a {type(content).__name__}, expected 'key: value' lines")
    for key in content or {}:
        if not isinstance(key, str):
            raise UserError(f"{name}: the key {key!r} is no text")
    return content or {}


def format_yaml(content: Mapping[str, Any]) -> str:
    """Returns `content` (nested mappings, lists and scalars) as YAML, in the same order."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    writer.dump(content, text)
    return text.getvalue()
