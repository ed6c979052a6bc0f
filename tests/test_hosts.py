"""Two processes that share a batch do what one device does; neither outlives the other's loss."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_distribution import WEIGHTS
from whole_runs import ROOT, finish, metrics_of, start, wait_until

from dreamer.distribution.channel import decode, encode
from dreamer.distribution.cluster import Cluster, read_cluster
from dreamer.distribution.rendezvous import meet
from dreamer.errors import UserError

TASK = f"{ROOT}/tests/counting_env.py:make"
WORDS = (
    *("--task", TASK, "--configs", "debug", "--precision", "float32", "--method", "hosts"),
    *("--encoder.keys", "vector", "--decoder.keys", "vector", "--train.batch_length", 3),
    *("--behavior.horizon", 3, "--eval.videos", 0, "--log.tensorboard", "false"),
    *("--train.every", 10, "--log.every", 100, "--checkpoint.every", 100),
)


def free_addresses(count: int = 2) -> list[str]:
    """Of loopback, with ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return [f"127.0.0.1:{port}" for port in ports]


def environments(addresses: list[str]) -> list[dict[str, str]]:
    """Those of each process."""
    tasks = [{"type": "worker", "index": index} for index in range(len(addresses))]
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    values = [{"cluster": {"worker": addresses}, "task": task} for task in tasks]
    return [{**os.environ, **path, "TF_CONFIG": json.dumps(value)} for value in values]


# ------------------------------------------------------------------ fixed batch


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    script = str(ROOT / "tests" / "host_checks.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script], env=env, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for env in environments(free_addresses())
    ]  # fmt: skip
    ended = [finish(process) for process in processes]
    assert [status for status, _, _ in ended] == [0, 0], ended
    return [json.loads(output.splitlines()[-1]) for _, output, _ in ended]


def test_two_processes_agree_with_one_device(results: list[dict[str, Any]]):
    chief, _ = results
    assert chief["start"][0] == 0.0
    for difference, name, norm in chief["metrics"]:
        assert difference < WEIGHTS, name
        assert norm > 1.0  # clipped
    difference, name = chief["weights"]
    assert difference < WEIGHTS, name
    assert chief["skipped"] == 1.0 and chief["kept"]


def test_both_hold_the_same_bits_to_the_end(results: list[dict[str, Any]]):
    chief, worker = results
    assert worker["digest"] == chief["digest"]
    assert worker["ended"] == [77, 5]


# ------------------------------------------------------------------- whole runs


def run_two(logdir: Path, steps: int) -> tuple[list[subprocess.Popen[str]], Path]:
    words = [*WORDS, "--logdir", logdir, "--steps", steps]
    both = [start("dreamer.run", *words, env=env) for env in environments(free_addresses())]
    return both, logdir


def lines_below(logdir: Path) -> int:
    return sum(len(metrics_of(path.parent)) for path in logdir.rglob("metrics.jsonl"))


@pytest.mark.slow
def test_a_run_ends_and_goes_on_alone(tmp_path: Path):
    both, _ = run_two(tmp_path, 300)
    (status, output, errors), (other, worker_output, _) = map(finish, both)
    assert (status, other) == (0, 0), errors
    assert "every batch is shared by 2 devices on 2 hosts, here CPU:0" in output
    assert "done: 300 steps" in output and "done: 300 steps" in worker_output
    alone = start("dreamer.run", *WORDS, "--logdir", tmp_path, "--steps", 400)
    status, output, errors = finish(alone)
    assert status == 0, errors
    assert "going on from step 300" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("index", "number", "expected"),
    [
        (1, signal.SIGKILL, (69, -signal.SIGKILL)),
        (1, signal.SIGTERM, (69, -signal.SIGTERM)),
        (0, signal.SIGKILL, (-signal.SIGKILL, 69)),
        (0, signal.SIGTERM, (128 + signal.SIGTERM, 128 + signal.SIGTERM)),
    ],
)
def test_no_process_outlives_the_other(
    index: int, number: int, expected: tuple[int, int], tmp_path: Path
):
    both, _ = run_two(tmp_path, 1_000_000)
    wait_until(lambda: lines_below(tmp_path) >= 2, both[0])
    os.kill(both[index].pid, number)
    ended = [finish(process) for process in both]
    assert tuple(status for status, _, _ in ended) == expected, ended
    last = ended[1 - index][2].splitlines()[-1]
    if number == signal.SIGTERM and index == 0:
        assert last == "error: the chief has ended: stopped by SIGTERM"
    else:
        assert last.startswith("error: a process of this run was lost (127.0.0.1:")


@pytest.mark.slow
def test_a_mistake_of_the_chief_ends_the_worker_with_its_words(tmp_path: Path):
    words = [*WORDS, "--logdir", tmp_path, "--task", "nothing:at_all"]
    words = [word for i, word in enumerate(words) if i not in (0, 1)]
    both = [start("dreamer.run", *words, env=env) for env in environments(free_addresses())]
    (status, _, errors), (other, _, told) = map(finish, both)
    assert (status, other) == (2, 2), errors
    reason = errors.splitlines()[-1].removeprefix("error: ")
    assert told.splitlines()[-1] == f"error: the chief has ended: {reason}"
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------- TF_CONFIG, meeting


