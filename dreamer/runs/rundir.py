"""The directory of a run: its place, its content, and its only live process.

``<logdir>/<task>/<method>/<seed>/`` holds config.yaml (the resolved config and the run's
provenance), metrics.jsonl, episodes/, eval_episodes/, checkpoints/, best/, videos/, TensorBoard's
events.* and lock. Run the same command again to resume the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dreamer
from dreamer.config.config import Config
from dreamer.config.schema import DREAMER, flatten, load_schema
from dreamer.data.episodes import OWNER, episode_uid
from dreamer.errors import UserError
from dreamer.io.files import (
    DiskFullError,
    StorageError,
    check_writable_folder,
    make_folder,
    remove_temporaries,
    write_file,
)
from dreamer.io.yaml_files import format_yaml, read_yaml
from dreamer.runs.checkpoints import Checkpoints
from dreamer.runs.exports import MARK, resolve_run
from dreamer.runs.lock import Lock
from dreamer.system.machine import machine
from dreamer.tasks import split_tasks

# Keys that a resumed run may change, because they do not change what is learnt: the run's length,
# what it reports and keeps, its place, and the resources of the machine.
MAY_DIFFER = re.compile(
    r"steps|logdir|deterministic|disk_wait|train\.(nonfinite_limit|devices)"
    r"|(eval|log|checkpoint)\..*|actor\.evaluation"
    r"|envs\.(timeout|restarts|renew_every|egl_device|python)"
    r"|replay\.(cache_bytes|latent_bytes|prefetch|directory)"
)
# Keys that a resumed run may change, too, because the weights and episodes so far fit any value.
MAY_CHANGE = re.compile(
    r"optimizer\.(\w+_lr|eps|clip|adaptive_clip|weight_decay|warmup|decay|decay_updates|final)"
    r"|explore\..*|train\.(every|updates|batch_size|batch_length|overlap)|envs\.num_envs|jit"
    r"|replay\.(sampling|latents|capacity)|actor\.entropy\w*"
)
# Why other keys must stay as they are; the first pattern that fits a key counts.
_REASONS = (
    (r"envs\.num_envs", "a deterministic run, or one of A3C, repeats or counts by environment"),
    (r"task|envs\..*", "the episodes so far are of that environment"),
    (r"train\.(prefill|pretrain|offline)|init_.*", "that was done, or not, when the run began"),
    (r"precision|.*\.(layers|units|\w+_(layers|units|depth)|keys|kind|members|stoch|deter|hidden)"
     r"|\w+\.(enabled|distribution|policy|value|until|representation)"
     r"|\w+\.(cnn|classes|blocks|bins|norm|gru_norm)|optimizer\.(shared|algorithm)",
     "the weights so far have that form"),
    (r".*", "it decides what is learnt, so results before and after could not be compared"),
)  # fmt: skip
ELSEWHERE = "choose a --logdir you may write to"
"""Advice in messages about a directory that cannot be written to."""

_MAX_NAME = 200  # characters of a task's folder; file systems allow 255 bytes
_MAX_NEAR = 5  # runs that a message names
_DEPTH = 3  # folders below a logdir's own, for the task, the method and the seed
_MAX_SEARCHED = 1000  # folders
_MAX_RESUMED = 100  # newest resumptions that config.yaml lists
_PACKAGES = (
    "tensorflow", "tensorflow-probability", "keras", "tf_keras", "tensorboard", "numpy",
    "dm_control", "mujoco", "gymnasium", "ale-py",
)  # fmt: skip


class RunDir(contextlib.AbstractContextManager):
    """The directory of one run.

    Attributes:
        path: The directory.
        config_file, metrics, episodes, eval_episodes, checkpoints, best, videos: Paths of its
            content. `open` makes the folders, except eval_episodes and best. `episodes` is the
            config's `replay.directory` if that is set, unless it belongs to another run. `best`
            holds the checkpoint with the highest return in evaluations.
        others: Folders of another run's episodes, which this run only reads.
        resumed: Whether the run existed before `open`.
        exported: Whether it is an exported agent; see `dreamer.runs.exports`.
        owner: Start of the unique ids of its episodes if the run began with `replay.directory`,
            because two runs of one seed may share that folder; else "".
        notes: Messages for the user about the opening, such as a lock taken over from a dead run.
    """

    def __init__(self, path: Path, replay_directory: str = "") -> None:
        self.path = path
        self.others: tuple[Path, ...] = ()
        self.config_file, self.metrics = path / "config.yaml", path / "metrics.jsonl"
        self.episodes = Path(replay_directory or path / "episodes").expanduser()
        self.eval_episodes, self.videos = path / "eval_episodes", path / "videos"
        self.checkpoints, self.best = path / "checkpoints", path / "best"
        self.resumed, self.exported, self.owner = False, False, ""
        self.notes: list[str] = []
        self._lock: Lock | None = None

    def _place_episodes(self, directory: str) -> Path:
        """Sets and returns `episodes`; sets `others` if the directory is another run or in one."""
        folder = Path(directory or self.path / "episodes").expanduser()
        if folder.resolve() == self.path.resolve():
            folder = self.path / "episodes"
        run = _run_around(folder)
        if run is None or run == self.path.resolve():
            self.episodes = folder
        elif run != folder.resolve():
            self.others = (folder,)
        else:
            elsewhere = Path(RunDir.load(folder)[1].replay.directory or run).expanduser()
            shared = (elsewhere,) if _run_around(elsewhere) is None else ()
            own = folder / "episodes"
            self.others = (own, *shared) if own.is_dir() or not shared else shared
        return self.episodes

    @classmethod
    def open(cls, config: Config) -> RunDir:
        """Makes the directory of a run, or resumes the run in it; holds its lock until `close`.

        Raises:
            UserError: The directory is not writable, another live run holds it, its config
                differs in more than `MAY_DIFFER` and `MAY_CHANGE`, or it is no run's directory.
        """
        run = cls(run_path(config))
        run._place_episodes(config.replay.directory)
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
        """Returns an existing run, for reading, and its config; takes no lock.

        The path may be ``pretrained:NAME``. Raises UserError if it is no run's directory, or its
        config.yaml is not ours.
        """
        run = cls(resolve_run(path))
        if not run.config_file.is_file():
            near = ", ".join(map(str, runs_near(run.path))) or "none"
            raise UserError(
                f"{path} is not a run's directory: it has no config.yaml; expected one like "
                f"runs/dmc_walker_walk/dreamer/0; runs found near it, newest first: {near}"
            )
        refuse_irregular(run.path)
        content, config = run.read()
        loaded = cls(run.path, config.replay.directory)
        loaded.exported = bool(content.get(MARK))
        return loaded, config

    def close(self) -> None:
        """Releases the lock, so that the directory can be opened again."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _enter(self, config: Config) -> None:
        """Compares or writes config.yaml, makes the folders and tidies up, under the lock."""
        if self._lock is not None and self._lock.taken_over:
            self.notes.append(f"took over the lock of a dead run ({self._lock.taken_over})")
        # Only this run writes here, unlike replay.directory and predictions/.
        for name in ("", "episodes", "eval_episodes", "videos", "nonfinite"):
            remove_temporaries(self.path / name)
        content = self._content(config)
        write_file(self.config_file, format_yaml(content).encode())
        self.owner = self._owner(content)
        for folder in (self.episodes, self.checkpoints, self.videos):
            _make_folder(folder)

    def _content(self, config: Config) -> dict[str, Any]:
        """Returns the content of config.yaml; compares the configs if there is a run."""
        if not self.config_file.exists():
            for foreign in (self.metrics, self.checkpoints):
                if foreign.exists():
                    raise UserError(
                        f"{self.path} holds {foreign.name} but no config.yaml, so what made it is "
                        "unknown; move it away or choose another --logdir"
                    )
            return _new_content(config)
        content, before = self.read()
        if content.get(MARK):
            raise UserError(
                f"{self.path} is an exported agent, which has no optimizer to resume training with;"
                f" begin a new run with its weights: --init_from {self.path} and another --logdir"
            )
        content.setdefault("shares_episodes", bool(before.replay.directory))  # older versions' runs
        old, new = before.flat(), config.flat()
        differing = [key for key in new if key not in old or old[key] != new[key]]
        changed = [key for key in differing if not MAY_DIFFER.fullmatch(key)]
        refused = [key for key in changed if not _may_change(key, config)]
        if (changed or before.agent != config.agent) and self._is_bare():
            self.notes.append("a run that had collected nothing yet begins anew, as configured now")
            return _new_content(config)
        if before.agent != config.agent:
            raise UserError(
                f"{self.path} was made by the agent {before.agent}, not {config.agent}; choose "
                "another --method or --logdir"
            )
        if refused:
            listed = ", ".join(
                f"{key} is {old.get(key)!r}, now {new[key]!r} ({_reason(key)})" for key in refused
            )
            raise UserError(
                f"{self.path} was made with another config: {listed}; use the same values to "
                "resume it, or another --method, --seed or --logdir for a new run, which may begin "
                f"with this one's weights (--init_from {self.path})"
            )
        self._check_moved(before, self._owner(content))
        self.resumed = True
        entry = provenance()
        first = content.get("versions")
        if isinstance(first, dict):
            entry["versions"] = {k: v for k, v in entry["versions"].items() if first.get(k) != v}
        entry["config"] = {key: new[key] for key in differing}
        if changed:
            entry["step"] = next(iter(Checkpoints(self.checkpoints).steps()), 0)
            entry["before"] = {key: old[key] for key in changed if key in old}
            listed = ", ".join(f"{key} {old.get(key)} -> {new[key]}" for key in changed)
            self.notes.append(f"changed from step {entry['step']} on: {listed}")
        resumed = content.get("resumed")
        earlier = resumed[1 - _MAX_RESUMED :] if isinstance(resumed, list) else []
        return {**content, "config": config.tree(), "resumed": [*earlier, entry]}

    @staticmethod
    def _owner(content: Mapping[str, Any]) -> str:
        owner = f"{content.get('id')}."  # runs of older versions have no id
        return owner if content.get("shares_episodes") and OWNER.fullmatch(owner) else ""

    def _check_moved(self, before: Config, owner: str) -> None:
        """Refuses another place of the episodes, unless the run's own files have been moved there.

        Files of another run may have the same ids, so the files in the newest checkpoint count.
        """
        prefix = f"{owner}s{before.seed}e"
        old, new = RunDir(self.path)._place_episodes(before.replay.directory), self.episodes
        for folder in {old, self.path / "episodes"}:  # the latter if a run that it reads is gone
            if folder.resolve() != new.resolve():
                for path in folder.glob("*.npz"):
                    if episode_uid(path).startswith(prefix):
                        raise _elsewhere(path, new)
        if old.resolve() != new.resolve():
            newest = Checkpoints(self.checkpoints).load_latest()
            members = newest.state.get("members", []) if newest else []
            own = [name for name in members if episode_uid(Path(name)).startswith(prefix)]
            if own and not any((new / name).is_file() for name in own):
                raise _elsewhere(old / own[0], new)

    def _is_bare(self) -> bool:
        """Whether nothing has been collected, logged or saved yet."""
        folders = (self.path / "episodes", self.eval_episodes, self.checkpoints)
        kept = any(folder.is_dir() and any(folder.iterdir()) for folder in folders)
        return not kept and not (self.metrics.exists() and self.metrics.stat().st_size)

    def read(self) -> tuple[dict[str, Any], Config]:
        """Returns the content of config.yaml, and the config in it."""
        content = read_yaml(self.config_file, of_run=True)
        values, presets = content.get("config"), content.get("presets", [])
        agent = str(content.get("agent", DREAMER))  # runs of earlier versions do not name it
        if not isinstance(values, dict) or not isinstance(presets, list):
            raise UserError(f"{self.config_file} was not written by a run: it has no 'config' map")
        try:
            flat = flatten(values, load_schema(agent))
            return content, Config(flat, [str(preset) for preset in presets], agent)
        except UserError as error:
            raise UserError(f"{self.config_file}: {error}") from None


