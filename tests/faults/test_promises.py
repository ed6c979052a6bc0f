"""The table of promises tells what was not tested."""

from __future__ import annotations

import pytest
from promises import verdict


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["passed", "passed"], "kept"),
        (["passed", "skipped", "passed", "skipped"], "kept, 2 skipped"),
        (["skipped"], "skipped"),
        (["passed", "failed", "skipped"], "BROKEN"),
    ],
)
def test_skipped_tests_are_said(outcomes: list[str], expected: str):
    assert verdict(outcomes) == expected
