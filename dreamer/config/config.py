"""The config: defaults, the suite's preset, chosen presets and overrides, merged and checked.

Later beats earlier: the defaults (of configs/defaults.yaml, and of configs/agents/<agent>.yaml for
another agent than Dreamer), then the preset that follows from the task's name (the suite's), then
the presets chosen, in the order given, then single keys. An agent's own presets, in
configs/presets/<agent>/, come before general ones of the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dreamer.config.combinations import check_behavior, check_devices, check_phases
from dreamer.config.schema import (
    DREAMER,
    Value,
    find_key,
    flatten,
    load_schema,
    own_keys,
    preset_files,
    task_values,
)
from dreamer.errors import UserError, suggest
from dreamer.io.yaml_files import read_yaml
from dreamer.tasks import suite_of


class Section:
    """The keys of one namespace, as attributes: ``config.train.batch_size``."""

    __slots__ = ("_name", "_values")

    def __init__(self, name: str, values: Mapping[str, Value]) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_values", dict(values))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self._values:
            return self._values[name]
        near = suggest(name, self._values) if not name.startswith("_") else ""
        raise AttributeError(f"the config has no key '{self._name}.{name}'{near}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a config is immutable; use replace({{'{self._name}.{name}': ...}})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a config is immutable")

    def __dir__(self) -> list[str]:
        return list(self._values)

    def __repr__(self) -> str:
        return f"Section({self._name}: {self._values})"


class Config:
    """A complete, checked and immutable config.

    Keys are attributes (``config.seed``), those of a namespace one level down
    (``config.train.batch_size``). Two configs with the same values are equal.

    Attributes:
      presets: names of the presets chosen, without the suite's own and without inherited ones.
      agent: whose keys these are: "dreamer", or one of configs/agents/.
    """

    __slots__ = ("_flat", "_tree", "agent", "presets")
    presets: tuple[str, ...]
    agent: str

    def __init__(
        self, values: Mapping[str, Any], presets: Iterable[str] = (), agent: str = DREAMER
    ) -> None:
        """Takes values by dotted name; a key left out has its default.

        Raises:
          UserError: unknown key, or a value that the key doesn't take.
        """
        keys = load_schema(agent)
        flat = {name: key.value for name, key in keys.items()}
        flat.update({name: find_key(name, keys).coerce(value) for name, value in values.items()})
        _check(flat)
        tree = _grow(flat)
        if agent == DREAMER:
            check_behavior(tree["behavior"], tree["planner"], tree["disagreement"])
            train = tree["train"]
            known = train["devices"] or 1  # 0: how many there are is not known yet
            check_devices(known, train["batch_size"], tree["jit"])
        object.__setattr__(self, "_flat", flat)
        object.__setattr__(self, "_tree", tree)
        object.__setattr__(self, "presets", tuple(presets))
        object.__setattr__(self, "agent", agent)

    def flat(self) -> dict[str, Value]:
        """Returns all values by dotted name, in the order of defaults.yaml."""
        return dict(self._flat)

    def tree(self) -> dict[str, Any]:
        """Returns all values as nested plain dicts, as a YAML file holds them."""
        return {k: dict(v) if isinstance(v, dict) else v for k, v in self._tree.items()}

    def section(self, name: str) -> dict[str, Value]:
        """Returns one namespace as a dict, to be passed on as keyword arguments."""
        if not isinstance(self._tree.get(name), dict):
            groups = [key for key, value in self._tree.items() if isinstance(value, dict)]
            raise KeyError(f"the config has no section {name!r}{suggest(name, groups)}")
        return dict(self._tree[name])

    def replace(self, values: Mapping[str, Any]) -> Config:
        """Returns a config with the given keys (dotted names) changed.

        Raises:
          UserError: unknown key, or a value that the key doesn't take.
        """
        return Config({**self._flat, **values}, self.presets, self.agent)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._tree:
            near = suggest(name, self._tree) if not name.startswith("_") else ""
            raise AttributeError(f"the config has no key {name!r}{near}")
        value = self._tree[name]
        return Section(name, value) if isinstance(value, dict) else value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a config is immutable; use replace({{{name!r}: ...}})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a config is immutable")

    def __dir__(self) -> list[str]:
        return [*self._tree, "flat", "tree", "section", "replace", "presets", "agent"]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Config):
            return NotImplemented
        return (self.agent, self._flat) == (other.agent, other._flat)

    def __hash__(self) -> int:
        return hash((self.agent, *self._flat.items()))

    def __repr__(self) -> str:
        return f"Config(task={self.task!r}, presets={self.presets}, {len(self._flat)} keys)"


def load_config(
    *presets: str,
    task: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    agent: str = DREAMER,
) -> Config:
    """Merges defaults, the suite's preset, `presets` and `overrides` into one config.

    Args:
      presets: names below configs/presets, or paths of one's own .yaml files.
      task: what to train on; else the overrides', a preset's or the default one.
      overrides: values by dotted name, typed or as text.
      agent: whose keys and presets: "dreamer", or one of configs/agents/.

    Raises:
      UserError: unknown agent, preset, key, suite, or a value that its key doesn't take.
    """
    overrides = dict(overrides or {})
    chosen: dict[str, Value] = {}
    loaded: set[str] = set()
    for preset in presets:
        chosen.update(load_preset(preset, agent, loaded=loaded))
    if task is not None:
        overrides = {"task": task, **overrides}
    keys = load_schema(agent)
    typed = {name: find_key(name, keys).coerce(value) for name, value in overrides.items()}
    final = str({"task": keys["task"].value, **chosen, **typed}["task"])
    suite = _suite_preset(final)
    names = [Path(preset).stem if is_path(preset) else preset for preset in presets]
    named = [name for name in dict.fromkeys(names) if name != suite]
    # A suite's preset is made for Dreamer: another agent takes what it says nothing of itself.
    wanted = keys.keys() - own_keys(agent)
    of_suite = {key: value for key, value in load_preset(suite).items() if key in wanted}
    of_task = task_values(agent, final, {**chosen, **typed})
    config = Config({**of_suite, **of_task, **chosen, **typed}, named, agent)
    if agent == DREAMER:
        check_phases(config.disagreement.until, config.steps)
    return config


def preset_names(agent: str = DREAMER) -> list[str]:
    """Returns the names of the presets that come with the project, an agent's own among them."""
    return sorted(preset_files(agent))


