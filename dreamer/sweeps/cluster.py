"""Runs trials on Ray: on a Ray of its own on this machine, or on an existing cluster."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

from dreamer.errors import UserError
from dreamer.sweeps.plan import Trial
from dreamer.sweeps.trial import TrialFailedError, run_trial
from dreamer.system.processes import try_python

_STARTS = 3  # attempts to start a Ray, which fails if a busy machine takes more than 30 s
ANSWER = 10.0  # seconds within which a cluster's port must accept a connection
#: Environment variables of a Ray of our own.
_LOCAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Uses 127.0.0.1 as this machine's address, so that no service listens on other interfaces.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Starts workers with their task, because idle ones would only take memory.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    # A machine that is busy with trials starts processes slowly; Ray's own limits are 30 s.
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_gcs_server_port_wait_time_s": "300",
}
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}


class Cluster:
    """Runs trials as Ray tasks, until it is closed.

    Args:
        address: "" for a Ray on this machine that listens on loopback alone; "auto", host:port or
            ray://host:port for an existing cluster.
        cpus, gpus: Processors and GPUs of each trial, fractions allowed; gpus -1: 1 if the cluster
            has any, else 0. The attributes of these names say what each trial gets.
        retries: Attempts after the first one failed, whether the run, its worker or its node
            failed, or memory was short.

    Attributes:
        nodes: Resources of each node.
        slots: Number of trials that run at once.
        pending: Trials that were submitted and have not ended, by Ray's reference.

    Raises UserError if Ray is not installed, nothing answers at the address, or no node is large
    enough for a trial.
    """

    def __init__(self, address: str, cpus: float, gpus: float, retries: int) -> None:
        # Ray reads these when it is imported. By default it retries without end if memory is short.
        os.environ.update({"RAY_task_oom_retries": str(retries), **({} if address else _LOCAL)})
        try:
            import ray
        except ImportError as error:
            raise UserError(
                f"a sweep needs Ray, which is not installed ({error}): pip install 'ray>=2.9'"
            ) from error
        self._ray: Any = ray  # Ray's types do not know tasks with later settings
        self._folder = ""
        self.pending: dict[Any, Trial] = {}
        if address:
            check_address(address)
        self._connect(address)
        try:
            self.nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self.cpus = cpus
            self.gpus = gpus if gpus >= 0 else float(any(node.get("GPU") for node in self.nodes))
            shares = {"CPU": self.cpus, "GPU": self.gpus}
            self.slots = sum(
                min(int(node.get(k, 0) / share + 1e-9) for k, share in shares.items() if share)
                for node in self.nodes
            )
            if not self.slots:
                sizes = [f"{n.get('CPU', 0):g} CPUs, {n.get('GPU', 0):g} GPUs" for n in self.nodes]
                raise UserError(
                    f"no node has the {self.cpus:g} CPUs and {self.gpus:g} GPUs of a trial; there "
                    f"are {'; '.join(sizes[:5])}: lower --cpus or --gpus"
                )
        except BaseException:
            self.close()
            raise
        self._task = self._ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=retries,
            retry_exceptions=[TrialFailedError],
        )(run_trial)  # fmt: skip

    def submit(self, trial: Trial) -> None:
        """Hands a trial to Ray."""
        words = str(trial.path), trial.words, trial.config.steps, self.cpus, os.getcwd()
        self.pending[self._task.options(name=trial.name).remote(*words)] = trial

    def wait(self, seconds: float) -> Iterator[tuple[Trial, str, str]]:
        """Waits at most `seconds` for the end of a trial.

        Yields each trial that has ended, with "finished", "found finished", "failed" or "stopped",
        and the reason.
        """
        references = list(self.pending)
        ended, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        if not ended:
            ended, _ = self._ray.wait(references, num_returns=1, timeout=seconds)
        for reference in ended:
            yield self.pending.pop(reference), *self._outcome(reference)

    def cancel(self) -> None:
        """Asks all trials to stop: running ones save and exit, the others never start."""
        for reference in self.pending:
            self._ray.cancel(reference, force=False)

    def close(self) -> None:
        """Disconnects. A Ray of our own ends, with everything that still runs on it."""
        self._ray.shutdown()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self, address: str) -> None:
        settings: dict[str, Any] = {"address": address, **_QUIET}
        if not address:
            # TMPDIR may be too long, because paths of sockets have at most 107 characters.
            self._folder = tempfile.mkdtemp(prefix="dreamer-ray-", dir="/tmp")
            settings |= {
                "address": "local", "include_dashboard": False, "_temp_dir": self._folder,
                "num_cpus": len(os.sched_getaffinity(0)), "object_store_memory": 100_000_000,
            }  # fmt: skip
        for starts_left in reversed(range(1 if address else _STARTS)):
            try:
                self._ray.init(**settings)
                return
            except Exception as error:
                self._ray.shutdown()
                if starts_left:
                    continue
                self.close()
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                where = f"the cluster at {address}" if address else "a Ray on this machine"
                raise UserError(f"cannot use {where}: {reason}") from error

    def _outcome(self, reference: Any) -> tuple[str, str]:
        from ray.exceptions import RayError, TaskCancelledError

        try:
            return self._ray.get(reference), ""
        except RayError as error:
            cause = getattr(error, "cause", None) or error  # what the task raised
            if isinstance(cause, KeyboardInterrupt | TaskCancelledError):
                return "stopped", ""
            return "failed", (str(cause).strip() or repr(cause)).splitlines()[0]


def check_address(address: str) -> None:
    """Raises UserError unless a Ray cluster answers at `address` and admits this machine.

    A child process tries the connection, because Ray ends the process in which it fails.
    """
    try:
        if address != "auto":
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster answers at {address}: {error}; expected host:port, ray://host:port or "
            "auto, as `ray start --head` prints it; leave out --address to use this machine alone"
        ) from error
    code = f"import ray\nray.init(address={address!r}, **{_QUIET!r})\nray.shutdown()"
    if problem := try_python(code, os.environ):
        raise UserError(
            f"cannot use the Ray cluster at {address}: {problem[:500]}; check the port. This "
            "machine must be one of the cluster's nodes (`ray start --address`), with the same "
            "version of Ray and RAY_AUTH_MODE"
        )
