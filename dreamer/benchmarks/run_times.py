"""Where the wall time of a whole run goes; in a process of its own, for `dreamer.benchmark`."""

from __future__ import annotations

import functools
import pkgutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dreamer.config.config import Config
from dreamer.system.tensorflow import prepare_tensorflow

#: What is timed: a method, and what its time is spent on. Time within a method that another one
#: calls counts for the inner one alone, except actions in an evaluation.
TIMED = {
    "dreamer.training.trainer:Trainer._prefill": "environments",
    "dreamer.training.trainer:Trainer._collect": "environments",
    "dreamer.agent.agent:Agent.policy": "acting",
    "dreamer.training.trainer:Trainer._make_updates": "updates",
    "dreamer.agent.agent:Agent.trace": "compiling",
    "dreamer.training.trainer:Trainer._collect_during_updates": "waiting",
    "dreamer.training.reports:Reporter._evaluate": "evaluation",
    "dreamer.training.reports:Reporter._write_videos": "films",
    "dreamer.training.trainer:Trainer._save": "checkpoints",
    "dreamer.training.trainer:Trainer._keep_best": "checkpoints",
    "dreamer.logs.logger:Logger.write": "logs",
    "dreamer.data.replay:Replay.batches": "drawing",
}
TRAIN = "dreamer.run:train"  # by name, because the programs stand above this package
START = "start"  # all that is not within these: imports, processes, networks, and the end


class Stopwatch:
    """Adds up the seconds that the thread which made it spends on each kind of work.

    Attributes:
        seconds: By kind.
    """

    def __init__(self) -> None:
        self._thread, self._kinds = threading.get_ident(), [START]
        self._last, self.seconds = time.perf_counter(), defaultdict[str, float](float)

    def timed(self, method: Callable, kind: str) -> Callable:
        """A method or function that does the same, and whose time counts for `kind`."""

        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread or self._is_part(kind):
                return method(*args, **kwargs)
            self._switch()
            self._kinds.append(kind)
            try:
                return method(*args, **kwargs)
            finally:
                self._switch()
                self._kinds.pop()

        return wrapped

    def timed_items(self, items: Callable[..., Iterable], kind: str) -> Callable[..., Iterator]:
        """As `timed`, for a method that yields: the time between the items does not count."""

        @functools.wraps(items)
        def wrapped(*args: Any, **kwargs: Any) -> Iterator:
            iterator = iter(items(*args, **kwargs))
            following, end = self.timed(next, kind), object()
            try:
                while (item := following(iterator, end)) is not end:
                    yield item
            finally:
                iterator.close()  # type: ignore[attr-defined]

        return wrapped

    def stop(self) -> None:
        """Counts the time until now."""
        self._switch()

    def _is_part(self, kind: str) -> bool:
        return kind == "acting" and "evaluation" in self._kinds

    def _switch(self) -> None:
        now = time.perf_counter()
        self.seconds[self._kinds[-1]] += now - self._last
        self._last = now


class RunService:
    """Trains an agent in a folder that is removed afterwards; `values` are its config's."""

    def __init__(self, values: dict[str, Any], agent: str) -> None:
        self._config = Config(values, agent=agent)

    def run(self) -> dict[str, Any]:
        """Trains to the end.

        Returns the frames and updates; the seconds of each kind of work (see `TIMED`); wall_seconds
        without compiling and start; and share_updates_environments, the share of these that are
        updates, or environments and their actions.
        """
        watch = Stopwatch()
        prepare_tensorflow(self._config.deterministic, self._config.jit)
        for path, kind in TIMED.items():
            owner, _, name = path.rpartition(".")
            found = pkgutil.resolve_name(owner)
            wrap = watch.timed_items if kind == "drawing" else watch.timed
            setattr(found, name, wrap(getattr(found, name), kind))
        with tempfile.TemporaryDirectory(prefix="dreamer_benchmark_") as folder:
            result = pkgutil.resolve_name(TRAIN)(self._config.replace({"logdir": folder}))
        watch.stop()
        seconds = {kind: watch.seconds[kind] for kind in (*TIMED.values(), START)}
        wall = sum(s for kind, s in seconds.items() if kind not in ("compiling", START))
        useful = seconds["updates"] + seconds["environments"] + seconds["acting"]
        return {
            "frames": result.step, "updates": result.updates, "seconds": seconds,
            "wall_seconds": wall, "share_updates_environments": useful / wall,
        }  # fmt: skip
