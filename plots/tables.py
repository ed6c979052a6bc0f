"""Tables as CSV (for programs), Markdown and LaTeX (for people)."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dreamer.io.files import atomic_write
from plots.aggregates import Estimate
from plots.figures import whiskers
from plots.names import published_label, task_title
from plots.numbers import frames_range, short_score
from plots.study import Study
from plots.summaries import Entry

Cells = list[list[str]]
"""A table's rows of text; the first is the head."""

SCORE_NOTE = ("Ours: mean ± standard deviation over seeds (number of seeds). The frames of scores "
              "are in the head, or with each score where a column has several.")

_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}",
          "^": r"\textasciicircum{}", **{sign: "\\" + sign for sign in "&%$#_{}"}}


def score_records(study: Study) -> list[dict[str, object]]:
    """Returns one record for every task and method that has a score, ours and published.

    Where our methods end at different frames, a published curve has a record for each of them.
    """
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
            for point in study.published_at(task, method):
                records.append({
                    "task": task, "method": method, "kind": "published", "mean": point.score,
                    "std": "", "ci_low": "", "ci_high": "", "seeds": point.seeds or "",
                    "seeds_without_score": "", "frames_least": point.frames,
                    "frames_most": point.frames, "approximate": point.approximate or "",
                })
    return records


@dataclasses.dataclass(frozen=True)
class _Score:
    text: str
    value: float
    frames: Sequence[float]

    def at(self) -> str:
        return frames_range(self.frames)


_Column = dict[str, list[_Score]]
"""By task a method's scores, in ascending order of their frames."""


def score_cells(study: Study) -> Cells:
    """Returns tasks by methods, then the mean over tasks with the number it stands on.

    A column's head says the frames of its scores; where they are not all alike, each score says
    its own instead. A published curve is read at every end of our methods, and its mean over tasks
    is that at the latest of them.
    """
    columns = [(method, _own_column(study, method)) for method in study.methods]
    columns += [(published_label(method), _published_column(study, method))
                for method in study.published_methods]
    cells = [_column_cells(name, column, study.tasks) for name, column in columns]
    names = ["Task", *map(task_title, study.tasks), "Mean over tasks"]
    return [list(row) for row in zip(names, *cells, strict=True)]


def _own_column(study: Study, method: str) -> _Column:
    found = {task: study.scored[task, method]
             for task in study.tasks if (task, method) in study.scored}
    return {task: [_Score(_own_text(final.scores), float(final.scores.mean()), [*final.frames])]
            for task, final in found.items()}


def _published_column(study: Study, method: str) -> _Column:
    found = {task: study.published_at(task, method) for task in study.tasks}
    return {task: [_Score(short_score(point.score), point.score, [point.frames])
                   for point in points] for task, points in found.items() if points}


def _column_cells(name: str, column: _Column, tasks: Sequence[str]) -> list[str]:
    """Returns the head, a cell a task, and the mean over tasks."""
    found = {score.at() for scores in column.values() for score in scores}
    if len(found) == 1:
        (frames,) = found
        name += f" ({frames})" if frames else ""

    def said(score: _Score) -> str:
        return f"{score.text} at {score.at()}" if len(found) > 1 and score.at() else score.text

    cells = [", ".join(map(said, column.get(task, []))) or "-" for task in tasks]
    return [name, *cells, said(_mean(column, len(tasks))) if column else "-"]


def _own_text(scores: np.ndarray) -> str:
    text = short_score(float(scores.mean()))
    digits = len(text.partition(".")[2])
    spread = f" ± {scores.std():.{digits}f}" if len(scores) > 1 else ""
    return f"{text}{spread} ({len(scores)})"


def _mean(column: _Column, tasks: int) -> _Score:
    """Returns the mean of the tasks' last scores."""
    last = [scores[-1] for scores in column.values()]
    value = float(np.mean([score.value for score in last]))
    text = short_score(value) + ("" if len(last) == tasks else f" ({len(last)} of {tasks} tasks)")
    return _Score(text, value, [frames for score in last for frames in score.frames])


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
