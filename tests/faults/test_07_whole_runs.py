"""7. Whole runs on disks that fill up or become read-only: their status, and what is left."""

from __future__ import annotations

import resource
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from counting_env import CountingEnv
from fault_runs import episodes_of, fill, newest, run_of, words_for
from whole_runs import finish, metrics_of, start, wait_until

from dreamer.data.episodes import EpisodeFile


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


def test_a_run_without_room_ends_with_its_own_status(
    tmp_path: Path, figure: Callable[[str], None]
):
    words = words_for(tmp_path, steps=10**12, disk_wait=1)
    status, output, errors = finish(start("dreamer.run", *words, preexec_fn=limited))
    assert status == 74, errors
    line = errors.splitlines()[-1]
    assert line.startswith("error: no room for ") and "/checkpoints/" in line
    assert "it needs at least" in line and "files may have 40,000" in line
    assert "warning: the episodes of 1,000,000,000,000 steps will need about" in output
    run = run_of(tmp_path)
    assert len(episodes_of(run)) >= 3 and not list((run / "checkpoints").iterdir())
    for path in (run / "episodes").iterdir():
        EpisodeFile(path).check(CountingEnv.obs_space)
    figure("no room for a checkpoint: exit status 74, path, bytes needed and free in the message")


@pytest.mark.faults
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(
    small_disk: Callable[[str], Path], figure: Callable[[str], None]
):
    disk = small_disk("64m")
    words = words_for(disk / "runs", steps=1500)
    process = start("dreamer.run", *words)
    wait_until(lambda: len(list(disk.glob("runs/*/*/*/episodes/*.npz"))) >= 20, process)
    filler = fill(disk)
    output: list[str] = []
    assert process.stdout is not None
    thread = threading.Thread(target=lambda: output.extend(process.stdout))  # type: ignore[arg-type]
    thread.start()
    wait_until(lambda: any("no room for" in line for line in output), process)
    before = episodes_of(run_of(disk / "runs"))
    time.sleep(3)
    filler.unlink()
    assert process.wait(500) == 0
    thread.join()
    assert any("there is room again" in line for line in output)
    after = episodes_of(run_of(disk / "runs"))
    assert all(after[uid] == content for uid, content in before.items())
    assert metrics_of(run_of(disk / "runs"))[-1]["step"] == 1500
    figure("a run on a full disk went on by itself when there was room, nothing lost")


@pytest.mark.faults
def test_a_run_on_a_full_disk_ends_and_is_resumed(
    small_disk: Callable[[str], Path], figure: Callable[[str], None]
):
    disk = small_disk("64m")
    words = words_for(disk / "runs", steps=1500, disk_wait=0)
    process = start("dreamer.run", *words)
    wait_until(lambda: len(list(disk.glob("runs/*/*/*/episodes/*.npz"))) >= 20, process)
    filler = fill(disk)
    status, _, errors = finish(process)
    assert status == 74 and "no room for" in errors.splitlines()[-1], errors
    step, _, _ = newest(run_of(disk / "runs"))
    before = episodes_of(run_of(disk / "runs"))
    for path in (run_of(disk / "runs") / "episodes").iterdir():
        EpisodeFile(path).check(CountingEnv.obs_space)
    filler.unlink()
    status, output, errors = finish(start("dreamer.run", *words))
    assert status == 0 and "resumed at step" in output, errors
    after = episodes_of(run_of(disk / "runs"))
    assert all(after[uid] == content for uid, content in before.items())
    figure(f"a run without room ended at checkpoint {step} with {len(before)} episodes intact")


@pytest.mark.faults
def test_a_start_on_a_full_disk_ends_with_its_own_status(
    small_disk: Callable[[str], Path], figure: Callable[[str], None]
):
    disk = small_disk("64m")
    words = words_for(disk / "runs")
    status, _, errors = finish(start("dreamer.run", *words_for(disk / "runs", steps=100)))
    assert status == 0, errors
    filler = fill(disk)
    for _ in range(2):
        status, _, errors = finish(start("dreamer.run", *words))
        assert status == 74, errors
        assert errors.splitlines()[-1].startswith("error: no room for "), errors
        assert "Traceback" not in errors
    filler.unlink()
    status, _, errors = finish(start("dreamer.run", *words))
    assert status == 0, errors
    figure("started twice on a full disk: exit status 74 and a line; resumed when there was room")


@pytest.mark.faults
def test_a_disk_that_becomes_read_only_ends_the_run_with_its_own_status(
    tmp_path: Path, figure: Callable[[str], None]
):
    words = words_for(tmp_path / "runs", steps=1500)
    process = start("dreamer.run", *words)
    wait_until(lambda: len(list(tmp_path.glob("runs/*/*/*/checkpoints/0*"))) >= 1, process)
    place = str(run_of(tmp_path / "runs") / "checkpoints")
    # A file system with open files cannot be made read-only: another is put over a part of it.
    command = ["mount", "-t", "tmpfs", "-o", "ro", "none", place]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        process.kill()
        finish(process)
        pytest.skip("no right to mount a file system here")
    try:
        status, _, errors = finish(process)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
    assert status == 74, errors
    line = errors.splitlines()[-1]
    assert line.startswith(f"error: cannot write {place}/") and "Read-only file system" in line
    assert "Traceback" not in errors
    before = episodes_of(run_of(tmp_path / "runs"))
    status, output, errors = finish(start("dreamer.run", *words))
    assert status == 0 and "resumed at step" in output, errors
    after = episodes_of(run_of(tmp_path / "runs"))
    assert all(after[uid] == content for uid, content in before.items())
    figure("a disk made read-only ended the run with exit status 74; resumed when it was writable")
