"""Values that are valid by themselves but not together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dreamer.errors import UserError

Section = Mapping[str, Any]


def check_values(tree: Mapping[str, Any]) -> None:
    """Refuses values of a config that contradict each other.

    Args:
        tree: Values by key, and sections by name. An agent may lack some of Dreamer's.

    Raises:
        UserError: Two values contradict each other.
    """
    check_logdir(tree["logdir"])
    envs, evaluation, train = tree["envs"], tree["eval"], tree["train"]
    if not envs["image"] and not envs["state"]:
        raise UserError("envs.image and envs.state are both false: the agent would see nothing")
    if evaluation["videos"] > evaluation["episodes"]:
        raise UserError(
            f"eval.videos ({evaluation['videos']}) must not exceed eval.episodes "
            f"({evaluation['episodes']})"
        )
    if train.get("overlap") and tree["deterministic"]:
        raise UserError(
            "train.overlap and deterministic are both true, but with overlap the weights that act "
            "depend on timing; set one of them to false"
        )
    if train.get("prefill", 0) > tree["steps"]:
        raise UserError(
            f"train.prefill ({train['prefill']}) must not exceed steps ({tree['steps']}): nothing "
            "would be learnt; lower the one or raise the other"
        )
    if "rssm" in tree:
        _check_model(tree["loss"], tree["contrastive"], train)
    if "disagreement" in tree:
        check_behavior(tree["behavior"], tree["planner"], tree["disagreement"])
    if "devices" in train:
        # 0 is all devices of the machine; how many those are is not known yet.
        check_devices(train["devices"] or 1, train["batch_size"], tree["jit"])


def check_logdir(text: str) -> None:
    """Refuses a logdir that is empty or an address; `s3://x` would become a local folder `s3:`."""
    if not text:
        raise UserError("logdir is empty: give a folder, such as runs/")
    if "://" in text:
        raise UserError(
            f"logdir is {text!r}, an address; expected a folder, such as runs/. Mount remote "
            "storage, and give the folder where it is mounted"
        )


def check_behavior(behavior: Section, planner: Section, disagreement: Section) -> None:
    """Refuses combinations of these sections that no agent has.

    Raises:
        UserError: The combination does not exist.
    """
    until = disagreement["until"]
    if behavior["policy"] == "planner":
        _check_planner(behavior, planner)
        if until:
            raise UserError(
                "disagreement.until needs behavior.policy actor: the planner plans for the task"
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

    Raises:
        UserError: The run would end in its first phase.
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

    Raises:
        UserError: The devices cannot share it.
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


def _check_model(loss: Section, contrastive: Section, train: Section) -> None:
    if loss["overshooting"] > train["batch_length"]:
        raise UserError(
            f"loss.overshooting ({loss['overshooting']}) must not exceed train.batch_length "
            f"({train['batch_length']}): a sequence has no two states so far apart"
        )
    if contrastive["init_std"] <= contrastive["min_std"]:
        raise UserError(
            f"contrastive.init_std ({contrastive['init_std']}) must be above contrastive.min_std "
            f"({contrastive['min_std']}), the least value that can be learnt"
        )


def _check_planner(behavior: Section, planner: Section) -> None:
    if planner["num_elites"] > planner["candidates"]:
        raise UserError(
            f"planner.num_elites is {planner['num_elites']}, but planner.candidates is "
            f"{planner['candidates']}; choose at most as many elites as candidates"
        )
    if planner["returns"] == "lambda" and planner["horizon"] < 2:
        raise UserError("planner.returns lambda needs a planner.horizon of at least 2")
    if planner["returns"] == "lambda" and not behavior["value"]:
        raise UserError(
            "planner.returns lambda needs a value network, but behavior.value is false; set it to "
            "true"
        )
