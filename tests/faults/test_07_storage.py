"""7. A full disk is said with its numbers, harms nothing, and the run waits for room."""

from __future__ import annotations

import codecs
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from counting_env import CountingEnv
from episode_samples import make_episode
from fault_runs import config_for, episodes_of, newest, run_of, words_for
from ordinary_user import ordinary_user
from whole_runs import finish, metrics_of, start, wait_until

from dreamer.checkpoint import Checkpoints
from dreamer.episodes import EpisodeFile, save_episode
from dreamer.files import DiskFullError, StorageError
from dreamer.interrupt import Interrupt, StopRequested
from dreamer.logger import Logger
from dreamer.nonfinite import NonFiniteGuard
from dreamer.run import finish as finish_run
from dreamer.run import train
from dreamer.rundir import RunDir
from dreamer.storage import Patience, room_warning, size_text


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of a size such as 64k, or makes the one there as large."""
    path = tmp_path / "disk"

    def mount(size: str) -> Path:
        again = "remount," if path.is_dir() else ""
        path.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"{again}size={size}", "none", str(path)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no right to mount a small file system here")
        return path

    yield mount
    subprocess.run(["umount", "--lazy", str(path)], capture_output=True, check=False)


def fill(disk: Path) -> Path:
    """Leaves no room on a disk; removing the file makes it again."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return filler
    raise AssertionError("it never was full")


def test_what_found_no_room_is_tried_again_until_there_is(
    small_disk: Callable[[str], Path], figure: Callable[[str], None]
):
    disk, said = small_disk("64k"), []
    filler = fill(disk)

    def say(text: str) -> None:
        said.append(text)
        filler.unlink(missing_ok=True)

    patience = Patience(600, Interrupt(), say)
    episode = make_episode(10)
    path = patience.keep_trying(lambda: save_episode(disk, episode, "a", "20260102T030405"))
    np.testing.assert_array_equal(EpisodeFile(path).read()["image"], episode["image"])
    assert [p.name for p in disk.iterdir()] == [path.name]
    warning, again = said
    assert f"no room for {path}" in warning and "are free on that disk" in warning
    assert "waits up to 600 s" in warning and "there is room again" in again
    figure("an episode for which there was no room was stored once there was")


def test_a_folder_that_may_no_longer_be_written_to(figure: Callable[[str], None]):
    arrays, said = {"w": np.arange(3.0)}, []
    first, second = make_episode(10), make_episode(9)
    codecs.lookup("cp437")  # which zipfile needs, while Python's library may be read
    with ordinary_user() as folder:
        store = Checkpoints(folder)
        store.save(1, arrays, {})
        path = save_episode(folder, first, "a", "20260102T030405")
        names = sorted(os.listdir(folder))
        patience = Patience(600, Interrupt(), said.append)
        folder.chmod(0o555)
        for write in (
            lambda: store.save(2, arrays, {}),
            lambda: save_episode(folder, second, "b", "20260102T030405"),
        ):
            with pytest.raises(StorageError, match=f"cannot write {folder}.* denied") as caught:
                patience.keep_trying(write)
            assert caught.value.status == 74 and not said  # no waiting mends it
        assert sorted(os.listdir(folder)) == names
        folder.chmod(0o755)
        loaded = store.load_latest()
        assert loaded is not None and loaded.step == 1
        EpisodeFile(path).check(EpisodeFile(path).keys)
        store.save(2, arrays, {})
    figure("a folder whose permission was taken away: path and reason, all there was intact")


def test_waiting_ends(small_disk: Callable[[str], Path]):
    disk, said = small_disk("16k"), []
    filler = fill(disk)
    with pytest.raises(DiskFullError):
        Patience(1.5, Interrupt(), said.append).keep_trying(
            lambda: save_episode(disk, make_episode(10), "a")
        )
    assert len(said) == 1
    with pytest.raises(DiskFullError):
        Patience(0, Interrupt(), said.append).keep_trying(
            lambda: save_episode(disk, make_episode(10), "a")
        )
    assert len(said) == 1 and [path.name for path in disk.iterdir()] == [filler.name]


