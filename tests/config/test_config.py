"""The config: what is merged in which order, what is refused and with which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamer.config.config import Config, load_config
from dreamer.config.schema import load_schema, number, preset_files
from dreamer.errors import UserError
from dreamer.io.yaml_files import format_yaml, parse_yaml, read_yaml


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_every_key_says_what_it_means_where_it_comes_from_and_what_it_counts():
    dimensionless = re.compile(
        r"seed|envs\.(camera|egl_device)|.*(std|scale|lr|eps|clip|gamma|lambda_|entropy(_final)?|explore\.(noise_scale|final))$"
    )
    for key in load_schema().values():
        assert key.help.endswith(".") and key.source, key.name
        assert key.coerce(key.value) == key.value
        if isinstance(key.value, (int, float)) and not isinstance(key.value, bool):
            assert key.unit or dimensionless.fullmatch(key.name), key.name


@pytest.mark.parametrize("preset", sorted(preset_files()))
def test_every_preset_loads(preset: str):
    config = load_config(preset, task="dmc_cartpole_balance")
    assert config.task == "dmc_cartpole_balance"
    assert config.presets == (() if preset == "dmc" else (preset,))


def test_attributes_sections_and_flat_names_agree():
    config = load_config("small")
    assert config.train.batch_size == config.section("train")["batch_size"]
    assert config.behavior.lambda_ == config.flat()["behavior.lambda_"]
    assert config.tree()["value"]["units"] == config.value.units
    assert Config(config.flat(), config.presets) == config
    assert list(config.flat()) == list(load_schema())


def test_each_group_of_keys_is_the_agents_or_the_programs():
    """A new group belongs in the list `agent` of configs/defaults.yaml, or here."""
    groups = {name.partition(".")[0] for name in load_schema() if "." in name}
    of_the_agent = load_config().agent_sections()
    assert groups - set(of_the_agent) == {"envs", "replay", "train", "eval", "log", "checkpoint"}
    assert of_the_agent["value"] == load_config().section("value")
    own = load_config(agent="latent_sac").agent_sections()
    assert "planner" not in own and "gradient" not in own["actor"]


def test_later_beats_earlier(tmp_path: Path):
    mine = write(tmp_path / "mine.yaml", "train: {batch_size: 7, every: 50}\nsteps: 1e6\n")
    config = load_config("small", mine, overrides={"train.every": "60"})
    assert (config.train.batch_size, config.train.every, config.steps) == (7, 60, 1_000_000)
    assert config.encoder.cnn_depth == load_config("small").encoder.cnn_depth
    assert config.presets == ("small", "mine")


def test_the_suites_preset_follows_from_the_task_and_yields_to_the_chosen(tmp_path: Path):
    mine = write(tmp_path / "mine.yaml", "task: gym_CartPole-v1\nenvs: {action_repeat: 3}\n")
    assert load_config(task="gym_CartPole-v1").envs.action_repeat == 1
    assert load_config(task="my_module:make").envs.action_repeat == 1
    assert load_config(mine).discount.enabled
    assert load_config(mine).envs.action_repeat == 3
    assert load_config(mine, task="dmc_walker_run").discount.enabled is False


def test_inherited_presets_come_first_and_are_found_beside_the_file(tmp_path: Path):
    write(tmp_path / "base.yaml", "inherit: [small]\nsteps: 1000\ntrain: {prefill: 10}\n")
    mine = write(tmp_path / "mine.yaml", "inherit: [./base.yaml]\nsteps: 2000\n")
    config = load_config(mine)
    assert (config.steps, config.train.prefill) == (2000, 10)
    assert config.train.batch_size == load_config("small").train.batch_size
    assert config.presets == ("mine",)
    write(tmp_path / "other.yaml", "train: {prefill: 20}\n")
    both = write(tmp_path / "both.yaml", "inherit: [./base.yaml, ./other.yaml]\n")
    assert load_config(both).train.prefill == 20  # the later one's


def test_what_two_presets_inherit_undoes_neither():
    """`tiny` and `planet_small` both inherit `small`."""
    config = load_config("tiny", "planet_small")
    assert config.flat() == load_config("planet_small", "tiny").flat()
    assert config.encoder.cnn_depth == 8 and config.train.batch_length == 20
    assert config.behavior.policy == "planner" and config.planner.candidates == 100


def test_an_agents_preset_inherits_of_dreamers_what_the_agent_has():
    """Dreamer's `small` has a planner and an ensemble, SAC in the latent space neither."""
    config = load_config("small", agent="latent_sac")
    assert config.encoder.cnn_depth == 16 and config.optimizer.value_lr == 1e-3
    assert "planner.candidates" not in config.flat()
    assert config.left_out == ()


