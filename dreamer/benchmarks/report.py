"""The benchmark's table, and what its figures are held against."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """A limit on one figure.

    Attributes:
        key: Dotted; a last word that ends in * takes every key that begins so.
        limit: The worst value that meets it.
        upper: Whether it is the largest allowed, else the smallest.
    """

    key: str
    limit: float
    upper: bool = True


#: What a 2-core CPU with a software OpenGL should reach at full size on dmc_walker_walk.
BARS = (
    Bar("update.float32.over_floor", 1.5),
    Bar("update.bfloat16.over_float32", 0.8),
    Bar("env.over_reference", 1.8, upper=False),
    Bar("env.over_reference_shadow_*", 3.0, upper=False),
    Bar("replay.share_of_update", 0.02),
    Bar("memory.replay.growth_share", 0.01),
)


def flatten(results: Results, prefix: str = "") -> dict[str, Any]:
    """Nested keys -> dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def judge(results: Results) -> dict[str, dict[str, Any]]:
    """Dotted key of each figure that has a bar -> its limit, kind ("at most", ...) and met."""
    flat = flatten(results)
    verdicts = {}
    for bar in BARS:
        wanted = bar.key.removesuffix("*")
        for key in flat:
            if key == wanted or (bar.key != wanted and key.startswith(wanted)):
                met = flat[key] <= bar.limit if bar.upper else flat[key] >= bar.limit
                kind = "at most" if bar.upper else "at least"
                verdicts[key] = {"limit": bar.limit, "kind": kind, "met": met}
    return verdicts


def print_report(results: Results, small: bool = False) -> None:
    """Prints the table, plain where the output is no terminal.

    Args:
        results: Of `Bench.run`.
        small: Whether at a size that says nothing.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 120)
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_column("bar", justify="right")
    table.add_column("")
    verdicts = results["verdicts"]
    for key, label, text in _rows(results):
        if bar := verdicts.get(key):
            limit = f"{bar['kind']} {_text(key, bar['limit'])}"
            met, style = ("met", "green") if bar["met"] else ("missed", "red")
            table.add_row(label, text, limit, met, style=style)
        else:
            table.add_row(label, text)
    console.print(table)
    for line in _notes(results, small):
        console.print(line, highlight=False, markup=False)


def _rows(results: Results) -> Iterator[tuple[str, str, str]]:
    """Dotted key, label and value as text, of every figure that is a number."""
    for precision, found in results.get("update", {}).items():
        yield from _update_rows(precision, found)
    for part in ("env", "replay", "memory", "overlap"):
        for key, value in flatten({part: results.get(part, {})}).items():
            if not isinstance(value, str):
                label = key.partition(".")[2].replace(".", ", ").replace("_", " ")
                yield key, f"{part}: {label}", _text(key, value)
    for agent, found in results.get("agents", {}).items():
        if "seconds" in found:
            key = f"agents.{agent}.seconds"
            label = f"{agent}: an update of {found['records']} records"
            yield key, label, _text(key, found["seconds"])


def _update_rows(precision: str, found: Results) -> Iterator[tuple[str, str, str]]:
    labels = {
        "seconds": f"update, {precision}",
        "flops": "  operations of the published layers",
        "matmul_flops_per_second": "  rate of large matrix products",
        "floor_seconds": "  floor: those operations at that rate",
        "over_floor": "  update over floor",
        "over_float32": "  update over float32's",
    }
    for name, label in labels.items():
        if name in found:
            yield f"update.{precision}.{name}", label, _text(name, found[name])


def _text(key: str, value: float) -> str:
    if key.endswith("_bytes"):
        return f"{value / 1e6:.1f} MB"
    if key.endswith(("share_of_update", "growth_share")):
        return f"{100 * value:.2f} %"
    if key.endswith("flops_per_second"):
        return f"{value / 1e9:,.1f} GFLOP/s"
    if key.endswith("flops"):
        return f"{value / 1e9:,.1f} GFLOP"
    if "_per_second" in key:
        return f"{value:.1f} /s"
    if key.endswith("seconds"):
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
        yield "other programs kept this machine busy: the figures are worse than the machine"
    yield "steps are environment frames; the bars are for full size, dmc_walker_walk, a 2-core CPU"
    if small:
        yield "--quick: debug size, the figures only show that the benchmark works"
