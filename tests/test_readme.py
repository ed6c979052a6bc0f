"""README and docs/: their commands parse, their links lead somewhere, and the first run works."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from whole_runs import additions, finish, metrics_of, python, start

from baselines.run import command_line
from dreamer import benchmark, evaluate, export, gpu_check, load_config, predict, sweep
from dreamer.config.command_line import CommandLine, Parsed
from dreamer.config.schema import agent_names, load_schema
from dreamer.sweeps.plan import plan
from plots import plot, report

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TOP = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = [
    *(ROOT / name for name in TOP),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "baselines" / "published" / "README.md",
]
# Where the paths that a page names in backticks may start.
PLACES = [ROOT, ROOT / "dreamer", ROOT / "docs"]
# Files that a run or a command makes, and names that stand for a user's own.
MADE = ("runs/", "episodes/", "checkpoints/", "videos/", "predictions/", "nonfinite/", "build/")
MADE += ("best/", "eval_episodes/", "path/to/", "old/", "plots/out/", "./mine.yaml")
# What makes a training of minutes one of seconds, of networks and batches of the preset's size.
FEW = {
    "--steps": "1400", "--train.prefill": "1000", "--train.every": "200", "--train.updates": "2",
    "--train.pretrain": "1", "--envs.time_limit": "400", "--eval.episodes": "1",
    "--eval.num_envs": "1", "--log.video_every": "0",
}  # fmt: skip


def commands(page: Path) -> list[list[str]]:
    """The words of each call of one of our programs, without variables set before it."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = (shlex.split(line, comments=True) for line in lines)
    return [words[words.index("python") + 1 :] for words in found if "python" in words]


COMMANDS = {" ".join(words): words for page in PAGES for words in commands(page)}


PROGRAMS: dict[str, Callable[[list[str]], object]] = {
    "-m dreamer.run": lambda words: CommandLine("run", "").parse(words).config(),
    "-m dreamer.evaluate": evaluate.COMMAND_LINE.parse,
    "-m dreamer.predict": predict.COMMAND_LINE.parse,
    "-m dreamer.export": export.COMMAND_LINE.parse,
    "-m dreamer.benchmark": benchmark.LINE.parse,
    "-m dreamer.gpu_check": gpu_check.LINE.parse,
    "-m dreamer.sweep": lambda words: plan(sweep.LINE.parse(words)),
    "-m baselines.run": lambda words: command_line().parse(words).config(),
    "-m baselines.evaluate": evaluate.COMMAND_LINE.parse,
    "plots/plot.py": plot.LINE.parse,
    "plots/report.py": report.LINE.parse,
}


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str):
    words = COMMANDS[line]
    program = program_of(words)
    assert program in PROGRAMS, f"a page calls {program}: say here how it is read"
    PROGRAMS[program](words[len(program.split()) :])


@pytest.mark.parametrize("method", ["dreamer", "dreamer_small"])
def test_the_commands_after_make_train_find_its_run(method: str, tmp_path: Path):
    """On a machine with a GPU or without one, as the shell passes them on."""
    run = Path("runs/dmc_walker_walk", method, "0")
    (tmp_path / run).mkdir(parents=True)
    block = README.read_text(encoding="utf-8").partition("source .venv/bin/activate")[2]
    lines = [line for line in block.partition("```")[0].splitlines() if "--run" in line]
    assert len(lines) == 2
    for line in lines:
        echo = line.replace("python -m", "printf '%s\\n'", 1)
        words = subprocess.check_output(["sh", "-c", echo], cwd=tmp_path, text=True).split()
        parsed = PROGRAMS[f"-m {words[0]}"](words[1:])
        assert isinstance(parsed, Parsed) and parsed.options["run"] == str(run)


def program_of(words: list[str]) -> str:
    return " ".join(words[:2]) if words[0] == "-m" else words[0]


def test_every_program_is_on_a_page():
    assert {program_of(words) for words in COMMANDS.values()} == set(PROGRAMS)


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 165


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link}: nothing there"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path):
    for name in re.findall(r"`([\w./-]+/[\w.-]*)`", page.read_text(encoding="utf-8")):
        looks_like_a_path = name.endswith(("/", ".py", ".yaml", ".md", ".csv"))
        if looks_like_a_path and not name.startswith(MADE):
            assert any((place / name).exists() for place in PLACES), f"{name}: no such file"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_config_key_that_a_page_names_exists(page: Path):
    keys = set(load_schema()).union(*(load_schema(agent) for agent in agent_names()))
    sections = {key.partition(".")[0] for key in keys if "." in key}
    for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
        for key in re.findall(r"(?:^|[ -])([a-z0-9_]+\.[a-z_]+)\b(?!\()", code):
            assert key.partition(".")[0] not in sections or key in keys, f"{key}: no such key"


