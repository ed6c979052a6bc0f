"""Tables as CSV for programs, and as Markdown and LaTeX for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.io.files import write_file
from plots.aggregates import Estimate, Summary
from plots.labels import frames_range, published_label, short_score, suite_of, task_title
from plots.study import Study, spread_of

Records = list[dict[str, Any]]
Cells = list[list[str]]
"""A table's rows of text; the first row is the head."""

SCORE_NOTE = ("Ours: mean ± standard deviation over seeds (number of seeds). The frames of scores "
              "are in the head, or with each score where a column has several.")

_LATEX = str.maketrans({"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}",
                        "^": r"\textasciicircum{}",
                        **{sign: "\\" + sign for sign in "&%$#_{}"}})


def score_records(study: Study) -> Records:
    """Returns one record for every task and method with a score, ours and published.

    If our methods end at different frames, a published curve has a record for each end.
    """
    blank = dict.fromkeys(("task", "method", "kind", "mean", "std", "ci_low", "ci_high", "seeds",
                           "seeds_without_score", "frames_least", "frames_most", "approximate"), "")
    records = []
    for task in study.tasks:
        for method in study.methods:
            if (found := study.scored.get((task, method))) is None:
                continue
            scores, frames = found.scores, found.frames
            record = blank | {
                "task": task, "method": method, "kind": "run", "mean": scores.mean(),
                "seeds": len(scores),
                "seeds_without_score": len(study.runs[task, method]) - len(scores),
                "frames_least": int(frames.min()), "frames_most": int(frames.max())}
            if len(scores) > 1:
                (low,), (high,) = spread_of(scores[:, None], "ci")
                record |= {"std": scores.std(), "ci_low": low, "ci_high": high}
            records.append(record)
        records += [blank | {
            "task": task, "method": method, "kind": "published", "mean": point.score,
            "seeds": point.seeds or "", "frames_least": point.frames,
            "frames_most": point.frames, "approximate": point.approximate or ""}
            for method in study.published_methods for point in study.published_at(task, method)]
    return records


def curve_records(study: Study) -> Records:
    """Returns one record for every point of our curves."""
    columns = "task", "method", "frames", "mean", "low", "high", "seeds"
    return [
        dict(zip(columns, (task, method, *point), strict=True))
        for task in study.tasks for method in study.methods
        if (found := study.curves.get((task, method))) is not None
        for point in zip(*found[:5], strict=True)]


def write_scores(study: Study, outdir: Path) -> list[Path]:
    """Writes scores.csv, curves.csv, scores.md and scores.tex; returns their paths."""
    return [_write_csv(outdir / "scores.csv", score_records(study)),
            _write_csv(outdir / "curves.csv", curve_records(study)),
            *_write_cells(outdir / "scores", score_cells(study), [SCORE_NOTE, *study.notes])]


def write_aggregates(summary: Summary, outdir: Path) -> list[Path]:
    """Writes aggregates.md, .tex and .csv, and improvement.csv if there are pairs."""
    records = [
        {"method": entry.method, "kind": "run" if entry.is_own else "published",
         "statistic": name, "value": value.value, **_limits(value), "tasks": len(entry.scores),
         "runs": sum(map(len, entry.scores.values())), "scale": summary.words}
        for entry in summary.entries for name, value in entry.aggregates.items()]
    compared = [
        {"x": x, "y": y, "tasks": tasks, "probability_x_above_y": value.value, **_limits(value)}
        for x, y, tasks, value in summary.improvements]
    return [*_write_cells(outdir / "aggregates", aggregate_cells(summary), summary.notes),
            _write_csv(outdir / "aggregates.csv", records),
            *([_write_csv(outdir / "improvement.csv", compared)] if compared else [])]


def _limits(value: Estimate) -> dict[str, Any]:
    known = not np.isnan(value.low)
    return {"ci_low": value.low if known else "", "ci_high": value.high if known else ""}


