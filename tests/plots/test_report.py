"""The report page: what it holds, that it loads nothing, and that names stay text."""

from __future__ import annotations

import base64
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dreamer.config.command_line import CommandLine
from dreamer.config.config import Config, load_config
from dreamer.errors import UserError
from dreamer.logs.video import encode_gif
from dreamer.runs.rundir import RunDir
from plots.report import Details, main
from plots.runs import find_runs, load_runs

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = """<img src=x onerror=alert(1)>"'&$\\frac</style><script>alert(2)</script>""".replace(
    "/", "∕")  # noqa: RUF001  no folder's name may hold a slash


class Reader(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts = set(), [], []
        self.handle_data = self.texts.append
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(key, value or "") for key, value in attrs]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def images(self, kind: str) -> list[bytes]:
        start = f"data:image/{kind};base64,"
        return [base64.b64decode(value.removeprefix(start)) for key, value in self.attributes
                if key == "src" and value.startswith(start)]


def loads_nothing(reader: Reader) -> bool:
    """Whether a page is complete in itself and runs nothing."""
    inside = all(value.startswith("data:image/") for key, value in reader.attributes
                 if key in ("src", "href", "srcset", "data", "action", "poster"))
    handlers = [key for key, _ in reader.attributes if key.startswith("on")]
    active = {"script", "iframe", "object", "embed", "link", "base", "form"}
    return inside and not handlers and not active & reader.tags


def make_run(root: Path, config: Config, scores: dict[int, float], hours: float = 1.5) -> Path:
    """A run's directory as a run makes it, with an evaluation at each step."""
    with RunDir.open(config.replace({"logdir": str(root)})) as run:
        lines = [{"step": step, "wall_time": hours * 3600 * step / max(scores),
                  "eval/return": score} for step, score in scores.items()]
        run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        frames = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8)
        for step in scores:
            (run.videos / f"eval_policy-{step}.gif").write_bytes(encode_gif(frames, 10))
        return run.path


def reported(indir: Path, *words: str) -> Reader:
    out = indir.parent / "report.html"
    assert main(["--indir", str(indir), "--out", str(out), "--resamples", "50", *words]) == 0
    return Reader(out.read_text(encoding="utf-8"))


SCORES = {100_000: 300.0, 200_000: 400.0}


def test_a_benchmark(tmp_path: Path):
    runs = tmp_path / "runs"
    for task in ("dmc_walker_walk", "dmc_cup_catch"):
        for seed in (0, 1):
            config = load_config("small", task=task, overrides={"seed": seed})
            make_run(runs, config, {step: score + seed for step, score in SCORES.items()})
    varied = load_config("small", task="dmc_cup_catch",
                         overrides={"method": "mine", "behavior.horizon": 7})
    make_run(runs, varied, SCORES)
    reader = reported(runs)
    assert loads_nothing(reader)
    # A legend, a panel a task, the bars, the aggregates; a clip of each task and method.
    assert len(reader.images("svg+xml")) == 1 + 2 + 1 + 1
    assert len(reader.images("gif")) == 3
    text = reader.text
    assert "5 runs of 2 method(s) on 2 task(s)" in text and "7.5 hours" in text
    assert "400.5 ± 0.5 (2)" in text  # our mean over seeds
    assert "behavior.horizon" in text and "lack a score on some of the 2 tasks: mine." in text
    assert "eval policy, 200k frames" in text and "100k frames" not in text
    assert "cores" in text
    assert "Scores at the end of each run, beside published ones" in reader.texts
    assert "dreamer_small (200k)" in reader.texts
    commands = [line for line in reader.texts if line.startswith("python -m dreamer.run")]
    assert len(commands) == 5


def details_of(root: Path) -> Details:
    (run,), _ = load_runs(find_runs([root]).runs, "eval/return", 1000)
    return Details(run)


@pytest.mark.parametrize("presets, overrides, agent, program", [
    (["small"], {"seed": 3, "train.batch_size": 11, "steps": 2e5, "discount.enabled": True,
                 "encoder.keys": "a|b c"}, "dreamer", ["dreamer.run"]),
    ([], {"seed": 1}, "d4pg", ["baselines.run", "--agent", "d4pg"])])
