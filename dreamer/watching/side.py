"""One agent in one environment: its episode, moment by moment, and the dreams from a moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamer.analysis.trained_run import LoadedRun
from dreamer.envs.spec import Timestep
from dreamer.errors import EnvError
from dreamer.logs.video import newest_frame
from dreamer.runs.checkpoints import Checkpoints
from dreamer.tasks import suite_of

if TYPE_CHECKING:
    from dreamer.watching.model_view import Arrays, ModelView

DRAWN_SIZE = 192  # pixels along each edge of pictures that the agent does not observe
MOST_MOMENTS = 3000  # of an episode that are kept; older ones are dropped
MOST_ELEMENTS = 24  # of vectors that are shown
ALBUM = 600  # real pictures among which the nearest one stands for an imagined state
_DMLAB = "forward back left right look_left look_right look_left_go look_right_go fire"


@dataclass(eq=False)
class Moment:
    """One timestep of the episode.

    Attributes:
        time: Its number in the episode.
        numbers: ``reward`` that came, ``return`` so far, and what the model says: ``predicted``
            reward, ``value``, ``kl``. The reward is on the scale that the model learns.
        arrays: ``picture`` and ``vector`` of the environment, ``model_picture`` and
            ``model_vector`` of the decoder, ``action`` and its ``probabilities``; as far as they
            exist.
        state: The policy's.
        is_last: Whether the episode ends here.
    """

    time: int
    numbers: dict[str, float]
    arrays: dict[str, np.ndarray]
    state: Any
    is_last: bool


class Side:
    """The agent of a run, which acts in an environment of its own.

    A model that decodes no picture, but vectors, gets pictures too: of the real moments so far, the
    one with the nearest vector.

    Args:
        loaded: The run; its agent is loaded now.
        which: The checkpoint, as named to `load_run`.

    Attributes:
        view: Looks into the world model; None for an agent without one.
        moments: Those of the episode that are kept, in order.
        place: The index of the environment, one of each task.
    """

    def __init__(self, loaded: LoadedRun, which: str = "latest"):
        self.loaded, self.which, self.place = loaded, which or "latest", 0
        self.agent, self.view = loaded.agent, _view(loaded)
        self.moments: list[Moment] = []
        self._broken = False  # whether the environments are closed
        self._dreams = 0
        self._album: list[tuple[np.ndarray, np.ndarray]] = []  # vectors and pictures
        spaces = loaded.envs.obs_space
        images = sorted(key for key, space in spaces.items() if space.is_image)
        self._picture = "image" if "image" in images else next(iter(images), "")
        shapes = self.view.targets() if self.view else {k: s.shape for k, s in spaces.items()}
        decoded = [key for key, shape in sorted(shapes.items()) if len(shape) == 3]
        self._decoded = self._picture if self._picture in decoded else next(iter(decoded), "")
        self._vectors = [key for key, shape in sorted(shapes.items()) if len(shape) == 1]
        self.elements = [f"{key} {i}" if shapes[key][0] > 1 else key
                         for key in self._vectors for i in range(shapes[key][0])]  # fmt: skip
        self.elements = self.elements[:MOST_ELEMENTS]
        self._decodes = ""
        if self.view and self._decoded:
            self._decodes = "picture"
        elif self.view and self.elements:
            self._decodes = "nearest" if self._picture else "vector"

    # ------------------------------------------------------------------ acting

    @property
    def now(self) -> Moment:
        """The newest moment."""
        return self.moments[-1]

    def at(self, time: int) -> Moment:
        """The moment of a time; the nearest one that is kept."""
        first = self.moments[0].time
        return self.moments[min(max(time - first, 0), len(self.moments) - 1)]

    def move(self, place: int) -> None:
        """Goes to the environment of another task, whose pictures are others."""
        if place != self.place:
            self.place = place
            self._album.clear()

    def begin(self, seed: int, noisy: bool) -> None:
        """Starts an episode; raises EnvError, and can be called again then."""
        if self._broken:
            self.loaded.reopen()
            self._broken = False
        timestep = self._outcome(lambda envs: envs.reset([seed], [self.place]))
        self.moments = []
        self._add(timestep, None, noisy)

    def advance(self, noisy: bool) -> None:
        """Carries out the action of the newest moment; raises EnvError."""
        action = self.now.arrays["action"][None]
        timestep = self._outcome(lambda envs: envs.step(action, [self.place]))
        self._add(timestep, self.now, noisy)
        if len(self.moments) > MOST_MOMENTS:
            del self.moments[: MOST_MOMENTS // 10]

    def _outcome(self, ask: Any) -> Timestep:
        try:
            (outcome,) = ask(self.loaded.envs)
        except EnvError:  # the pool gave up, and is closed
            self._broken = True
            raise
        if isinstance(outcome, EnvError):
            raise outcome
        return outcome

    def _add(self, timestep: Timestep, before: Moment | None, noisy: bool) -> None:
        """Lets the agent act on a timestep, looks into it, and appends the moment."""
        batch = {key: timestep[key][None] for key in (*self.loaded.obs_space, "is_first")}
        past = before.state if before else None
        actions, state = self.agent.policy(batch, past, "train" if noisy else "eval")
        reward = float(timestep["reward"])
        numbers = {"reward": reward, "return": reward + (before.numbers["return"] if before else 0)}
        arrays = {"action": np.asarray(actions[0], np.float32)}
        if self._picture:
            arrays["picture"] = newest_frame(timestep[self._picture])
        if self.elements:
            arrays["vector"] = self._joined(timestep, 0)
        if self._decodes == "nearest":
            self._album = self._album[1 - ALBUM :]
            self._album.append((arrays["vector"], _half(arrays["picture"])))
        if self.view:
            past = past or self.view.initial()
            found = self.view.look(past, state, bool(timestep["is_first"]))
            numbers["reward"] = self.view.learnt_reward(reward)
            scalars = {"predicted": "reward", "value": "value", "kl": "kl"}
            numbers |= {k: float(found[v]) for k, v in scalars.items() if v in found}
            shown = self._shown({k.removeprefix("decoded/"): v for k, v in found.items()}, 0)
            arrays |= {f"model_{key}": value for key, value in shown.items()}
            if "probabilities" in found:
                arrays["probabilities"] = found["probabilities"]
        time = before.time + 1 if before else 0
        self.moments.append(Moment(time, numbers, arrays, state, bool(timestep["is_last"])))

    # ------------------------------------------------------------------ dreams

    def dream(self, time: int, horizon: int, noisy: bool) -> Arrays:
        """Imagines what follows a moment: pictures or vectors, rewards, values and actions.

        Entries are [SAMPLES, horizon, ...].
        """
        assert self.view is not None
        self._dreams += 1
        found = self.view.dream(self.at(time).state, horizon, self._dreams, noisy)
        return self._dreamt(found, 2)

    def enter(self, time: int) -> Any:
        """Returns the latent states of dreams that begin at a moment."""
        assert self.view is not None
        return self.view.enter(self.at(time).state)

    def dream_step(
        self, latent: Any, action: np.ndarray | None, noisy: bool
    ) -> tuple[Arrays, Any]:
        """Imagines one step, by an action or by the actor's; entries are [SAMPLES, ...]."""
        assert self.view is not None
        self._dreams += 1
        found, latent = self.view.dream_step(latent, action, self._dreams, noisy)
        return self._dreamt(found, 1), latent

    def _dreamt(self, found: Arrays, axes: int) -> Arrays:
        decoded = {k.removeprefix("decoded/"): v for k, v in found.items()}
        others = {k: v for k, v in found.items() if not k.startswith("decoded/")}
        return {**self._shown(decoded, axes), **others}

    def _shown(self, decoded: Mapping[str, np.ndarray], axes: int) -> Arrays:
        shown = {}
        if self._decoded in decoded:
            shown["picture"] = newest_frame(decoded[self._decoded])
        if self._vectors and self._vectors[0] in decoded:
            shown["vector"] = self._joined(decoded, axes)
        if self._decodes == "nearest":
            shown["picture"] = self._nearest(shown["vector"])
        return shown

    def _nearest(self, vectors: np.ndarray) -> np.ndarray:
        """The pictures [..., H, W, C] of the real moments with the nearest vectors to [..., n]."""
        known = np.stack([vector for vector, _ in self._album])
        scale = known.std(0) + 1e-3 * (1.0 + np.abs(known).max(0))
        flat = vectors.reshape(-1, 1, vectors.shape[-1])
        near = np.square((flat - known) / scale).sum(-1).argmin(1)
        pictures = np.stack([self._album[i][1] for i in near])
        return pictures.reshape(*vectors.shape[:-1], *pictures.shape[1:])

    def _joined(self, found: Mapping[str, np.ndarray], axes: int) -> np.ndarray:
        parts = [np.asarray(found[key], np.float32) for key in self._vectors]
        return np.concatenate(parts, axes)[..., :MOST_ELEMENTS]

    # ------------------------------------------------------------- checkpoints

    def load(self, which: str) -> None:
        """Loads another checkpoint; raises UserError, and the agent is then as it was."""
        self.loaded.reload(which)
        self.which = which

    def steps(self) -> dict[str, int]:
        """The checkpoints that can be chosen, by name, and their steps; reads no file."""
        rundir = self.loaded.rundir
        latest, best = (Checkpoints(path).steps() for path in (rundir.checkpoints, rundir.best))
        newest = {k: next(iter(v)) for k, v in (("latest", latest), ("best", best)) if v}
        return newest | {str(step): step for step in sorted({*latest, *best}, reverse=True)}

    # ------------------------------------------------------------------- facts

    def facts(self) -> dict[str, Any]:
        """What the page must know about this side."""
        space, config = self.loaded.envs.act_space, self.loaded.config
        flat = config.flat()
        transform = flat.get("reward.transform", "none")
        return {
            "run": str(self.loaded.rundir.path), "task": self.loaded.envs.tasks[self.place],
            "agent": config.agent, "step": self.loaded.step, "which": self.which,
            "checkpoints": self.steps(), "model": self.view is not None,
            "value": self.view is not None and self.agent.value is not None,
            "kl": bool(self.view and "kl" in self.now.numbers) if self.moments else False,
            "picture": bool(self._picture),
            "decodes": self._decodes,
            "elements": self.elements,
            "unit": "" if transform in ("none", "") else f"{transform} of the reward",
            "discrete": space.discrete, "parts": list(space.parts),
            "actions": self.action_names(), "note": self._note(),
        }  # fmt: skip

    def action_names(self) -> list[str]:
        """A name for each element of an action."""
        size, info = self.loaded.envs.act_space.shape[0], self.loaded.envs.info
        known = info.get("actions", "")
        if suite_of(self.loaded.config.task) == "dmlab":
            known = _DMLAB
        names = [name.replace("_", " ") for name in known.split()]
        return names if len(names) == size else [f"action {i + 1}" for i in range(size)]

    def _note(self) -> str:
        if self.view is None:
            return (f"The agent {self.loaded.config.agent} has no world model to look into: the "
                    "page shows it acting, and nothing that is imagined.")  # fmt: skip
        if not self._picture:
            return "This environment draws no picture."
        if self._decodes == "nearest":
            return ("The model imagines observations, not pictures: for each, the page shows the "
                    "real picture so far whose observation is nearest.")  # fmt: skip
        return ""


def _half(picture: np.ndarray) -> np.ndarray:
    """A picture [H, W, C] at half its size, each pixel the mean of four; an odd edge is cut off."""
    height, width, channels = picture.shape[0] // 2, picture.shape[1] // 2, picture.shape[2]
    fours = picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2, channels)
    return fours.mean((1, 3)).astype(np.uint8)


def _view(loaded: LoadedRun) -> ModelView | None:
    """Returns a view of the world model of Dreamer and its variants; None of other agents."""
    # Here, because TensorFlow must be set up before it is imported, and load_run has done so now.
    from dreamer.agent.agent import Agent
    from dreamer.watching.model_view import ModelView

    agent = loaded.agent
    return ModelView(agent, loaded.envs.act_space.shape[0]) if isinstance(agent, Agent) else None