def runs_near(path: Path) -> list[Path]:
    """Returns at most `_MAX_NEAR` runs near a path that is none, the newest first.

    They are the run that the path lies in, else those below the path, or below the nearest folder
    above it that has any. The search is bounded, because a folder may be a whole disk.
    """
    for place in [path, *path.parents][: _DEPTH + 2]:
        found = _runs_below(place) if str(place) != place.root else []
        if found:
            newest = sorted(found, key=lambda run: -(run / "config.yaml").stat().st_mtime)
            return newest[:_MAX_NEAR]
    return []


def _runs_below(place: Path) -> list[Path]:
    found, folders = [], [place]
    for folder in folders:  # which grows meanwhile
        if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
            found.append(folder)
        elif len(folder.parts) - len(place.parts) <= _DEPTH and len(folders) < _MAX_SEARCHED:
            with contextlib.suppress(OSError):
                folders += [f for f in folder.iterdir() if f.is_dir() and f.name[0] != "."]
    return found


def _may_change(key: str, config: Config) -> bool:
    by_env = key == "envs.num_envs" and (config.deterministic or config.agent == "a3c")
    return bool(MAY_CHANGE.fullmatch(key)) and not by_env


def _reason(key: str) -> str:
    return next(reason for pattern, reason in _REASONS if re.fullmatch(pattern, key))


