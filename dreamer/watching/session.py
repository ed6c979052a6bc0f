"""What the page shows and controls, without web code: acting, dreams, and two agents side by side.

A `Session` is told what to do by commands, and is asked for its next step by `tick`. Both return
messages, a header and arrays, for all who watch. One thread at a time may call it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dreamer.errors import EnvError, UserError
from dreamer.system.messages import Message
from dreamer.watching.side import Moment, Side

AHEAD = 45  # steps of a dream that runs ahead of the episode
EVERY = 15  # moments between two such dreams
SPEEDS = (1, 2, 5, 10, 15, 20, 30)  # steps a second
SAMPLES = (1, 4)  # dreams from one moment
PAUSE = 2.0  # seconds between an episode's end and the next episode

OpenSide = Callable[[str], Side]  # opens a second side with another checkpoint of the same run


class Session:
    """One or two agents that act in episodes of the same seed, or dream from the same moment.

    Args:
        sides: The agents; two are compared.
        seed: Of the first episode; each further episode has the next one.
        open_side: Opens a second side for a checkpoint; None: comparing is not offered.
    """

    def __init__(self, sides: Sequence[Side], seed: int = 0, open_side: OpenSide | None = None):
        first = sides[0].loaded.envs.act_space
        for side in sides[1:]:
            if side.loaded.envs.act_space != first:
                raise UserError(
                    f"{side.loaded.rundir.path} and {sides[0].loaded.rundir.path} have different "
                    "actions, so they cannot be compared: choose two runs of one task"
                )
        self.sides, self.seed, self._open_side = list(sides), seed, open_side
        self.playing, self.noisy, self.speed, self.samples = True, False, 15, 1
        self.failure: dict[str, str] | None = None
        self._given_two = len(sides) > 1  # by the command line
        self._compared = ""  # the checkpoint of the second side, if the page chose it
        self._dreaming: int | None = None  # the time of the moment that the dream began with
        self._latents: list[Any] = []  # of each side, in the dream
        self._dreamt = 0  # steps of the dream
        self._action: np.ndarray | None = None  # chosen by hand; None: by the actor
        self._known: list[dict[str, int]] = []  # checkpoints by side, as the page has been told

    # -------------------------------------------------------------------- time

    def wait(self) -> float | None:
        """Seconds from one tick to the next; None: nothing happens by itself now."""
        if not self.playing or self.failure:
            return None
        if self._dreaming is None and self._over:
            return PAUSE
        return 1.0 / self.speed

    @property
    def _over(self) -> bool:
        return all(side.now.is_last for side in self.sides)

    @property
    def _models(self) -> bool:
        return all(side.view for side in self.sides)

    def start(self) -> list[Message]:
        """Starts the first episode."""
        return self._episode(self.seed)

    def tick(self) -> list[Message]:
        """Takes one step of the episode or of the dream; after its end, starts an episode."""
        if self.failure:
            return []
        if self._dreaming is not None:
            return self._dream_on()
        if self._over:
            return self._episode(self.seed + 1)
        return self._guarded(self._act)

    def _act(self) -> list[Message]:
        for side in self.sides:
            if not side.now.is_last:
                side.advance(self.noisy)
        messages = [self._moment()]
        latest = max(side.now.time for side in self.sides)
        if latest % EVERY == 0 or not self.playing:
            messages += self._ahead()
        return messages

    def _guarded(self, act: Callable[[], list[Message]]) -> list[Message]:
        """Returns what `act` does, or the failure of an environment."""
        try:
            return act()
        except EnvError as error:
            words = {"raised": "failed", "contract": "broke its contract", "died": "died"}
            what = words.get(error.kind, error.kind)
            self.failure = {"what": f"The environment {what}: {error.last_line}",
                            "advice": error.advice}  # fmt: skip
            return [self.state()]

    def raise_failure(self) -> None:
        """Raises UserError if an environment has failed."""
        if self.failure:
            raise UserError(f"{self.failure['what']}; {self.failure['advice']}")

    def _episode(self, seed: int) -> list[Message]:
        """Starts an episode on all sides, with newer checkpoints where "latest" is chosen."""
        self.seed, self.failure, self._dreaming = seed, None, None
        notices: list[Message] = []
        for side in self.sides:
            newest = side.steps().get("latest", 0)
            if side.which == "latest" and newest > side.loaded.step:
                notices += self._load(side, "latest")

        def begin() -> list[Message]:
            for side in self.sides:
                side.begin(seed, self.noisy)
            return [self.state(), *notices, self._moment(), *self._ahead()]

        return self._guarded(begin)

    # ---------------------------------------------------------------- messages

    def snapshot(self) -> list[Message]:
        """What one who begins to watch must know: all, but no pictures of earlier moments."""
        messages = [self.state()]
        if all(side.moments for side in self.sides):
            messages += [self._history(), self._moment()]
            messages += self._ahead() if self._dreaming is None else []
        return messages

    def state(self) -> Message:
        """All that can be set, and what is known about each side."""
        sides = [side.facts() for side in self.sides]
        self._known = [facts["checkpoints"] for facts in sides]
        return {
            "kind": "state", "playing": self.playing, "noisy": self.noisy, "speed": self.speed,
            "speeds": SPEEDS, "samples": self.samples, "seed": self.seed, "sides": sides,
            "failure": self.failure, "dreaming": self._dreaming, "ahead": AHEAD,
            "by_hand": None if self._action is None else self._action.tolist(),
            "tasks": list(dict.fromkeys(self.sides[0].loaded.envs.tasks)),
            "can_compare": self._open_side is not None and not self._given_two,
            "compared": self._compared, "over": self._begun and self._over,
        }, {}  # fmt: skip

    @property
    def _begun(self) -> bool:
        return all(side.moments for side in self.sides)

    def _moment(self) -> Message:
        header, arrays = _joined([_described(side.now) for side in self.sides])
        return {"kind": "moment", **header}, arrays

    def _history(self) -> Message:
        """The numbers of all moments so far: NaN where there are none."""
        sides, arrays = [], {}
        for i, side in enumerate(self.sides):
            sides.append({"time": side.moments[0].time})
            for key in ("reward", "predicted", "value", "kl"):
                values = [moment.numbers.get(key, math.nan) for moment in side.moments]
                arrays[f"{i}/{key}"] = np.array(values, np.float32)
        return {"kind": "history", "sides": sides}, arrays

    def _ahead(self) -> list[Message]:
        """Dreams that begin at the newest moment and run ahead of it."""
        if not self._models or self._over:
            return []
        dreams: list[Message] = []
        for side in self.sides:
            time = side.now.time
            dreams.append(({"time": time}, side.dream(time, self.samples, AHEAD, self.noisy)))
        header, arrays = _joined(dreams)
        return [({"kind": "dream", **header}, arrays)]

    # ------------------------------------------------------------------ dreams

    def _enter(self, time: int) -> list[Message]:
        """Begins the dream at a moment, or begins it anew."""
        time = self.sides[0].at(time).time
        self._dreaming, self._dreamt = time, 0
        self._latents = [side.enter(time, self.samples) for side in self.sides]
        header, arrays = _joined([_described(side.at(time)) for side in self.sides])
        return [self.state(), ({"kind": "truth", "step": 0, **header}, arrays)]

    def _dream_on(self) -> list[Message]:
        """Takes one step of the dream; beside it goes what came in the episode, if it did."""
        assert self._dreaming is not None
        self._dreamt += 1
        found = []
        for i, side in enumerate(self.sides):
            dreamt, self._latents[i] = side.dream_step(self._latents[i], self._action, self.noisy)
            truth = side.at(self._dreaming + self._dreamt)
            came = truth.time == self._dreaming + self._dreamt
            if came and "picture" in truth.arrays:
                dreamt["truth"] = truth.arrays["picture"]
            if came and "vector" in truth.arrays:
                dreamt["true_vector"] = truth.arrays["vector"]
            found.append(({"came": came}, dreamt))
        header, arrays = _joined(found)
        header |= {"kind": "dreamt", "time": self._dreaming, "step": self._dreamt}
        return [(header, arrays)]

    # ---------------------------------------------------------------- commands

    def do(self, command: Mapping[str, Any]) -> list[Message]:
        """Carries out a command; a wrong one is answered by a notice."""
        name = command.get("do")
        act = getattr(self, f"_do_{name}", None) if isinstance(name, str) else None
        if act is None:
            return [notice(f"unknown command {name!r}")]
        try:
            return act(command)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            return [notice(f"the command {name} is not understood: {error}")]
        except UserError as error:
            return [notice(str(error)), self.state()]

    def look_for_checkpoints(self) -> list[Message]:
        """Tells of checkpoints that have come or gone since the last call."""
        found = [side.steps() for side in self.sides]
        if found == self._known:
            return []
        messages = [self.state()]
        for side, now in zip(self.sides, found, strict=True):
            if side.which == "latest" and now.get("latest", 0) > side.loaded.step:
                messages.append(notice(
                    f"A new checkpoint is there, of step {now['latest']:,}: the next episode uses "
                    "it."
                ))  # fmt: skip
        return messages

    def _do_play(self, command: Mapping[str, Any]) -> list[Message]:
        self.playing = bool(command["on"])
        paused = not self.playing and self._dreaming is None and not self.failure
        return [self.state(), *(self._ahead() if paused else [])]

    def _do_step(self, command: Mapping[str, Any]) -> list[Message]:
        self.playing = False
        return [self.state(), *self.tick()]

    def _do_speed(self, command: Mapping[str, Any]) -> list[Message]:
        self.speed = _one_of(int(command["value"]), SPEEDS)
        return [self.state()]

    def _do_noise(self, command: Mapping[str, Any]) -> list[Message]:
        self.noisy = bool(command["on"])
        return [self.state()]

    def _do_samples(self, command: Mapping[str, Any]) -> list[Message]:
        self.samples = _one_of(int(command["value"]), SAMPLES)
        if self._dreaming is not None:
            return self._enter(self._dreaming)
        return [self.state(), *(self._ahead() if not self.failure else [])]

    def _do_episode(self, command: Mapping[str, Any]) -> list[Message]:
        seed = int(command.get("seed", self.seed + 1))
        if not 0 <= seed < 2**32:
            raise ValueError(f"a seed is a whole number from 0 to {2**32 - 1}")
        return self._episode(seed)

    def _do_checkpoint(self, command: Mapping[str, Any]) -> list[Message]:
        side, which = self.sides[int(command["side"])], str(command["which"])
        _one_of(which, side.steps())
        notices = self._load(side, which)
        if side is not self.sides[0] and self._compared:
            self._compared = which
        return [*notices, *self._episode(self.seed)]

    def _load(self, side: Side, which: str) -> list[Message]:
        """Loads a checkpoint; tells of one that cannot be used."""
        try:
            side.load(which)
        except UserError as error:
            return [notice(str(error))]
        return [notice(f"Now the agent of step {side.loaded.step:,} acts.")]

    def _do_compare(self, command: Mapping[str, Any]) -> list[Message]:
        which = str(command["which"])
        if self._open_side is None or self._given_two:
            raise ValueError("there is nothing to choose from")
        if which:
            _one_of(which, self.sides[0].steps())
            if len(self.sides) > 1:
                return self._do_checkpoint({"side": 1, "which": which})
            other = self._open_side(which)
            other.place = self.sides[0].place
            self.sides.append(other)
        elif len(self.sides) > 1:
            self.sides.pop().loaded.envs.close()
        self._compared = which
        return self._episode(self.seed)

    def _do_task(self, command: Mapping[str, Any]) -> list[Message]:
        place = self.sides[0].loaded.envs.tasks.index(command["task"])
        for side in self.sides:
            side.place = place
        return self._episode(self.seed)

    def _do_dream(self, command: Mapping[str, Any]) -> list[Message]:
        if not self._models:
            raise UserError("This agent has no world model to dream with.")
        if self.failure and not self._begun:
            raise UserError("There is no moment to dream from.")
        return self._enter(int(command["time"]))

    def _do_truth(self, command: Mapping[str, Any]) -> list[Message]:
        return [] if self._dreaming is None else self._enter(self._dreaming)

    def _do_leave(self, command: Mapping[str, Any]) -> list[Message]:
        self._dreaming, self._action = None, None
        return [self.state(), self._moment(), *(self._ahead() if not self.failure else [])]

    def _do_steer(self, command: Mapping[str, Any]) -> list[Message]:
        """Chooses the dream's actions by hand; without an action, the actor does."""
        given, space = command.get("action"), self.sides[0].loaded.envs.act_space
        if given is None:
            self._action = None
            return [self.state()]
        action = np.array(given, np.float32)
        if action.shape != space.shape or not np.isfinite(action).all():
            raise ValueError(f"an action has {space.shape[0]} finite numbers")
        low, high = space.bounds()
        self._action = np.clip(action, low, high).astype(np.float32)
        return [self.state()]


def notice(text: str) -> Message:
    """A message for a person."""
    return {"kind": "notice", "text": text}, {}


def _one_of(value: Any, known: Any) -> Any:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(map(str, known))}")
    return value


def _described(moment: Moment) -> Message:
    header = {"time": moment.time, "over": moment.is_last}
    # A number that is not finite is no JSON.
    numbers = {k: v for k, v in moment.numbers.items() if math.isfinite(v)}
    return {**header, **numbers}, moment.arrays


def _joined(parts: Sequence[Message]) -> Message:
    """One message of what each side has to say: arrays are named ``0/picture``."""
    arrays = {f"{i}/{k}": v for i, (_, found) in enumerate(parts) for k, v in found.items()}
    return {"sides": [header for header, _ in parts]}, arrays
