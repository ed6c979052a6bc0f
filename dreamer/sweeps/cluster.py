"""Ray: embedded on this machine, or an existing cluster. It schedules, retries and cancels."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer.errors import UserError
from dreamer.sweeps.plan import Trial
from dreamer.sweeps.worker import TrialFailedError, attempt

_STARTS = 3  # of an embedded Ray, which gives up where a machine is too busy for 30 s
ANSWER = 10.0  # seconds a cluster's port has to accept a connection
JOIN = 120.0  # seconds it then has to take this process in
_ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Takes 127.0.0.1 for this machine's address; else every service listens on all interfaces.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Workers start with their task: idle ones would only take memory.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    # A machine that is busy with trials is slow to start processes; Ray's own limits are 30 s.
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_gcs_server_port_wait_time_s": "300",
}
"""The environment of an embedded Ray."""
_PROBE = (
    "import sys, ray\n"
    "ray.init(address=sys.argv[1], log_to_driver=False, logging_level='CRITICAL')\n"
    "ray.shutdown()\n"
)


@dataclass(frozen=True)
class Share:
    """What Ray sets aside for each trial: processors and GPUs, fractions allowed."""

    cpus: float
    gpus: float


class Cluster:
    """Runs trials as Ray tasks. A context manager: its end disconnects, or ends an embedded Ray.

    Args:
        address: "" for a Ray of its own, which listens on loopback alone; "auto", host:port or
            ray://host:port for an existing cluster.
        share: of each trial; gpus -1 is 1 where the cluster has any, else 0.
        retries: attempts after the first, whatever made it fail: the run, its worker, its node or
            a lack of memory.

    Raises:
        UserError: Ray is not installed, nothing answers at the address, or no node is large
            enough for a trial.
    """

    def __init__(self, address: str, share: Share, retries: int) -> None:
        # Read when Ray is loaded; its default is to retry without end where memory is short.
        os.environ.update({"RAY_task_oom_retries": str(retries), **({} if address else _ALONE)})
        try:
            import ray
        except ImportError as error:
            raise UserError(
                f"a sweep needs Ray, which is not installed ({error}): pip install 'ray>=2.9'"
            ) from error
        self._ray: Any = ray  # its types do not know a task whose settings come later
        self._folder = ""
        self._pending: dict[Any, Trial] = {}
        if address:
            check_address(address)
        self._init(address)
        try:
            self.nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self.share = self._check_share(share)
        except BaseException:
            self.close()
            raise
        self._task = self._ray.remote(
            num_cpus=self.share.cpus, num_gpus=self.share.gpus, max_retries=retries,
            retry_exceptions=[TrialFailedError],
        )(attempt)  # fmt: skip

    @property
    def slots(self) -> int:
        """Trials that run at once."""
        return sum(
            min(self._fit(node, "CPU", self.share.cpus), self._fit(node, "GPU", self.share.gpus))
            for node in self.nodes
        )

    @property
    def pending(self) -> list[Trial]:
        """Trials submitted that have not ended, in that order."""
        return list(self._pending.values())

    def submit(self, trial: Trial) -> None:
        """Hands a trial to Ray."""
        reference = self._task.options(name=trial.name).remote(
            str(trial.path), trial.words, trial.config.steps, self.share.cpus, os.getcwd(), {}
        )
        self._pending[reference] = trial

    def wait(self, seconds: float) -> Iterator[tuple[Trial, str, str]]:
        """Waits until a trial ends, at most so long; yields those that have.

        Yields:
            The trial; "finished", "found finished", "failed" or "stopped"; and what went wrong.
        """
        if not self._pending:
            return
        references = list(self._pending)
        ended, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        if not ended:
            ended, _ = self._ray.wait(references, num_returns=1, timeout=seconds)
        for reference in ended:
            trial = self._pending.pop(reference)
            yield trial, *self._outcome(reference)

    def cancel(self) -> None:
        """Asks every trial to stop: those that run save and exit, the others never begin."""
        for reference in self._pending:
            self._ray.cancel(reference, force=False)

    def close(self) -> None:
        """Disconnects; an embedded Ray ends, and with it whatever still runs on it."""
        self._ray.shutdown()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _init(self, address: str) -> None:
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
        if address:
            settings["address"] = address
        else:
            # Sockets lie in it, whose paths may have 107 characters: not below a long TMPDIR.
            self._folder = tempfile.mkdtemp(prefix="dreamer-ray-", dir="/tmp")
            settings |= {
                "address": "local", "include_dashboard": False, "_temp_dir": self._folder,
                "num_cpus": len(os.sched_getaffinity(0)), "object_store_memory": 100_000_000,
            }  # fmt: skip
        for left in reversed(range(1 if address else _STARTS)):
            try:
                self._ray.init(**settings)
                return
            except Exception as error:
                self._ray.shutdown()
                if left:
                    continue
                self.close()
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                where = f"the cluster at {address}" if address else "a Ray on this machine"
                raise UserError(f"cannot use {where}: {reason}") from error

    def _check_share(self, share: Share) -> Share:
        if share.gpus < 0:
            share = Share(share.cpus, float(any(node.get("GPU") for node in self.nodes)))
        if any(node.get("CPU", 0) >= share.cpus and node.get("GPU", 0) >= share.gpus
               for node in self.nodes):  # fmt: skip
            return share
        listed = [f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs"
                  for node in self.nodes]  # fmt: skip
        raise UserError(
            f"no node has the {share.cpus:g} CPUs and {share.gpus:g} GPUs of a trial; there are "
            f"{'; '.join(listed[:5])}: lower --cpus or --gpus"
        )

    @staticmethod
    def _fit(node: dict[str, float], name: str, share: float) -> int:
        return int(node.get(name, 0) / share + 1e-9) if share else sys.maxsize

    def _outcome(self, reference: Any) -> tuple[str, str]:
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        try:
            return self._ray.get(reference), ""
        except TaskCancelledError:
            return "stopped", ""
        except RayTaskError as error:
            if isinstance(error.cause, KeyboardInterrupt):
                return "stopped", ""
            return "failed", str(error.cause).strip()
        except RayError as error:
            return "failed", str(error).strip().splitlines()[0]


def check_address(address: str) -> None:
    """Tries an existing cluster from a process of its own: Ray ends one that it cannot connect.

    Raises:
        UserError: nothing answers, or what answers is no cluster that takes this machine in.
    """
    if address != "auto":
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
            raise UserError(
                f"--address {address!r}: expected host:port, ray://host:port or auto, as "
                "`ray start --head` prints it"
            )
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
        except OSError as error:
            raise UserError(
                f"no Ray cluster answers at {address}: {error.strerror or error}; start one there "
                "with `ray start --head`, or leave out --address to use this machine alone"
            ) from error
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, address], capture_output=True, text=True, timeout=JOIN,
            cwd=Path(__file__).parent.parent.parent, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(
            f"what listens at {address} did not answer as a Ray cluster within {JOIN:.0f} "
            "seconds; check the port, and that both sides have the same version of Ray"
        ) from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(
            f"cannot use the Ray cluster at {address}: {said[:500]}; this machine must be one of "
            "its nodes (`ray start --address`), with the same version of Ray and RAY_AUTH_MODE"
        )
