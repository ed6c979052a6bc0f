"""A wheel built from the checkout works outside it; set-up says in one line what is missing."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import dreamer
from dreamer.__main__ import PROGRAMS

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import setuptools.build_meta as backend, sys; backend.build_wheel(sys.argv[1])"
USE = """
import pathlib, sys
import dreamer
from dreamer import load_config
from dreamer.config.schema import find_configs, preset_files
from dreamer.runs.exports import resolve_run
from dreamer.runs.rundir import RunDir
site = pathlib.Path(sys.argv[1]).resolve()
assert pathlib.Path(dreamer.__file__).is_relative_to(site), dreamer.__file__
assert find_configs().is_relative_to(site), find_configs()
assert resolve_run("pretrained:cartpole").is_relative_to(site)
assert RunDir.load("pretrained:cartpole")[0].exported
for preset in sorted(preset_files()):
    load_config(preset)
print(" ".join(sorted(preset_files())))
"""


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"cwd": ROOT, **options}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built, without a network, from a copy: building leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source, out = folder / "source", folder / "out"
    out.mkdir()
    for name in ("dreamer", "configs", "baselines/pretrained"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    done = run([sys.executable, "-c", BUILD, str(out)], cwd=source)
    assert done.returncode == 0, done.stderr[-3000:]
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_its_configs_and_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0].partition("-")[0] for name in names}
    assert tops == {"dreamer", "dreamer_tf2"}
    inside = {name for name in names if name.startswith("dreamer/")}
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "dreamer").rglob("*.py")}
    expected |= {f"dreamer/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    page = (ROOT / "dreamer" / "watching" / "page").iterdir()
    expected |= {str(path.relative_to(ROOT)) for path in page}
    agents = [path for path in (ROOT / "baselines" / "pretrained").rglob("*") if path.is_file()]
    expected |= {f"dreamer/{path.relative_to(ROOT / 'baselines')}" for path in agents}
    assert inside == expected
    assert any(name.endswith("LICENSE") for name in names)


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip has installed the wheel into, beside the dependencies that are there."""
    site = tmp_path_factory.mktemp("installed") / "site"
    words = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    done = run([sys.executable, "-m", "pip", *words])
    assert done.returncode == 0, done.stderr
    return site