def test_keys_that_an_agent_lacks_are_left_out_of_a_preset(tmp_path: Path):
    """So that one preset, or one file of the user's, serves several agents."""
    own = tmp_path / "mine.yaml"
    write(own, "inherit: [small]\nsteps: 7e4\nd4pg: {units: 5}\nbehavior: {horizon: 3}\n")
    for agent, lacks in (("random", {"d4pg.units", "behavior.horizon", "encoder.cnn_depth"}),
                         ("d4pg", {"behavior.horizon"}), ("dreamer", {"d4pg.units"})):  # fmt: skip
        config = load_config(str(own), agent=agent)
        assert config.steps == 70000 and lacks <= set(config.left_out)
        assert not set(config.left_out) & set(config.flat())
        assert config.replace(seed=1).left_out == config.left_out
    with pytest.raises(UserError, match="random has no use for the preset 'no_value'"):
        load_config("no_value", agent="random")
    with pytest.raises(UserError, match="'train.batch_size' is no key of this agent"):
        load_config("debug", agent="random", overrides={"train.batch_size": 2})
    write(own, "d4pg: {unit: 5}\n")
    for agent in ("random", "d4pg"):
        with pytest.raises(UserError, match=r"unknown key 'd4pg.unit' in preset"):
            load_config(str(own), agent=agent)


def test_presets_that_inherit_each_other_are_refused(tmp_path: Path):
    write(tmp_path / "a.yaml", "inherit: [./b.yaml]\n")
    write(tmp_path / "b.yaml", "inherit: [./a.yaml]\n")
    with pytest.raises(UserError, match="in a circle: a -> b -> a"):
        load_config(str(tmp_path / "a.yaml"))


def test_a_config_cannot_be_changed_only_replaced():
    config = load_config()
    for change in (
        lambda: setattr(config, "seed", 1),
        lambda: setattr(config.train, "batch_size", 1),
        lambda: delattr(config, "seed"),
        lambda: delattr(config.train, "batch_size"),
    ):
        with pytest.raises(AttributeError, match="immutable"):
            change()
    config.section("train")["batch_size"] = 1
    config.tree()["train"]["batch_size"] = 1
    config.flat()["seed"] = 9
    other = config.replace({"train.batch_size": 3})
    assert (config.train.batch_size, other.train.batch_size) == (50, 3)
    assert config != other and config == other.replace({"train.batch_size": 50})
    assert hash(config) == hash(other.replace({"train.batch_size": 50}))


def test_missing_attributes_name_the_nearest():
    with pytest.raises(AttributeError, match="'train.batchsize'; did you mean 'batch_size'"):
        load_config().train.batchsize  # noqa: B018
    with pytest.raises(AttributeError, match="did you mean 'train'"):
        load_config().trian  # noqa: B018
    with pytest.raises(KeyError, match="did you mean 'train'"):
        load_config().section("trian")


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("steps", "1e5", 100_000),
        ("steps", 2.5e5, 250_000),
        ("steps", "250k", 250_000),
        ("steps", "1.5M", 1_500_000),
        ("task", " dmc_walker_walk, dmc_walker_run ", "dmc_walker_walk,dmc_walker_run"),
        ("steps", np.int64(3_000_000), 3_000_000),
        ("envs.camera", "-1", -1),
        ("optimizer.model_lr", "3e-4", 3e-4),
        ("optimizer.clip", 7, 7.0),
        ("behavior.gamma", np.float32(0.5), 0.5),
        ("deterministic", "true", True),
        ("deterministic", "False", False),
        ("jit", "on", "on"),
        ("replay.directory", "/tmp/x", "/tmp/x"),
        ("steps", 5000, 5000),  # as many as train.prefill
        ("eval.videos", 10, 10),  # as many as eval.episodes
        ("loss.overshooting", 50, 50),  # as many as train.batch_length
    ],
)
def test_values_as_typed_or_in_python(name: str, given: Any, meant: Any):
    value = load_config(overrides={name: given}).flat()[name]
    assert value == meant and type(value) is type(meant)


