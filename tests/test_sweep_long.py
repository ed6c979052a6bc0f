"""Sweeps that lose a worker or a node, are stopped, or get no answer (`make test-all`)."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_helpers import SMALL, descendants
from whole_runs import ROOT, metrics_of, python, start, wait_until

from dreamer.errors import UserError
from dreamer.sweeps.cluster import check_address
from dreamer.sweeps.trial import read_attempts, read_progress
from dreamer.system import processes
from dreamer.tasks import TASK_LISTS

pytestmark = pytest.mark.slow
HOURS = 4 * 3600  # for a whole sweep, on whatever machine this is
ENVIRON = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token",
           "RAY_AUTH_TOKEN": secrets.token_hex(32),  # comes before a file in the user's home
           "RAY_agent_register_timeout_ms": "300000",
           "RAY_worker_register_timeout_seconds": "300"}  # fmt: skip


@pytest.fixture(autouse=True)
def ray():
    pytest.importorskip("ray")


def endings(run: Path) -> list[int]:
    return [one["status"] for one in read_attempts(run) if one["event"] == "end"]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_all_tasks_with_a_worker_killed_then_the_figures_and_the_report(tmp_path: Path):
    runs = tmp_path / "runs"
    words = ("--suite", "dmc20", "--seeds", "2", "--logdir", runs, *SMALL, "--retries", "2")
    # To a file: nobody reads a pipe while the test looks at the runs.
    with (tmp_path / "output").open("w") as output:
        process = start("dreamer.sweep", *words, stdout=output, stderr=output)
    paths = [runs / task / "dreamer_debug" / str(seed)
             for seed in range(2) for task in TASK_LISTS["dmc20"]]  # fmt: skip
    victim = paths[5]
    deadline = time.monotonic() + HOURS
    while not (victim / "metrics.jsonl").exists():  # in the middle of its training
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    guard = read_attempts(victim)[-1]["pid"]
    os.kill(parent_of(guard), signal.SIGKILL)
    process.wait(HOURS)
    said = (tmp_path / "output").read_text()
    assert process.returncode == 0, said
    assert "Traceback" not in said and "40 finished" in said.splitlines()[-1]
    for path in paths:
        assert read_progress(path).finished(400)
        steps = [line["step"] for line in metrics_of(path)]
        assert steps == sorted(set(steps)) and steps[-1] == 400
        starts = [one for one in read_attempts(path) if one["event"] == "start"]
        assert len(starts) == (2 if path == victim else 1)
        assert endings(path)[-1] == 0 and endings(path).count(0) == 1
    figures = script("plot.py", "--indir", runs, "--outdir", tmp_path / "out", "--suite", "dmc20")
    assert {"curves.png", "final_scores.pdf", "scores.md"} <= {
        Path(line).name for line in figures.splitlines()
    }
    script("report.py", "--indir", runs, "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert all(task in page for task in TASK_LISTS["dmc20"])


def script(name: str, *words: str | Path) -> str:
    done = python(ROOT / "plots" / name, *words, timeout=3600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sigterm_stops_the_trials_which_go_on_later(tmp_path: Path):
    words = ("--tasks", "dmc_cartpole_balance", "--logdir", tmp_path, *SMALL)
    run = tmp_path / "dmc_cartpole_balance" / "dreamer_debug" / "0"
    process = start("dreamer.sweep", *words, "--steps", "1000000")
    wait_until(lambda: read_progress(run).step >= 400, process)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=HOURS)
    assert process.returncode == 143, output + errors
    assert "stopped by SIGTERM: the trials save and stop" in output
    assert "dmc_cartpole_balance/dreamer_debug/0: stopped" in output
    assert endings(run) == [143]
    last = read_progress(run).saved
    process = start("dreamer.sweep", *words, "--steps", str(last + 80))
    output, errors = process.communicate(timeout=HOURS)
    assert process.returncode == 0, output + errors
    assert f"resumed at step {last}" in (run / "output.log").read_text()
    assert endings(run) == [143, 0]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """Two nodes of a cluster, each on a loopback address of its own with one processor."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        address = f"127.0.0.2:{probe.getsockname()[1]}"
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    head = [*ray, "--head", "--node-ip-address=127.0.0.2", f"--port={address.rpartition(':')[2]}",
            "--include-dashboard=false", "--disable-usage-stats"]  # fmt: skip
    node = [*ray, f"--address={address}", "--node-ip-address=127.0.0.3"]
    started: list[subprocess.Popen] = []
    try:
        for number, command in enumerate((head, node)):
            log = tmp_path / f"node{number}.log"
            with log.open("w") as file:
                started.append(subprocess.Popen(
                    command, stdout=file, stderr=file, env=ENVIRON, start_new_session=True))
            wait_until(lambda log=log: "Ray runtime started" in log.read_text())
        yield address, started
    finally:
        for process in reversed(started):
            end_with_all(process)


def end_with_all(process: subprocess.Popen) -> None:
    """Ends a process and all below it at once, as a machine that loses its power does."""
    for pid in [*descendants(process.pid), process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def test_a_cluster_that_loses_a_node(tmp_path: Path, nodes):
    """Every trial finishes on the node that is left; the one that was lost goes on there."""
    address, (_, lost) = nodes
    tasks = ("dmc_cartpole_balance", "dmc_reacher_easy", "dmc_walker_stand")
    words = ("--tasks", *tasks, "--logdir", tmp_path / "runs", *SMALL, "--address", address)
    process = start("dreamer.sweep", *words, env=ENVIRON)
    paths = [tmp_path / "runs" / task / "dreamer_debug" / "0" for task in tasks]

    def on_lost_node() -> list[Path]:
        """Trials of which a run works below the node's processes, with metrics by now."""
        below = set(descendants(lost.pid))
        return [path for path in paths if (path / "metrics.jsonl").exists()
                and read_attempts(path)[-1]["pid"] in below]  # fmt: skip

    wait_until(lambda: bool(on_lost_node()), process)
    (victim,) = on_lost_node()
    end_with_all(lost)
    output, errors = process.communicate(timeout=HOURS)
    assert process.returncode == 0, output + errors
    assert "3 finished" in output.splitlines()[-1]
    assert all(read_progress(path).finished(400) for path in paths)
    assert len([one for one in read_attempts(victim) if one["event"] == "start"]) == 2
    assert all(endings(path).count(0) == 1 for path in paths)


def test_a_port_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "_TRY_TIMEOUT", 5.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        threading.Thread(target=server.accept, daemon=True).start()
        with pytest.raises(UserError, match=f"at {address}"):
            check_address(address)
