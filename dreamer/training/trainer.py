"""The loop: prefill, then collect, update, evaluate, log and save in turn; resume after a stop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.errors import EnvError, UserError
from dreamer.io.files import DiskFullError, atomic_write, make_folder
from dreamer.logs.terminal import Phase
from dreamer.runs.checkpoints import Checkpoints
from dreamer.system.threads import in_background
from dreamer.training.callbacks import Callback
from dreamer.training.collector import Policy, checked
from dreamer.training.interfaces import DrawBatches, TrainableAgent, TrainingCollector
from dreamer.training.interrupts import Interrupt, RetryWhileDiskFull, StopRequested
from dreamer.training.reports import Reporter
from dreamer.training.schedule import UpdateSchedule

_COUNTERS = ("agent_steps", "update", "next_episode", "eval_episode", "wall_time")
_PREFILL_STEPS = 100  # agent steps between two checks whether the prefill is complete
_TIMED_UPDATES = 5  # for the forecast; the first update, which also traces, is not timed
_FIRST_UPDATE = (
    "building the graph of the update, once: about half a minute at full size, or minutes where "
    "XLA compiles it (jit)"
)
_FLOAT16 = float(np.finfo(np.float16).max)
_RETURNS_IN_A_ROW = 10  # updates
KEPT_BATCHES = 5  # of updates that were not finite


class NonFiniteError(UserError):
    """Too many updates in a row had a loss or gradient that was not finite."""

    status = 65  # EX_DATAERR


@dataclass(eq=False)
class NonFiniteGuard:
    """Watches for updates that are not finite."""

    folder: Path  # for the batches of such updates: update-<number>.npz; made when needed
    limit: int  # this many such updates in a row end the run
    say: Callable[[str], None]  # takes messages for the user
    precision: str = "float32"  # of the networks
    count: int = field(default=0, init=False)  # updates that were not finite and changed nothing
    _in_a_row: int = field(default=0, init=False)

    def check(
        self, first: int, batch: Mapping[str, np.ndarray], metrics: Mapping[str, Any]
    ) -> None:
        """Checks the updates that one call has made; `first` is the first one's number.

        If the call made several updates, `batch` and the flags `metrics["nonfinite"]` are
        [count, ...]. Raises NonFiniteError if too many in a row were not finite.
        """
        flags = np.asarray(metrics["nonfinite"])
        for i, flag in enumerate(flags.reshape(-1)):
            self._in_a_row = self._in_a_row + 1 if flag else 0
            if not flag:
                continue
            self.count += 1
            means = {name: float(np.mean(value)) for name, value in metrics.items()}
            own = batch if flags.ndim == 0 else {k: v[i] for k, v in batch.items()}
            found = [f"{k} {v}" for k, v in means.items() if not np.isfinite(v)]
            bad = ", ".join(found + self._too_large(own))
            self.say(
                f"warning: update {first + i} was not finite ({bad or 'its gradients'}); weights "
                f"and optimizers stay as they were{self._keep(first + i, own)}"
            )
            if self._in_a_row >= self.limit:
                raise NonFiniteError(
                    f"{self._in_a_row} updates in a row were not finite ({bad}); batches are in "
                    f"{self.folder}: look for extreme values in them, and try --precision float32 "
                    "or smaller learning rates in a new run, which may begin with this one's "
                    "episodes (--replay.directory)"
                )

    def _too_large(self, batch: Mapping[str, np.ndarray]) -> list[str]:
        """Returns, in words, which values of a batch are too large for networks in float16."""
        floats = batch if self.precision == "float16" else {}
        largest = {k: float(np.abs(v).max()) for k, v in floats.items() if v.dtype.kind == "f"}
        return [
            f"{key} reaches {value:g}, but float16 holds at most {_FLOAT16:,.0f}: scale it in the "
            "environment, or use --precision float32"
            for key, value in largest.items() if value > _FLOAT16
        ]  # fmt: skip

    def _keep(self, update: int, batch: Mapping[str, np.ndarray]) -> str:
        """Saves a batch in place of the oldest; returns a message about it."""
        path = self.folder / f"update-{update:08d}.npz"
        try:
            make_folder(self.folder)
            with atomic_write(path, sum(array.nbytes for array in batch.values())) as file:
                np.savez(file, allow_pickle=False, **batch)
        except DiskFullError as error:
            return f"; its batch is not kept ({error})"
        # Sorted by time, because a resumed run may repeat the numbers of updates.
        others = sorted(
            (file for file in self.folder.glob("update-*.npz") if file != path),
            key=lambda file: (file.stat().st_mtime_ns, file.name),
        )
        for old in others[: 1 - KEPT_BATCHES]:
            old.unlink()
        return f"; its batch is in {path}"


@dataclass(eq=False)
class ReturnGuard:
    """Warns once if imagined returns are far beyond what the rewards of the batches allow.

    The most is the largest reward / (1 - gamma). Beyond it the reward and value networks confirm
    each other's errors, and the policy follows them.
    """

    gamma: float  # 1: no bound is known
    squash: bool  # whether the agent learns from the tanh of rewards
    say: Callable[[str], None]  # takes messages for the user
    _largest: float = field(default=0.0, init=False)  # absolute reward so far
    _in_a_row: int = field(default=0, init=False)

    def check(self, batch: Mapping[str, np.ndarray], metrics: Mapping[str, float]) -> None:
        """Checks an update's mean of imagined returns, if the agent imagines any."""
        imagined = abs(metrics.get("model/imagined_return", 0.0))
        if not imagined or self.gamma >= 1 or self._in_a_row >= _RETURNS_IN_A_ROW:
            return
        reward = np.abs(batch["reward"]).max(initial=0.0)
        self._largest = max(self._largest, float(np.tanh(reward) if self.squash else reward))
        most = self._largest / (1 - self.gamma)
        # Below 10 it may be the noise of heads that have seen hardly any reward.
        beyond = most > 0 and imagined > max(2 * most, 10.0)
        self._in_a_row = self._in_a_row + 1 if beyond else 0
        if self._in_a_row == _RETURNS_IN_A_ROW:
            self.say(
                f"warning: the agent imagines returns of {imagined:,.0f} on average, but the "
                f"rewards so far, at most {self._largest:.3g} a step, allow {most:,.0f} at "
                f"behavior.gamma {self.gamma:g}: its networks confirm each other's errors, and the "
                "policy follows them. If eval/return does not rise, try fewer train.updates, a "
                "smaller optimizer.value_lr or a shorter behavior.horizon in a new run"
            )


