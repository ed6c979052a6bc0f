"""4. Damaged episode files are named, set aside and counted; none reaches a batch."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from episode_samples import DAMAGES, assert_same, file_arrays, make_episode, mutate, open_and_check
from fault_runs import Figure
from ordinary_user import ordinary_user

from dreamer.data.episodes import EpisodeError, save_episode
from dreamer.data.replay import DamagedEpisodeWarning, Replay
from dreamer.envs.spec import Space

F32 = np.dtype(np.float32)
SPACES = {
    "image": Space((8, 8, 3), np.dtype(np.uint8), 0, 255),
    "position": Space((4,), F32),
}


def make_replay(folder: Path) -> Replay:
    action = Space((2,), F32, -1.0, 1.0)
    return Replay(folder, cache_bytes=0, seed=0, obs_space=SPACES, act_space=action)


def content(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    readable = [path for path in paths if os.access(path, os.R_OK, effective_ids=True)]
    return {path.name: path.read_bytes() if path in readable else b"" for path in paths}


def test_every_kind_of_damage_in_one_folder(figure: Figure):
    kinds = {kind: damage for kind, (damage, _) in DAMAGES.items() if kind != "gone"}
    bad = []
    with ordinary_user() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        good = save_episode(folder, make_episode(20), "sound")
        for number, damage in enumerate(kinds.values()):
            bad.append(save_episode(folder, make_episode(20, seed=number + 1), f"bad{number}"))
            damage(bad[-1])
        before = content(folder)
        replay = make_replay(folder)
        batches = [replay.sample(index, 8, 10) for index in range(40)]
        assert not any(path.exists() for path in bad)
        assert all(os.path.lexists(folder / "damaged" / path.name) for path in bad)
        assert content(folder) == before  # nothing is deleted
        again = make_replay(folder).sample(39, 8, 10)
    assert_same(again, batches[39])
    said = [str(w.message) for w in caught if issubclass(w.category, DamagedEpisodeWarning)]
    assert replay.damaged == len(said) == len(kinds) and replay.members == [good.name]
    for path in bad:
        assert sum(str(path) in text for text in said) == 1
    known = {tuple(row) for row in make_episode(20)["position"]}
    assert all(tuple(row) in known for b in batches for row in b["position"].reshape(-1, 4))
    figure(f"{len(kinds)} kinds of damage: named, set aside and counted; none in a batch")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("amount", [300, pytest.param(6000, marks=pytest.mark.faults)])
def test_mutations(tmp_path: Path, figure: Figure, amount: int, compressed: bool):
    episode = make_episode(10)
    path = save_episode(tmp_path, episode, "a")
    if compressed:
        np.savez_compressed(path, **file_arrays(episode))
    raw, rng, refused = path.read_bytes(), np.random.default_rng(amount + 1), 0
    for _ in range(amount):
        path.write_bytes(mutate(raw, rng))
        try:
            got = open_and_check(path).read()
        except EpisodeError:
            refused += 1
            continue
        assert_same(got, episode)
    assert refused > amount / 3
    figure(f"{amount} random mutations: {refused} refused, the others harmless, no other error")