def test_the_example_of_a_preset_loads(tmp_path: Path):
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    preset = tmp_path / "mine.yaml"
    preset.write_text(re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)[0])
    config = load_config(str(preset))
    assert (config.task, config.steps, config.presets) == ("arm.py:Reach", 200_000, ("mine",))
    assert not config.envs.image and config.optimizer.value_lr == 1e-4


@pytest.mark.slow
def test_the_site_builds_without_a_broken_link(tmp_path: Path):
    """Strict: a link that leads nowhere, an anchor or a module that is gone fails the build."""
    done = python("-m", "mkdocs", "build", "--site-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    pages = [page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")]
    assert len(pages) > 20
    loads = re.compile(r'<(?:script|img|link)[^>]*"(https?:[^"]*)')
    loaded = [url for page in pages for url in loads.findall(page)]
    assert not loaded, "the pages load something from the network"


def shortened(logdir: Path, *presets: str) -> list[str]:
    """What `make train` runs, with that logdir, these presets and few steps."""
    few = [word for pair in FEW.items() for word in pair]
    return ["--task", "dmc_walker_walk", "--logdir", str(logdir), "--configs", *presets, *few]


@pytest.mark.slow
def test_the_main_command_at_the_size_for_cpus(tmp_path: Path):
    status, _, errors = finish(start("dreamer.run", *shortened(tmp_path, "small")))
    assert status == 0, errors
    last = metrics_of(tmp_path / "dmc_walker_walk" / "dreamer_small" / "0")[-1]
    assert (last["step"], last["updates"]) == (1400, 5)
    assert 0 <= last["eval/return"] <= 400


@pytest.mark.slow
def test_the_additions_that_contributing_shows_run_from_a_folder_of_their_own(tmp_path: Path):
    """A loss, a suite and an agent, as written there; then the program that registers them."""
    loss, _, _, suite, preset, _, agent, keys, _, defaults, program = additions()
    train_agent = program.replace("train(load_config(", "# ").rstrip() + (
        "\n    from baselines.run import train as train_other\n"
        "    config = load_config('debug', task='line_short', agent='cycle')\n"
        "    train_other(config)\n"
    )
    for name, content in {
        "mean_feature.py": loss, "line_suite.py": suite, "cycle.py": agent, "own.py": program,
        "own_agent.py": train_agent, "configs/defaults.yaml": defaults,
        "configs/presets/line.yaml": preset, "configs/agents/cycle.yaml": keys,
        "configs/presets/cycle/debug.yaml": "# Short.\nsteps: 200\neval: {episodes: 1}\n",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    for name in ("own.py", "own_agent.py"):
        done = python(name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    learnt = metrics_of(tmp_path / "runs" / "line_short" / "dreamer_debug" / "0")[-1]
    assert learnt["step"] == 400 and learnt["model/mean_feature_loss"] > 0
    acted = metrics_of(tmp_path / "runs" / "line_short" / "cycle_debug" / "0")[-1]
    assert acted["step"] == 200 and "eval/return" in acted


@pytest.mark.slow
def test_what_the_readme_does_with_a_run(tmp_path: Path):
    """States instead of pixels, for the time; then each program that reads a run."""
    status, _, errors = finish(start("dreamer.run", *shortened(tmp_path, "dmc_proprio")))
    assert status == 0, errors
    run = tmp_path / "dmc_walker_walk" / "dreamer_dmc_proprio" / "0"
    page, figures = tmp_path / "report.html", tmp_path / "out"
    for program, *words in (
        ("dreamer.evaluate", "--run", run, "--episodes", "1"),
        ("plots.plot", "--indir", tmp_path, "--outdir", figures),
        ("plots.report", "--indir", tmp_path, "--out", page),
    ):
        status, _, errors = finish(start(program, *words))
        assert status == 0, errors
    assert page.stat().st_size and list(figures.glob("*.png"))