def test_keys_are_keywords_too():
    by_name = load_config("small", overrides={"steps": 1e5, "train.batch_size": 8, "log.every": 5})
    keywords = {"train": {"batch_size": 8}, "log.every": 5}
    assert load_config("small", steps=1e5, **keywords) == by_name
    assert load_config("small").replace(steps="1e5", **keywords) == by_name
    assert load_config("small", task="dmc_cup_catch").task == "dmc_cup_catch"
    for given, words in (
        ({"train_batch_size": 8}, "did you mean 'train.batch_size'"),
        ({"train": 8}, "'train' is a group of keys"),
        ({"steps": "many"}, "steps must be a whole number"),
        ({"steps": 5e4, "overrides": {"steps": 1e5}}, "steps is given twice: 100000.0 and 50000.0"),
    ):
        with pytest.raises(UserError, match=words):
            load_config(**given)
    with pytest.raises(UserError, match="presets are names"):
        load_config(["small"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"train.bach_size": 1}, "unknown key 'train.bach_size'; did you mean 'train.batch_size'?"),
        ({"batch_size": 1}, "did you mean 'train.batch_size'?"),
        ({"train": 1}, "'train' is a group of keys, give one of train.batch_size"),
        ({"zzzzzzz": 1}, "unknown key 'zzzzzzz'; --help lists all keys"),
        ({"steps": "many"}, "steps must be a whole number, not 'many'"),
        ({"steps": 1.5}, "steps must be a whole number, not 1.5"),
        ({"steps": True}, "steps must be a whole number, not True"),
        ({"steps": "nan"}, "steps must be a whole number, not 'nan'"),
        ({"steps": "1e30"}, "steps must be at most 1e12"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"behavior.gamma": 1.5}, "behavior.gamma must be at most 1, not 1.5"),
        ({"behavior.gamma": "inf"}, "behavior.gamma must be a number, not 'inf'"),
        ({"optimizer.actor_lr": 0}, "optimizer.actor_lr must be above 0, not 0.0"),
        ({"deterministic": 1}, "deterministic must be true or false, not 1"),
        ({"deterministic": "yes"}, "deterministic must be true or false, not 'yes'"),
        ({"jit": "onn"}, "jit must be one of auto, on, off, not 'onn'; did you mean 'on'?"),
        ({"jit": True}, "jit must be text, not True"),
        ({"encoder.keys": "(("}, "encoder.keys must be a regular expression"),
        ({"method": "a\nb"}, "method must be printable text"),
        ({"logdir": ""}, "logdir is empty"),
        ({"logdir": "s3://bucket/runs"}, "s3://bucket/runs', an address; expected a folder"),
        ({"task": "dcm_walker_walk"}, "unknown suite in task 'dcm_walker_walk'"),
        ({"envs.image": False}, "the agent would see nothing"),
        ({"train.overlap": True, "deterministic": True}, "train.overlap and .* are both true"),
        ({"eval.videos": 11}, r"eval.videos \(11\) must not exceed eval.episodes \(10\)"),
        ({"loss.overshooting": 51}, r"loss.overshooting \(51\) must not exceed train.batch_len"),
        ({"reward.bins": 1}, "reward.bins is 1, so no bin is in the middle; choose an odd number"),
        ({"value.bins": 2}, "value.bins is 2, .* from 3 on .*, or 0 for a head without bins"),
        ({"value.bins": 254}, "value.bins is 254, so no bin"),
        ({"rssm.classes": 1}, "rssm.classes is 1, but a choice needs 2 or more; set it to 0"),
        ({"rssm.blocks": 8, "rssm.deter": 20}, "rssm.deter is 20, .* rssm.blocks, 8; choose 24"),
        ({"rssm.blocks": 8, "rssm.gru_norm": True}, "rssm.blocks is 8 and rssm.gru_norm is true"),
        ({"contrastive.init_std": 0.01}, r"contrastive.init_std \(0.01\) must be above"),
        ({"steps": 4999}, r"train.prefill \(5000\) must not .* set steps to at least 5000, or"),
        (
            {"disagreement.until": 1e6, "steps": 1e6},
            r"until \(1000000\) must be below steps \(1000000\).* --disagreement.until, .* 200000 ",
        ),
    ],
)
def test_bad_values_are_refused_in_one_line(overrides: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words.replace("?", r"\?")) as caught:
        load_config(overrides=overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("presets", "words"),
    [
        ("v3 size10m", "unknown preset 'size10m'; the nearest size is 'size12m'"),
        ("v3 size400m", "the nearest size is 'size200m'"),
        ("v3 sise1m", "did you mean 'size1m'"),
        ("v3 planet", "value.replay_scale needs behavior.policy actor .*; set it to 0"),
        ("v3 no_value", "value.replay_scale needs .* behavior.value true"),
        ("v3 stochastic_only", "rssm.blocks is 8 and rssm.kind is stochastic_only"),
        ("v3 deterministic_only", "rssm.classes is 64, but rssm.kind deterministic_only has no"),
        ("v2 deterministic_only", "rssm.classes is 32, but rssm.kind deterministic_only has no"),
    ],
)
def test_recipes_and_presets_that_exclude_each_other(presets: str, words: str):
    for order in (1, -1):
        with pytest.raises(UserError, match=words) as caught:
            load_config(*presets.split()[::order])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: 3", "'train' in preset .* is a group of keys, not 3"),
        ("train: {batch_size: [1]}", "train.batch_size in preset .* must be a whole number"),
        ("train: {bach_size: 1}", "unknown key 'train.bach_size' in preset .* did you mean"),
        ("steps:", "steps in preset .* must be a whole number, not None"),
        ("steps: 2020-01-01", "steps in preset .* must be a whole number"),
        ("jit: 1", "jit in preset .* must be text, not 1"),
        ("inherit: small", "'inherit' in preset .* must be a list of preset names"),
        ("inherit: [smal]", "unknown preset 'smal'; did you mean 'small'"),
        ("- a\n- b", "holds a list, expected 'key: value' lines"),
        ("just words", "holds a str, expected"),
        ("1: 2", "the key 1 is no text"),
        ("steps: 1\nsteps: 2", "line 2: found duplicate key"),
        ("steps: [1", "plain 'key: value' lines are expected"),
        ("steps: !!python/object/apply:os.getpid []", "could not determine a constructor"),
        ("steps: !!python/name:os.system", "could not determine a constructor"),
        ("!!python/object/new:dict {}", "could not determine a constructor"),
        ("a: &a [1, *a]", "unknown key 'a' in preset"),
        ("a: " + "[" * 1000, "plain 'key: value' lines are expected"),
        ("a: *nothing", "undefined alias"),
        ("a: \x01", "plain 'key: value' lines are expected"),
    ],
)
def test_bad_preset_files_are_refused_in_one_line(tmp_path: Path, text: str, words: str):
    path = write(tmp_path / "mine.yaml", text)
    with pytest.raises(UserError, match=words) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path):
    (tmp_path / "bytes.yaml").write_bytes(b"steps: \xff\xfe")
    (tmp_path / "large.yaml").write_bytes(b"#" * 1_000_001)
    for name, words in (("bytes", "not UTF-8"), ("large", "larger than"), ("absent", "no preset")):
        with pytest.raises(UserError, match=words):
            load_config(str(tmp_path / f"{name}.yaml"))
    with pytest.raises(UserError, match="Is a directory"):
        read_yaml(tmp_path)
    # A preset of the user's own may be a link.
    (tmp_path / "link.yaml").symlink_to(write(tmp_path / "mine.yaml", "seed: 7"))
    assert load_config(str(tmp_path / "link.yaml")).seed == 7
    with pytest.raises(UserError, match="it is a link, which is not followed"):
        read_yaml(tmp_path / "link.yaml", of_run=True)


def test_repeated_aliases_do_not_blow_up(tmp_path: Path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(UserError, match="unknown key 'a0'"):
        load_config(write(tmp_path / "mine.yaml", "\n".join(lines)))


def test_a_config_survives_yaml():
    config = load_config("debug", overrides={"optimizer.eps": 1e-7, "jit": "off"})
    tree = parse_yaml(format_yaml(config.tree()), name="text")
    assert tree == config.tree()
    assert list(tree) == list(config.tree())


def test_short_numbers():
    shown = [number(v) for v in (5_000_000, 1000, 2.5e5, 6e-4, 1e-7, 0.99, 50, 123_457, 0)]
    assert shown == ["5e6", "1000", "2.5e5", "6e-4", "1e-7", "0.99", "50", "123457", "0"]


def test_a_presets_overlap_gives_way_to_determinism(tmp_path: Path):
    preset = tmp_path / "beside.yaml"
    preset.write_text("train: {overlap: true}")
    assert load_config(str(preset)).train.overlap
    assert not load_config(str(preset), deterministic=True).train.overlap
    with pytest.raises(UserError, match="train.overlap and deterministic are both true"):
        load_config(str(preset), overrides={"train.overlap": True, "deterministic": True})
