"""Settings of behaviour that each may stand alone but not together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dreamer.errors import UserError

Section = Mapping[str, Any]


def check_behavior(behavior: Section, planner: Section, disagreement: Section) -> None:
    """Refuses combinations that no agent can be made of.

    Args:
        behavior, planner, disagreement: Sections of the config.
    Raises:
        UserError: Then.
    """
    if behavior["policy"] == "planner":
        _check_planner(behavior, planner)
        if disagreement["until"]:
            raise UserError(
                "disagreement.until needs behavior.policy actor: the planner plans for the task"
            )
    if disagreement["until"] and not (behavior["value"] and behavior["horizon"] > 1):
        raise UserError(
            "disagreement.until needs behavior.value true and a behavior.horizon of at least 2"
        )


def check_phases(until: int, steps: int) -> None:
    """Refuses a run that ends before it collects for its task.

    Not asked of a saved run's own values: one that was stopped in its first phase, or made before
    this was refused, can be read, and goes on with more steps.

    Args:
        until: disagreement.until.
        steps: Of the whole run.
    Raises:
        UserError: Then.
    """
    if until >= steps:
        raise UserError(
            f"disagreement.until ({until}) must be below steps ({steps}): nothing would be "
            f"collected for the task; set --disagreement.until, such as to {steps // 5} (a fifth, "
            "as in the preset explore_then_task), or more --steps"
        )


def check_devices(devices: int, batch_size: int, jit: str) -> None:
    """Refuses what several devices cannot do with a batch.

    Args:
        devices: How many share it.
        batch_size: Its sequences.
        jit: As the config says it.
    Raises:
        UserError: Then.
    """
    if devices == 1:
        return
    if batch_size % devices:
        below = batch_size - batch_size % devices
        choice = f"{below} or {below + devices}" if below else f"{devices}"
        raise UserError(
            f"train.batch_size is {batch_size}, which {devices} devices cannot share evenly; "
            f"choose a multiple, such as {choice}"
        )
    if jit == "on":
        raise UserError(
            f"jit is on, but {devices} devices share each update, which XLA cannot compile as "
            "one; set jit to auto or off, or train.devices to 1"
        )


def _check_planner(behavior: Section, planner: Section) -> None:
    if planner["num_elites"] > planner["candidates"]:
        raise UserError(
            f"planner.num_elites is {planner['num_elites']}, but planner.candidates is "
            f"{planner['candidates']}; keep at most as many as there are"
        )
    if planner["returns"] == "lambda" and planner["horizon"] < 2:
        raise UserError("planner.returns lambda needs a planner.horizon of at least 2")
    if planner["returns"] == "lambda" and not behavior["value"]:
        raise UserError(
            "planner.returns lambda needs a value network, but behavior.value is false; set it to "
            "true"
        )