def _run_around(folder: Path) -> Path | None:
    """Returns the run's directory that a folder is or lies in, resolved; None if there is none."""
    place = folder.resolve()
    return next((run for run in (place, place.parent) if os.path.isfile(run / "config.yaml")), None)


def _elsewhere(path: Path, new: Path) -> UserError:
    return UserError(
        f"episodes of this run were in {path.parent}, such as {path.name}, but would now be looked "
        f"for in {new}; move them there first, or set --replay.directory to where they are"
    )


def refuse_irregular(run: Path) -> None:
    """Refuses a run's directory that holds anything but files and folders.

    In a stranger's run, a link could make us read or write a file elsewhere, and a pipe could make
    us wait forever. The directory itself may be reached through links.
    """
    for entry in sorted(os.scandir(run), key=lambda entry: entry.path):
        if entry.is_symlink():
            raise UserError(
                f"{entry.path} is a link, which a run's directory must not hold; put the content "
                "itself there; a run that exists takes up its episodes elsewhere by "
                "--replay.directory"
            )
        gone = not os.path.lexists(entry.path)  # removed meanwhile, by a live run
        if not (entry.is_file() or entry.is_dir() or gone):
            raise UserError(
                f"{entry.path} is neither a file nor a folder, and a run's directory must hold "
                "nothing else; move it away"
            )


