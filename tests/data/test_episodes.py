"""Episode files: written whole or not at all, read slice by slice, trusted in nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from episode_samples import Arrays, assert_same, changed, make_episode, open_and_check, without

from dreamer.data.episodes import episode_uid, move_aside, save_episode
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
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_bytes_depend_on_the_episode_alone(tmp_path: Path) -> None:
    first = save_episode(tmp_path, make_episode(5), "a", "20200101T000000")
    content = first.read_bytes()
    assert save_episode(tmp_path, make_episode(5), "a", "20200101T000000") == first
    assert first.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("reward"), "lacks reward"),
        (without("image", "position", "touch"), "lacks any observation"),
        (changed(reward=np.zeros(4)), "reward of an episode has shape"),
        (changed(image=np.full(5, None)), "not plain numbers"),
        (changed(reward=np.full(5, np.nan)), "not finite"),
        (changed(reward=np.full(5, 1e300)), "not finite"),
        (changed(discount=np.ones(5)), "called discount"),
        (changed(is_first=np.zeros(5)), "is_first of an episode is false"),
        (lambda episode: {k: value[:0] for k, value in episode.items()}, "expected 1 timesteps"),
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
    """A limit on file sizes stands for a full disk; it strikes in the middle of the write."""
    code = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "from dreamer.data.episodes import save_episode\n"
        "from dreamer.io.files import DiskFullError\n"
        "from episode_samples import make_episode\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try: save_episode(Path(sys.argv[1]), make_episode(20), 'b')\n"
        "except DiskFullError as error: print(error, flush=True)\n"
    )
    kept = save_episode(tmp_path, make_episode(20), "a")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, str(limit), Path(__file__).parents[1]],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert "no room for" in done.stdout
    assert str(tmp_path) in done.stdout
    assert list(tmp_path.iterdir()) == [kept]
    open_and_check(kept)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        save_episode(tmp_path / "file" / "episodes", make_episode(4), "a")
    assert issubclass(DiskFullError, UserError)


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


def test_moving_aside_never_overwrites(tmp_path: Path) -> None:
    for content in ("one", "two"):
        path = tmp_path / "a.npz"
        path.write_text(content)
        assert "moved to" in move_aside(path, tmp_path / "damaged")
    moved = {entry.name: entry.read_text() for entry in (tmp_path / "damaged").iterdir()}
    assert moved == {"a.npz": "one", "a.npz.1": "two"}


def test_moving_aside_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "damaged").symlink_to(tmp_path / "elsewhere")
    path = tmp_path / "a.npz"
    path.write_text("one")
    assert "stays where it is" in move_aside(path, tmp_path / "damaged")
    assert path.read_text() == "one"
    assert not list((tmp_path / "elsewhere").iterdir())
