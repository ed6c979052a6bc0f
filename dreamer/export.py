"""Exports a trained agent: a folder with what acting and dreaming need, to share or to keep.

    python -m dreamer.export --run runs/dmc_walker_walk/dreamer/0 --out walker_walk

The folder holds the weights in half precision, without optimizers and slow copies, the config, the
run's metrics, an evaluation of these weights, and a model card. Every program that takes a run
takes the folder. Training can begin with its weights (--init_from), but not resume.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from dreamer.analysis.model_card import EVALUATION, card, table_line
from dreamer.analysis.trained_run import RUN, WHICH, LoadedRun, Loading, load_run
from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.config.schema import load_schema
from dreamer.errors import UserError
from dreamer.evaluate import evaluate
from dreamer.io.files import (
    atomic_folder,
    check_writable_folder,
    make_folder,
    open_to_read,
    write_file,
    write_json,
)
from dreamer.io.yaml_files import format_yaml
from dreamer.runs.checkpoints import Checkpoints
from dreamer.runs.exports import MARK, PREFIX, acting_arrays, halved
from dreamer.runs.rundir import provenance
from dreamer.system.streams import warn
from dreamer.training.interrupts import StopRequested

COMMAND_LINE = CommandLine(
    "python -m dreamer.export",
    "Writes a folder with a trained agent, its config, metrics, evaluation and a model card.",
    (
        RUN,
        Option("out", "", "The folder to make, named as the agent.", required=True),
        Option("episodes", 20, "Episodes of the evaluation of each task; 0: no evaluation.", min=0),
        Option("seed", -1, "Seed of the episodes' starts; -1: the run's.", min=-1),
        Option("license", "MIT", "Licence of the weights, for the model card."),
        *WHICH,
    ),
    takes_config=False,
)
_MAX_METRICS = 200_000  # bytes of metrics.jsonl, which is thinned to that
_MAX_WEIGHTS = 3_000_000  # bytes that agents of the presets small and size1m stay below
# Keys that say where the run lay; they are of no use elsewhere, and nobody else's business.
_PLACES = ("logdir", "init_from", "envs.python", "replay.directory", "log.sinks")
_KEPT = ("agent", "presets", "seed", "time", "machine", "commit", "versions")  # of config.yaml


def main(argv: Sequence[str]) -> int:
    """Reads the command line, exports, and prints the folder's line for a table of agents."""
    options = COMMAND_LINE.parse(argv).options
    try:
        folder = export(**options, on_progress=warn)
    except StopRequested as stop:
        print(f"{stop}; nothing was exported")
        return stop.status
    print(f"wrote {folder}\n{table_line(folder, folder.name)}")
    return 0


def export(
    run: str | os.PathLike[str], out: str | os.PathLike[str], *, episodes: int = 20,
    seed: int = -1, license: str = "MIT", on_progress: Callable[[str], object] = lambda text: None,
    **loading: Unpack[Loading],
) -> Path:  # fmt: skip
    """Exports the agent of a run, which may still be training; returns the folder.

    Arguments: see --help; those of `loading`, see `dreamer.analysis.trained_run.load_run`. The
    folder is complete or absent. Raises UserError if `out` holds anything, or as `load_run`;
    StopRequested if a signal ends the evaluation.
    """
    folder = Path(out).expanduser()
    check_new(folder)
    on_progress(f"loading {run} and its environments")
    with load_run(run, **loading) as loaded:
        if loaded.rundir.exported:
            raise UserError(f"{run} is an exported agent already: copy its folder")
        arrays, step = halved(acting_arrays(loaded.agent)), loaded.step
        metrics = read_metrics(loaded.rundir.metrics)
        content = content_of(loaded, arrays, metrics, license)
    size = content[MARK]["bytes"]
    if size > _MAX_WEIGHTS:
        on_progress(f"note: the weights have {size / 1e6:.1f} MB; those of small and size1m have "
                    f"at most {_MAX_WEIGHTS / 1e6:.0f}")  # fmt: skip
    make_folder(folder.absolute().parent)
    with atomic_folder(folder.absolute()) as new:
        write_file(new / "config.yaml", format_yaml(content).encode())
        write_file(new / "metrics.jsonl", b"".join(thinned(metrics)))
        Checkpoints(new / "checkpoints").save(step, arrays, {MARK: True, "step": step})
        outcome = None
        if episodes:
            loading["checkpoint"] = "latest"
            result = evaluate(
                new, episodes=episodes, seed=seed,
                on_progress=lambda text: on_progress(text.replace(str(new), str(folder))),
                **loading,
            )  # fmt: skip
            where = str(result.checkpoint.relative_to(new))
            outcome = {**result.as_json(), "run": folder.name, "checkpoint": where}
            write_json(new / EVALUATION, outcome)
        write_file(new / "README.md", card(folder.absolute().name, content, outcome).encode())
    return folder