def run_path(config: Config) -> Path:
    """Returns ``<logdir>/<task>/<method>/<seed>``; unusual characters in names become ``_``.

    Several tasks are joined by ``+``. If the task's name is too long, a hash replaces its end.
    """
    task = _plain("+".join(split_tasks(config.task))).strip("._")
    if len(task) > _MAX_NAME:
        task = f"{task[:_MAX_NAME]}+{hashlib.sha256(task.encode()).hexdigest()[:8]}"
    return Path(config.logdir).expanduser() / task / method_name(config) / str(config.seed)


def method_name(config: Config) -> str:
    """Returns `method` if it is set, else the agent and the sorted presets, joined by ``_``."""
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


def _new_content(config: Config) -> dict[str, Any]:
    """Returns the content of config.yaml for a run that begins."""
    return {
        "config": config.tree(), "agent": config.agent, "presets": list(config.presets),
        "seed": config.seed, **provenance(), "id": uuid.uuid4().hex[:8], "resumed": [],
        "shares_episodes": bool(config.replay.directory),
    }  # fmt: skip


def _make_folder(folder: Path) -> None:
    check_writable_folder(folder, ELSEWHERE)
    try:
        make_folder(folder, ELSEWHERE)
    except DiskFullError:
        raise
    except StorageError as error:  # such as a name too long, which the user can correct
        raise UserError(str(error)) from error


def provenance() -> dict[str, Any]:
    """Returns time, host, machine, commit, and the versions of Python, dreamer and packages."""
    versions = {"python": platform.python_version(), "dreamer": dreamer.__version__}
    for package in _PACKAGES:
        versions[package] = "not installed"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "host": socket.gethostname(),
        "machine": machine(),
        "commit": _commit(),
        "versions": versions,
    }


def _commit() -> str:
    """Returns the checkout's commit, with ``-modified`` if files differ; "" outside a checkout."""
    head = _git("rev-parse", "HEAD")
    # An installed copy may lie inside another project's checkout, whose commit is not ours.
    if not head or not _git("ls-files", "__init__.py"):
        return ""
    return head + ("-modified" if _git("status", "--porcelain", "-uno") else "")


def _git(*arguments: str) -> str:
    folder = str(Path(dreamer.__file__).resolve().parent)
    # A status that may refresh the index leaves a lock in the checkout if the run is killed.
    command = ["git", "--no-optional-locks", "-C", folder, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
