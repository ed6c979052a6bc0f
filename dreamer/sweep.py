"""Runs many trials: tasks x presets or a grid of values x seeds, on this machine or on Ray.

    python -m dreamer.sweep --suite dmc20 --seeds 5 --logdir runs/

Each trial is an ordinary `python -m dreamer.run`. Ray starts a trial where there is room, and
starts it again if it fails; the run then resumes from its checkpoint. Run the same command again to
run what is left.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from dreamer.config.command_line import CommandLine, Option, Parsed, run_main
from dreamer.config.config import Config
from dreamer.config.schema import DREAMER
from dreamer.errors import UserError
from dreamer.io.files import check_writable_folder
from dreamer.runs.rundir import ELSEWHERE
from dreamer.sweeps.board import Board
from dreamer.sweeps.cluster import Cluster
from dreamer.sweeps.plan import Trial, plan
from dreamer.sweeps.trial import LOG, read_progress
from dreamer.training.interrupts import Interrupt, StopRequested
from dreamer.training.schedule import UpdateSchedule

LINE = CommandLine(
    "python -m dreamer.sweep",
    "Runs many trials: tasks x presets or a grid of values x seeds, on this machine or a Ray "
    "cluster. All other keys go to every trial.",
    (
        Option("suite", "", "List of tasks: dmc20, dmc6, atari11 or dmlab13."),
        Option("tasks", "", "Tasks by name, instead of a suite.", many=True),
        Option("seeds", 1, "Number of seeds, from --seed on.", min=1),
        Option("grid", "", "Values to combine: --grid behavior.horizon=5,10 loss.kl_scale=0.1,1",
               many=True),
        Option("agent", "", "A compared agent, as `python -m baselines.run --agent` takes it."),
        Option("address", "", "Ray cluster to use: host:port or auto; empty: this machine alone."),
        Option("cpus", 2.0, "Processors of each trial; as many trials run at once as fit.",
               min=0.01),
        Option("gpus", -1.0, "GPUs of each trial, fractions allowed; -1: 1 if there are any.",
               min=-1),
        Option("retries", 3, "Attempts at a trial after the first one failed.", min=0),
        Option("dry-run", False, "List the trials and the hours they will take; run nothing."),
        Option("speed", "speed.json", "The benchmark's figures, for --dry-run."),
    ),
)  # fmt: skip
MEASURE = "python -m dreamer.benchmark --json speed.json"
STOP = 180.0  # seconds for trials to save and exit after a signal


def main(argv: Sequence[str]) -> int:
    """Reads the command line and runs the trials.

    Returns the exit status: 0 if all have finished, 1 if some failed, 128 + N after signal N.
    """
    parsed = LINE.parse(argv)
    if parsed.options["gpus"] < 0 and parsed.options["gpus"] != -1:
        raise UserError("--gpus must be -1 (1 if there are any) or at least 0")
    if parsed.options["agent"] and find_spec("baselines") is None:
        raise UserError(
            "--agent needs the package baselines, which is in the checkout and not in the wheel: "
            "run the sweep from the checkout, or leave --agent out"
        )
    trials = plan(parsed)
    # All trials share the logdir, which on a cluster must be visible here, too.
    check_writable_folder(Path(trials[0].config.logdir), ELSEWHERE)
    for trial in trials:
        _check_gpus(trial, parsed.options["gpus"])
        trial.check_same_config()
    done = [trial for trial in trials if read_progress(trial.path).finished(trial.config.steps)]
    left = [trial for trial in trials if trial not in done]
    for trial in left:  # finished runs may be write-protected
        check_writable_folder(trial.path, ELSEWHERE)
    if parsed.options["dry-run"]:
        dry_run(parsed, trials, done)
        return 0
    print(f"{len(trials)} trials, {len(done)} of them already finished", flush=True)
    return run(parsed, done, left) if left else 0


def _check_gpus(trial: Trial, gpus: float) -> None:
    """Raises a UserError if a trial gets fewer GPUs than it has devices."""
    devices = int(trial.config.section("train").get("devices", 1))  # only Dreamer has the key
    if devices > 1 and gpus != 0 and gpus < devices:  # 0: the devices are processors
        given = "1 if there are any" if gpus < 0 else f"{gpus:g}"
        raise UserError(
            f"train.devices is {devices}, but --gpus gives each trial {given}; "
            f"give --gpus {devices}"
        )


def dry_run(parsed: Parsed, trials: Sequence[Trial], done: Sequence[Trial]) -> None:
    """Lists the trials with their commands, and the hours that they will take."""
    path = Path(parsed.options["speed"])
    dreamer = parsed.agent == DREAMER
    speed = Speed(path) if dreamer and path.exists() else None
    hours = 0.0
    for trial in trials:
        step = read_progress(trial.path).step
        state = "finished" if trial in done else f"resumes from {step:,}" if step else "new"
        if speed and trial not in done:
            hours += speed.hours(trial.config, step)
        print(f"{trial.name}: {state}\n  python -m {shlex.join(trial.words)}")
    print(f"{len(trials)} trials, {len(done)} of them finished")
    if not dreamer:
        text = f"not known for {parsed.agent}, because the estimate is for Dreamer alone"
    elif speed is None:
        text = f"not known, the speed was not measured here ({path} is missing): {MEASURE}"
    else:
        text = (f"about {hours:,.1f}, one trial at a time, without evaluations, by {path} "
                f"({speed.task})")  # fmt: skip
        if differing := sorted({key for trial in trials for key in speed.differs(trial.config)}):
            text += (f"\nmeasured with other values of {', '.join(differing)}: the estimate may be "
                     "off; measure with the same --configs")  # fmt: skip
    print(f"machine hours: {text}")


class Speed:
    """The speed of a machine that the benchmark measured with `task` and wrote to `path`.

    Raises UserError if there is no such file, or it lacks figures.
    """

    def __init__(self, path: Path) -> None:
        try:
            figures = json.loads(path.read_text(encoding="utf-8"))
            self._seconds = {key: float(one["seconds"]) for key, one in figures["update"].items()}
            self._frames = float(figures["env"]["collect_steps_per_second"])
            self.task, self._config = str(figures.get("task", "?")), dict(figures.get("config", {}))
            if min(*self._seconds.values(), self._frames) <= 0:
                raise ValueError("a figure is not above zero")
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"cannot read the speed of updates and environments from {path} ({error}); make it "
                f"with: {MEASURE}"
            ) from error

    def hours(self, config: Config, step: int = 0) -> float:
        """Returns the hours of a run of Dreamer from `step` to its end, without evaluations.

        For precision auto the fastest update counts.
        """
        train = config.train
        schedule = UpdateSchedule(train.prefill, train.pretrain, train.every, train.updates)
        updates = schedule.due(config.steps) - schedule.due(step)
        seconds = self._seconds.get(config.precision) or min(self._seconds.values())
        return (updates * seconds + max(0, config.steps - step) / self._frames) / 3600

    def differs(self, config: Config) -> list[str]:
        """Returns keys that may change an update's duration and had other values in the benchmark.

        Such keys are the agent's own, except real numbers, which are rates and scales.
        """
        keys = {"train.batch_size", "train.batch_length"}
        for section, values in config.agent_sections().items():
            keys |= {f"{section}.{key}" for key in values if not isinstance(values[key], float)}
        flat = config.flat()
        return sorted(key for key in keys & self._config.keys() if self._config[key] != flat[key])


def run(parsed: Parsed, done: Sequence[Trial], left: Sequence[Trial]) -> int:
    """Runs the trials that are left; returns the exit status."""
    options = parsed.options
    cluster = Cluster(*(options[key] for key in ("address", "cpus", "gpus", "retries")))
    with contextlib.closing(cluster):
        kind = str(parsed.overrides.get("log.terminal", "auto"))
        board = Board(done, left, kind, cluster.slots)
        with contextlib.closing(board), Interrupt() as interrupt:  # replaces Ray's handlers
            board.message(
                f"{cluster.slots} at once, each with {cluster.cpus:g} CPUs and "
                f"{cluster.gpus:g} GPUs, on {len(cluster.nodes)} node(s)"
            )
            for trial in left:
                cluster.submit(trial)
            status = 0
            try:
                while cluster.pending:
                    interrupt.check()
                    _look(cluster, board)
            except StopRequested as stop:
                status = stop.status
                _stop(cluster, board, str(stop))
    failed = [entry for entry in board.entries if entry.state == "failed"]
    for entry in failed:
        print(f"failed: {entry.trial.name} after {entry.starts} attempt(s): {entry.reason}\n"
              f"  {entry.trial.path / LOG}")  # fmt: skip
    print(board.summary().partition(";")[0])
    return status or int(bool(failed))


def _look(cluster: Cluster, board: Board) -> None:
    for trial, state, reason in cluster.wait(1.0):
        board.finish(trial, state, reason)
    board.look()


def _stop(cluster: Cluster, board: Board, why: str) -> None:
    """Lets all trials save and exit."""
    board.message(f"{why}: the trials save and stop; run the same command again to resume")
    cluster.cancel()
    deadline = time.monotonic() + STOP
    while cluster.pending and time.monotonic() < deadline:
        _look(cluster, board)
    for trial in cluster.pending.values():
        board.finish(trial, "stopped", f"not within {STOP:.0f} s, so Ray ends it")


if __name__ == "__main__":
    run_main(main)
