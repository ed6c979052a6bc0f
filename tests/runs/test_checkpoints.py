"""Checkpoints are exact, complete or absent, and refused if anything is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from checkpoint_damage import empty_folder, flipped_bit, rehash
from ordinary_user import ordinary_user

from dreamer.errors import UserError
from dreamer.runs import checkpoints as checkpoint_files
from dreamer.runs.checkpoints import Checkpoints

ARRAYS = {
    "model/encoder/kernel": np.arange(24, dtype=np.float32).reshape(4, 6).T,
    "file": np.float64(0.1),
    "counts/updates": np.int64(2**62),
    "mask": np.array([[True], [False]]),
    "empty": np.zeros((0, 3), np.float16),
}
STATE = {"updates": 12, "random": {"state": 2**128 - 1}, "members": ["a.npz"], "wall_time": 0.1}


@pytest.fixture
def store(tmp_path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    checkpoints.save(1000, ARRAYS, STATE)
    checkpoints.save(2000, ARRAYS, STATE)
    return checkpoints


def newest(store: Checkpoints) -> Path:
    return store.directory / "000000002000"


def test_what_is_saved_comes_back_exactly(store):
    loaded = store.load_latest()
    assert (loaded.step, loaded.path, loaded.state) == (2000, newest(store), STATE)
    with np.load(newest(store) / "arrays.npz", allow_pickle=False) as content:
        for found in (loaded.arrays, dict(content)):
            assert set(found) == set(ARRAYS)
            for name, array in ARRAYS.items():
                assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
                assert np.array_equal(found[name], array)


def test_none_where_there_is_none(tmp_path):
    assert Checkpoints(tmp_path / "absent").load_latest() is None
    (tmp_path / "notes.txt").write_text("foreign files are left alone")
    assert Checkpoints(tmp_path).load_latest() is None


def test_only_the_newest_are_kept_and_remains_of_killed_writers_go(store):
    remains = store.directory / ".000000002500.0badcafe.tmp"
    remains.mkdir()
    store.save(3000, ARRAYS, STATE)
    assert sorted(os.listdir(store.directory)) == ["000000002000", "000000003000"]


def test_one_set_aside_when_its_writer_died_in_the_exchange_counts_until_it_is_replaced(store):
    newest(store).rename(store.directory / "000000002000.old")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.load_latest().step == 2000
    for updates in (5, 99):  # the second replaces the same step
        store.save(2000, ARRAYS, {"updates": updates})
        assert store.load_latest().state == {"updates": updates}
        assert sorted(os.listdir(store.directory)) == ["000000001000", "000000002000"]


def test_files_of_far_more_than_the_agent_needs_are_not_read(store):
    for name in ("arrays.npz", "state.json"):
        store.save(2000, ARRAYS, STATE)
        manifest = json.loads((newest(store) / "manifest.json").read_text())
        os.truncate(newest(store) / name, 1 << 32)  # which would fill the memory
        manifest["files"][name]["bytes"] = 1 << 32
        (newest(store) / "manifest.json").write_text(json.dumps(manifest))
        tracemalloc.start()
        with pytest.warns(UserWarning, match=f"{name} has 4,294,967,296 bytes, far more than"):
            assert store.load_latest(ARRAYS).step == 1000
        with pytest.raises(UserError, match="far more than this agent needs"):
            store.load(newest(store), ARRAYS)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
        tracemalloc.stop()
    assert store.load(store.directory / "000000001000", ARRAYS).state == STATE


def test_while_another_process_saves_the_newest_is_found(store, monkeypatch):
    """All checkpoints of the first listing are gone, or one was replaced, when they are read."""
    original = checkpoint_files._opened
    saving = iter([3000, 4000, 5000, 5000])

    def opened(path: Path, max_bytes: int):
        if path.name == "arrays.npz" and (step := next(saving, None)):
            Checkpoints(store.directory, keep=2).save(step, ARRAYS, {"step": step})
            Checkpoints(store.directory, keep=2).save(step + 500, ARRAYS, {"step": step + 500})
        return original(path, max_bytes)

    monkeypatch.setattr(checkpoint_files, "_opened", opened)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = store.load_latest()
    assert loaded.step == 5500 and loaded.state == {"step": 5500}


def test_an_unreadable_one_is_passed_over():
    with ordinary_user() as folder:
        store = Checkpoints(folder / "checkpoints")
        store.save(1, ARRAYS, STATE)
        path = store.save(2, ARRAYS, STATE)
        (path / "arrays.npz").chmod(0)
        with pytest.warns(UserWarning, match="Permission denied"):
            assert store.load_latest().step == 1


def test_all_damaged_is_a_user_error_and_nothing_is_removed(store):
    flipped_bit(newest(store))
    empty_folder(store.directory / "000000001000")
    with pytest.raises(UserError, match=r"000000002000 \(.*\); .*000000001000 \(.*\); bring"):
        store.load_latest()
    assert len(os.listdir(store.directory)) == 2


def test_a_damaged_one_does_not_push_out_a_sound_one(store):
    flipped_bit(newest(store))
    with pytest.warns(UserWarning):
        store.load_latest()
    store.save(1500, ARRAYS, STATE)
    assert sorted(os.listdir(store.directory)) == ["000000001000", "000000001500", "000000002000"]
    store.save(2000, ARRAYS, STATE)
    assert sorted(os.listdir(store.directory)) == ["000000001500", "000000002000"]
    assert store.load_latest().step == 2000


def test_no_mutation_of_a_forged_checkpoint_does_more_than_fail(store):
    random = np.random.default_rng(0)
    original = (newest(store) / "arrays.npz").read_bytes()
    outcomes = set()
    for _ in range(300):
        content = bytearray(original)
        for _ in range(random.integers(1, 6)):
            content[random.integers(len(content))] = random.integers(256)
        (newest(store) / "arrays.npz").write_bytes(content)
        rehash(newest(store))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = store.load_latest()
        outcomes.add(loaded.step)
        assert all(array.dtype.kind in "biufc" for array in loaded.arrays.values())
    assert outcomes == {1000, 2000}


def test_what_cannot_be_stored_exactly_is_refused_and_leaves_no_trace(store):
    with pytest.raises(TypeError, match="'a' has dtype object"):
        store.save(3000, {"a": np.array([None])}, STATE)
    with pytest.raises(ValueError):
        store.save(3000, ARRAYS, {"loss": float("nan")})
    assert sorted(os.listdir(store.directory)) == ["000000001000", "000000002000"]


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from dreamer.runs.checkpoints import Checkpoints
from dreamer.io.files import DiskFullError
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    Checkpoints(Path(sys.argv[1])).save(3000, {"a": np.zeros(100_000)}, {})
except DiskFullError as error:
    print(error)
"""


