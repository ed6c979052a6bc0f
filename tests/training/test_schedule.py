"""The exact ratio of updates to steps."""

from __future__ import annotations

import pytest

from dreamer.training.schedule import UpdateSchedule

PUBLISHED = UpdateSchedule(prefill=5000, pretrain=100, every=1000, updates=100)


@pytest.mark.parametrize(
    ("step", "updates"),
    [(0, 0), (4999, 0), (5000, 100), (5001, 100), (5010, 101), (6000, 200), (7000, 300),
     (5_000_000, 100 + 4_995 * 100)],
)  # fmt: skip
def test_published_ratio(step: int, updates: int) -> None:
    assert PUBLISHED.due(step) == updates


@pytest.mark.parametrize("stride", [1, 2, 7, 1000, 1500])
def test_the_ratio_does_not_depend_on_how_the_steps_come(stride: int) -> None:
    made = 0
    for step in range(0, 50_000, stride):
        due = PUBLISHED.due(step)
        assert due >= made
        made = due
    assert made == PUBLISHED.due(step)


def test_more_updates_than_steps_and_none_at_all() -> None:
    assert UpdateSchedule(10, 0, 2, 5).due(14) == 10
    assert UpdateSchedule(10, 3, 2, 0).due(1000) == 3


def test_a_new_ratio_counts_from_the_step_of_the_change() -> None:
    before = UpdateSchedule(prefill=50, pretrain=3, every=30, updates=7)
    now = UpdateSchedule(prefill=50, pretrain=3, every=10, updates=20)
    changed = now.after(before, 200)
    assert changed.due(200) == before.due(200) == 38
    assert changed.due(250) == 38 + 100
    assert changed.after(changed, 300) == changed
    assert now.after(changed, 300) == changed  # resumed again with the same values
    assert now.after(before, 40) == now  # during the prefill
