"""Tables as CSV for programs, and as Markdown and LaTeX for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dreamer.io.files import write_file
from plots.aggregates import Estimate, Pair, Summary
from plots.labels import frames_range, published_label, short_score, task_title
from plots.study import Study, whiskers

Records = Sequence[Mapping[str, object]]
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
            seeds, mean = len(found.scores), found.scores.mean()
            (below,), (above,) = whiskers(found.scores, "ci")
            spread = {"std": found.scores.std(), "ci_low": mean - below, "ci_high": mean + above}
            records.append(blank | {
                "task": task, "method": method, "kind": "run", "mean": mean,
                **(spread if seeds > 1 else {}),
                "seeds": seeds, "seeds_without_score": len(study.runs[task, method]) - seeds,
                "frames_least": int(found.frames.min()), "frames_most": int(found.frames.max())})
        records += [blank | {
            "task": task, "method": method, "kind": "published", "mean": point.score,
            "seeds": point.seeds or "", "frames_least": point.frames,
            "frames_most": point.frames, "approximate": point.approximate or ""}
            for method in study.published_methods for point in study.published_at(task, method)]
    return records


def curve_records(study: Study) -> Records:
    """Returns one record for every point of our curves."""
    return [
        {"task": task, "method": method, "frames": int(x), "mean": mean, "low": low, "high": high,
         "seeds": int(count)}
        for task in study.tasks for method in study.methods
        if (found := study.curves.get((task, method))) is not None
        for x, mean, low, high, count in zip(
            found.x, found.mean, found.low, found.high, found.count, strict=True)
    ]


def write_scores(study: Study, outdir: Path) -> list[Path]:
    """Writes scores.csv, curves.csv, scores.md and scores.tex; returns their paths."""
    return [_write_csv(outdir / "scores.csv", score_records(study)),
            _write_csv(outdir / "curves.csv", curve_records(study)),
            *_write_cells(outdir / "scores", score_cells(study),
                          [SCORE_NOTE, *study.all_notes()])]


def write_aggregates(summary: Summary, outdir: Path) -> list[Path]:
    """Writes aggregates.md, aggregates.tex and aggregates.csv; returns their paths."""
    records = [
        {"method": entry.method, "kind": "run" if entry.is_own else "published",
         "statistic": name, **_estimate_fields("value", value),
         "tasks": len(entry.scores), "runs": sum(map(len, entry.scores.values())),
         "scale": summary.words}
        for entry in summary.entries for name, value in entry.aggregates.items()
    ]
    return [*_write_cells(outdir / "aggregates", aggregate_cells(summary), summary.notes),
            _write_csv(outdir / "aggregates.csv", records)]


def write_improvements(pairs: Sequence[Pair], outdir: Path) -> Path:
    """Writes improvement.csv; returns its path."""
    return _write_csv(outdir / "improvement.csv", [
        {"x": x, "y": y, "tasks": tasks, **_estimate_fields("probability_x_above_y", value)}
        for x, y, tasks, value in pairs])


def _estimate_fields(name: str, value: Estimate) -> dict[str, object]:
    low, high = ("", "") if np.isnan(value.low) else (value.low, value.high)
    return {name: value.value, "ci_low": low, "ci_high": high}


class _Score(NamedTuple):
    """A score as text and as a number, and the frames at which it was reached."""

    text: str
    value: float
    frames: Sequence[float]

    def cell(self, with_frames: bool) -> str:
        at = frames_range(self.frames) if with_frames else ""
        return f"{self.text} at {at}" if at else self.text


def score_cells(study: Study) -> Cells:
    """Returns tasks by methods, then the mean over tasks with the number of tasks it is over.

    A column's head names the frames of its scores. If they differ, each score names its own. A
    published curve is read at every end of our methods. Its mean over tasks is at the latest end.
    """
    columns: list[tuple[str, dict[str, list[_Score]]]] = []  # scores by task, in order of frames
    for method in study.methods:
        columns.append((method, {
            task: [_Score(_mean_text(scores), float(scores.mean()),
                          [*study.scored[task, method].frames])]
            for task, scores in study.own_points(method).items()}))
    for method in study.published_methods:
        columns.append((published_label(method), {
            task: [_Score(short_score(point.score), point.score, [point.frames])
                   for point in points]
            for task in study.tasks if (points := study.published_at(task, method))}))
    cells = [_column_cells(name, scores, study.tasks) for name, scores in columns]
    names = ["Task", *map(task_title, study.tasks), "Mean over tasks"]
    return [list(row) for row in zip(names, *cells, strict=True)]


def _mean_text(scores: np.ndarray) -> str:
    text = short_score(float(scores.mean()))
    digits = len(text.partition(".")[2])
    spread = f" ± {scores.std():.{digits}f}" if len(scores) > 1 else ""
    return f"{text}{spread} ({len(scores)})"


def _column_cells(name: str, by_task: dict[str, list[_Score]], tasks: Sequence[str]) -> list[str]:
    """Returns the head, one cell for each task, and the mean over the tasks' last scores."""
    if not by_task:
        return [name, *["-"] * len(tasks), "-"]
    frames = {frames_range(score.frames) for scores in by_task.values() for score in scores}
    if len(frames) == 1 and frames != {""}:
        name += f" ({min(frames)})"
    several = len(frames) > 1
    cells = [", ".join(score.cell(several) for score in by_task.get(task, [])) or "-"
             for task in tasks]
    last = [scores[-1] for scores in by_task.values()]
    mean = float(np.mean([score.value for score in last]))
    some = "" if len(last) == len(tasks) else f" ({len(last)} of {len(tasks)} tasks)"
    over = _Score(short_score(mean) + some, mean, [value for each in last for value in each.frames])
    return [name, *cells, over.cell(several)]


def aggregate_cells(summary: Summary) -> Cells:
    """Returns methods by statistics, with their intervals."""
    rows = [[entry.label, str(len(entry.scores)), *map(_interval_text, entry.aggregates.values())]
            for entry in summary.entries]
    return [["Method", "Tasks", *summary.entries[0].aggregates], *rows]


def _interval_text(value: Estimate) -> str:
    text = short_score(value.value)
    if np.isnan(value.low):
        return text
    return f"{text} [{short_score(value.low)}, {short_score(value.high)}]"


def _write_csv(path: Path, records: Records) -> Path:
    """Writes the records, with numbers to six digits."""
    text = io.StringIO()
    if records:
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" if isinstance(value, float) else value
                          for key, value in record.items()} for record in records)
    return _write(path, text.getvalue())


def _write_cells(stem: Path, cells: Cells, notes: Sequence[str]) -> list[Path]:
    return [_write(stem.with_name(stem.name + ".md"), markdown(cells, notes)),
            _write(stem.with_name(stem.name + ".tex"), latex(cells, notes))]


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


def _write(path: Path, text: str) -> Path:
    write_file(path, text.encode())
    return path