def check_new(folder: Path) -> None:
    """Raises UserError if a folder holds anything, or cannot be made."""
    if str(folder).startswith(PREFIX) or folder.name in ("", ".."):
        raise UserError(f"--out is {folder}: name a folder, which is then the agent's name")
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists already: choose a new folder with --out, or remove it")
    check_writable_folder(folder, "choose another folder with --out")


def content_of(
    loaded: LoadedRun, arrays: Mapping[str, Any], metrics: Sequence[bytes], license: str
) -> dict[str, Any]:
    """Returns the exported config.yaml: the run's, without its places, and facts on the agent."""
    content, config = loaded.rundir.read()
    keys, flat = load_schema(config.agent), config.flat()
    blank = {
        key: keys[key].value for key in _PLACES
        if key in keys and not str(flat.get(key)).startswith(PREFIX)
    }  # fmt: skip
    task = re.sub(r"^.*/(?=[^/]*\.py:)", "", config.task)  # a file of one's own, without its folder
    now, last = provenance(), last_record(metrics, loaded.step)
    act = loaded.envs.act_space
    kind = "one-hot" if act.discrete else "in [-1, 1]"
    return {
        "config": config.replace({**blank, "task": task}).tree(),
        **{key: content[key] for key in _KEPT if key in content},
        "resumed": changes(content.get("resumed")),
        MARK: {
            "time": now["time"], "commit": now["commit"], "dreamer": now["versions"]["dreamer"],
            "licence": license, "step": loaded.step, "updates": int(last.get("updates", 0)),
            "seconds": float(last.get("wall_time", 0.0)), "init": bool(flat.get("init_from")),
            "numbers": sum(array.size for array in arrays.values()),
            "bytes": sum(array.nbytes for array in arrays.values()),
            "observations": ", ".join(
                f"{key}: {space.dtype} {list(space.shape)}"
                for key, space in loaded.obs_space.items()
            ),
            "actions": f"float32 {list(act.shape)}, {kind}",
        },
    }  # fmt: skip


def changes(resumed: Any) -> list[dict[str, Any]]:
    """Returns when a resumed run changed which keys, from config.yaml's list of resumptions."""
    entries = [x for x in resumed if isinstance(x, dict)] if isinstance(resumed, list) else []
    return [
        {"step": entry["step"], "keys": [str(key) for key in entry["before"]]}
        for entry in entries
        if isinstance(entry.get("step"), int) and isinstance(entry.get("before"), dict)
    ]


def read_metrics(path: Path) -> list[bytes]:
    """Returns the whole lines of a metrics.jsonl; [] if there is none."""
    try:
        with open(open_to_read(path), "rb") as file:
            return [line for line in file if line.endswith(b"\n")]
    except FileNotFoundError:
        return []


def thinned(lines: Sequence[bytes]) -> list[bytes]:
    """Returns at most `_MAX_METRICS` bytes of lines: those of evaluations first of all."""
    if len(lines) < 2:
        return list(lines)
    for every in (2**k for k in range(32)):
        kept = [x for i, x in enumerate(lines) if i % every == 0 or b'"eval/return"' in x]
        if sum(map(len, kept)) <= _MAX_METRICS:
            return kept
    return thinned(lines[::2])


def last_record(lines: Sequence[bytes], step: int) -> dict[str, Any]:
    """Returns the last record up to a step; {} if there is none."""
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and record.get("step", step + 1) <= step:
                return record
    return {}


if __name__ == "__main__":
    run_main(main)
