"""The config of a run: defaults, presets and single keys, merged and checked.

Later values replace earlier ones, in this order: the defaults (configs/defaults.yaml, and
configs/agents/<agent>.yaml for another agent than Dreamer), the suite's preset, which follows from
the task's name, the chosen presets in their order, single keys. An agent's own presets, in
configs/presets/<agent>/, replace general presets of the same name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dreamer.config.schema import (
    DREAMER,
    Value,
    agent_file,
    agent_names,
    find_key,
    flatten,
    load_schema,
    preset_files,
    read_defaults,
    task_values,
)
from dreamer.errors import UserError, suggest
from dreamer.io.yaml_files import read_yaml
from dreamer.tasks import suite_preset

Values = Mapping[str, Any]

# A key, another key that it must not exceed, and why.
_AT_MOST = (
    ("eval.videos", "eval.episodes", "videos are of these episodes"),
    ("train.prefill", "steps", "these steps are random, so nothing would be learnt"),
    ("loss.overshooting", "train.batch_length", "a sequence has no two states so far apart"),
)
_SIZE = re.compile(r"size(\d+)m")  # presets of so many million weights


class Section:
    """The keys of one group, as attributes: ``config.train.batch_size``. It is immutable."""

    __slots__ = ("_name", "_values")

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_values", dict(values))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._values:
            full, near = f"{self._name}{name}", suggest(name, self._values)
            raise AttributeError(f"the config has no key {full!r}{near}")
        return self._values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        key = f"{self._name}{name}"
        raise AttributeError(f"a config is immutable; use replace({{{key!r}: ...}})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a config is immutable")


class Config(Section):
    """A complete, checked and immutable config.

    Keys are attributes (``config.seed``); those of a group are one level down
    (``config.train.batch_size``). Two configs with the same values are equal.

    Args:
        values: Values by dotted name. A key left out has its default.
        presets: Names of the chosen presets, without the suite's own and without inherited ones.
        agent: The agent that has these keys: "dreamer", or one of configs/agents/.
        left_out: Keys of the presets that this agent lacks, whose values are left out.

    Raises:
        UserError: An unknown key, or a value that the key does not take.
    """

    __slots__ = ("_flat", "agent", "left_out", "presets")
    presets: tuple[str, ...]
    agent: str
    left_out: tuple[str, ...]

    def __init__(
        self, values: Mapping[str, Any], presets: Iterable[str] = (), agent: str = DREAMER,
        left_out: Iterable[str] = (),
    ) -> None:  # fmt: skip
        keys = load_schema(agent)
        flat = {name: key.value for name, key in keys.items()}
        flat.update({name: find_key(name, keys).coerce(value) for name, value in values.items()})
        flat["task"] = re.sub(r"\s*(,|^|$)\s*", r"\1", str(flat["task"]))  # "a, b" is "a,b"
        object.__setattr__(self, "_flat", flat)
        object.__setattr__(self, "presets", tuple(presets))
        object.__setattr__(self, "agent", agent)
        object.__setattr__(self, "left_out", tuple(left_out))
        check_values(flat)
        tree = self.tree().items()
        super().__init__(
            "", {k: Section(f"{k}.", v) if isinstance(v, dict) else v for k, v in tree}
        )

    def flat(self) -> dict[str, Value]:
        """Returns all values by dotted name, in the order of defaults.yaml."""
        return dict(self._flat)

    def tree(self) -> dict[str, Any]:
        """Returns all values as nested plain dicts, as in a YAML file."""
        return nest(self._flat)

    def section(self, name: str) -> dict[str, Any]:
        """Returns the values of one group, to be passed on as keyword arguments."""
        tree = self.tree()
        if not isinstance(tree.get(name), dict):
            raise KeyError(f"the config has no section {name!r}{suggest(name, tree)}")
        return tree[name]

    def agent_sections(self) -> dict[str, dict[str, Value]]:
        """Returns the groups of Dreamer's agent, as far as this config has them.

        The list `agent` in configs/defaults.yaml names the groups.
        """
        tree = self.tree()
        return {name: tree[name] for name in read_defaults()[1] if isinstance(tree.get(name), dict)}

    def replace(self, values: Mapping[str, Any] = {}, **more: Any) -> Config:  # noqa: B006
        """Returns a config with other values of some keys: dotted names, and `load_config`'s."""
        given = {**values, **flatten(more, self._flat)}
        return Config({**self._flat, **given}, self.presets, self.agent, self.left_out)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Config):
            return NotImplemented
        return (self.agent, self._flat) == (other.agent, other._flat)

    def __hash__(self) -> int:
        return hash((self.agent, *self._flat.items()))

    def __repr__(self) -> str:
        return f"Config(task={self.task!r}, presets={self.presets}, {len(self._flat)} keys)"