def test_a_start_on_a_full_disk_is_said_in_one_line(
    small_disk: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
):
    disk = small_disk("64k,nr_inodes=3")
    config = config_for(disk / "runs")
    with pytest.raises(DiskFullError, match="no room for .*/runs/"):  # not even for its folders
        RunDir.open(config)
    shutil.rmtree(disk / "runs")
    small_disk("64k,nr_inodes=100")
    with RunDir.open(config) as run:
        path = run.path
    filler = fill(disk)
    for _ in range(2):  # and again, while there is still no room
        with pytest.raises(DiskFullError, match="no room for .*/lock"):
            RunDir.open(config)
    with Logger(path, tensorboard=True, terminal="plain", total_steps=1) as logger:
        assert "TensorBoard's file is given up: No space left" in capsys.readouterr().out
        with pytest.raises(DiskFullError, match="no room for .*/metrics.jsonl"):
            logger.write(1)
    filler.unlink()
    with RunDir.open(config) as run:
        assert run.resumed


def test_a_batch_that_finds_no_room_for_its_folder_is_not_kept(
    small_disk: Callable[[str], Path],
):
    disk, said = small_disk("64k,nr_inodes=1"), []
    guard = NonFiniteGuard(disk / "nonfinite", 3, said.append)
    guard.check(0, {"reward": np.zeros((2, 3), np.float32)}, {"nonfinite": 1.0, "loss": np.inf})
    assert "its batch is not kept (no room for" in said[0]


def full(passing: bool = True) -> None:
    raise DiskFullError("no room", passing)


def test_a_signal_ends_the_waiting():
    with Interrupt() as interrupt:
        patience = Patience(600, interrupt, lambda text: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(StopRequested):
            patience.keep_trying(full)
        with pytest.raises(DiskFullError):  # and once it has come, nothing waits
            patience.keep_trying(full)


@pytest.mark.slow
def test_a_signal_while_the_last_checkpoint_waits_for_room_is_no_saved_run(
    small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    """It says that there is no room, not that the run is saved."""
    quick = {"steps": 20, "train.prefill": 20, "train.pretrain": 0, "disk_wait": 600}
    config = config_for(small_disk("64m") / "runs", **quick)
    with RunDir.open(config) as run:
        place = str(run.checkpoints)
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", place]
    subprocess.run(command, capture_output=True, check=True)
    say = Logger.message

    def message(self: Logger, text: str) -> None:
        say(self, text)
        if "the run waits up to" in text:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Logger, "message", message)
    try:
        with pytest.raises(DiskFullError, match=f"no room for {place}/"):
            finish_run(config, train)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
    assert "the run is saved" not in capsys.readouterr().out


def test_a_limit_on_the_size_of_files_is_not_waited_for():
    said: list[str] = []
    with pytest.raises(DiskFullError):
        Patience(600, Interrupt(), said.append).keep_trying(lambda: full(False))
    assert not said


def test_a_warning_before_episodes_that_cannot_fit(tmp_path: Path):
    assert room_warning(tmp_path, 1000, "something") == ""
    warning = room_warning(tmp_path, 10**17, "the episodes of 5 steps")
    assert "the episodes of 5 steps will need about 100,000 TB" in warning
    assert [size_text(n) for n in (999, 12_345, 5e9)] == ["999 bytes", "12.35 kB", "5 GB"]


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
    assert status == 0 and "going on from step" in output, errors
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
    assert status == 0 and "going on from step" in output, errors
    after = episodes_of(run_of(tmp_path / "runs"))
    assert all(after[uid] == content for uid, content in before.items())
    figure("a disk made read-only ended the run with exit status 74; resumed when it was writable")
