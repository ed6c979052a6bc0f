"""The pages docs/agents/<agent>.md: each has equations, the keys as they are, and curves."""

import re

import pytest
from whole_runs import ROOT

from baselines.registry import AGENTS
from dreamer.config.schema import DREAMER, agent_file, load_schema, number

PAGES = ROOT / "docs" / "agents"
# Random and constant policies share a page. Dreamer's page has the keys of its equations.
FILES = {name: "no_learning" if name in ("random", "constant") else name for name in AGENTS}
FILES[DREAMER] = DREAMER
GROUPS = ("behavior", "loss", "actor", "value", "optimizer", "explore")


def key_table(agent: str) -> str:
    """The keys that an agent's own file has; of Dreamer those of GROUPS."""
    schema, own = load_schema(agent), agent_file(agent).entries
    names = own or [name for name in schema if name.partition(".")[0] in GROUPS]
    rows = ["| key | default | meaning | source |", "|---|---|---|---|"]
    for name in names:
        key = schema[name]
        default = key.value if isinstance(key.value, str) else number(key.value).lower()
        choices = f" One of: {', '.join(map(str, key.choices))}." if key.choices else ""
        cells = (f"`{name}`", f"{default} {key.unit}".strip(), f"{key.help}{choices}", key.source)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("agent", FILES)
def test_an_agent_has_a_page_with_equations_keys_and_curves(agent: str):
    text = (PAGES / f"{FILES[agent]}.md").read_text(encoding="utf-8")
    assert re.search(r"^```text\n.*=.*^```", text, re.M | re.S), "no equations"
    figures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert figures and all((PAGES / figure).is_file() for figure in figures)
    table = key_table(agent)
    assert table in text, f"docs/agents/{FILES[agent]}.md needs this table:\n{table}"


def test_every_page_is_linked_and_of_an_agent():
    pages = {path.stem for path in PAGES.glob("*.md")}
    assert pages == set(FILES.values())
    overview = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    assert all(f"(agents/{page}.md)" in overview for page in pages)
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f"agents/{page}.md" in site for page in pages)