def load_config(
    *presets: str, task: str | None = None, overrides: Mapping[str, Any] | None = None,
    agent: str = DREAMER, **values: Any,
) -> Config:  # fmt: skip
    """Merges defaults, the suite's preset, `presets`, `overrides` and `values` into one config.

    As in ``load_config("small", steps=1e5, train={"batch_size": 8}, **{"log.every": 500})``.

    Args:
        presets: Names below configs/presets, or paths of the user's own .yaml files.
        task: Task to learn; left out, the one of the overrides, a preset or the defaults.
        overrides: Values by dotted name, typed or as text.
        agent: The agent to configure: "dreamer", or one of configs/agents/.
        values: The same as overrides, as keywords; a group of keys is a mapping.

    Raises:
        UserError: An unknown agent, preset, key or suite, a value that its key does not take, or a
            key given twice.
    """
    keys = load_schema(agent)
    chosen: dict[str, Value] = {}
    loaded: set[Path] = set()
    lacking: dict[str, None] = {}
    for preset in presets:
        if not isinstance(preset, str):
            raise UserError(f'presets are names, as in load_config("small"), not {preset!r}')
        before = len(lacking)
        values_of_preset = load_preset(preset, agent, loaded=loaded, lacking=lacking)
        if len(lacking) > before and not values_of_preset:
            raise UserError(
                f"the agent {agent} has no use for the preset {preset!r}: it lacks every key of "
                f"it ({', '.join(list(lacking)[before:])}); leave the preset out"
            )
        chosen.update(values_of_preset)
    given = dict(overrides or {})
    for name, value in flatten(values if task is None else {"task": task, **values}, keys).items():
        if name in given:
            raise UserError(f"{name} is given twice: {given[name]!r} and {value!r}")
        given[name] = value
    chosen.update({name: find_key(name, keys).coerce(value) for name, value in given.items()})
    final = str(chosen.get("task", keys["task"].value))
    suite = suite_preset(final)
    # A suite's preset is made for Dreamer; another agent's own defaults override it.
    own = agent_file(agent).entries
    of_suite = {k: v for k, v in load_preset(suite).items() if k in keys and k not in own}
    of_task = task_values(agent, final, chosen)
    names = dict.fromkeys(Path(name).stem if _is_path(name) else name for name in presets)
    named = [name for name in names if name != suite]
    merged = {**of_suite, **of_task, **chosen}
    if merged.get("deterministic") and "train.overlap" in merged and "train.overlap" not in given:
        merged["train.overlap"] = False  # a preset's gives way; the user's own is refused
    config = Config(merged, named, agent, lacking)
    if agent == DREAMER and config.disagreement.until >= config.steps:
        # A saved run's config is not checked, because a run that was stopped in its first phase
        # can be read, and resumed with more steps.
        raise UserError(
            f"disagreement.until ({config.disagreement.until}) must be below steps "
            f"({config.steps}): nothing would be collected for the task; set --disagreement.until, "
            f"such as to {config.steps // 5} (a fifth, as in the preset explore_then_task), or "
            "more --steps"
        )
    return config


