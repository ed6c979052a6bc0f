"""7. A full disk harms nothing; the message states the bytes, and the run waits for room."""

import os
import shutil
import signal

import numpy as np
import pytest
from episode_samples import make_episode
from fault_runs import Disk, Figure, config_for, fill
from ordinary_user import mounted, ordinary_user

from dreamer.data.episodes import EpisodeFile, save_episode
from dreamer.io.files import DiskFullError, StorageError
from dreamer.logs.logger import Logger
from dreamer.run import finish as finish_run
from dreamer.run import train
from dreamer.runs.checkpoints import Checkpoints
from dreamer.runs.rundir import RunDir
from dreamer.training.interrupts import Interrupt, RetryWhileDiskFull, StopRequested
from dreamer.training.trainer import NonFiniteGuard


def test_what_found_no_room_is_tried_again_until_there_is(small_disk: Disk, figure: Figure):
    disk, said = small_disk("64k"), []
    filler = fill(disk)

    def say(text: str) -> None:
        said.append(text)
        filler.unlink(missing_ok=True)

    retry = RetryWhileDiskFull(600, Interrupt(), say)
    episode = make_episode(10)
    path = retry(lambda: save_episode(disk, episode, "a", "20260102T030405"))
    np.testing.assert_array_equal(EpisodeFile(path).read()["image"], episode["image"])
    assert [p.name for p in disk.iterdir()] == [path.name]
    warning, again = said
    assert f"no room for {path}" in warning and "are free on that disk" in warning
    assert "waits up to 600 s" in warning and "there is room again" in again
    figure("an episode for which there was no room was stored once there was")


def test_a_folder_that_may_no_longer_be_written_to(figure: Figure):
    arrays, said = {"w": np.arange(3.0)}, []
    first, second = make_episode(10), make_episode(9)
    with ordinary_user() as folder:
        store = Checkpoints(folder)
        store.save(1, arrays, {})
        path = save_episode(folder, first, "a", "20260102T030405")
        names = sorted(os.listdir(folder))
        retry = RetryWhileDiskFull(600, Interrupt(), said.append)
        folder.chmod(0o555)
        for write in (
            lambda: store.save(2, arrays, {}),
            lambda: save_episode(folder, second, "b", "20260102T030405"),
        ):
            with pytest.raises(StorageError, match=f"cannot write {folder}.* denied") as caught:
                retry(write)
            assert caught.value.status == 74 and not said  # no waiting mends it
        assert sorted(os.listdir(folder)) == names
        folder.chmod(0o755)
        loaded = store.load_latest()
        assert loaded is not None and loaded.step == 1
        EpisodeFile(path).check(EpisodeFile(path).keys)
        store.save(2, arrays, {})
    figure("a folder whose permission was taken away: path and reason, all there was intact")


def test_waiting_ends(small_disk: Disk):
    disk, said = small_disk("16k"), []
    filler = fill(disk)
    for seconds in (1.5, 0):
        retry = RetryWhileDiskFull(seconds, Interrupt(), said.append)
        with pytest.raises(DiskFullError):
            retry(lambda: save_episode(disk, make_episode(10), "a"))
        assert len(said) == 1
    assert [path.name for path in disk.iterdir()] == [filler.name]


def test_a_start_on_a_full_disk_is_said_in_one_line(
    small_disk: Disk, capsys: pytest.CaptureFixture[str]
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


def test_a_batch_that_finds_no_room_for_its_folder_is_not_kept(small_disk: Disk):
    disk, said = small_disk("64k,nr_inodes=1"), []
    guard = NonFiniteGuard(disk / "nonfinite", 3, said.append)
    guard.check(0, {"reward": np.zeros((2, 3), np.float32)}, {"nonfinite": 1.0, "loss": np.inf})
    assert "its batch is not kept (no room for" in said[0]


def full(passing: bool = True) -> None:
    raise DiskFullError("no room", passing)


def test_a_signal_ends_the_waiting():
    with Interrupt() as interrupt:
        retry = RetryWhileDiskFull(600, interrupt, lambda text: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(StopRequested):
            retry(full)
        with pytest.raises(DiskFullError):  # and once it has come, nothing waits
            retry(full)


@pytest.mark.slow
def test_a_signal_while_the_last_checkpoint_waits_for_room_is_no_saved_run(
    small_disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It says that there is no room, not that the run is saved."""
    quick = {"steps": 20, "train.prefill": 20, "train.pretrain": 0, "disk_wait": 600}
    config = config_for(small_disk("64m") / "runs", **quick)
    with RunDir.open(config) as run:
        place = run.checkpoints
    say = Logger.message

    def message(self: Logger, text: str) -> None:
        say(self, text)
        if "the run waits up to" in text:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Logger, "message", message)
    full = pytest.raises(DiskFullError, match=f"no room for {place}/")
    with mounted(place, "size=16k"), full:
        finish_run(config, train)
    assert "the run is saved" not in capsys.readouterr().out


def test_a_limit_on_the_size_of_files_is_not_waited_for():
    said: list[str] = []
    with pytest.raises(DiskFullError):
        RetryWhileDiskFull(600, Interrupt(), said.append)(lambda: full(False))
    assert not said
