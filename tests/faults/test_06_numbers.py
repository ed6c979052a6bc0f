"""6. Losses and gradients that are not finite change nothing, are counted, and end a run."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import small_agent
import tensorflow as tf
from fault_runs import FAULTY, Figure, each_agent, newest, run, run_of, words_for

from dreamer.ops.optimizers import INITIAL_SCALE, Optimizer, apply_together
from dreamer.runs.checkpoints import Checkpoints
from dreamer.training.trainer import KEPT_BATCHES, NonFiniteError, NonFiniteGuard

PARTS = ("model", "actor", "value")


def optimizers(scale_loss: bool = False) -> tuple[dict[str, keras.Variable], dict[str, Optimizer]]:
    weights = {name: keras.Variable(np.ones(3, np.float32), name=name) for name in PARTS}
    made = {
        name: Optimizer([weights[name]], 0.1, 1e-7, 100.0, scale_loss, f"{name}_adam")
        for name in PARTS
    }
    return weights, made


def step(made: dict[str, Optimizer], bad: str = "", of: str = "", value: float = np.nan):
    """One update of all parts; the loss or the gradient of the part `bad` is not finite."""
    gradients, losses = {}, {}
    for name, optimizer in made.items():
        gradient = np.full(3, 0.5, np.float32) * optimizer.scale.numpy()
        if (bad, of) == (name, "gradient"):
            gradient[1] = value
        gradients[name] = [tf.constant(gradient)]
        losses[name] = tf.constant(value if (bad, of) == (name, "loss") else 1.0)
    return {k: float(v) for k, v in apply_together(made, gradients, losses).items()}


def values(weights: dict[str, keras.Variable], made: dict[str, Optimizer]) -> list[np.ndarray]:
    slots = [v.numpy() for o in made.values() for v in o.state.values()]
    return [np.array(v) for v in (*(w.numpy() for w in weights.values()), *slots)]


@pytest.mark.parametrize("of", ["gradient", "loss"])
@pytest.mark.parametrize("bad", PARTS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_bad_part_leaves_all_three_as_they_were(bad: str, of: str, value: float):
    weights, made = optimizers()
    assert step(made)["skipped"] == 0
    before = values(weights, made)
    metrics = step(made, bad, of, value)
    assert (metrics["skipped"], metrics["nonfinite"]) == (1.0, 1.0)
    for old, new in zip(before, values(weights, made), strict=True):
        np.testing.assert_array_equal(old, new)
    assert step(made)["skipped"] == 0
    assert not np.array_equal(before[0], weights["model"].numpy())


def test_an_overflow_that_the_loss_scale_explains_only_halves_it():
    weights, made = optimizers(scale_loss=True)
    metrics = step(made, "actor", "gradient", np.inf)
    assert (metrics["skipped"], metrics["nonfinite"]) == (1.0, 0.0)
    scales = {name: float(made[name].scale) for name in PARTS}
    assert scales == {**dict.fromkeys(PARTS, INITIAL_SCALE), "actor": INITIAL_SCALE / 2}
    assert [int(o.good_updates) for o in made.values()] == [0, 0, 0]
    assert all((w.numpy() == 1).all() for w in weights.values())
    made["actor"].scale.assign(1.0)  # no smaller scale is left to mend it
    assert step(made, "actor", "gradient", np.inf)["nonfinite"] == 1.0
    assert step(made, "actor", "loss")["nonfinite"] == 1.0
    assert float(made["actor"].scale) == 1.0


def test_an_agent_that_sees_nonsense_stays_what_it_was(figure: Figure):
    agent = small_agent.make_agent()
    agent.train_step(small_agent.make_batch(), 0)
    before = agent.state_arrays()
    for key in ("reward", "joints"):
        batch = small_agent.make_batch(seed=1)
        batch[key][1, 2] = np.nan if key == "reward" else 3e38
        metrics = agent.train_step(batch, 1)
        assert float(metrics["nonfinite"]) == float(metrics["skipped"]) == 1.0
        assert float(metrics["model_grad_finite"]) == 0.0
        for name, array in agent.state_arrays().items():
            np.testing.assert_array_equal(array, before[name], err_msg=name)
    figure(f"not-a-number in a batch: all {len(before)} arrays of weights and slots unchanged")


def test_batches_are_kept_and_too_many_in_a_row_end_it(tmp_path: Path):
    said: list[str] = []
    guard = NonFiniteGuard(tmp_path / "nonfinite", 3, said.append)
    # Of a higher number but older: the run has gone on from a checkpoint before it.
    older = tmp_path / "nonfinite" / "update-00000999.npz"
    older.parent.mkdir()
    older.write_bytes(b"")
    os.utime(older, (1e9, 1e9))
    batch = {"reward": np.full((2, 3), 3e38, np.float32)}
    good, bad = {"nonfinite": 0.0, "loss": 1.0}, {"nonfinite": 1.0, "loss": np.inf}
    for update in range(0, 30, 3):
        guard.check(update, batch, bad)
        guard.check(update + 1, batch, bad)
        guard.check(update + 2, batch, good)
    assert guard.count == len(said) == 20
    paths = sorted((tmp_path / "nonfinite").iterdir())
    assert [path.name for path in paths] == [f"update-{n:08d}.npz" for n in (22, 24, 25, 27, 28)]
    assert len(paths) == KEPT_BATCHES
    with np.load(paths[0], allow_pickle=False) as kept:
        np.testing.assert_array_equal(kept["reward"], batch["reward"])
    assert "update 28 was not finite (loss inf)" in said[-1] and str(paths[-1]) in said[-1]
    with pytest.raises(NonFiniteError, match="3 updates in a row were not finite"):
        for update in range(30, 33):
            guard.check(update, batch, bad)
    kept = {path.name for path in (tmp_path / "nonfinite").iterdir()}
    assert kept >= {f"update-{n:08d}.npz" for n in (30, 31, 32)}  # those that ended it


@each_agent
def test_a_run_that_only_sees_nonsense_stops_at_its_last_good_checkpoint(
    tmp_path: Path, figure: Figure, agent: str
):
    """Rewards that are finite, but whose squares are not, in a sixth of the episodes."""
    words = words_for(tmp_path, FAULTY, **{"steps": 4000, "train.nonfinite_limit": 2})
    faults = {"DREAMER_TEST_FAULTS": "0.02", "DREAMER_TEST_KINDS": "huge"}
    status, output, errors = run(words, agent=agent, **faults)
    assert status == 65, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    step, arrays, state = newest(run_of(tmp_path))
    checkpoint = Checkpoints(run_of(tmp_path) / "checkpoints").newest()
    assert "2 updates in a row were not finite" in line and str(checkpoint) in line
    assert all(np.isfinite(array).all() for array in arrays.values())
    kept = list((run_of(tmp_path) / "nonfinite").iterdir())
    assert 2 <= len(kept) <= KEPT_BATCHES and "weights and optimizers stay" in output
    figure(f"exit status 65 and the checkpoint of step {step} after 2 such updates in a row")
