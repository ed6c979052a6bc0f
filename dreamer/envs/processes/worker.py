"""The program of a worker process, which serves one environment over an inherited socket.

The pool starts it as a ChildProcess. This program never imports TensorFlow, because software
OpenGL and TensorFlow crash together.
"""

from __future__ import annotations

import faulthandler
import sys
import traceback
from typing import Any

import numpy as np

from dreamer.envs.make import find_function
from dreamer.envs.multitask import Padded
from dreamer.envs.spec import EnvSettings, check_timestep, spaces_from_json, spaces_to_json
from dreamer.errors import UserError
from dreamer.system.children import serve
from dreamer.system.messages import Message


class Worker:
    """Answers the pool's requests; `make` comes first, then with several tasks `share`."""

    def __init__(self) -> None:
        self._env: Any = None

    def answer(self, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> Message | None:
        """Returns the reply and its arrays; None to the request to close."""
        try:
            if request["kind"] in ("make", "share"):
                return self._make(request), {}
            if request["kind"] != "close":
                return self._advance(request, arrays)
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "tensorflow":
                raise
            source = traceback.extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"{source.filename}, line {source.lineno}, imports TensorFlow, but environments "
                "run in processes without it: keep the environment in a file of its own, or "
                'import TensorFlow only under `if __name__ == "__main__":`'
            ) from error
        if self._env is not None:
            self._env.close()
        return None

    def _make(self, request: dict[str, Any]) -> dict[str, Any]:
        """Makes the environment, or pads it to the spaces that several tasks share."""
        if request["kind"] == "make":
            settings = EnvSettings(**request["settings"])
            self._env = find_function(request["maker"])(request["name"], settings)
        else:
            self._env = Padded(self._env, *spaces_from_json(request), request["task"])
        env = self._env
        spaces = spaces_to_json(env.obs_space, env.act_space)
        return {**spaces, "action_repeat": env.action_repeat, "info": env.info}

    def _advance(self, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> Message:
        env, is_reset = self._env, request["kind"] == "reset"
        timestep = env.reset(request["seed"]) if is_reset else env.step(arrays["action"])
        check_timestep(timestep, env.obs_space)
        notes = env.info.get("notes", "") if is_reset else ""
        return {"goes_on": bool(getattr(env, "goes_on", False)), "notes": notes}, timestep


def main() -> None:
    """Serves requests until the pool closes the connection."""
    faulthandler.enable()
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # importing it now raises
    serve(Worker().answer)


if __name__ == "__main__":
    main()
