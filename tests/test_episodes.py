"""Episode files: written whole or not at all, read slice by slice, trusted in nothing."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dreamer.episodes import EpisodeError, EpisodeFile, episode_uid, move_aside, save_episode
from dreamer.errors import UserError
from dreamer.files import DiskFullError

Arrays = dict[str, np.ndarray]


def make_episode(length: int, seed: int = 0, size: int = 8, terminal: bool = False) -> Arrays:
    """A complete episode of random images and vectors."""
    rng = np.random.default_rng(seed)
    first, last = np.arange(length) == 0, np.arange(length) == length - 1
    return {
        "image": rng.integers(0, 256, (length, size, size, 3), np.uint8),
        "position": rng.normal(size=(length, 4)).astype(np.float32),
        "touch": rng.random((length, 2)) < 0.5,
        "action": np.where(first[:, None], 0, rng.uniform(-1, 1, (length, 2))).astype(np.float32),
        "reward": np.where(first, 0, rng.random(length)).astype(np.float32),
        "cont": 1 - (last & terminal).astype(np.float32),
        "is_first": first,
        "is_last": last,
        "is_terminal": last & terminal,
    }


def file_arrays(episode: Arrays) -> Arrays:
    """The arrays as they are named in a file."""
    return {{"cont": "discount"}.get(key, key): value for key, value in episode.items()}


def assert_same(got: Arrays, expected: Arrays) -> None:
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key].dtype == value.dtype, key
        np.testing.assert_array_equal(got[key], value, key)


def open_and_check(path: Path) -> EpisodeFile:
    file = EpisodeFile(path)
    file.check(file.keys)
    return file


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


def without(*keys: str) -> Callable[[Arrays], Arrays]:
    return lambda episode: {key: value for key, value in episode.items() if key not in keys}


def changed(**arrays: object) -> Callable[[Arrays], Arrays]:
    return lambda episode: {**episode, **{key: np.asarray(v) for key, v in arrays.items()}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("reward"), "lacks reward"),
        (without("image", "position", "touch"), "lacks any observation"),
        (changed(reward=np.zeros(4)), "reward of an episode has shape"),
        (changed(image=np.full(5, None)), "not plain numbers"),
        (changed(reward=np.full(5, np.nan)), "not finite"),
        (changed(discount=np.ones(5)), "called discount"),
        (changed(is_first=np.zeros(5)), "is_first of an episode is false"),
        (lambda episode: {key: value[:0] for key, value in episode.items()}, "expected 1 records"),
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


def npz_bytes(arrays: Arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **arrays)
    return stream.getvalue()


def forged(path: Path) -> None:
    """A header that claims 64 TiB of images, in an archive that is otherwise sound."""
    header = io.BytesIO()
    shape = (1 << 32, 128, 128, 1)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", header.getvalue())
        for key in ("action", "reward", "discount"):
            stream = io.BytesIO()
            np.save(stream, np.zeros((3, 2) if key == "action" else 3, np.float32))
            archive.writestr(f"{key}.npy", stream.getvalue())


def forged_size(path: Path) -> None:
    """A compressed member whose directory entry and header both claim gigabytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (3, 1 << 30)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", header.getvalue())
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\x01\x02")
    raw[entry + 24 : entry + 28] = struct.pack("<I", (3 << 30) + len(header.getvalue()))
    path.write_bytes(raw)


