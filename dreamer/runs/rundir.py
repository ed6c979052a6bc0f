"""A run's directory: where it lies, what is in it, and whose it is.

``<logdir>/<task>/<method>/<seed>/`` with config.yaml (the resolved config, package versions,
commit, seed), metrics.jsonl, episodes/, eval_episodes/, checkpoints/, videos/, TensorBoard's
events.* and lock. The same command again resumes the run in it.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from pathlib import Path
from typing import Any

from dreamer.config.config import Config
from dreamer.config.schema import DREAMER
from dreamer.errors import UserError
from dreamer.io.files import (
    DiskFullError,
    StorageError,
    atomic_write,
    make_folder,
    remove_temporaries,
)
from dreamer.io.yaml_files import format_yaml, read_yaml
from dreamer.runs.lock import SILENCE, Lock
from dreamer.runs.provenance import origin
from dreamer.runs.trust import refuse_irregular
from dreamer.tasks import split_tasks

# A resumed run may change how long it runs, what it reports and keeps, where it lies, and what
# it asks of the machine: none of these changes what is learnt, only how exactly it is repeated.
MAY_DIFFER = re.compile(
    r"steps|logdir|deterministic|disk_wait|train\.(nonfinite_limit|devices)"
    r"|(eval|log|checkpoint)\..*"
    r"|envs\.(timeout|restarts|egl_device|python)|replay\.(cache_bytes|prefetch)"
)
_LONGEST_NAME = 200  # of a task's folder; file systems take 255 bytes
_ELSEWHERE = "choose a --logdir you may write to"
_RESUMES = 100  # of the newest resumptions config.yaml keeps a record


class RunDir:
    """The directory of one run.

    Attributes:
        path: the directory itself.
        config_file, metrics, episodes, eval_episodes, checkpoints, videos: what lies in it, as
            paths; `open` makes the folders but for eval_episodes, which not every run has;
            `episodes` is the config's `replay.directory` if that is set.
        resumed: whether `open` found the run there already.
        owner: begins the ids of its episodes where others may lie beside them, that is where
            `replay.directory` is set: two runs of one seed may share that. Else "".
        notes: what the user should hear about the opening (a dead run's lock taken over, ...).
    """

    def __init__(self, path: Path, replay_directory: str = "") -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.episodes = Path(replay_directory or path / "episodes").expanduser()
        self.eval_episodes = path / "eval_episodes"
        self.checkpoints = path / "checkpoints"
        self.videos = path / "videos"
        self.owner = ""
        self._shares = bool(replay_directory)
        self.resumed = False
        self.notes: list[str] = []
        self._lock: Lock | None = None

    @classmethod
    def open(cls, config: Config) -> RunDir:
        """Makes the run's directory, or resumes the run in it; holds its lock until `close`.

        Raises:
            UserError: not writable, held by another live run, made by a config that differs in
                more than `MAY_DIFFER`, or not a run's directory.
        """
        run = cls(run_path(config), config.replay.directory)
        _make_folder(run.path)
        refuse_irregular(run.path)
        run._lock = Lock(run.path / "lock")
        try:
            run._enter(config)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> tuple[RunDir, Config]:
        """An existing run and the config it was made by, to read it; takes no lock.

        Raises:
            UserError: no run's directory, or a config.yaml that is not ours.
        """
        run = cls(Path(path).expanduser())
        if not run.config_file.is_file():
            raise UserError(
                f"{path} is not a run's directory: it has no config.yaml; expected one like "
                "runs/dmc_walker_walk/dreamer/0"
            )
        refuse_irregular(run.path)
        _, config = run._read()
        run = cls(run.path, config.replay.directory)
        run.resumed = True
        return run, config

    def check(self) -> None:
        """Raises UserError where another run has taken the directory over, this one having been
        paused for so long that it counted as dead."""
        if self._lock is not None and self._lock.lost:
            raise UserError(
                f"{self.path} was taken over by another run ({self._lock.lost}) while this one was "
                f"paused for more than {SILENCE:.0f} s; this one ends without saving: see to the "
                "other, or start one with a --logdir of its own"
            )

    def close(self) -> None:
        """Releases the lock. The directory can be opened again then."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _enter(self, config: Config) -> None:
        """With the lock held: compares or writes config.yaml, makes the folders, tidies up."""
        if self._lock is not None and self._lock.taken_over:
            self.notes.append(f"took over the lock of a dead run ({self._lock.taken_over})")
        # Ours alone, unlike replay.directory and predictions/.
        for name in ("", "episodes", "eval_episodes", "videos", "nonfinite"):
            remove_temporaries(self.path / name)
        record = self._resume(config) if self.config_file.exists() else self._claim(config)
        with atomic_write(self.config_file) as file:
            file.write(format_yaml(record).encode())
        if self._shares and re.fullmatch(r"[0-9a-f]{8}", str(record.get("id"))):
            self.owner = f"{record['id']}."  # runs begun by older versions have none
        for folder in (self.episodes, self.checkpoints, self.videos):
            _make_folder(folder)

    def _claim(self, config: Config) -> dict[str, Any]:
        for foreign in (self.metrics, self.checkpoints):
            if foreign.exists():
                raise UserError(
                    f"{self.path} holds {foreign.name} but no config.yaml, so what made it is "
                    "unknown; move it away or choose another --logdir"
                )
        return _start(config)

    def _is_bare(self) -> bool:
        """Whether nothing has been collected, logged or saved in it yet."""
        folders = (self.path / "episodes", self.eval_episodes, self.checkpoints)
        kept = any(folder.is_dir() and any(folder.iterdir()) for folder in folders)
        return not kept and not (self.metrics.exists() and self.metrics.stat().st_size)

    def _resume(self, config: Config) -> dict[str, Any]:
        record, before = self._read()
        old, new = before.flat(), config.flat()
        differing = [key for key in new if key not in old or old[key] != new[key]]
        refused = [key for key in differing if not MAY_DIFFER.fullmatch(key)]
        if (refused or before.agent != config.agent) and self._is_bare():
            self.notes.append("a run that had collected nothing yet begins anew, as configured now")
            return _start(config)
        if before.agent != config.agent:
            raise UserError(
                f"{self.path} was made by the agent {before.agent}, not {config.agent}; choose "
                "another --method or --logdir"
            )
        if refused:
            listed = ", ".join(f"{key} is {old[key]!r}, now {new[key]!r}" for key in refused)
            raise UserError(
                f"{self.path} was made with another config: {listed}; use the same values to "
                "resume it, or another --method, --seed or --logdir for a new run"
            )
        self.resumed = True
        again = origin()
        first = record.get("versions")
        if isinstance(first, dict):
            again["versions"] = {k: v for k, v in again["versions"].items() if first.get(k) != v}
        again["config"] = {key: new[key] for key in differing}
        resumed = record.get("resumed")
        earlier = resumed[1 - _RESUMES :] if isinstance(resumed, list) else []
        return {**record, "config": config.tree(), "resumed": [*earlier, again]}

    def _read(self) -> tuple[dict[str, Any], Config]:
        record = read_yaml(self.config_file, of_run=True)
        values, presets = record.get("config"), record.get("presets", [])
        agent = str(record.get("agent", DREAMER))  # runs of earlier versions are Dreamer's
        if not isinstance(values, dict) or not isinstance(presets, list):
            raise UserError(f"{self.config_file} was not written by a run: it has no 'config' map")
        flat: dict[str, Any] = {}
        for key, value in values.items():
            inner = value.items() if isinstance(value, dict) else ()
            flat.update({f"{key}.{name}": leaf for name, leaf in inner} or {key: value})
        try:
            return record, Config(flat, [str(preset) for preset in presets], agent)
        except UserError as error:
            raise UserError(f"{self.config_file}: {error}") from None


def run_path(config: Config) -> Path:
    """``<logdir>/<task>/<method>/<seed>``; what has no place in a folder's name becomes ``_``.

    Several tasks are joined by ``+``; of a name too long for a folder a hash replaces the end.
    """
    task = _plain("+".join(split_tasks(config.task))).strip("._")
    if len(task) > _LONGEST_NAME:
        task = f"{task[:_LONGEST_NAME]}+{hashlib.sha256(task.encode()).hexdigest()[:8]}"
    return Path(config.logdir).expanduser() / task / method_name(config) / str(config.seed)


def method_name(config: Config) -> str:
    """`method` if set, else the agent and the presets besides the suite's, in order, joined."""
    if not config.method:
        return "_".join([config.agent, *(_plain(preset) for preset in sorted(config.presets))])
    if not re.fullmatch(r"[A-Za-z0-9_=+-][A-Za-z0-9._=+,-]*", config.method):
        raise UserError(
            f"method is {config.method!r}; expected a name of letters, digits and . _ = + , - "
            "since it names a folder"
        )
    return config.method


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=+-]+", "_", name)


def _start(config: Config) -> dict[str, Any]:
    """What config.yaml says of a run that begins."""
    return {
        "config": config.tree(),
        "agent": config.agent,
        "presets": list(config.presets),
        "seed": config.seed,
        **origin(),
        "id": uuid.uuid4().hex[:8],
        "resumed": [],
    }


def check_folder(folder: Path) -> None:
    """Refuses what cannot be made or written to, as far as that shows without making it.

    Raises:
        UserError: the folder, or the nearest above it that is there, is none or not writable.
    """
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not os.path.isdir(nearest):
        raise UserError(f"cannot make {folder}: {nearest} is no folder; {_ELSEWHERE}")
    if not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
        raise UserError(f"cannot write to {nearest}; {_ELSEWHERE}")


def _make_folder(folder: Path) -> None:
    check_folder(folder)
    try:
        make_folder(folder, _ELSEWHERE)
    except DiskFullError:
        raise
    except StorageError as error:  # a name too long: nothing has begun, so the user's to mend
        raise UserError(str(error)) from error