def preset_refusal(preset: str, agent: str) -> str:
    """Returns why an agent does not take a preset or preset file as a whole; "" if it does."""
    try:
        left_out = load_config(preset, agent=agent).left_out
    except UserError as error:
        return str(error)
    return f"the agent {agent} lacks {', '.join(left_out)}" if left_out else ""


def load_preset(
    name: str, agent: str = DREAMER, trail: tuple[Path, ...] = (), loaded: set[Path] | None = None,
    lacking: dict[str, None] | None = None,
) -> dict[str, Value]:  # fmt: skip
    """Reads a preset, or a file, and those it inherits; returns values by dotted name.

    A preset may serve several agents, so keys that only other agents have are left out. Raises
    UserError if there is no such preset, presets inherit each other in a circle, no agent has a
    key, or a key does not take its value.

    Args:
        trail: Files that inherit this preset.
        loaded: Files read before; this one is added. They are not inherited again: if
            two presets inherit the same one, it must not undo the values of the first.
        lacking: The keys left out are added, except those that an agent's own preset inherits.
    """
    loaded = set() if loaded is None else loaded
    lacking = {} if lacking is None else lacking
    path = _preset_path(name, trail[-1].parent if trail else Path(), agent)
    if path in trail:
        chain = " -> ".join(step.stem for step in (*trail, path))
        raise UserError(f"presets inherit each other in a circle: {chain}")
    if trail and path in loaded:
        return {}
    where = f" in preset {name!r}"
    content = read_yaml(path)
    parents = content.pop("inherit", [])
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UserError(f"'inherit'{where} must be a list of preset names")
    values: dict[str, Value] = {}
    # An agent's own preset may inherit one of Dreamer's.
    own = not _is_path(name) and path.parent.name == agent
    for parent in parents:
        trailing = {} if own else lacking
        values.update(load_preset(parent, agent, (*trail, path), loaded, trailing))
    loaded.add(path)
    taken = load_schema(agent)
    known = {key for other in agent_names() for key in load_schema(other)}
    for key, value in flatten(content, known, where).items():
        if key in taken or key not in known or own:
            values[key] = find_key(str(key), taken, where).coerce(value, where)
        else:
            lacking[key] = None
    return values


def _preset_path(name: str, folder: Path, agent: str) -> Path:
    """A preset's file; a relative path inside a preset counts from that preset's folder."""
    if _is_path(name):
        path = (folder / Path(name).expanduser()).resolve()
        if not path.is_file():
            raise UserError(f"no preset file {name!r} ({path})")
        return path
    files = preset_files(agent)
    if name not in files:
        listed = ", ".join(sorted(files))
        near = _nearest_size(name, files) or suggest(name, files)
        near = near or f"; there are {listed}, and without --configs the full size"
        raise UserError(f"unknown preset {name!r}{near}")
    return files[name]


def _nearest_size(name: str, names: Iterable[str]) -> str:
    """Returns the hint that a size such as "size30m" is nearest to one of these presets, or ""."""
    sizes = {float(match[1]): known for known in names if (match := _SIZE.fullmatch(known))}
    given = _SIZE.fullmatch(name)
    if not given or not sizes or not float(given[1]):
        return ""
    nearest = min(sizes, key=lambda size: abs(math.log(size / float(given[1]))))
    return f"; the nearest size is {sizes[nearest]!r}"


def _is_path(name: str) -> bool:
    return "/" in name or name.endswith((".yaml", ".yml"))


