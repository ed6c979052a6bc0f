"""3. Checkpoints are complete or absent; a run names a damaged one and uses the one before."""

import shutil
import warnings
from pathlib import Path

from checkpoint_damage import DAMAGES
from fault_runs import Figure
from test_checkpoints import ARRAYS, STATE, newest

from dreamer.runs.checkpoints import Checkpoints


def test_every_kind_of_damage_at_once_in_turn(tmp_path: Path, figure: Figure):
    """Killed writers are in tests/runs/test_checkpoints.py and test_01_kill.py."""
    for name, damage in DAMAGES.items():
        store = Checkpoints(tmp_path / name / "checkpoints", keep=2)
        store.save(1000, ARRAYS, STATE)
        store.save(2000, ARRAYS, STATE)
        damage(newest(store))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loaded = store.load_latest()
        assert loaded is not None and loaded.step == 1000 and loaded.state == STATE, name
        (warning,) = caught
        assert str(newest(store)) in str(warning.message)
        assert str(store.directory / "000000001000") in str(warning.message)
        store.save(3000, ARRAYS, STATE)  # and the run goes on
        assert store.load_latest().step == 3000  # type: ignore[union-attr]
        shutil.rmtree(tmp_path / name)
    figure(f"damaged in {len(DAMAGES)} ways: the one before is used, with a warning naming both")
