"""Environments by task name. Nothing here imports TensorFlow, and nothing may.

Suites are listed in `dreamer.tasks`, where a program may also register its own.
"""

from __future__ import annotations

from typing import Unpack

from dreamer.envs.custom import find_function
from dreamer.envs.spec import Env, EnvKeywords, EnvSettings
from dreamer.errors import UserError
from dreamer.tasks import find_suite, split_tasks


def make_env(task: str, **settings: Unpack[EnvKeywords]) -> Env:
    """Makes an environment in this process.

    One that renders must not share its process with TensorFlow:
    `dreamer.envs.processes.pool.EnvPool` gives it a process of its own.

    Args:
        task: `dmc_<domain>_<task>`, `atari_<game>`, `dmlab_<level>`, `gym_<EnvId>`,
            `module:function` or `path/to/file.py:function`.
        **settings: The fields of `EnvSettings`.

    Raises:
        UserError: The task does not exist, a package is missing, or a setting is refused.
    """
    if len(split_tasks(task)) > 1:
        raise UserError(f"{task} is several tasks, but an environment has one: use an EnvPool")
    suite, name = find_suite(task)
    return make_from(suite.maker, name, EnvSettings(**settings))


def make_from(maker: str, name: str, settings: EnvSettings) -> Env:
    """Makes an environment with a suite's maker.

    Args:
        maker: `module:function` or `path/to/file.py:function`, as in `dreamer.tasks.Suite`.
        name: The task's name within the suite.
        settings: How to make the environment.
    """
    return find_function(maker)(name, settings)
