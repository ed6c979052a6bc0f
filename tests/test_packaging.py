"""A wheel built from the checkout works outside it; set-up says in one line what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import setuptools.build_meta as backend, sys; backend.build_wheel(sys.argv[1])"
USE = """
import pathlib, sys
import dreamer
from dreamer import load_config
from dreamer.config.schema import find_configs, preset_files
site = pathlib.Path(sys.argv[1]).resolve()
assert pathlib.Path(dreamer.__file__).is_relative_to(site), dreamer.__file__
assert find_configs().is_relative_to(site), find_configs()
for preset in sorted(preset_files()):
    load_config(preset)
print(" ".join(sorted(preset_files())))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built, without a network, from a copy: building leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source, out = folder / "source", folder / "out"
    out.mkdir()
    for name in ("dreamer", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)],
        cwd=source, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_its_configs_and_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "dreamer", "dreamer_tf2",
    }  # fmt: skip
    inside = {name for name in names if name.startswith("dreamer/")}
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "dreamer").rglob("*.py")}
    expected |= {f"dreamer/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert inside == expected
    assert any(name.endswith("LICENSE") for name in names)


def test_the_wheel_finds_its_configs_outside_the_checkout(wheel: Path, tmp_path: Path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    done = subprocess.run(
        [sys.executable, "-c", USE, str(site)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(p.stem for p in (ROOT / "configs/presets").glob("*.yaml"))


def test_set_up_without_python_says_what_to_install(tmp_path: Path):
    """On a machine whose PATH has the usual small tools and no Python."""
    done = on_a_bare_machine("setup.sh", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("setup: error: Python 3.11 or 3.12 is needed")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "checkout/.venv").exists()


def test_a_browser_that_cannot_be_installed_is_one_line_with_its_command(tmp_path: Path):
    done = on_a_bare_machine("browser.sh", tmp_path)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == ("setup: error: make test-all opens the report page in Chromium; run: "
                           "apt-get install -y chromium\n")


def test_a_browser_that_is_there_is_left_alone(tmp_path: Path):
    """`chromium` is any program of that name: it is looked for, not run."""
    done = on_a_bare_machine("browser.sh", tmp_path, {"chromium": "bash"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_all_tests_see_to_the_browser_first():
    done = subprocess.run(["make", "--no-print-directory", "-n", "test-all"],
                          cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert 0 < done.stdout.index(".ci/browser.sh") < done.stdout.index("pytest")


def on_a_bare_machine(
    script: str, folder: Path, programs: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a script of .ci where PATH has the usual small tools, `programs`, and no more."""
    checkout, tools = folder / "checkout", folder / "bin"
    shutil.copytree(ROOT / ".ci", checkout / ".ci")
    tools.mkdir()
    names = {name: name for name in ("bash", "sh", "dirname", "id", "env")}
    for name, target in {**names, **(programs or {})}.items():
        (tools / name).symlink_to(shutil.which(target) or f"/bin/{target}")
    return subprocess.run(
        [str(tools / "bash"), str(checkout / ".ci" / script)],
        env={"PATH": str(tools)}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip


def test_make_train_fits_the_machine_and_passes_words_on():
    """Only printed, not run: `make -n` shows the command that would train."""
    words = ["TASK=dmc_cheetah_run", "STEPS=5000", "LOGDIR=/tmp/x", "ARGS=--seed 3"]
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "train", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    command = " ".join(done.stdout.replace("\\\n", " ").split())
    gpu = subprocess.run(["sh", ".ci/has_gpu.sh"], cwd=ROOT, timeout=60).returncode == 0
    preset = "" if gpu else "--configs small "
    assert command.endswith(
        "-m dreamer.run --task dmc_cheetah_run --logdir /tmp/x "
        f"{preset}--steps 5000 --seed 3"
    )  # fmt: skip
