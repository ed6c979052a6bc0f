"""7. Whole runs on disks that fill up or become read-only: their status, and what is left."""

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fault_runs
import pytest
from fault_runs import Disk, Figure, episodes_of, fill, run, run_of, start, words_for
from ordinary_user import mounted
from whole_runs import finish, metrics_of, wait_until


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


@fault_runs.each_agent
def test_a_run_without_room_ends_with_its_own_status(tmp_path: Path, figure: Figure, agent: str):
    words = words_for(tmp_path, steps=10**12, disk_wait=1)
    status, output, errors = run(words, agent=agent, preexec_fn=limited)
    assert status == 74, errors
    line = errors.splitlines()[-1]
    assert line.startswith("error: no room for ") and ("/checkpoints/" in line or "/best/" in line)
    assert "it needs at least" in line and "files may have 40,000" in line
    assert "warning: the episodes of 1,000,000,000,000 steps will need about" in output
    path = run_of(tmp_path)
    assert fault_runs.check_episodes(path) >= 3 and not list((path / "checkpoints").iterdir())
    figure("no room for a checkpoint: exit status 74, path, bytes needed and free in the message")


@contextmanager
def all_kept(words: list[str], logdir: Path) -> Iterator[None]:
    """Checks, after the test has mended what it broke, that the run resumes and loses nothing."""
    before = episodes_of(run_of(logdir))
    fault_runs.check_episodes(run_of(logdir))
    yield
    status, output, errors = run(words)
    assert status == 0 and "resumed at step" in output, errors
    assert episodes_of(run_of(logdir)).items() >= before.items()


def assert_ended(outcome: tuple[int, str, str], message: str) -> None:
    status, _, errors = outcome
    assert status == 74 and "Traceback" not in errors, errors
    assert errors.splitlines()[-1].startswith(f"error: {message}")


@pytest.mark.faults
@pytest.mark.parametrize("disk_wait", [0, 600])
def test_a_run_on_a_full_disk(small_disk: Disk, figure: Figure, disk_wait: int):
    disk = small_disk("64m")
    logdir = disk / "runs"
    words = words_for(logdir, steps=1500, disk_wait=disk_wait)
    process = start(words)
    wait_until(lambda: len(list(logdir.glob("*/*/*/episodes/*.npz"))) >= 20, process)
    filler = fill(disk)
    if not disk_wait:
        assert_ended(finish(process), "no room for ")
        step, _, _ = fault_runs.newest(run_of(logdir))
        with all_kept(words, logdir):
            filler.unlink()
        figure(f"a run without room ended at checkpoint {step}, all episodes intact; resumed")
        return
    output: list[str] = []
    assert process.stdout is not None
    thread = threading.Thread(target=lambda: output.extend(process.stdout))  # type: ignore[arg-type]
    thread.start()
    wait_until(lambda: any("no room for" in line for line in output), process)
    before = episodes_of(run_of(logdir))
    time.sleep(3)
    filler.unlink()
    assert process.wait(500) == 0
    thread.join()
    assert any("there is room again" in line for line in output)
    assert episodes_of(run_of(logdir)).items() >= before.items()
    assert metrics_of(run_of(logdir))[-1]["step"] == 1500
    figure("a run on a full disk went on by itself when there was room, nothing lost")


@pytest.mark.faults
def test_a_start_on_a_full_disk_ends_with_its_own_status(small_disk: Disk, figure: Figure):
    disk = small_disk("64m")
    words = words_for(disk / "runs")
    status, _, errors = run(words_for(disk / "runs", steps=100))
    assert status == 0, errors
    filler = fill(disk)
    with all_kept(words, disk / "runs"):
        for _ in range(2):
            assert_ended(run(words), "no room for ")
        filler.unlink()
    figure("started twice on a full disk: exit status 74 and a line; resumed when there was room")


@pytest.mark.faults
def test_a_disk_that_becomes_read_only_ends_the_run_with_its_own_status(
    tmp_path: Path, figure: Figure
):
    words = words_for(tmp_path / "runs", steps=1500)
    with start(words) as process:
        wait_until(lambda: bool(list(tmp_path.glob("runs/*/*/*/checkpoints/0*"))), process)
        place = run_of(tmp_path / "runs") / "checkpoints"
        # A file system with open files cannot be made read-only: another is put over a part of it.
        with ExitStack() as stack:
            stack.callback(process.kill)
            stack.enter_context(mounted(place, "ro"))
            outcome = finish(process)
    assert_ended(outcome, f"cannot write {place}/")
    assert "Read-only file system" in outcome[2]
    with all_kept(words, tmp_path / "runs"):
        pass
    figure("a disk made read-only ended the run with exit status 74; resumed when it was writable")
