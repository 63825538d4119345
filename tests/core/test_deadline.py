from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress

import pytest

from nabla.core.deadline import Late, within


def forever() -> None:
    while True:
        with suppress(Exception):  # what the alarm raises goes through
            time.sleep(0.001)


def stubborn() -> None:
    """Swallows the first alarm."""
    try:
        while True:
            pass
    except BaseException:
        while True:
            pass


@pytest.mark.parametrize("function", [forever, stubborn])
def test_an_endless_function_is_ended(function):
    begin = time.monotonic()
    with pytest.raises(Late):
        within(0.1, function)
    assert time.monotonic() - begin < 5


def test_a_function_in_time_is_itself():
    assert within(5, lambda a, b: a + b, 1, 2) == 3
    assert within(None, lambda: "x") == "x"
    with pytest.raises(KeyError):
        within(5, {}.__getitem__, "x")


def test_an_alarm_that_rings_while_it_is_stopped_is_late_for_nobody(monkeypatch):
    real = signal.setitimer

    def slow(which, seconds, interval=0.0):
        if not seconds:
            signal.raise_signal(signal.SIGALRM)
        return real(which, seconds, interval)

    monkeypatch.setattr(signal, "setitimer", slow)
    assert within(5, lambda: "in time") == "in time"


def test_somebody_else_s_alarm_still_rings():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    old = signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        within(5, time.sleep, 0.01)
        end = time.monotonic() + 5
        while not rung and time.monotonic() < end:
            time.sleep(0.01)
        assert rung
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *old)


def test_in_another_thread_nobody_waits_for_it():
    found = []

    def work() -> None:
        for function in (lambda: time.sleep(30), lambda: 4, lambda: 1 / 0):
            try:
                found.append(within(0.2, function))
            except (Late, ZeroDivisionError) as error:
                found.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert found == [Late, 4, ZeroDivisionError]