def _edit(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def _replace(change: Callable[[Arrays], Arrays]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(npz_bytes(change(file_arrays(make_episode(20))))) and None


def _flip(at: float) -> Callable[[bytes], bytes]:
    def flip(raw: bytes) -> bytes:
        index = int(len(raw) * at)
        return raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]

    return flip


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _as_npy(path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    path.write_bytes(stream.getvalue())


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_edit(lambda raw: raw[: len(raw) // 2]), "no readable .npz"),
    "cut by one byte": (_edit(lambda raw: raw[:-1]), "no readable .npz"),
    "zero tail": (_edit(lambda raw: raw[: len(raw) // 2] + bytes(len(raw) // 2)), "no readable"),
    "zero middle": (_edit(lambda raw: raw[:2000] + bytes(500) + raw[2500:]), "checksum of 'image'"),
    "bit flip in data": (_edit(_flip(0.4)), "checksum of 'image'"),
    "bit flip in directory": (
        _edit(lambda raw: raw.replace(b"PK\x01\x02", b"PK\x01\x03")), "no readable .npz",
    ),
    "missing action": (_replace(without("action")), "lacks action"),
    "missing discount": (_replace(without("discount", "is_terminal")), "lacks discount"),
    "wrong dtype": (_replace(changed(reward=np.array(["a"] * 20))), "not plain numbers"),
    "complex numbers": (_replace(changed(reward=np.zeros(20, complex))), "not plain numbers"),
    "wrong rank": (_replace(changed(reward=np.zeros((20, 1)))), "reward has the shape"),
    "unequal lengths": (_replace(changed(reward=np.zeros(19))), "lengths differ"),
    "no records": (_replace(lambda arrays: {k: v[:0] for k, v in arrays.items()}), "no records"),
    "not a number": (_replace(changed(reward=np.full(20, np.nan))), "not finite"),
    "beyond float32": (_replace(changed(reward=np.full(20, 1e300))), "not finite"),
    "discount of 2": (_replace(changed(discount=np.full(20, 2.0))), "outside of 0 to 1"),
    "not first": (_replace(changed(is_first=np.zeros(20, bool))), "is_first is false"),
    "object array": (_replace(changed(reward=np.array([{}] * 20))), "damaged|not plain numbers"),
    "forged header": (forged, "claims the shape"),
    "forged size": (forged_size, "claims to unpack|does not fit|reaches beyond"),
    "renamed .npy": (_as_npy, "no readable .npz"),
    "empty": (_edit(lambda raw: b""), "empty"),
    "text": (_edit(lambda raw: b"step,reward\n1,2\n"), "no readable .npz"),
    "directory": (_as_folder, "no regular file|not a regular file"),
    "pipe": (_as_pipe, "not a regular file"),
    "gone": (Path.unlink, "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    damage, message = DAMAGES[kind]
    path = save_episode(tmp_path, make_episode(20), "a")
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = save_episode(tmp_path, make_episode(20), "a")
    path.chmod(0)
    with pytest.raises(EpisodeError, match="Permission denied"):
        EpisodeFile(path)


def test_lack_of_descriptors_is_not_the_files_fault(tmp_path: Path) -> None:
    path = save_episode(tmp_path, make_episode(4), "a")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from dreamer.episodes import EpisodeFile\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "EpisodeFile(Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("OSError: [Errno 24]")


def mutate(raw: bytes, rng: np.random.Generator) -> bytes:
    """One random mutation, often in the directory at the end, where the structure is."""
    data = np.frombuffer(raw, np.uint8).copy()
    near_end = rng.random() < 0.6
    start = int(rng.integers(len(data) - 1200 if near_end else 0, len(data)))
    stop = min(len(data), start + int(rng.integers(1, 40)))
    kind = rng.integers(6)
    if kind == 0:
        data[start] ^= np.uint8(1 << rng.integers(8))
    elif kind == 1:
        data[start:stop] = rng.integers(0, 256, stop - start)
    elif kind == 2:
        data[start:stop] = rng.choice([0, 255])
    elif kind == 3:
        return data[:start].tobytes()
    elif kind == 4:
        return np.delete(data, np.s_[start:stop]).tobytes()
    else:
        return np.insert(data, start, data[start:stop]).tobytes()
    return data.tobytes()


@pytest.mark.parametrize("compressed", [False, True])
def test_mutated_files_are_refused_or_unharmed(tmp_path: Path, compressed: bool) -> None:
    """300 random mutations each: an error that names the file, or exactly the old content."""
    episode = make_episode(10)
    path = save_episode(tmp_path, episode, "a")
    if compressed:
        np.savez_compressed(path, **file_arrays(episode))
    raw = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(int(os.environ.get("DREAMER_FUZZ", "300"))):
        path.write_bytes(mutate(raw, rng))
        try:
            file = open_and_check(path)
            got = file.read()
        except EpisodeError:
            refused += 1
            continue
        assert_same(got, episode)
    assert refused > 100


@pytest.mark.parametrize("limit", [0, 1000, 5000])
def test_no_half_file_where_there_is_no_room(tmp_path: Path, limit: int) -> None:
    """A limit on file sizes stands for a full disk; it strikes in the middle of the write."""
    code = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "from dreamer.episodes import save_episode; from dreamer.files import DiskFullError\n"
        "from test_episodes import make_episode\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try: save_episode(Path(sys.argv[1]), make_episode(20), 'b')\n"
        "except DiskFullError as error: print(error, flush=True)\n"
    )
    kept = save_episode(tmp_path, make_episode(20), "a")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, str(limit), Path(__file__).parent],
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
        "from dreamer.episodes import save_episode; from test_episodes import make_episode\n"
        "episode = make_episode(200, size=64)\n"
        "print('ready', flush=True)\n"
        "for number in range(10000): save_episode(Path(sys.argv[1]), episode, f'0-{number:06d}')\n"
    )
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        with subprocess.Popen(
            [sys.executable, "-c", code, folder, Path(__file__).parent], stdout=subprocess.PIPE
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
