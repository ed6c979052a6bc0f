"""Work in the background of a block: both run at once, and errors of both are raised."""

from __future__ import annotations

import threading

import pytest

from dreamer.system.threads import AbandonedError, in_background


def test_both_go_on_at_once():
    """Each side waits for the other: one after the other would never end."""
    seen, answered = threading.Event(), threading.Event()

    def work(check):
        seen.set()
        assert answered.wait(120)

    with in_background(work):
        assert seen.wait(120)
        answered.set()


def test_an_error_in_the_background_comes_after_the_block():
    made = []

    def work(check):
        raise OSError("the environment is gone")

    with pytest.raises(OSError, match="is gone"), in_background(work):
        made.append("updates")
    assert made == ["updates"]


def test_an_error_in_the_block_ends_the_background_and_goes_first():
    ended = []

    def work(check):
        try:
            while True:
                check()
        except AbandonedError as error:
            ended.append(error)
            raise

    with pytest.raises(ZeroDivisionError), in_background(work):
        raise ZeroDivisionError
    assert len(ended) == 1
