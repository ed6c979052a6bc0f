"""Episode files are complete or absent, read in slices, and checked before use."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from episode_samples import (
    DAMAGES,
    Arrays,
    assert_same,
    changed,
    file_arrays,
    make_episode,
    npz_bytes,
    open_and_check,
    without,
    zeros,
)
from file_limit import file_limit
from ordinary_user import ordinary_user

from dreamer.data.episodes import EpisodeError, EpisodeFile, episode_uid, move_aside, save_episode
from dreamer.errors import UserError
from dreamer.io.files import DiskFullError


def test_round_trip_of_every_slice(tmp_path: Path) -> None:
    episode = make_episode(11, terminal=True)
    file = open_and_check(save_episode(tmp_path, episode, "0-000003"))
    assert file.length == 11
    assert file.sliceable(file.keys)
    assert_same(file.read(), episode)
    for start in range(11):
        for stop in range(start, 12):
            assert_same(file.read(start, stop), {k: v[start:stop] for k, v in episode.items()})
    for start, stop in ((-1, 3), (5, 4), (3, 12)):
        with pytest.raises(ValueError, match="of an episode of 11"):
            file.read(start, stop)


def test_file_follows_the_published_format(tmp_path: Path) -> None:
    path = save_episode(tmp_path / "new" / "folder", make_episode(5), "7-000012")
    assert path.name == f"{path.name[:15]}-7-000012-5.npz"
    time.strptime(path.name[:15], "%Y%m%dT%H%M%S")
    assert episode_uid(path) == "7-000012"
    with np.load(path, allow_pickle=False) as data:
        assert data["discount"].dtype == np.float32
        assert "cont" not in data
        assert data["image"].shape == (5, 8, 8, 3)
    with zipfile.ZipFile(path) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    content = path.read_bytes()  # the bytes depend on the episode alone
    assert save_episode(path.parent, make_episode(5), "7-000012", path.name[:15]) == path
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("reward"), "lacks reward"),
        (without("image", "position", "touch"), "lacks any observation"),
        (changed(reward=np.zeros(4)), "its lengths differ"),
        (changed(image=np.full(5, None)), "image is no observation of plain"),
        (changed(reward=np.full(5, np.nan)), "not finite"),
        (changed(reward=np.full(5, 1e300)), "not finite"),
        (changed(discount=np.ones(5)), "discount is no observation"),
        (changed(is_first=np.zeros(5)), "is_first is false"),
        (lambda episode: {k: value[:0] for k, value in episode.items()}, "no timesteps"),
    ],
)
def test_malformed_episode_is_not_written(
    tmp_path: Path, change: Callable[[Arrays], Arrays], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        save_episode(tmp_path, change(make_episode(5)), "a")
    with pytest.raises(ValueError, match="uid"):
        save_episode(tmp_path, make_episode(5), "../a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [0, 1000, 5000])
def test_no_half_file_where_there_is_no_room(tmp_path: Path, limit: int) -> None:
    kept = save_episode(tmp_path, make_episode(20), "a")
    with file_limit(limit), pytest.raises(DiskFullError, match=f"no room for {tmp_path}"):
        save_episode(tmp_path, make_episode(20), "b")
    assert list(tmp_path.iterdir()) == [kept]
    open_and_check(kept)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        save_episode(tmp_path / "file" / "episodes", make_episode(4), "a")


def test_killed_writer_leaves_only_complete_files(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from dreamer.data.episodes import save_episode; from episode_samples import make_episode\n"
        "episode = make_episode(200, size=64)\n"
        "print('ready', flush=True)\n"
        "for number in range(10000): save_episode(Path(sys.argv[1]), episode, f'0-{number:06d}')\n"
    )
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        with subprocess.Popen(
            [sys.executable, "-c", code, folder, Path(__file__).parents[1]], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            while not folder.is_dir() or len(list(folder.iterdir())) < 2:
                time.sleep(0.001)
            time.sleep(0.01 * attempt)
            process.send_signal(signal.SIGKILL)
        paths = list(folder.glob("*.npz"))
        assert paths
        for path in paths:
            assert open_and_check(path).length == 200


def test_moving_aside_never_overwrites_and_follows_no_link(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for content in ("one", "two"):
        path.write_text(content)
        assert "moved to" in move_aside(path, tmp_path / "damaged")
    moved = {entry.name: entry.read_text() for entry in (tmp_path / "damaged").iterdir()}
    assert moved == {"a.npz": "one", "a.npz.1": "two"}
    path.write_text("three")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert "stays where it is" in move_aside(path, tmp_path / "link")
    assert path.read_text() == "three" and not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("discount", [True, False])
@pytest.mark.parametrize("flags", [True, False])
def test_older_files_load(tmp_path: Path, discount: bool, flags: bool) -> None:
    """They are compressed and float16, and missing arrays are derived."""
    episode = make_episode(9, terminal=True)
    arrays = file_arrays(episode)
    arrays["reward"] = (np.arange(9) / 8).astype(np.float16)
    arrays["action"] = (np.arange(18).reshape(9, 2) / 32).astype(np.float16)
    arrays["discount"] = arrays["discount"].astype(np.float16)
    if not discount:
        del arrays["discount"]
    if not flags:
        for key in ("is_first", "is_last") + (("is_terminal",) if discount else ()):
            del arrays[key]
    path = tmp_path / "20200101T000000-0123456789abcdef-9.npz"
    np.savez_compressed(path, **arrays)
    file = open_and_check(path)
    assert not file.sliceable(file.keys)
    expected = {
        **episode,
        "reward": (np.arange(9) / 8).astype(np.float32),
        "action": (np.arange(18).reshape(9, 2) / 32).astype(np.float32),
    }
    assert_same(file.read(), expected)
    assert_same(file.read(3, 9), {key: value[3:] for key, value in expected.items()})


def test_other_layouts_of_numbers_load(tmp_path: Path) -> None:
    episode = make_episode(6)
    arrays = file_arrays(episode)
    arrays["action"] = np.asfortranarray(arrays["action"].astype(">f8"))
    arrays["is_first"] = arrays["is_first"].astype(np.uint8)
    path = tmp_path / "any name.npz"
    np.savez(path, **arrays)
    file = open_and_check(path)
    assert not file.sliceable(["action"])
    assert file.sliceable(["image"])
    assert_same(file.read(2, 5), {key: value[2:5] for key, value in episode.items()})


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_file_is_refused_by_name(kind: str) -> None:
    damage, message = DAMAGES[kind]
    with ordinary_user() as folder:
        path = save_episode(folder, make_episode(20), "a")
        damage(path)
        tracemalloc.start()
        try:
            with pytest.raises(EpisodeError, match=message) as caught:
                open_and_check(path)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
    assert caught.value.path == path
    assert str(path) in str(caught.value)


def test_a_large_file_is_checked_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays = {**file_arrays(make_episode(2000)), "position": np.zeros((2000, 2000), np.float32)}
    path.write_bytes(npz_bytes(arrays))
    tracemalloc.start()
    try:
        open_and_check(path)
        assert tracemalloc.get_traced_memory()[1] < 9 << 20  # the file has 16 million bytes
    finally:
        tracemalloc.stop()
    arrays["position"][-1, -1] = np.nan
    path.write_bytes(npz_bytes(arrays))
    with pytest.raises(EpisodeError, match="position holds numbers that are not finite"):
        open_and_check(path)


SCARCE = """
import resource, sys, warnings
from pathlib import Path
from dreamer.data.episodes import EpisodeError, EpisodeFile
file = EpisodeFile(Path(sys.argv[1]))
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (100 << 20),) * 2)
for read in (file.read, lambda: file.check(file.keys)):
    try:
        read()
    except EpisodeError as error:
        print(error)
"""


def test_a_file_that_does_not_fit_into_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    zeros(path, 4_000_000)
    assert path.stat().st_size < 1_000_000
    done = subprocess.run(
        [sys.executable, "-c", SCARCE, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{path}: it does not fit into memory"] * 2


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADMSG, errno.ENODATA, errno.EUCLEAN])
def test_what_a_damaged_disk_says_is_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    file = EpisodeFile(save_episode(tmp_path, make_episode(4), "a"))
    failing = Mock(side_effect=OSError(number, os.strerror(number)))
    monkeypatch.setattr(os, "preadv", failing)  # instead of a damaged disk
    for read in (file.read, lambda: file.check(file.keys)):
        with pytest.raises(EpisodeError, match=f"it cannot be read .{os.strerror(number)}"):
            read()


def test_lack_of_descriptors_is_not_the_files_fault(tmp_path: Path) -> None:
    path = save_episode(tmp_path, make_episode(4), "a")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            EpisodeFile(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
