"""Tables as CSV (for programs), Markdown and LaTeX (for people)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dreamer.files import atomic_write
from plots.aggregates import Estimate
from plots.figures import whiskers
from plots.names import task_title
from plots.numbers import short_score
from plots.study import Study
from plots.summaries import Entry

Cells = list[list[str]]
"""A table's rows of text; the first is the head."""

_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}",
          "^": r"\textasciicircum{}", **{sign: "\\" + sign for sign in "&%$#_{}"}}


def score_records(study: Study) -> list[dict[str, object]]:
    """Returns one record for every task and method that has a score, ours and published."""
    records: list[dict[str, object]] = []
    for task in study.tasks:
        for method in study.methods:
            found = study.scored.get((task, method))
            if found is None:
                continue
            mean = found.scores.mean()
            (below,), (above,) = whiskers(found.scores, "ci")
            several = len(found.scores) > 1
            records.append({
                "task": task, "method": method, "kind": "run", "mean": mean,
                "std": found.scores.std() if several else "",
                "ci_low": mean - below if several else "",
                "ci_high": mean + above if several else "",
                "seeds": len(found.scores), "seeds_without_score": found.asked - len(found.scores),
                "frames_least": int(found.frames.min()), "frames_most": int(found.frames.max()),
                "approximate": "",
            })
        for method in study.published_methods:
            point = study.published_point(task, method)
            if point is not None:
                records.append({
                    "task": task, "method": method, "kind": "published", "mean": point.score,
                    "std": "", "ci_low": "", "ci_high": "", "seeds": point.seeds or "",
                    "seeds_without_score": "", "frames_least": point.frames,
                    "frames_most": point.frames, "approximate": point.approximate or "",
                })
    return records


def score_cells(study: Study) -> Cells:
    """Returns tasks by methods, then the mean over tasks with the number it stands on."""
    head = ["Task", *study.methods, *(study.published_name(m) for m in study.published_methods)]
    columns = [study.own_points(method) for method in study.methods]
    columns += [study.published_points(method) for method in study.published_methods]
    own = len(study.methods)
    rows = [
        [task_title(task), *(_cell(column.get(task), i < own) for i, column in enumerate(columns))]
        for task in study.tasks
    ]
    return [head, *rows, ["Mean over tasks", *(_mean(column, len(rows)) for column in columns)]]


def _cell(scores: np.ndarray | None, is_own: bool) -> str:
    if scores is None:
        return "-"
    text = short_score(float(scores.mean()))
    if not is_own:
        return text
    digits = len(text.partition(".")[2])
    spread = f" ± {scores.std():.{digits}f}" if len(scores) > 1 else ""
    return f"{text}{spread} ({len(scores)})"


def _mean(column: dict[str, np.ndarray], tasks: int) -> str:
    if not column:
        return "-"
    text = short_score(float(np.mean([scores.mean() for scores in column.values()])))
    return text if len(column) == tasks else f"{text} ({len(column)} of {tasks} tasks)"


def curve_records(study: Study) -> list[dict[str, object]]:
    """Returns one record for every point of our curves."""
    return [
        {"task": task, "method": method, "frames": int(x), "mean": mean, "low": low, "high": high,
         "seeds": int(count)}
        for task in study.tasks for method in study.methods
        if (found := study.curves.get((task, method))) is not None
        for x, mean, low, high, count in zip(
            found.x, found.mean, found.low, found.high, found.count, strict=True)
    ]


def aggregate_records(
    found: Sequence[tuple[Entry, dict[str, Estimate]]], words: str
) -> list[dict[str, object]]:
    """Returns one record for every method and statistic."""
    return [
        {"method": entry.method, "kind": "run" if entry.is_own else "published",
         "statistic": name, "value": value.value,
         "ci_low": _finite(value.low), "ci_high": _finite(value.high),
         "tasks": len(entry.scores), "runs": sum(map(len, entry.scores.values())), "scale": words}
        for entry, values in found for name, value in values.items()
    ]


def aggregate_cells(found: Sequence[tuple[Entry, dict[str, Estimate]]]) -> Cells:
    """Returns methods by statistics, with their intervals."""
    names = list(found[0][1]) if found else []
    return [["Method", "Tasks", *names]] + [
        [entry.label, str(len(entry.scores)), *(_interval(values[name]) for name in names)]
        for entry, values in found
    ]


def improvement_records(
    rows: Sequence[tuple[str, str, int, Estimate]]
) -> list[dict[str, object]]:
    """Returns one record for every pair."""
    return [{"x": x, "y": y, "tasks": tasks, "probability_x_above_y": value.value,
             "ci_low": _finite(value.low), "ci_high": _finite(value.high)}
            for x, y, tasks, value in rows]


def _finite(value: float) -> object:
    return value if np.isfinite(value) else ""


def _interval(value: Estimate) -> str:
    text = short_score(value.value)
    if not np.isfinite(value.low):
        return text
    return f"{text} [{short_score(value.low)}, {short_score(value.high)}]"


def write_records(path: Path, records: Sequence[dict[str, object]]) -> Path:
    """Writes records as CSV, numbers to six digits."""
    text = io.StringIO()
    if records:
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _digits(value) for key, value in record.items()}
                         for record in records)
    return _write(path, text.getvalue())


def _digits(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else value


def write_cells(stem: Path, cells: Cells, notes: Sequence[str]) -> list[Path]:
    """Writes <stem>.md and <stem>.tex, with the notes below the table."""
    return [_write(stem.with_name(stem.name + ".md"), markdown(cells, notes)),
            _write(stem.with_name(stem.name + ".tex"), latex(cells, notes))]


def markdown(cells: Cells, notes: Sequence[str]) -> str:
    """Returns the cells as a Markdown table."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    lines.insert(1, "|---" + "|---:" * (len(cells[0]) - 1) + "|")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]).rstrip() + "\n"


def latex(cells: Cells, notes: Sequence[str]) -> str:
    """Returns the cells as a LaTeX tabular (package booktabs); notes become comments."""
    rows = [" & ".join(map(_escape, row)) + r" \\" for row in cells]
    return "\n".join([
        *(f"% {note}" for note in notes),
        r"\begin{tabular}{l" + "r" * (len(cells[0]) - 1) + "}", r"\toprule", rows[0],
        r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}",
    ]) + "\n"


def _escape(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _write(path: Path, text: str) -> Path:
    with atomic_write(path) as file:
        file.write(text.encode())
    return path
