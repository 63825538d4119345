"""Progress: numbers first and the bar last, never a zero rate, a line now and then in a log."""

from __future__ import annotations

import io
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nabla.core import display
from nabla.core.display import Display, Line, duration, rate, rendered

LINE = Line(
    "latin nabla-reasoner seed 0 shard 1",
    23,
    64,
    made=23.5,
    seconds=400.0,
    left=697.0,
    flying=0.5,
    notes=("61.0 % right", "reward 0.83", "accepted 12, rejected 30", "1,234,567 calls, 1.23e+10 FLOPs"),
)


@pytest.mark.parametrize(
    ("made", "seconds", "text"),
    [
        (1200, 60, "20 problems/s"),
        (90, 60, "1.5 problems/s"),
        (41, 600, "4.1 problems/min"),
        (1, 75, "75 s/problem"),
        (0.5, 600, "20 min/problem"),
        (1, 9000, "2 h 30 min/problem"),
    ],
)
def test_rates(made, seconds, text):
    assert rate(made, seconds) == text


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e7))
def test_no_rate_is_zero(made, seconds):
    assert not re.match(r"0(\.0)? ?(problems|/)", rate(made, seconds))
    assert not re.match(r"0(\.0)?/", rate(made, seconds, "", ""))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (100, "2 min"), (3600, "60 min"), (8040, "2 h 14 min"), (273600, "3 d 4 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_at_80_columns_the_numbers_come_first_and_the_bar_last():
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None, highlight=False)
    console.print(rendered([LINE, Line("run", 215, 768)], 80))
    first, second = (line.rstrip() for line in out.getvalue().splitlines())
    numbers = r"23/64  3\.5/min  12 min left  61\.0 % right  reward 0\.83"
    assert re.fullmatch(numbers + r"  [\w -]* ?[━╸╺ -]+", first)
    assert len(first) <= 80
    assert second.startswith("215/768  run")


@given(st.integers(1, 300))
def test_whatever_the_width_a_line_stays_one(width):
    text, bar = LINE.shown(width)
    assert len(text) + (bar + 1 if bar else 0) <= width
    assert text.startswith("23/64"[:width])


def test_a_log_has_everything():
    assert LINE.written() == (
        "latin nabla-reasoner seed 0 shard 1: 23/64 problems, 3.5 problems/min, 12 min left, 61.0 % right, "
        "reward 0.83, accepted 12, rejected 30, 1,234,567 calls, 1.23e+10 FLOPs"
    )
    assert Line("run", 0, 3).written() == "run: 0/3 problems"  # nothing is known yet


def test_without_a_terminal_a_line_comes_now_and_then(capsys):
    with Display(lambda: [Line("run", 1, 3)], every=0.05):
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 6
    assert set(lines) == {"run: 1/3 problems"}
    with Display(lambda: [Line("run", 1, 3)], on=False, every=0.01):
        time.sleep(0.05)
    with Display(lambda: [Line("run", 1, 3)]):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_log_that_goes_on_for_long_gets_fewer_lines(monkeypatch):
    waits = []

    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls):
            return cls.now

    class Event:
        def wait(self, seconds):
            waits.append(seconds)
            Clock.now += seconds
            return len(waits) > 200

        def set(self):
            pass

    monkeypatch.setattr(display, "time", Clock)
    monkeypatch.setattr(display.threading, "Event", Event)
    Display(list)._write()
    assert waits[0] == display.EVERY
    assert waits[-1] == display.SELDOM
    assert waits == sorted(waits)


def test_on_a_terminal_it_is_live(monkeypatch):
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    monkeypatch.setattr(display, "make_console", lambda **_: console)
    with Display(lambda: [LINE]):
        time.sleep(0.1)
    assert "23/64" in out.getvalue()
