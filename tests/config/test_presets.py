"""docs/presets.md says what each preset sets, beside what was published."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamer.config.config import preset_names
from dreamer.config.schema import find_configs, flatten, load_schema
from dreamer.io.yaml_files import read_yaml

TABLE = Path(__file__).resolve().parents[2] / "docs" / "presets.md"
HEADING = "## Every preset, key by key"


def rows() -> list[list[str]]:
    """preset, key, published, ours, difference of each row of the last table."""
    section = TABLE.read_text(encoding="utf-8").partition(HEADING)[2]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("preset", [name for name in preset_names() if name != "debug"])
def test_every_key_of_a_preset_stands_beside_the_published_one(preset: str) -> None:
    keys = load_schema()
    content = read_yaml(find_configs() / "presets" / f"{preset}.yaml")
    content.pop("inherit", None)
    values = {k: keys[k].coerce(v) for k, v in flatten(content, keys).items()}
    told = {key: (published, ours) for name, key, published, ours, _ in rows() if name == preset}
    assert set(told) == set(values), f"docs/presets.md, {HEADING}: {preset} sets other keys"
    for key, (published, ours) in told.items():
        assert published and keys[key].coerce(ours) == values[key], key


def test_no_row_is_of_a_preset_that_is_gone_or_says_nothing() -> None:
    for row in rows():
        assert len(row) == 5 and all(row), row
        assert row[0] in preset_names()
