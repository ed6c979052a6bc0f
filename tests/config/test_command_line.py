"""Command lines: flags, a program's own options, one-line errors, help without TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dreamer.config.command_line import CommandLine, Option
from dreamer.config.config import load_config
from dreamer.config.schema import load_schema, preset_files
from dreamer.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TOOL = CommandLine(
    "python -m tool",
    "Does something.",
    (
        Option("run", "", "A run's folder.", required=True),
        Option("episodes", 10, "How many.", min=1),
        Option("tasks", "", "Several.", many=True),
        Option("quick", False, "Less of it."),
        Option("kind", "a", "One of two.", choices=("a", "b")),
    ),
)
PROGRAM = """
from dreamer.config.command_line import CommandLine, run_main
line = CommandLine("python -m x", "Does x.")
run_main(lambda argv: print(line.parse(argv).config().train.batch_size))
"""


def run_program(
    *words: str, code: str = PROGRAM, flags: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-c", code, *words],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["episodes", "train.episodes", "num_episodes", "total_timesteps"])
def test_a_length_in_episodes_is_told_the_key_that_there_is(name: str) -> None:
    with pytest.raises(UserError, match="given in environment frames.*: steps. For episodes"):
        CommandLine("python -m x", "Does x.").parse([f"--{name}", "100"])


def test_keys_presets_and_both_ways_to_write_a_value():
    argv = "--task dmc_cheetah_run --configs small debug --train.batch_size 9 --steps=1e5"
    config = CommandLine("x", "x").parse(argv.split()).config()
    assert config == load_config(
        "small", "debug", task="dmc_cheetah_run",
        overrides={"train.batch_size": 9, "steps": 100_000},
    )  # fmt: skip
    assert config.presets == ("small", "debug")


def test_negative_values_bare_switches_and_empty_values():
    argv = ["--envs.camera", "-1", "--deterministic", "--method=", "--log.tensorboard", "false"]
    config = CommandLine("x", "x").parse(argv).config()
    assert (config.envs.camera, config.deterministic, config.method) == (-1, True, "")
    assert config.log.tensorboard is False
    line = CommandLine("x", "x", agent="d4pg")
    assert line.parse(["--d4pg.v_min", "-1e2"]).overrides == {"d4pg.v_min": -100.0}


def test_a_programs_own_options_live_beside_the_keys():
    argv = "--run runs/x --tasks a b c --quick --kind=b --steps 1e5 --configs small"
    parsed = TOOL.parse(argv.split())
    assert parsed.options == {
        "run": "runs/x", "episodes": 10, "tasks": ["a", "b", "c"], "quick": True, "kind": "b",
    }  # fmt: skip
    assert parsed.presets == ("small",)
    assert parsed.overrides == {"steps": 100_000}
    assert parsed.config().steps == 100_000


def test_a_program_without_config_keys_refuses_them():
    plain = CommandLine("tool", "x", (Option("run", "", "x"),), takes_config=False)
    assert plain.parse(["--run", "x"]).options == {"run": "x"}
    with pytest.raises(UserError, match="unknown option --runs; did you mean 'run'"):
        plain.parse(["--runs", "x"])
    with pytest.raises(UserError, match="unknown option --steps"):
        plain.parse(["--steps", "5"])
    with pytest.raises(UserError, match="unknown option --configs"):
        plain.parse(["--configs", "small"])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("stray --run x", "unexpected word 'stray'.*--key=value$"),
        ("--run /tmp /usr", "unexpected word '/usr'.*stands for several paths, name one of them"),
        ("--run x --run y", "--run is given twice"),
        ("--run", "--run: expected one argument"),
        ("--run x --steps", "--steps: expected one argument"),
        ("--run x --configs", "--configs: expected at least one argument"),
        ("--run x --steps 1 2", "unexpected word '2'"),
        ("--run x --episodes 0", "--episodes must be at least 1, not 0"),
        ("--run x --episodes few", "--episodes must be a whole number, not 'few'"),
        ("--run x --kind c", "--kind must be one of a, b, not 'c'"),
        ("--run x --episode 3", "unknown option --episode; did you mean 'episodes'"),
        ("--run x --config small", "unknown option --config; did you mean 'configs'"),
        ("--run x --train.batch-size 3", "did you mean 'train.batch_size'"),
        ("--episodes 3", "--run is missing: python -m tool needs it"),
        ("--run x --steps 1e5 --seed -4", "seed must be at least 0"),
        ("--run x -s 3", "unknown key 's'"),
        ("--run x --configs smal", "unknown preset 'smal'; did you mean 'small'"),
        ("--run x -seed 3", "unexpected word '-seed'"),
    ],
)
def test_mistakes_are_named(argv: str, words: str):
    with pytest.raises(UserError, match=words):
        TOOL.parse(argv.split()).config()


def test_a_mistake_is_one_line_and_status_2():
    done = run_program("--stepz", "5")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown key 'stepz'; did you mean 'steps'?\n"


def test_success_and_early_closed_pipe_are_status_0():
    done = run_program("--train.batch_size", "3")
    assert (done.returncode, done.stdout) == (0, "3\n")
    code = (
        "from dreamer.config.command_line import run_main\n"
        "def f(argv): raise BrokenPipeError\nrun_main(f)"
    )
    assert run_program(code=code).returncode == 0


def test_help_names_every_key_preset_and_option_without_loading_tensorflow():
    done = run_program("--help", flags=["-X", "importtime"])
    assert done.returncode == 0
    for name, key in load_schema().items():
        assert f"--{name} " in done.stdout
        assert key.help.split()[0] in done.stdout
    for preset in sorted(preset_files()):
        assert f"\n  {preset} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "dreamer.config.command_line" in imported
    assert not imported & {"tensorflow", "keras", "numpy", "mujoco", "dm_control", "rich"}


def test_help_has_a_programs_options_and_the_presets_that_its_agent_takes(
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit) as caught:
        TOOL.parse(["--run", "x", "-h"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for words in ("usage: python -m tool [options]", "--episodes 10", "A run's folder.", "--seed"):
        assert words in shown
    with pytest.raises(SystemExit):
        CommandLine("python -m baselines.run", "Trains.", agent="dqn").parse(["--help"])
    presets = capsys.readouterr().out.partition("\npresets:")[2].partition("\nkeys,")[0]
    assert "\n  gym_states " in presets and "\n  debug " in presets
    assert "\n  small " not in presets and "\n  no_value " not in presets
