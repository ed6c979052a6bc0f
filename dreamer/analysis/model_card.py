"""What an exported folder says of its agent: the model card, and a line for a table of agents.

Both are made from the folder's config.yaml, whose map `exported` holds the facts, and from the
outcome of the evaluation in evaluation.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamer.config.command_line import command_again
from dreamer.config.schema import flatten, load_schema
from dreamer.io.yaml_files import read_yaml
from dreamer.logs.terminal import duration
from dreamer.runs.exports import MARK

EVALUATION = "evaluation.json"
HEAD = "| run | task | presets | steps | return | weights |\n|---|---|---|---|---|---|"
"""The first lines of the table that `table_line` continues."""


def card(name: str, content: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> str:
    """Returns the model card of the folder `name`, in Markdown.

    Args:
        name: The folder's name, which is the agent's.
        content: That of config.yaml.
        evaluation: That of evaluation.json, None if there was no evaluation.
    """
    facts, config = content[MARK], content["config"]
    versions, machine = (_mapping(content.get(key)) for key in ("versions", "machine"))
    packages = ", ".join(
        f"{key} {versions[key]}" for key in ("python", "tensorflow", "keras", "numpy")
        if key in versions
    )  # fmt: skip
    hardware = [f"{machine.get('cores', '?')} core(s)", *map(str, machine.get("gpus") or [])]
    rows = {
        "task": config["task"],
        "observes": facts["observations"],
        "acts by": facts["actions"],
        "score": score(evaluation) if evaluation else "not evaluated",
        "training": f"{facts['step']:,} steps, {facts['updates']:,} updates"
        + (f", {duration(facts['seconds'])} (h:mm:ss)" if facts["seconds"] else "")
        + f", on a machine with {machine.get('processor', '?')}, {', '.join(hardware)}",
        "seed": f"{config['seed']} (one run; other seeds may turn out otherwise)",
        "presets": ", ".join(content.get("presets", [])) or "none",
        "made": f"{str(content.get('time'))[:10]}, dreamer {versions.get('dreamer', '?')}, commit "
        f"{content.get('commit') or 'unknown'}; {packages}",
        "exported": f"{facts['time'][:10]}, dreamer {facts['dreamer']}, commit "
        f"{facts['commit'] or 'unknown'}",
        "weights": f"{facts['numbers']:,} numbers, {facts['bytes'] / 1e6:.1f} MB, matrices in half "
        "precision",
        "licence": facts["licence"],
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    values = flatten(config, load_schema(content["agent"])) | {"steps": facts["step"]}
    command = command_again(values, content.get("presets", []), content["agent"])
    began = "It began with the weights of another run.\n\n" if facts["init"] else ""
    changed = "".join(
        f"From step {entry['step']:,} on: {', '.join(entry['keys'])} changed.\n\n"
        for entry in content.get("resumed", [])
    )
    return f"""# {name}

A trained agent, {content["agent"]}, on {config["task"]}. The folder has what acting and dreaming
need: no optimizer, no episodes.

| | |
|---|---|
{table}

## How it was made

```sh
{command}
```

{began}{changed}`metrics.jsonl` holds the curve of that run, `config.yaml` all of its keys, and
`{EVALUATION}` the episodes of the score.

## How to use it

```sh
python -m dreamer.evaluate --run path/to/{name} --episodes 10 --video out.gif
python -m dreamer.predict --run path/to/{name}
python -m dreamer.watch --run path/to/{name}
```

A new training begins with these weights if `--init_from=path/to/{name}` is added to the command
that made them. It cannot resume. The folder holds arrays and words, no code.
"""


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def score(evaluation: Mapping[str, Any]) -> str:
    """Returns the outcome of an evaluation, in words."""
    return (
        f"return {evaluation['eval/return']:,.1f} +- {evaluation['eval/return_std']:,.1f} (mean "
        f"and standard deviation of {evaluation['eval/episodes']} episodes of seed "
        f"{evaluation['seed']}, lowest {evaluation['eval/return_min']:,.1f}, highest "
        f"{evaluation['eval/return_max']:,.1f})"
    )


def table_line(folder: Path, run: str) -> str:
    """Returns the line on an exported folder in a table with `HEAD`; `run` names the folder."""
    content = read_yaml(folder / "config.yaml", of_run=True)
    facts, config, found = content[MARK], content["config"], "not evaluated"
    if (folder / EVALUATION).is_file():
        evaluation = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
        found = f"{evaluation['eval/return']:,.0f} ± {evaluation['eval/return_std']:,.0f}"
        found += f" ({evaluation['eval/episodes']} episodes)"
    seen = "pixels" if "image" in facts["observations"] else "states"
    made = " ".join(content.get("presets", [])) or "defaults"
    cells = (
        f"`{run}`", f"`{config['task']}` from {seen}", f"`{made}`", f"{facts['step'] / 1e3:,.0f}k",
        found, f"{facts['bytes'] / 1e6:.1f} MB",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"