def test_without_room_the_older_ones_stay(store):
    command = [sys.executable, "-c", FULL, str(store.directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "000000003000" in done.stdout and "800," in done.stdout
    assert sorted(os.listdir(store.directory)) == ["000000001000", "000000002000"]
    assert store.load_latest().step == 2000


WRITER = """
import sys
from pathlib import Path
import numpy as np
from dreamer.runs.checkpoints import Checkpoints
store = Checkpoints(Path(sys.argv[1]))
latest = store.load_latest()
step = latest.step if latest else 0
while True:
    step += 1
    for again in range(2):
        store.save(step, {"a": np.full(300_000, step), "b": np.full(5, step)}, {"step": step})
    print(step, flush=True)
"""


def test_killed_at_any_moment_the_newest_is_sound_and_not_older_than_was_reported(tmp_path):
    random = np.random.default_rng(1)
    for _ in range(8):
        command = [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        reported = int(child.stdout.readline())
        time.sleep(random.uniform(0, 0.1))
        os.kill(child.pid, signal.SIGKILL)
        reported = max([reported, *map(int, child.stdout.read().split())])
        child.wait()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = Checkpoints(tmp_path).load_latest()
        assert loaded.step >= reported and loaded.state == {"step": loaded.step}
        assert (loaded.arrays["a"] == loaded.step).all()
