"""Reading episode files: what older implementations wrote loads, what is damaged is refused."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from episode_samples import (
    DAMAGES,
    assert_same,
    file_arrays,
    make_episode,
    mutate,
    npz_bytes,
    open_and_check,
    zeros,
)
from ordinary_user import ordinary_user

from dreamer.data.episodes import EpisodeError, EpisodeFile, save_episode


@pytest.mark.parametrize("discount", [True, False])
@pytest.mark.parametrize("flags", [True, False])
def test_older_files_load(tmp_path: Path, discount: bool, flags: bool) -> None:
    """Compressed, float16, keys missing: what can be derived is."""
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

    def preadv(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "preadv", preadv)  # no such disk can be had here
    for read in (file.read, lambda: file.check(file.keys)):
        with pytest.raises(EpisodeError, match=f"it cannot be read .{os.strerror(number)}"):
            read()


def test_lack_of_descriptors_is_not_the_files_fault(tmp_path: Path) -> None:
    path = save_episode(tmp_path, make_episode(4), "a")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from dreamer.data.episodes import EpisodeFile\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "EpisodeFile(Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("OSError: [Errno 24]")


@pytest.mark.parametrize("amount", [300, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("compressed", [False, True])
def test_mutated_files_are_refused_or_unharmed(
    tmp_path: Path, compressed: bool, amount: int
) -> None:
    """Random mutations: an error that names the file, or exactly the old content."""
    episode = make_episode(10)
    path = save_episode(tmp_path, episode, "a")
    if compressed:
        np.savez_compressed(path, **file_arrays(episode))
    raw = path.read_bytes()
    rng = np.random.default_rng(amount)
    refused = 0
    for _ in range(amount):
        path.write_bytes(mutate(raw, rng))
        try:
            file = open_and_check(path)
            got = file.read()
        except EpisodeError:
            refused += 1
            continue
        assert_same(got, episode)
    assert refused > amount / 3