def preset_refusal(preset: str, agent: str) -> str:
    """Why an agent cannot take a preset, or a file of one; empty where it can."""
    try:
        load_config(preset, agent=agent)
    except UserError as error:
        return str(error)
    return ""


def _suite_preset(task: str) -> str:
    """Returns the preset that follows from a task's name; one's own tasks get the gym suite's."""
    # Here, because it brings NumPy, which --help and most mistakes need not wait for.
    return {"custom": "gym"}.get(suite := suite_of(task), suite)


def _grow(flat: Mapping[str, Value]) -> dict[str, Any]:
    """Turns dotted names into a tree of one level of namespaces."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        group, dot, inner = name.partition(".")
        if dot:
            tree.setdefault(group, {})[inner] = value
        else:
            tree[name] = value
    return tree


def check_logdir(text: str) -> None:
    """Refuses what cannot be a folder; an address would silently become one called `s3:`."""
    if not text:
        raise UserError("logdir is empty: give a folder, such as runs/")
    if "://" in text:
        raise UserError(
            f"logdir is {text!r}, an address; expected a folder, such as runs/: mount what is "
            "elsewhere, and give the folder it is mounted at"
        )


def _check(flat: Mapping[str, Any]) -> None:
    """Refuses values that each may stand alone but not together."""
    check_logdir(flat["logdir"])
    if not flat["envs.image"] and not flat["envs.state"]:
        raise UserError("envs.image and envs.state are both false: the agent would see nothing")
    if flat["eval.videos"] > flat["eval.episodes"]:
        raise UserError(
            f"eval.videos ({flat['eval.videos']}) must not exceed eval.episodes "
            f"({flat['eval.episodes']})"
        )
    if "loss.overshooting" in flat:
        _check_model(flat)
    if flat.get("train.overlap") and flat["deterministic"]:
        raise UserError(
            "train.overlap and deterministic are both true: which weights act depends on the clock "
            "where collecting and updates overlap; switch one of them off"
        )
    if flat.get("train.prefill", 0) > flat["steps"]:  # some agents have none
        raise UserError(
            f"train.prefill ({flat['train.prefill']}) must not exceed steps ({flat['steps']}): "
            "nothing would be learnt; lower the one or raise the other"
        )


def _check_model(flat: Mapping[str, Any]) -> None:
    """Likewise of the world model's values, which agents without one do not have."""
    if flat["loss.overshooting"] > flat["train.batch_length"]:
        raise UserError(
            f"loss.overshooting ({flat['loss.overshooting']}) must not exceed train.batch_length "
            f"({flat['train.batch_length']}): no state of a sequence is so far from another"
        )
    if flat["contrastive.init_std"] <= flat["contrastive.min_std"]:
        raise UserError(
            f"contrastive.init_std ({flat['contrastive.init_std']}) must be above "
            f"contrastive.min_std ({flat['contrastive.min_std']}), from which it is learnt upwards"
        )