def installed(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the command `dreamer` of the installed wheel in a folder."""
    environ = {**os.environ, "PYTHONPATH": str(site)}
    return run([str(site / "bin" / "dreamer"), *words], cwd=folder, env=environ)


@pytest.mark.slow
def test_the_installed_command_runs_every_program_from_any_folder(site: Path, tmp_path: Path):
    listed = installed(site, tmp_path, "--help")
    assert listed.returncode == 0, listed.stderr
    assert installed(site, tmp_path, "--version").stdout == f"dreamer {dreamer.__version__}\n"
    for name in PROGRAMS:
        assert f"\n  {name} " in listed.stdout
        helped = installed(site, tmp_path, name, "--help")
        assert f"usage: python -m dreamer.{name} " in helped.stdout, helped.stderr
    for words, message in (
        (("evalute",), "error: no program 'evalute'; did you mean 'evaluate'?"),
        (("sweep", "--agent", "d4pg", "--task", "dmc_walker_walk"), "error: --agent needs the"),
        (("evaluate", "--run", "nowhere"), "error: nowhere is not a run's directory"),
        # A module of this folder is found, as by python -m; this one is no environment.
        (("run", "--task", "mine:make"), "error: mine:make returned a int; expected a Gymnasium"),
    ):
        (tmp_path / "mine.py").write_text("def make(): return 3\n")
        done = installed(site, tmp_path, *words)
        assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(message), done


@pytest.mark.slow
def test_the_installed_command_trains_and_evaluates(site: Path, tmp_path: Path):
    words = ("--task", "dmc_cartpole_balance", "--configs", "debug", "--logdir", "mine")
    trained = installed(site, tmp_path, "run", *words)
    assert trained.returncode == 0, trained.stderr
    path = "mine/dmc_cartpole_balance/dreamer_debug/0"
    done = installed(site, tmp_path, "evaluate", "--run", path, "--episodes", "1")
    assert done.returncode == 0 and "over 1 episodes" in done.stdout, done.stderr


def test_the_wheel_finds_its_configs_outside_the_checkout(site: Path, tmp_path: Path):
    environ = {**os.environ, "PYTHONPATH": str(site)}
    done = run([sys.executable, "-c", USE, str(site)], cwd=tmp_path, env=environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(p.stem for p in (ROOT / "configs/presets").glob("*.yaml"))


@pytest.mark.parametrize(("script", "programs", "message"), [
    ("setup.sh", {}, r"setup: error: Python 3\.11 or 3\.12 is needed.*"),
    (
        "browser.sh", {},
        "setup: error: make test-all opens the report page in Chromium; run: "
        "apt-get install -y chromium",
    ),
    # Any program of that name: it is looked for, not run.
    ("browser.sh", {"chromium": "bash"}, None),
])  # fmt: skip
def test_set_up_says_in_one_line_what_to_install(
    script: str, programs: dict[str, str], message: str | None, tmp_path: Path
):
    """On a machine whose PATH has the usual small tools, `programs`, and no more."""
    checkout, tools = tmp_path / "checkout", tmp_path / "bin"
    shutil.copytree(ROOT / ".ci", checkout / ".ci")
    tools.mkdir()
    names = {name: name for name in ("bash", "sh", "dirname", "id", "env")}
    for name, target in {**names, **programs}.items():
        (tools / name).symlink_to(shutil.which(target) or f"/bin/{target}")
    done = run(
        [str(tools / "bash"), str(checkout / ".ci" / script)],
        env={"PATH": str(tools)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2 if message else 0, "")
    assert re.fullmatch(message + "\n" if message else "", done.stderr)
    assert not (checkout / ".venv").exists()


def test_set_up_and_import_say_in_one_line_what_is_supported(tmp_path: Path):
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    done = run(["bash", tmp_path / ".ci" / "setup.sh"], env={**os.environ, "OSTYPE": "darwin23"})
    assert done.returncode == 2
    assert re.fullmatch("setup: error: Linux is needed, but this is darwin23; .*\n", done.stderr)
    for fake, expected in [
        ("sys.platform = 'win32'", "with Python 3.11 or 3.12, but this is Python 3.* on win32; on"),
        ("sys.platform = 'darwin'", "on darwin; on Windows use WSL 2, and on macOS a Linux con"),
        ("sys.version_info = (3, 13, 0, 'final', 0)", "Linux with Python 3.11 or 3.12"),
    ]:
        done = run([sys.executable, "-c", f"import sys; {fake}; import dreamer"], cwd=ROOT)
        assert done.returncode == 1
        line = done.stderr.splitlines()[-1]
        assert re.search(f"ImportError: dreamer supports .*{expected}", line)


def printed(*words: str) -> str:
    """The commands of a target of make, which are not run."""
    done = run(["make", "--no-print-directory", "-n", *words])
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.replace("\\\n", " ").split())


def test_all_tests_see_to_the_browser_first():
    commands = printed("test-all")
    assert 0 < commands.index(".ci/browser.sh") < commands.index("pytest")


def test_make_train_fits_the_machine_and_passes_words_on():
    words = ["TASK=dmc_cheetah_run", "STEPS=5000", "LOGDIR=/tmp/x", "ARGS=--seed 3"]
    gpu = run(["sh", ".ci/has_gpu.sh"]).returncode == 0
    preset = "" if gpu else "--configs small "
    assert printed("train", *words).endswith(
        f"-m dreamer.run --task dmc_cheetah_run --logdir /tmp/x {preset}--steps 5000 --seed 3"
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose Python installs nothing: its pip exits with 9."""
    for name in (".ci", "dreamer", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "setup.py", "pyproject.toml", *(p.name for p in ROOT.glob("*.lock"))):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"""#!/bin/sh
[ "$2" = pip ] && echo "nothing may be installed" >&2 && exit 9
exec {sys.executable} "$@"
""")
    python.chmod(0o755)
    return tmp_path


def test_set_up_checks_the_words_of_make_train_before_it_installs(checkout: Path):
    for word, message in {
        "STEPS=3000": r"error: train.prefill \(5000\) .* set steps to at least 5000, .*",
        "TASK=dmx_walker_walk": r"error: unknown suite .* did you mean 'dmc_walker_walk'\?; .*",
        "ARGS=--seed 'a b'": r"error: seed must be a whole number, not 'a b'",
    }.items():
        done = run(["make", "--no-print-directory", "train", word], cwd=checkout)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(message, done.stderr.splitlines()[0]), done.stderr
    assert {path.name for path in checkout.iterdir()}.isdisjoint({"runs", "build"})


def test_set_up_says_the_size_before_it_downloads(checkout: Path):
    smi = checkout / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho GPU 0: of this test\n")
    smi.chmod(0o755)
    environ = {**os.environ, "PATH": f"{smi.parent}:{os.environ['PATH']}"}
    done = run(["make", "--no-print-directory", "setup"], cwd=checkout, env=environ)
    assert done.returncode == 2 and "nothing may be installed" in done.stderr
    (line,) = done.stdout.splitlines()
    assert "packages of requirements-gpu.lock (with CUDA's libraries" in line
    assert re.search(r"[\d.]+ GB to download, [\d.]+ GB on the disk", line)
