"""Published scores and curves from baselines/published/."""

from __future__ import annotations

import pytest

from dreamer.errors import UserError
from plots.published import Published

HEAD = "suite,task,method,frames,mean,std,seeds,source\n"
PUBLISHED = Published()


def test_scores_and_curves():
    task = "dmc_walker_walk"
    assert PUBLISHED.point(task, "dreamer").score == pytest.approx(961.67, abs=10)
    assert PUBLISHED.point(task, "dreamer").frames == 5_000_000
    curve = PUBLISHED.curves[task, "dreamer_tf2_release"]
    assert len(curve.frames) == 50 and curve.frames[-1] == 4_900_000
    assert (task, "a3c") not in PUBLISHED.curves
    assert PUBLISHED.point("dmc_quadruped_run", "d4pg") is None
    assert PUBLISHED.point(task, "nobody") is None


def test_curves_are_read_at_any_frames():
    task, method = "dmc_cartpole_balance", "dreamer_tf2_release"
    at = {frames: PUBLISHED.point(task, method, frames) for frames in (2e5, 2.5e5, 3e5, 4.95e6)}
    middle = (at[2e5].score + at[3e5].score) / 2
    assert at[2.5e5].score == pytest.approx(middle) and at[2.5e5].frames == 250_000
    assert at[4.95e6].frames == 4_900_000 and at[4.95e6].seeds == 4
    assert PUBLISHED.point(task, method, 6e6) is None
    assert PUBLISHED.point(task, "dreamer", 1e6) is None
    assert PUBLISHED.point(task, "dreamer", 5e6).seeds == 5


def test_figure_readings_are_kept_apart():
    assert "no_value" not in PUBLISHED.methods and "reconstruction" not in PUBLISHED.methods
    assert PUBLISHED.figures == ["fig4", "fig7", "fig8"]
    rows = PUBLISHED.ablation("fig4")
    assert len(rows) == 96 and all(row.approximate and row.frames is None for row in rows)


@pytest.mark.parametrize("text, message", [
    (None, "No published figures"),
    ("a,b\n1,2\n", "needs the columns"),
    (HEAD + "dmc,x,m,0,oops,1,5,here\n", "line 2: could not convert"),
    (HEAD + "dmc,x,m,0,1,1,5,here\ndmc,x,m,1,nan,1,5,here\n", "line 3: score is nan"),
    (HEAD + "dmc,x\n", "line 2")])
def test_foreign_and_missing_files_are_refused(tmp_path, text, message):
    if text:
        (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        Published(tmp_path)