def load_preset(
    name: str,
    agent: str = DREAMER,
    trail: tuple[str, ...] = (),
    loaded: set[str] | None = None,
) -> dict[str, Value]:
    """Reads a preset by dotted names, what it inherits included.

    Args:
        name: Of a preset that comes with the project, or the path of a file.
        agent: Whose keys and presets.
        trail: Files that inherit it.
        loaded: Files that were read before, and are not inherited again: what two presets inherit
            must not undo the first of them. This one's are added.

    Raises:
        UserError: no such preset, a circle, or a key or value that the agent does not take.
    """
    loaded = set() if loaded is None else loaded
    path = _preset_path(name, Path(trail[-1]).parent if trail else Path(), agent)
    if str(path) in trail:
        chain = " -> ".join(Path(step).stem for step in (*trail, str(path)))
        raise UserError(f"presets inherit each other in a circle: {chain}")
    if trail and str(path) in loaded:
        return {}
    where = f" in preset {name!r}"
    content = read_yaml(path)
    parents = content.pop("inherit", [])
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UserError(f"'inherit'{where} must be a list of preset names")
    values: dict[str, Value] = {}
    for parent in parents:
        values.update(load_preset(parent, agent, (*trail, str(path)), loaded))
    loaded.add(str(path))
    taken = load_schema(agent)
    # Of a preset of Dreamer's, one of another agent's own inherits what that agent has.
    heir = Path(trail[-1]).parent.name if trail else ""
    keys = load_schema() if heir == agent and path.parent.name != agent else taken
    for key, value in flatten(content, keys, where).items():
        typed = find_key(str(key), keys, where).coerce(value, where)
        if key in taken:
            values[key] = typed
    return values


def _preset_path(name: str, folder: Path, agent: str) -> Path:
    """Finds a preset's file; a path inside a preset counts from that preset's folder."""
    if is_path(name):
        path = (folder / Path(name).expanduser()).resolve()
        if not path.is_file():
            raise UserError(f"no preset file {name!r} ({path})")
        return path
    files = preset_files(agent)
    if name not in files:
        near = suggest(name, files) or f"; there are {', '.join(sorted(files))}"
        raise UserError(f"unknown preset {name!r}{near}")
    return files[name]


def is_path(name: str) -> bool:
    return "/" in name or name.endswith((".yaml", ".yml"))