def score_cells(study: Study) -> Cells:
    """Returns tasks by methods, then, of control tasks, the mean with the number of its tasks.

    A column's head names the frames of its scores; if they differ, each score does. A published
    curve is read at every end of our methods, its mean over tasks at the latest end.
    """
    records = score_records(study)
    columns = [("run", method, method) for method in study.methods]
    columns += [("published", name, published_label(name)) for name in study.published_methods]
    cells = [_column_cells(label, [record for record in records if record["kind"] == kind
                                   and record["method"] == method], study.tasks)
             for kind, method, label in columns]
    names = ["Task", *map(task_title, study.tasks), "Mean over tasks"]
    rows = [list(row) for row in zip(names, *cells, strict=True)]
    # Returns of other tasks than control's have scales of their own.
    comparable = len(study.tasks) == 1 or all(suite_of(task) == "dmc" for task in study.tasks)
    return rows if comparable else rows[:-1]


def _column_cells(name: str, records: Records, tasks: Sequence[str]) -> list[str]:
    """Returns the head, one cell for each task, and the mean over the tasks' last scores."""
    if not records:
        return [name, *["-"] * len(tasks), "-"]
    frames = {_frames_text([record]) for record in records}
    several = len(frames) > 1
    if not several and frames != {""}:
        name += f" ({min(frames)})"

    def at(text: str, *records: dict[str, Any]) -> str:
        frames = _frames_text(records) if several else ""
        return f"{text} at {frames}" if frames else text

    cells = [", ".join(at(_score_text(record), record) for record in records
                       if record["task"] == task) or "-" for task in tasks]
    last = {record["task"]: record for record in records}.values()
    mean = short_score(float(np.mean([record["mean"] for record in last])))
    some = "" if len(last) == len(tasks) else f" ({len(last)} of {len(tasks)} tasks)"
    return [name, *cells, at(mean + some, *last)]


def _frames_text(records: Iterable[dict[str, Any]]) -> str:
    return frames_range(record[key] for record in records
                        for key in ("frames_least", "frames_most"))


def _score_text(record: dict[str, Any]) -> str:
    text = short_score(record["mean"])
    digits = len(text.partition(".")[2])
    spread = "" if record["std"] == "" else f" ± {record['std']:.{digits}f}"
    return text if record["kind"] == "published" else f"{text}{spread} ({record['seeds']})"


def aggregate_cells(summary: Summary) -> Cells:
    """Returns methods by statistics, with their intervals."""
    rows = [[entry.label, str(len(entry.scores)), *map(_interval_text, entry.aggregates.values())]
            for entry in summary.entries]
    return [["Method", "Tasks", *summary.entries[0].aggregates], *rows]


def _interval_text(value: Estimate) -> str:
    limits = f" [{short_score(value.low)}, {short_score(value.high)}]"
    return short_score(value.value) + ("" if np.isnan(value.low) else limits)


def _write_csv(path: Path, records: Records) -> Path:
    """Writes the records, with numbers to six digits."""
    text = io.StringIO()
    if records:
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" if isinstance(value, float) else value
                          for key, value in record.items()} for record in records)
    write_file(path, text.getvalue().encode())
    return path


def _write_cells(stem: Path, cells: Cells, notes: Sequence[str]) -> list[Path]:
    paths = [stem.with_suffix(".md"), stem.with_suffix(".tex")]
    for path, form in zip(paths, (markdown, latex), strict=True):
        write_file(path, form(cells, notes).encode())
    return paths


def markdown(cells: Cells, notes: Sequence[str]) -> str:
    """Returns the cells as a Markdown table, with the notes as a list below it."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    lines.insert(1, "|---" + "|---:" * (len(cells[0]) - 1) + "|")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]).rstrip() + "\n"


def latex(cells: Cells, notes: Sequence[str]) -> str:
    """Returns the cells as a LaTeX tabular (package booktabs), with the notes as comments."""
    rows = [" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in cells]
    return "\n".join([
        *(f"% {note}" for note in notes),
        r"\begin{tabular}{l" + "r" * (len(cells[0]) - 1) + "}", r"\toprule", rows[0],
        r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}",
    ]) + "\n"