def nest(flat: Values) -> dict[str, Any]:
    """Turns dotted names into a tree of groups."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        group, _, inner = name.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[inner] = value
    return tree


def check_values(flat: Mapping[str, Any]) -> None:
    """Refuses values, by dotted name, that contradict each other; an agent may lack some."""
    check_logdir(flat["logdir"])
    for low, high, why in _AT_MOST:
        # Without a latent, shorter predictions take the place of those that a sequence lacks.
        unused = (low == "train.prefill" and flat.get("train.offline")) or (
            low == "loss.overshooting" and flat.get("rssm.kind") == "deterministic_only"
        )
        if low in flat and flat[low] > flat[high] and not unused:
            raise UserError(
                f"{low} ({flat[low]}) must not exceed {high} ({flat[high]}): {why}; set {high} to "
                f"at least {flat[low]}, or {low} to at most {flat[high]}"
            )
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
    for name in ("reward.bins", "value.bins"):
        bins = flat.get(name, 0)
        if bins and (bins < 3 or bins % 2 == 0):
            raise UserError(
                f"{name} is {bins}, so no bin is in the middle; choose an odd number from 3 on "
                "(DreamerV3: 255), or 0 for a head without bins"
            )
    if "rssm.kind" in flat:
        check_dynamics(nest(flat)["rssm"])
    if "disagreement.until" in flat:
        tree = nest(flat)
        check_behavior(*(tree[name] for name in ("behavior", "planner", "disagreement", "value")))
    if flat.get("replay.latents") == "stored" and flat["rssm.kind"] == "deterministic_only":
        raise UserError(
            "replay.latents is stored, but the heads of rssm.kind deterministic_only learn from "
            "states of their own, which start from zeros; set replay.latents to zeros, or choose "
            "another rssm.kind"
        )
    if "train.devices" in flat:
        # 0 means all devices of the machine; their number is not known yet.
        check_devices(flat["train.devices"] or 1, flat["train.batch_size"], flat["jit"])


def check_logdir(text: str) -> None:
    """Refuses a logdir that is empty or an address; `s3://x` would become a local folder `s3:`."""
    if not text or "://" in text:
        what = f"{text!r}, an address" if text else "empty"
        raise UserError(
            f"logdir is {what}; expected a folder, such as runs/. Mount remote storage, and give "
            "the folder where it is mounted"
        )


def check_dynamics(rssm: Values) -> None:
    """Refuses combinations of the keys of this section that no latent dynamics support."""
    kind, classes, blocks = rssm["kind"], rssm["classes"], rssm["blocks"]
    if classes and (classes < 2 or kind == "deterministic_only"):
        reason = "a choice needs 2 or more"
        if kind == "deterministic_only":
            reason = "rssm.kind deterministic_only has no stochastic state"
        raise UserError(f"rssm.classes is {classes}, but {reason}; set it to 0 for a normal")
    if blocks and (rssm["gru_norm"] or kind != "full"):
        other = "rssm.gru_norm is true" if rssm["gru_norm"] else f"rssm.kind is {kind}"
        way = "its norm is layers.norm" if rssm["gru_norm"] else "only rssm.kind full has them"
        raise UserError(f"rssm.blocks is {blocks} and {other}, but {way}; set rssm.blocks to 0")
    if blocks and rssm["deter"] % blocks:
        raise UserError(
            f"rssm.deter is {rssm['deter']}, which is no multiple of rssm.blocks, {blocks}; choose "
            f"{rssm['deter'] + blocks - rssm['deter'] % blocks}, or rssm.blocks 0 for a GRU "
            "without blocks"
        )


def check_behavior(
    behavior: Values, planner: Values, disagreement: Values, value: Values
) -> None:  # fmt: skip
    """Refuses combinations of these sections that no agent supports."""
    until = disagreement["until"]
    if value["replay_scale"] and not (behavior["policy"] == "actor" and behavior["value"]):
        raise UserError(
            "value.replay_scale needs behavior.policy actor and behavior.value true, because "
            "imagined returns close the replayed ones; set it to 0 (a planner's value network "
            "learns from the replay in any case)"
        )
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


def check_devices(devices: int, batch_size: int, jit: str) -> None:
    """Refuses a batch, or a compilation, that several devices cannot share."""
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