@dataclass(eq=False, kw_only=True)
class Trainer:
    """Trains an agent to a number of environment steps.

    Steps are environment frames, action repeats included; agent steps and updates are counted
    apart. `run` is the loop; the methods below it are its parts, in order.
    """

    agent: TrainableAgent
    collector: TrainingCollector
    batches: DrawBatches | None  # None: the collector makes the updates
    reporter: Reporter  # evaluates and logs
    checkpoints: Checkpoints
    best: Checkpoints  # the one with the highest return in evaluations
    interrupt: Interrupt  # signals that ask for a stop
    retry_while_disk_full: RetryWhileDiskFull
    guard: NonFiniteGuard
    return_guard: ReturnGuard
    schedule: UpdateSchedule
    steps: int  # the step at which training ends
    action_repeat: int  # environment frames in an agent step
    shared_pool: bool = False  # whether evaluations run in the training environments
    overlap: bool = False  # whether to collect a round while updates of the one before are made
    offline: bool = False  # whether no environment is stepped between evaluations
    # Called once, with the seconds of an update and frames a second; returns a message.
    forecast: Callable[[float, float], str] | None = None
    callbacks: Sequence[Callback] = ()
    _stopped: bool = field(default=False, init=False)  # by a callback
    _updates: int = field(default=0, init=False)  # made here, from batches
    _round_end: int = field(default=0, init=False)  # the step at which the current round ends
    _best_return: float | None = field(default=None, init=False)
    _traced: bool = field(default=False, init=False)
    _frames_per_second: float = field(default=0.0, init=False)
    _seconds_per_update: float = field(default=0.0, init=False)
    _episode_frames: float = field(default=0.0, init=False)  # mean, of the prefill

    @property
    def step(self) -> int:
        """Environment frames of the training environments."""
        return self.collector.agent_steps * self.action_repeat

    @property
    def update(self) -> int:
        """Updates made."""
        return self._updates + self.collector.updates

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self.checkpoints.directory.parent

    def stop(self) -> None:
        """Ends `run` after this round, with an evaluation and a checkpoint."""
        self._stopped = True

    def call_back(self, method: str, *values: Any) -> None:
        """Calls a method of each callback; `Callback` documents them."""
        for callback in self.callbacks:
            getattr(callback, method)(self, *values)

    # --------------------------------------------------------------- the loop

    def run(self) -> None:
        """Trains to the end.

        Raises:
            StopRequested: After a signal; a checkpoint has been written.
            EnvError: An environment failed too often; a checkpoint has been written.
            DiskFullError: The disk is full; the last checkpoint stays.
            NonFiniteError: Too many updates were not finite; the last checkpoint stays.
        """
        self.collector.start(self._agent_steps(max(0, self.steps - self.step)))
        try:
            self.call_back("on_start")
            self._prefill()
            if self.step < min(self._round_end, self.steps):
                self._collect()  # the rest of a round that a stop has cut short
            self._make_updates()
            while self.step < self.steps and not self._stopped:
                self._report()
                if self.overlap:
                    self._collect_during_updates()
                else:
                    self._collect()
                    self._make_updates()
            self._make_updates()
            self._report(final=True)
            self.retry_while_disk_full(self._save)  # within `try`: a stop may end its waiting
            self.call_back("on_end")
        except (StopRequested, EnvError) as error:
            # A run that has collected nothing leaves no checkpoint, so that it may begin anew.
            if self.step or isinstance(error, StopRequested):
                self._save()
            raise
        except NonFiniteError as error:
            last = self.checkpoints.newest() or "none was written yet"
            raise NonFiniteError(f"{error}; the last good checkpoint stays: {last}") from None
        finally:
            self.collector.close()

    def _prefill(self) -> None:
        """Takes random actions until the schedule's prefill is complete and there is an episode."""
        random_policy = self.collector.random_policy()
        if random_policy is None:
            return
        prefill = self.schedule.prefill

        def check() -> None:
            self.interrupt.check()
            self._show(Phase("random actions", min(self.step, prefill), prefill, "steps"))

        policy = checked(random_policy, check)
        start, before = time.monotonic(), self.step
        while self.step < self.schedule.prefill or not self.collector.counters()["episodes"]:
            missing = self._agent_steps(max(self.schedule.prefill - self.step, 1))
            self.collector.collect(policy, min(missing, _PREFILL_STEPS))
        self._episode_frames = self.step / max(1, self.collector.counters()["episodes"])
        self._measure_frames(before, start)

    def _collect(self, check: Callable[[], object] = lambda: None) -> None:
        """Collects until the end of the round; before each action, calls `check`."""
        if self.step >= self._round_end:
            self._round_end = self.step + self.schedule.every
        start, before = time.monotonic(), self.step
        steps = min(self._round_end, self.steps) - self.step

        def before_action() -> None:
            check()
            if not self.overlap:  # with overlap, the updates are shown
                self._show(Phase("collecting", self.step - before, steps, "steps"))

        policy = checked(self._policy("train"), before_action)
        self.collector.collect(policy, self._agent_steps(steps))
        self._measure_frames(before, start)

    def _collect_during_updates(self) -> None:
        """Collects a round while the updates due by now are made; its episodes count afterwards.

        Logs by how many updates the weights lag at each action, compared with a run without
        overlap.
        """
        due = self.schedule.due(self.step)
        lags: list[int] = []

        def collect(check: Callable[[], None]) -> None:
            def before_action() -> None:
                check()
                lags.append(due - self.update)

            self._collect(before_action)

        with self.collector.withhold_episodes(), in_background(collect):
            self._make_updates(due)
        if lags:
            mean = sum(lags) / len(lags)
            self.reporter.logger.scalars({"overlap/lag": mean, "overlap/lag_max": float(max(lags))})

    def _make_updates(self, due: int | None = None) -> None:
        """Makes the updates that are due at this step, or up to `due` updates in all."""
        count = (self.schedule.due(self.step) if due is None else due) - self.update
        if count <= 0 or self.batches is None:
            return
        start, timed, made = 0.0, 0, self.update
        self.agent.progress(self.step, self.update)
        unread = deque[tuple[int, Mapping[str, np.ndarray], Mapping[str, Any]]]()
        with closing(self.batches(self.update, count)) as batches:
            try:
                for updates, batch in batches:
                    self.interrupt.check()
                    if not self._traced:
                        self._trace(batch)
                    metrics = self.agent.train_step(batch, self.update)
                    unread.append((self.update, batch, metrics))
                    self._updates += updates
                    # Reading metrics waits for the device, so it gets the next update first. But
                    # callbacks see the agent as the update leaves it.
                    if self.callbacks or len(unread) > 1:
                        self._read(*unread.popleft())
                    timed = timed + updates if start else 0  # the first call also traces
                    start = start or time.monotonic()
                    if timed >= _TIMED_UPDATES:
                        self._seconds_per_update = (time.monotonic() - start) / timed
                        self._show_forecast(self._seconds_per_update)
                    self._show(Phase("learning", self.update - made, count, "updates"))
            finally:
                while unread:
                    self._read(*unread.popleft())
        if timed:
            self.reporter.logger.scalars({"fps/train": timed / (time.monotonic() - start)})

    def _trace(self, batch: Mapping[str, np.ndarray]) -> None:
        self._show(Phase("compiling the update"))
        self.reporter.logger.message(_FIRST_UPDATE)
        with self.interrupt.immediately():  # as tracing may take minutes
            self.agent.trace(batch)
        self._traced = True

    def _read(
        self, first: int, batch: Mapping[str, np.ndarray], metrics: Mapping[str, Any]
    ) -> None:
        """Logs and checks the metrics of one call of `train_step`; `first` is its first update."""
        means = {f"model/{key}": np.mean(value) for key, value in metrics.items()}
        self.reporter.logger.scalars(means)
        self.guard.check(first, batch, metrics)
        self.call_back("on_update", {key: float(value) for key, value in means.items()})
        self.return_guard.check(batch, means)

    def _report(self, final: bool = False) -> None:
        """Evaluates, logs and saves what is due at this step."""
        evaluated = self.reporter.done["evaluate"]
        if self.shared_pool and self.reporter.is_due("evaluate", self.step, final):
            self.collector.free_environments()
        results = self.reporter.report(self.step, self._policy("eval"), self._counters(), final)
        if results:
            self.call_back("on_evaluation", results)
        if self.reporter.done["evaluate"] != evaluated:
            self.retry_while_disk_full(self._keep_best)
        if self.reporter.is_due("save", self.step) and not final:
            self.retry_while_disk_full(self._save)

    def _policy(self, mode: str) -> Policy:
        """Returns the agent's policy; a stop that is asked for ends its next action."""

        def policy(timesteps, state):
            self.agent.progress(self.step, self.update)
            return self.agent.policy(timesteps, state, mode)

        return checked(policy, self.interrupt.check)

    def _agent_steps(self, steps: int) -> int:
        return -(-steps // self.action_repeat)

    def _counters(self) -> dict[str, float]:
        return {
            "agent_steps": self.collector.agent_steps,
            "updates": self.update,
            **self.collector.counters(),
            "nonfinite_updates": self.guard.count,
        }

    def _measure_frames(self, before: int, start: float) -> None:
        if self.step > before and not self.offline:
            self._frames_per_second = (self.step - before) / (time.monotonic() - start)
            self.reporter.logger.scalars({"fps/collect": self._frames_per_second})

    def _show(self, phase: Phase) -> None:
        """Shows what the run is doing, its step, and the time left as measured."""
        eta = None
        if self._seconds_per_update and self._frames_per_second:
            due = self.schedule.due(self.steps) - self.update
            updates = max(0, due) * self._seconds_per_update
            frames = max(0, self.steps - self.step) / self._frames_per_second
            eta = max(updates, frames) if self.overlap else updates + frames
            episode = self._episode_frames / self._frames_per_second
            eta += self.reporter.seconds_left(self.step, self.steps, episode)
        self.reporter.logger.progress(phase, self.step, eta)

    def _show_forecast(self, seconds_per_update: float) -> None:
        if self.forecast and self._frames_per_second:
            text = self.forecast(seconds_per_update, self._frames_per_second)
            self.reporter.logger.message(text)
            self.forecast = None

    # ------------------------------------------------------------ checkpoints

    def _keep_best(self) -> None:
        """Saves the agent if no evaluation had a higher return; of equal ones, the last counts."""
        value, best = self.reporter.last_return, self._best_return
        if value is not None and (best is None or value >= best):
            state = self._state(self.reporter.done)
            self.best.replace_all(self.step, self.agent.state_arrays(), state)
            self._best_return = value

    def _save(self) -> None:
        done = {**self.reporter.done, "save": self.step}
        path = self.checkpoints.save(self.step, self.agent.state_arrays(), self._state(done))
        self.reporter.done = done
        self.collector.saved()
        self.call_back("on_checkpoint", path)

    def _state(self, done: Mapping[str, int | None]) -> dict[str, Any]:
        reporter = self.reporter
        return {
            **self.collector.state(), "agent_steps": self.collector.agent_steps,
            "update": self.update, "eval_episode": reporter.evaluator.next_episode,
            "done": dict(done),
            "wall_time": reporter.logger.wall_time, "nonfinite": self.guard.count,
            "round_end": self._round_end, "schedule": asdict(self.schedule),
            "last_return": reporter.last_return,
        }  # fmt: skip

    def resume(self) -> bool:
        """Continues from the newest sound checkpoint and the episodes on disk.

        Returns whether there are any. Raises UserError if the checkpoint is another agent's.
        """
        checkpoint = self.checkpoints.load_latest(self.agent.state_arrays())
        state: dict[str, Any] = {}
        try:
            if checkpoint:
                self.agent.load_arrays(checkpoint.arrays)
                state = {**checkpoint.state, **{key: checkpoint.state[key] for key in _COUNTERS}}
                if "schedule" in state:  # older checkpoints lack it
                    before = UpdateSchedule(**state["schedule"])
                    step = state["agent_steps"] * self.action_repeat
                    self.schedule = self.schedule.after(before, step)
            resumed = self.collector.resume(state, self.interrupt.check)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"checkpoint {checkpoint and checkpoint.path} is not one of this run's ({error}); "
                "move it away to go on without it"
            ) from error
        self._updates = state.get("update", 0) - self.collector.updates
        self._round_end = state.get("round_end", 0)
        self.guard.count = state.get("nonfinite", 0)
        self.reporter.resume(state)
        self._best_return = self._saved_best()
        self.reporter.logger.resume(checkpoint.step if checkpoint else 0, state.get("wall_time", 0))
        if resumed and not checkpoint:
            self.reporter.logger.message(
                f"warning: there is no checkpoint in {self.checkpoints.directory}, so the agent "
                "and its updates begin anew; the episodes on disk are kept"
            )
        return checkpoint is not None or resumed

    def _saved_best(self) -> float | None:
        """Returns the return of the best checkpoint, which may be newer than the one resumed."""
        if path := self.best.newest():
            try:
                return self.best.load(path).state.get("last_return")
            except UserError as error:
                self.reporter.logger.message(f"warning: {error}; the next evaluation replaces it")
        return None
