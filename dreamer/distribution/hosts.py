"""One run on several hosts: the chief does everything, the workers only make its updates too."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dreamer.agent import Agent
from dreamer.distribution.channel import Channel
from dreamer.distribution.cluster import Cluster
from dreamer.distribution.devices import SeveralDevices
from dreamer.envs.spec import Space
from dreamer.errors import EnvError, UserError
from dreamer.interrupt import StopRequested

_JOIN = 300  # seconds that TensorFlow gets to join processes that are all there
_LOST = "Collective ops is aborted"


class PeerLostError(UserError):
    """Another process of the run has ended, or cannot be reached any more."""

    status = 69  # EX_UNAVAILABLE


class ChiefEndedError(UserError):
    """The chief has ended before the run was done, and said why."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Hosts(SeveralDevices):
    """The devices of all hosts. Within its ``with`` block the loss of a process is a PeerLostError.

    At the end of the block the chief tells the workers that, and why, it has ended.

    Args:
        cluster: The processes, which all must be there; makes TensorFlow join them.

    Attributes:
        leads: Whether this process is the chief.
        channel: From the chief to the workers.
        step: Environment frames, of which the chief tells at the end.
    """

    def __init__(self, cluster: Cluster):
        super().__init__(_join())
        self.step = 0
        self.leads = cluster.is_chief
        self.channel = Channel(len(cluster.addresses), self.leads)
        self._cluster = cluster

    def __str__(self) -> str:
        own = super().__str__().partition(": ")[2]
        return f"{self.count} devices on {len(self._cluster.addresses)} hosts, here {own}"

    @property
    def agent_class(self) -> type[Agent]:
        """What an agent on these devices is."""
        return HostsAgent

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        lost = isinstance(error, PeerLostError) or _is_loss(error)
        broken_off = isinstance(error, KeyboardInterrupt | SystemExit)  # in the middle of a message
        if self.leads and not lost and not broken_off:
            # Why this process ends goes before that another one has ended meanwhile.
            suppressed = [tf.errors.OpError] if error else []
            with contextlib.suppress(*suppressed), self._watched():
                self.channel.send({"kind": "end", "step": self.step, **_as_status(error)}, {})
        if error is not None and _is_loss(error):
            raise self._lost(error) from error

    def tell(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Sends the workers a message."""
        with self._watched():
            self.channel.send(header, arrays)

    def introduce(self, obs_space: Mapping[str, Space], act_space: Space) -> None:
        """The chief tells what the agent observes and does."""
        spaces = {**obs_space, "": act_space}
        header = {"kind": "spaces", "spaces": {k: _described(s) for k, s in spaces.items()}}
        self.tell(header, {})

    def spaces(self) -> tuple[dict[str, Space], Space]:
        """What `introduce` tells, on a worker."""
        header, _ = self._receive()
        spaces = {name: _space(value) for name, value in header["spaces"].items()}
        action = spaces.pop("")
        return spaces, action

    def follow(self, agent: HostsAgent) -> tuple[int, int]:
        """Makes the chief's updates on a worker, to the end of the run.

        Returns:
            The step and the number of updates at which it ended.
        Raises:
            ChiefEndedError: It was ended before.
            PeerLostError: The chief or another worker is gone.
        """
        updates = 0
        while True:
            header, arrays = self._receive()
            if header["kind"] == "end":
                return header["step"], updates
            if header["kind"] == "weights":
                agent.load_arrays(arrays)
                continue
            with self._watched():
                agent.follow(arrays, header["update"], header["exploring"])
            updates = header["update"] + 1

    def _receive(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        with self._watched():
            header, arrays = self.channel.receive()
        if header["kind"] == "end" and header["status"]:
            raise ChiefEndedError(f"the chief has ended: {header['text']}", header["status"])
        return header, arrays

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            if not _is_loss(error):
                raise
            raise self._lost(error) from error

    def _lost(self, error: BaseException) -> PeerLostError:
        text = str(error)
        reason = text[text.find(_LOST) :].removeprefix(f"{_LOST} by: ").splitlines()[0]
        return PeerLostError(
            f"a process of this run was lost ({', '.join(self._cluster.addresses)}): {reason}; "
            "start the same command on all hosts again: it goes on from the last checkpoint"
        )


class HostsAgent(Agent):
    """An agent on several hosts: the workers' get what the chief's learns from, and learn too."""

    _devices: Hosts

    def progress(self, step: int, update: int) -> None:
        super().progress(step, update)
        self._devices.step = step

    def train_step(self, batch: Mapping[str, np.ndarray], update: int) -> dict[str, tf.Tensor]:
        """As `Agent.train_step`, on the chief."""
        inputs = self._update_inputs(batch, update)
        header = {"kind": "update", "update": update, "exploring": inputs[2]}
        self._devices.tell(header, {key: batch[key] for key in self._batch_keys()})
        return self._update(*inputs)

    def follow(self, batch: Mapping[str, np.ndarray], update: int, exploring: bool) -> None:
        """The same update on a worker; which parts learn (`Agent.exploring`) the chief says."""
        batch_and_number = self._update_inputs(batch, update)[:2]
        self._update(*batch_and_number, exploring)

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        super().load_arrays(arrays)
        if self._devices.leads:
            self._devices.tell({"kind": "weights"}, arrays)


def _join() -> tf.distribute.Strategy:
    """TensorFlow's strategy over the processes that TF_CONFIG names.

    Its constructor waits for the others without letting Python run: if one is lost just then,
    faulthandler ends this process. It also leaves a handler for SIGTERM, which ours replaces.
    """
    faulthandler.dump_traceback_later(_JOIN, exit=True)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    finally:
        faulthandler.cancel_dump_traceback_later()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return strategy


def _is_loss(error: BaseException | None) -> bool:
    """Whether TensorFlow's error says that another process does not take part any more."""
    return isinstance(error, tf.errors.UnavailableError) or (
        isinstance(error, tf.errors.OpError) and _LOST in str(error)
    )


def _as_status(error: BaseException | None) -> dict[str, Any]:
    """How the chief ends, for the workers: exit status (0: as it should) and why."""
    status = getattr(error, "status", 1) if error else 0
    known = isinstance(error, UserError | EnvError | StopRequested)
    text = " ".join(str(error).split()) if known else type(error).__name__
    return {"status": status, "text": text}


def _described(space: Space) -> dict[str, Any]:
    bounds = {"low": np.asarray(space.low).tolist(), "high": np.asarray(space.high).tolist()}
    return {**vars(space), **bounds, "dtype": space.dtype.str}


def _space(value: Mapping[str, Any]) -> Space:
    bounds = {key: np.asarray(value[key], np.float64) for key in ("low", "high")}
    return Space(**{**value, **bounds})
