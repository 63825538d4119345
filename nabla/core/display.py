"""How far work has come: lines that renew themselves on a terminal, one now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nabla.core.console import make_console

#: Seconds between two lines of a log at first; a 50th of the time that has passed later on, up to the second.
EVERY, SELDOM = 30.0, 300.0
#: Columns that a bar needs.
_BAR = 8


@dataclass(frozen=True)
class Line:
    """How far one thing has come.

    Args:
        name: of it.
        done, total: problems.
        made: problems of this run, those in flight in part, over
        seconds: of this run.
        left: seconds until the end; None where nothing is known yet.
        flying: problems in flight, in parts of a problem.
        notes: further numbers, what matters most first.
    """

    name: str
    done: int
    total: int
    made: float = 0.0
    seconds: float = 0.0
    left: float | None = None
    flying: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Of the work."""
        return min(1.0, (self.done + self.flying) / max(self.total, 1))

    def written(self) -> str:
        """For a log."""
        parts = [f"{self.done}/{self.total} problems", *self._pace(" problems", "problem")]
        return f"{self.name}: {', '.join([*parts, *self._left(), *self.notes])}"

    def shown(self, width: int) -> tuple[str, int]:
        """(text, columns of the bar behind it) for a terminal: the numbers first, notes and the name as far
        as there is room, and at last the bar."""
        text = "  ".join([f"{self.done}/{self.total}", *self._pace("", ""), *self._left()])
        for note in self.notes:
            if len(text) + 2 + len(note) + 1 + _BAR <= width:
                text += f"  {note}"
        name = self.name[: max(width - len(text) - 3 - _BAR, 0)].rstrip()
        text = f"{text}  {name}" if name else text
        bar = min(width - len(text) - 1, 40)
        return text[:width], bar if bar >= _BAR else 0

    def _pace(self, things: str, thing: str) -> list[str]:
        return [rate(self.made, self.seconds, things, thing)] if self.made and self.seconds else []

    def _left(self) -> list[str]:
        return [] if self.left is None else [f"{duration(self.left)} left"]


def rate(made: float, seconds: float, things: str = " problems", thing: str = "problem") -> str:
    """``12 problems/s``, ``4.1 problems/min`` or, where it is slower, ``75 s/problem``: never a zero."""
    per_minute = 60 * made / seconds
    if per_minute >= 600:
        return f"{per_minute / 60:.0f}{things}/s"
    if per_minute >= 60:
        return f"{per_minute / 60:.1f}{things}/s"
    if per_minute >= 1:
        return f"{per_minute:.1f}{things}/min"
    return f"{duration(seconds / made)}/{thing}" if thing else f"{duration(seconds / made)} each"


def duration(seconds: float) -> str:
    """``42 s``, ``10 min``, ``2 h 14 min``, ``3 d 4 h``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours + (minutes >= 30), 24)
    return f"{days} d {hours} h"


class Display:
    """Shows lines on standard error while something else works: a context.

    Args:
        lines: how far everything has come; called from another thread, twice a second on a terminal.
        on: False shows nothing.
        every: seconds between two lines in a log at first.
    """

    def __init__(self, lines: Callable[[], Sequence[Line]], *, on: bool = True, every: float = EVERY) -> None:
        self._lines, self._on, self._every = lines, on, every
        self._live: Live | None = None
        self._thread: threading.Thread | None = None
        self._end = threading.Event()

    def start(self) -> None:
        """Begins to show."""
        console = make_console(stderr=True)
        if self._on and console.is_terminal:
            self._live = Live(
                console=console, refresh_per_second=2, transient=True, get_renderable=self._rendered
            )
            self._live.start()
        elif self._on:
            self._thread = threading.Thread(target=self._write, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends, and leaves the terminal as it was."""
        self._end.set()
        if self._live is not None:
            self._live.stop()
        if self._thread is not None:
            self._thread.join()
        self._live = self._thread = None

    def __enter__(self) -> Display:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _rendered(self) -> RenderableType:
        return rendered(self._lines(), make_console(stderr=True).width)

    def _write(self) -> None:
        begin = time.monotonic()
        while not self._end.wait(min(SELDOM, max(self._every, (time.monotonic() - begin) / 50))):
            for line in self._lines():
                print(line.written(), file=sys.stderr, flush=True)


def rendered(lines: Sequence[Line], width: int) -> RenderableType:
    """For a terminal of that many columns: a line each, none of them broken."""
    rows: list[RenderableType] = []
    for line in lines:
        text, bar = line.shown(width)
        grid = Table.grid(padding=(0, 1, 0, 0))
        cells: list[RenderableType] = [Text(text, no_wrap=True, overflow="crop")]
        if bar:
            cells.append(ProgressBar(total=1.0, completed=line.share, width=bar))
        grid.add_row(*cells)
        rows.append(grid)
    return Group(*rows)
