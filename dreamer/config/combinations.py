"""Values that are valid by themselves but not together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dreamer.errors import UserError

Section = Mapping[str, Any]

# A key, another key that it must not exceed, and why.
_AT_MOST = (
    ("eval.videos", "eval.episodes", "videos are of these episodes"),
    ("train.prefill", "steps", "nothing would be learnt"),
    ("loss.overshooting", "train.batch_length", "a sequence has no two states so far apart"),
)


def check_values(flat: Mapping[str, Any]) -> None:
    """Refuses values of a config that contradict each other.

    Args:
        flat: Values by dotted name. An agent may lack some of Dreamer's.

    Raises:
        UserError: Two values contradict each other.
    """
    check_logdir(flat["logdir"])
    for low, high, why in _AT_MOST:
        if low in flat and flat[low] > flat[high]:
            raise UserError(f"{low} ({flat[low]}) must not exceed {high} ({flat[high]}): {why}")
    if not flat["envs.image"] and not flat["envs.state"]:
        raise UserError("envs.image and envs.state are both false: the agent would see nothing")
    if flat.get("train.overlap") and flat["deterministic"]:
        raise UserError(
            "train.overlap and deterministic are both true, but with overlap the weights that act "
            "depend on timing; set one of them to false"
        )
    least = flat.get("contrastive.min_std", 0)
    if flat.get("contrastive.init_std", 1) <= least:
        raise UserError(
            f"contrastive.init_std ({flat['contrastive.init_std']}) must be above "
            f"contrastive.min_std ({least}), the least value that can be learnt"
        )
    if "disagreement.until" in flat:
        names = ("behavior", "planner", "disagreement")
        check_behavior(*(_section(flat, name) for name in names))
    if "train.devices" in flat:
        # 0 is all devices of the machine; how many those are is not known yet.
        check_devices(flat["train.devices"] or 1, flat["train.batch_size"], flat["jit"])


def check_logdir(text: str) -> None:
    """Refuses a logdir that is empty or an address; `s3://x` would become a local folder `s3:`."""
    if not text or "://" in text:
        what = f"{text!r}, an address" if text else "empty"
        raise UserError(
            f"logdir is {what}; expected a folder, such as runs/. Mount remote storage, and give "
            "the folder where it is mounted"
        )


def check_behavior(behavior: Section, planner: Section, disagreement: Section) -> None:
    """Refuses combinations of these sections that no agent has."""
    until = disagreement["until"]
    if behavior["policy"] == "planner":
        if until:
            raise UserError(
                "disagreement.until needs behavior.policy actor: the planner plans for the task"
            )
        if planner["num_elites"] > planner["candidates"]:
            raise UserError(
                f"planner.num_elites is {planner['num_elites']}, but planner.candidates is "
                f"{planner['candidates']}; choose at most as many elites as candidates"
            )
        if planner["returns"] == "lambda" and not (behavior["value"] and planner["horizon"] > 1):
            raise UserError(
                "planner.returns lambda needs behavior.value true and a planner.horizon of at "
                "least 2"
            )
    if until and not (behavior["value"] and behavior["horizon"] > 1):
        raise UserError(
            "disagreement.until needs behavior.value true and a behavior.horizon of at least 2"
        )


def check_phases(until: int, steps: int) -> None:
    """Refuses a run that ends before it collects for its task.

    A saved run's config is not checked: a run that was stopped in its first phase can be read, and
    resumed with more steps.

    Args:
        until: disagreement.until.
        steps: Steps of the whole run.
    """
    if until >= steps:
        raise UserError(
            f"disagreement.until ({until}) must be below steps ({steps}): nothing would be "
            f"collected for the task; set --disagreement.until, such as to {steps // 5} (a fifth, "
            "as in the preset explore_then_task), or more --steps"
        )


def check_devices(devices: int, batch_size: int, jit: str) -> None:
    """Refuses a batch, or a compilation, that several devices cannot share.

    Args:
        devices: How many devices share each batch.
        batch_size: Sequences in a batch.
        jit: Value of the key.
    """
    if batch_size % devices:
        raise UserError(
            f"train.batch_size is {batch_size}, which {devices} devices cannot share evenly; "
            f"choose a multiple, such as {batch_size + devices - batch_size % devices}"
        )
    if devices > 1 and jit == "on":
        raise UserError(
            f"jit is on, but {devices} devices share each update, which XLA cannot compile as "
            "one; set jit to auto or off, or train.devices to 1"
        )


def _section(flat: Mapping[str, Any], name: str) -> Section:
    return {k.removeprefix(f"{name}."): v for k, v in flat.items() if k.startswith(f"{name}.")}
