"""The benchmark's table, and the limits that its figures are compared with."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

Results = Mapping[str, Any]

#: Limits by the figure's dotted name, for a 2-core CPU with a software OpenGL, at full size on
#: dmc_walker_walk.
LIMITS = {
    "update.float32.over_floor": ("at most", 1.5),
    "update.bfloat16.over_float32": ("at most", 0.8),
    "env.over_reference": ("at least", 1.8),
    "env.over_reference_shadow_*": ("at least", 3.0),
    "replay.share_of_update": ("at most", 0.02),
    "memory.replay.growth_share": ("at most", 0.01),
}


def flatten(results: Results, prefix: str = "") -> dict[str, Any]:
    """Turns nested dictionaries into one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in results.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def judge(results: Results) -> dict[str, dict[str, Any]]:
    """Returns the limit, its kind and whether it is met, by the dotted name of the figure."""
    return {
        key: {"limit": limit, "kind": kind,
              "met": value <= limit if kind == "at most" else value >= limit}
        for pattern, (kind, limit) in LIMITS.items()
        for key, value in flatten(results).items() if fnmatchcase(key, pattern)
    }  # fmt: skip


def print_report(results: Results, small: bool = False) -> None:
    """Prints `Bench.run`'s results as a table, without colors if the output is no terminal.

    `small` says that the sizes were too small to mean anything.
    """
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 120)
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    for name in ("", "measured", "bar", ""):
        table.add_column(name, justify="right" if name else "left")
    for key, label, value in _rows(results):
        cells, style = [label, _text(key, value)], None
        if verdict := results["verdicts"].get(key):
            met, style = ("met", "green") if verdict["met"] else ("missed", "red")
            cells += [f"{verdict['kind']} {_text(key, verdict['limit'])}", met]
        table.add_row(*cells, style=style)
    console.print(table)
    for line in _notes(results, small):
        console.print(line, highlight=False, markup=False)


def _rows(results: Results) -> Iterator[tuple[str, str, float]]:
    """Yields the dotted name, label and value of each figure."""
    for part in ("update", "env", "replay", "memory", "overlap", "run"):
        for key, value in flatten({part: results.get(part, {})}).items():
            if not isinstance(value, str):
                label = key.partition(".")[2].replace(".", ", ").replace("_", " ")
                yield key, f"{part}: {label}", value
    for agent, found in results.get("agents", {}).items():
        if "seconds" in found:
            label = f"{agent}: an update of {found['records']} timesteps"
            yield f"agents.{agent}.seconds", label, found["seconds"]


def _text(key: str, value: float) -> str:
    if key.startswith("run.share"):
        return f"{100 * value:.0f} %"
    if key.endswith("_bytes"):
        return f"{value / 1e6:.1f} MB"
    if key.endswith(("share_of_update", "growth_share")):
        return f"{100 * value:.2f} %"
    if key.endswith(("flops_per_second", "flops")):
        return f"{value / 1e9:,.1f} GFLOP" + ("/s" if key.endswith("second") else "")
    if "_per_second" in key:
        return f"{value:.1f} /s"
    if key.endswith("page_faults"):
        return f"{value:,.0f}"
    if key.endswith(("seconds", "seconds_in_kernel")) or key.startswith("run.seconds"):
        return f"{value:.3f} s" if value >= 1 else f"{1000 * value:.2f} ms"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _notes(results: Results, small: bool) -> Iterator[str]:
    machine, env = results["machine"], results.get("env", {})
    cores, before, after = (machine[k] for k in ("cores", "load_before", "load_after"))
    xla = "with" if machine["xla"] else "without"
    yield f"{results['task']}; {machine['processor']}, {cores} cores; {machine['device']}"
    yield f"TensorFlow {machine['tensorflow']}, {xla} XLA; precision auto is {machine['suits']}"
    for agent, found in results.get("agents", {}).items():
        if "refused" in found:
            yield f"{agent}: {found['refused']}"
        elif found["without"]:
            yield f"{agent}: without {', '.join(found['without'])}, which it does not have"
    if "gl" in env:
        yield f"OpenGL by {env['gl']}: {env['renderer']}"
    yield f"load average {before:.1f} before, {after:.1f} after"
    if before > cores / 4:
        yield "other programs kept this machine busy, so it is faster than these figures"
    yield "steps are environment frames; bars are for full size, dmc_walker_walk, a 2-core CPU"
    if small:
        yield "--quick: debug size; the figures only show that the benchmark works"