def test_the_command_of_a_run_gives_its_config(tmp_path: Path, presets, overrides, agent, program):
    config = load_config(*presets, task="dmc_walker_walk", agent=agent, overrides=overrides)
    make_run(tmp_path, config, SCORES)
    words = shlex.split(details_of(tmp_path).command)
    assert words[: 2 + len(program)] == ["python", "-m", *program]
    line = CommandLine("", "", agent=agent)
    assert line.parse(words[2 + len(program) :]).config() == config


def test_folders_below_the_present_one_do_not_tell_where_it_is(tmp_path, write_run, monkeypatch):
    folder = write_run("runs/dmc_walker_walk/dreamer/0", SCORES)
    for here, shown in ((tmp_path, folder.relative_to(tmp_path)), (ROOT, folder)):
        monkeypatch.chdir(here)
        text = reported(tmp_path / "runs").text
        assert f"Directory: {shown} " in text and (str(tmp_path) in text) == (shown == folder)


def test_names_stay_text(tmp_path: Path, write_run):
    """A folder, a config and a metric called like markup change nothing but words."""
    folder = write_run(f"runs/dmc_walker_walk/{HOSTILE}/0", SCORES)
    (folder / "config.yaml").write_text(json.dumps({
        "config": {"task": HOSTILE, "envs": {HOSTILE: HOSTILE}, "deep": {"a": {"b": [1]}}},
        "presets": [HOSTILE], "commit": HOSTILE, "host": HOSTILE, "versions": {HOSTILE: HOSTILE},
        "machine": {"processor": HOSTILE, "gpus": [HOSTILE]}}))
    write_run("runs/dmc_walker_walk/other/0", SCORES)
    videos = folder / "videos"
    videos.mkdir()
    (videos / f"{HOSTILE}-7.gif").write_bytes(b"GIF89a and more")
    (videos / "a-7.gif").write_text("<script>alert(1)</script>")
    (videos / "link-9.gif").symlink_to("/etc/hostname")
    reader = reported(tmp_path / "runs", "--title", HOSTILE)
    assert loads_nothing(reader)
    assert reader.text.count(HOSTILE) >= 12
    assert reader.images("gif") == [b"GIF89a and more"]


def test_an_irregular_config_is_not_read(tmp_path: Path, write_run, make_irregular):
    folder = write_run("runs/dmc_walker_walk/dreamer/0", SCORES)
    make_irregular(folder / "config.yaml", "host: secret\nconfig: {seed: 1}\n")
    details = details_of(tmp_path / "runs")
    assert not details.record and not details.config and not details.command


def test_many_methods_and_foreign_runs(tmp_path: Path, write_run):
    for number in range(12):
        write_run(f"runs/dmc_walker_walk/m{number}/0", SCORES)
    write_run("runs/planner/dmc_hopper_hop/0", SCORES, key="eval_return", tail='{"step": 3000')
    reader = reported(tmp_path / "runs")
    assert "Figures draw 12 of 13 methods, the first of each task among them;" in reader.text
    names = [f"m{number}" for number in range(12)] + ["planner"]
    assert all(f"{name} (200k)" in reader.texts for name in names)
    assert "how it was made is not known" in reader.text
    assert "Skipped 1 damaged line(s)" in reader.text


def test_totals_and_the_limit_on_clips(tmp_path: Path, write_run):
    for seed in range(3):
        config = load_config("small", task="dmc_walker_walk", overrides={"seed": seed})
        run = make_run(tmp_path / "runs", config, SCORES, hours=2.5)
        for path in (run / "videos").iterdir():
            path.write_bytes(b"GIF89a" + bytes(1_000_000))
    write_run("runs/dmc_walker_walk/other/0", SCORES)
    reader = reported(tmp_path / "runs", "--clips", "1")
    assert "4 runs of 2 method(s)" in reader.text
    assert "Together 7.5 hours of work by the runs' own clocks (1 without a clock)" in reader.text
    assert "All runs have the same config" in reader.text
    assert reader.images("gif") == []
    assert "1 run(s) with clips had no room here" in reader.text


@pytest.mark.parametrize("words, message", [
    ("--out .", "expected a file in a folder that exists"),
    ("--out none/r.html", "expected a file in a folder that exists"),
    ("--out r.html --methods mien", "did you mean 'mine'?")])
def test_mistakes(tmp_path: Path, write_run, monkeypatch, words: str, message: str):
    write_run("runs/dmc_walker_walk/mine/0", SCORES)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        main(["--indir", "runs", *words.split()])
    assert not list(tmp_path.glob("*.html"))