def config_of(cluster: Any, task: Any = None) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def test_who_is_who():
    assert read_cluster({}) is None
    assert read_cluster({"TF_CONFIG": ""}) is None and read_cluster({"TF_CONFIG": "{}"}) is None
    workers = {"worker": ["a:1", "b:2"]}
    chief = read_cluster(config_of(workers, {"type": "worker", "index": 0}))
    assert chief == Cluster(("a:1", "b:2"), 0) and chief.is_chief
    both = {"worker": ["a:1", "b:2"], "chief": ["c:3"]}
    other = read_cluster(config_of(both, {"type": "worker", "index": 1}))
    assert other == Cluster(("c:3", "a:1", "b:2"), 2) and not other.is_chief
    first = read_cluster(config_of(both, {"type": "chief", "index": 0}))
    assert first is not None and first.is_chief


TWO = {"worker": ["a:1", "b:2"]}
ZERO = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TF_CONFIG": "{"}, "TF_CONFIG is not JSON"),
        ({"TF_CONFIG": "[1]"}, "TF_CONFIG is not a map"),
        (config_of({"worker": ["a:1"]}, ZERO), "names only one process, a:1"),
        (config_of({"worker": "a:1"}, ZERO), "not a map of lists"),
        (config_of({**TWO, "ps": ["c:3"]}, ZERO), "has a job 'ps'"),
        (config_of({**TWO, "chief": ["c:3", "d:4"]}, ZERO), "names 2 chiefs"),
        (config_of({"worker": ["a:1", "b"]}, ZERO), "has the address 'b'"),
        (config_of({"worker": ["a:1", "b:99999"]}, ZERO), "has the address 'b:99999'"),
        (config_of({"worker": ["a:1", 2]}, ZERO), "has the address 2"),
        (config_of({"worker": ["a:1", "a:1"]}, ZERO), "names an address twice"),
        (config_of(TWO), "has the task None"),
        (config_of(TWO, {"type": "chief", "index": 0}), "whose type is none of worker"),
        (config_of(TWO, {"type": "worker", "index": 2}), "expected an index from 0 to 1"),
    ],
)
def test_a_wrong_tf_config_is_refused(environment: dict[str, str], message: str):
    with pytest.raises(UserError, match="TF_CONFIG") as raised:
        read_cluster(environment)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def meeting(facts: list[dict], wait: float = 60.0, dead: tuple[int, ...] = ()) -> list[str]:
    """What each process of a cluster gets to hear from `meet`: nothing if all is well, and of the
    dead, which do not come."""
    addresses = tuple(free_addresses(len(facts)))
    outcomes = [""] * len(facts)

    def work(index: int) -> None:
        try:
            meet(Cluster(addresses, index), facts[index], lambda text: None, wait)
        except UserError as error:
            outcomes[index] = str(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(facts)) if i not in dead]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for index, address in enumerate(addresses):
        outcomes = [text.replace(address, f"<{index}>") for text in outcomes]
    return outcomes


def test_all_meet():
    assert meeting([{"seed": 1}] * 3) == ["", "", ""]


def test_those_who_differ_are_named_everywhere():
    chief, other = meeting([{"seed": 1}, {"seed": 2}])
    assert chief == "<1> was started with seed 2, the chief with 1"
    assert other == f"the chief at <0> has ended: {chief}"


def test_who_does_not_come_is_named():
    chief, waiting, _ = meeting([{}, {}, {}], wait=3.0, dead=(2,))
    assert chief.startswith("no word from") and "<2>: start the same command there" in chief
    assert waiting.startswith(("the chief at <0> has ended: no word from", "no chief at <0>"))
    _, alone = meeting([{}, {}], wait=0.5, dead=(0,))
    assert alone.startswith("no chief at <0>")


def test_strangers_are_not_counted():
    addresses = tuple(free_addresses())
    host, port = addresses[0].split(":")
    done = threading.Event()

    def lead() -> None:
        meet(Cluster(addresses, 0), {}, lambda text: None, 60.0)
        done.set()

    thread = threading.Thread(target=lead)
    thread.start()
    for words in (b"GET / HTTP/1.1\r\n\r\n", b'{"index": 7}\n', b"[" * 100_000 + b"\n", b""):
        while True:
            try:
                with socket.create_connection((host, int(port)), 60.0) as stranger:
                    stranger.sendall(words)
                break
            except ConnectionRefusedError:  # it does not listen yet
                pass
    assert not done.is_set()
    meet(Cluster(addresses, 1), {}, lambda text: None, 60.0)
    thread.join(120)
    assert done.is_set()


def test_messages_come_as_they_went():
    arrays = {
        "image": np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5),
        "flags": np.array([True, False, True]), "loss": np.float32(0.5),
        "none": np.zeros((0, 4), np.float32), "wide": np.arange(3000, dtype=np.int64)[::2],
    }  # fmt: skip
    words = encode({"kind": "update", "update": 3}, arrays)
    assert words.dtype == np.int32 and len(words) % 256 == 0
    header, found = decode(words)
    assert header == {"kind": "update", "update": 3}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
