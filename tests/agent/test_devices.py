"""Two devices that share a batch do what one does, within the rounding of float32."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from whole_runs import DEBUG, ROOT, RUN, finish, metrics_of, python, start, state_of

from dreamer.config.config import load_config
from dreamer.errors import UserError
from dreamer.run import train

# Of the largest entry of each array. Measured: 4e-7 for gradients, 6e-6 after five updates of Adam,
# whose first steps divide small gradients by their size.
GRADIENTS, WEIGHTS = 1e-5, 1e-4
TWO = {**os.environ, "DREAMER_CPU_DEVICES": "2"}


@pytest.fixture(scope="module")
def checks() -> dict[str, Any]:
    """Results of the checks of tests/replica_checks.py, in a process with two CPU devices."""
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = python("tests/replica_checks.py", timeout=1200, **path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_metrics_and_weights_agree_over_several_updates(checks: dict[str, Any]):
    found = checks["updates"]
    assert found["start"][0] == 0.0  # the same initial weights, bit for bit
    for difference, name, norm in found["metrics"]:
        assert difference < WEIGHTS, name
        assert norm > 2.0  # clipped at 1
    difference, name = found["weights"]
    assert difference < WEIGHTS, name
    # What is not finite on one device skips the step on both.
    assert (found["skipped"], found["nonfinite"]) == (1.0, 1.0)
    assert found["kept"] and found["copies_differ"] == 0
    assert found["loaded"]  # arrays go from two devices to one and back


@pytest.mark.slow
def test_statistics_and_slow_copies_are_those_of_the_whole_batch(checks: dict[str, Any]):
    difference, name = checks["statistics"]["worst"]
    assert difference < WEIGHTS, name
    assert checks["statistics"]["copies_differ"] == 0


@pytest.mark.slow
def test_the_clipping_acts_on_the_reduced_gradient(checks: dict[str, Any]):
    found = checks["clipping"]
    assert found["clipped"][0] < GRADIENTS, found["clipped"]
    assert found["by_halves"][0] > 0.1  # so the other order would be seen


@pytest.mark.slow
def test_the_free_nats_act_on_the_mean_of_the_whole_batch(checks: dict[str, Any]):
    """One half's KL is below them and the other's above, whichever side the whole's is on."""
    whole = checks["free_nats"]["whole"]
    for name in ("above", "below"):
        found = checks["free_nats"][name]
        low, high = sorted(found["halves"])
        assert low < found["free"] < high and (whole > found["free"]) == (name == "above")
        assert found["kl_loss"] == pytest.approx(max(whole, found["free"]), rel=1e-6)
        assert found["worst"][0] < GRADIENTS, found["worst"]
        assert (found["prior_gradient"] > 0.0) == (name == "above")


@pytest.mark.slow
def test_every_objective_agrees(checks: dict[str, Any]):
    for name, (difference, where) in checks["variants"].items():
        assert difference < GRADIENTS, f"{name}: {where}"


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(tmp_path: Path):
    words = [*DEBUG, "--logdir", tmp_path, "--train.devices"]
    status, output, errors = finish(start("dreamer.run", *words, 2, "--steps", 240, env=TWO))
    assert status == 0, errors
    assert "every batch is shared by 2 devices: CPU:0, CPU:1" in output
    run = tmp_path / RUN
    assert state_of(run)["update"] == metrics_of(run)[-1]["updates"] > 2
    status, output, errors = finish(start("dreamer.run", *words, 1, "--steps", 320))
    assert status == 0, errors
    assert "resumed at step 240, update" in output
    status, _, errors = finish(start("dreamer.run", *words, 2, "--steps", 400, env=TWO))
    assert status == 0, errors
    assert metrics_of(run)[-1]["step"] == 400
    assert list((run / "videos").glob("*.gif"))


def test_more_devices_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cpus = tf.config.list_logical_devices("CPU")
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind: cpus if kind == "CPU" else []
    )
    values = {"encoder.keys": "vector", "decoder.keys": "vector", "train.devices": 0}
    task = f"{ROOT}/tests/counting_env.py:make"
    config = load_config("debug", task=task, overrides={**values, "logdir": str(tmp_path)})
    message = "train.devices is 0, which is all there are, but TensorFlow finds 1: CPU:0;"
    with pytest.raises(UserError, match=message):
        train(config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("values", "message"), [
    ({"train.devices": 3}, "train.batch_size is 50, which 3 devices cannot share evenly"),
    ({"train.devices": 64}, "choose a multiple, such as 64"),
    ({"train.devices": 2, "jit": "on"}, "jit is on, but 2 devices share each update"),
    ({"train.devices": -1}, "train.devices must be at least 0"),
])  # fmt: skip
def test_what_several_devices_cannot_do_is_refused_at_once(values: dict, message: str):
    with pytest.raises(UserError, match=message):
        load_config(overrides=values)


@pytest.mark.parametrize("agent", ["random", "planet", "d4pg", "a3c", "latent_sac", "dqn"])
def test_compared_agents_train_on_one_device(agent: str):
    with pytest.raises(UserError, match="train.devices"):
        load_config(overrides={"train.devices": 2}, agent=agent)
