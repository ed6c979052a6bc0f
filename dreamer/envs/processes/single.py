"""One environment in a process of its own, so that it can be used in one script with TensorFlow."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import numpy as np

from dreamer.envs.processes.pool import EnvPool, Outcome
from dreamer.envs.spec import EnvSettings, Timestep
from dreamer.errors import EnvError, UserError, suggest
from dreamer.tasks import split_tasks

_OF_THE_PROCESS = ("timeout", "python")  # arguments of EnvPool


class SeparateEnv(contextlib.AbstractContextManager["SeparateEnv"]):
    """The only environment of a pool, with the attributes and methods of `dreamer.envs.spec.Env`.

    Its process ends with `close`, with the end of a ``with`` block, or with this process. If the
    environment fails, `reset` or `step` raises EnvError, and the environment is closed.
    """

    def __init__(self, pool: EnvPool) -> None:
        self._pool, self._over = pool, True
        self.obs_space, self.act_space = pool.obs_space, pool.act_space
        self.action_repeat, self.info = pool.action_repeat, pool.info

    @property
    def goes_on(self) -> bool:
        return self._pool.goes_on[0]

    def reset(self, seed: int | None = None) -> Timestep:
        return self._only(self._pool.reset([seed]))

    def step(self, action: np.ndarray) -> Timestep:
        row = np.asarray(action, np.float32)
        self.act_space.check(row, "action")
        if self._over:
            raise RuntimeError("step() after the episode's last timestep: call reset() first")
        return self._only(self._pool.step(row[None]))

    def _only(self, outcomes: list[Outcome]) -> Timestep:
        (outcome,) = outcomes
        if isinstance(outcome, EnvError):  # a pool that may restart it returns its failure
            self.close()
            raise outcome
        self._over = bool(outcome["is_last"])
        return outcome

    def close(self) -> None:
        self._pool.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def make_env(task: str, **settings: Any) -> SeparateEnv:
    """Makes an environment in a process of its own.

    TensorFlow and a software OpenGL crash in one process. So this environment can be made before or
    after an agent, whereas one of `dreamer.envs.make.make_env` shares the process of its caller.

    Args:
        task: `dmc_<domain>_<task>`, `atari_<game>`, `dmlab_<level>`, `gym_<EnvId>`,
            `module:function` or `path/to/file.py:function`.
        **settings: The fields of `EnvSettings`, and `timeout` and `python` of `EnvPool`.

    Raises:
        UserError: The task does not exist, a package is missing, or a setting is refused.
        EnvError: The environment's process failed.
    """
    if len(split_tasks(task)) > 1:
        raise UserError(f"{task} is several tasks, but an environment has one: use an EnvPool")
    known = [*inspect.signature(EnvSettings).parameters, *_OF_THE_PROCESS]
    for name in settings:
        if name not in known:
            near = suggest(name, known) or f"; there are {', '.join(known)}"
            raise UserError(f"an environment has no setting {name!r}{near}")
    return SeparateEnv(EnvPool(task, **settings))
