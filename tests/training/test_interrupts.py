"""Signals that ask a run to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from dreamer.training.interrupts import Interrupt, StopRequested

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])


@pytest.fixture(autouse=True)
def heard() -> Iterator[list[int]]:
    """Signals that reach the handlers there were before."""
    numbers: list[int] = []
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, lambda n, frame: numbers.append(n))
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@BOTH
def test_the_first_is_noted_and_raised_at_the_next_check(number: int, heard: list[int]):
    with Interrupt() as interrupt:
        interrupt.check()
        os.kill(os.getpid(), number)
        assert heard == []
        with pytest.raises(StopRequested, match=signal.Signals(number).name) as stop:
            interrupt.check()
    assert stop.value.status == 128 + number


@BOTH
def test_the_second_and_those_after_the_block_act_as_without_us(number: int, heard: list[int]):
    with Interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), number)
        assert heard == [number]
    with Interrupt():
        pass
    os.kill(os.getpid(), signal.SIGINT)
    assert heard == [number, signal.SIGINT]


def test_outside_the_main_thread_it_does_nothing(heard: list[int]):
    outcome: list[object] = []

    def work() -> None:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            interrupt.check()
            outcome.append("went on")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcome == ["went on"]
    assert heard == [signal.SIGINT]


def test_a_hang_up_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGHUP)
        interrupt.check()


def test_what_may_be_broken_off_is():
    reached = []
    stopped = pytest.raises(StopRequested, match="SIGTERM")
    with Interrupt() as interrupt, stopped, interrupt.immediately():
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append("the end")
    assert not reached
    with Interrupt() as interrupt:
        with interrupt.immediately():
            pass
        os.kill(os.getpid(), signal.SIGTERM)  # only noted again
        with pytest.raises(StopRequested), interrupt.immediately():
            reached.append("the beginning")
    assert not reached


def test_a_long_wait_is_broken_off_but_a_short_one_is_not():
    with Interrupt() as interrupt:
        interrupt.while_waiting(100.0)
        os.kill(os.getpid(), signal.SIGTERM)
        interrupt.while_waiting(1.0)
        with pytest.raises(StopRequested):
            interrupt.while_waiting(10.0)
