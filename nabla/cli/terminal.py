"""What a command meets outside: outputs that are closed, full or know ASCII alone, and signals that end it.

A command goes on when nobody can read what it prints: what it computes is stored all the same, and the last
word (an exit status, a message where there still is a place for one) says what was not shown.
"""

from __future__ import annotations

import codecs
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO, cast

#: Of signs that a terminal's encoding has not; all others are written as their escapes.
_SIGNS = {
    "⟦": "[[", "⟧": "]]", "→": "->", "±": "+-", "·": "*", "×": "x", "≥": ">=", "≤": "<=", "−": "-",
    "–": "-", "∇": "nabla", "∂": "d", "√": "sqrt", "∫": "int", "Σ": "sum", "π": "pi", "τ": "tau",
    "ρ": "rho", "δ": "delta", "θ": "theta", "β": "beta", "γ": "gamma", "α": "alpha", "ε": "eps",
    "λ": "lambda", "σ": "sigma", "½": "1/2", "²": "^2", "ᵀ": "^T", "—": "-", "’": "'", "…": "...",
    "│": "|", "─": "-",
}  # fmt: skip


def _spelt(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    text = "".join(_SIGNS.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs)
    return text, error.end


codecs.register_error("nabla", _spelt)


#: Seconds within which further signals say the same: a key that is held, a shell that tells a whole group.
PRESS = 1.0
_AT_ONCE = b"\nnabla: error: Interrupted again, and ended at once. What was stored until then is kept.\n"


class Output:
    """A stream that takes everything: once it fails it is lost, and what comes later is dropped.

    Args:
        stream: what is written to; None where the process was started without one.
    """

    def __init__(self, stream: Any) -> None:
        self._closed = stream is None
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        #: Why it is lost.
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Like a text stream's."""
        if self._closed:
            self.lost = OSError(errno.EBADF, "it is closed")
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Like a text stream's."""
        self._try(self._stream.flush)

    def _try(self, action: Any, *arguments: Any) -> None:
        if self.lost is None:
            try:
                action(*arguments)
            except OSError as error:
                self.lost = error
            except ValueError as error:  # closed by somebody in this process
                self.lost = OSError(errno.EBADF, str(error))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:
        """Like a text stream's; UTF-8 for one that holds text and has none (``io.StringIO``)."""
        return str(getattr(self._stream, "encoding", None) or "utf-8")

    def settle(self) -> None:
        """After a loss: the interpreter's own flush at the end has nothing left to fail with."""
        if self.lost is not None and not self._closed:
            with suppress(OSError, ValueError):
                number = self._stream.fileno()
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                os.close(nowhere)


@contextmanager
def outputs() -> Iterator[Output]:
    """Standard output and standard error that take everything; gives the first."""
    _occupy()
    before = sys.stdout, sys.stderr
    out, err = Output(sys.stdout), Output(sys.stderr)
    settings = {name: getattr(sys.stdout, name, None) for name in ("encoding", "errors")}
    _reconfigure(sys.stdout, errors="nabla")
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
        out.settle()
        err.settle()
        _reconfigure(sys.stdout, **{name: value for name, value in settings.items() if value})


def as_data() -> None:
    """What standard output gets from here on is for programs: UTF-8 whatever the locale says."""
    _reconfigure(sys.stdout, encoding="utf-8", errors="backslashreplace")


def _reconfigure(stream: Any, **settings: str) -> None:
    change = getattr(stream, "reconfigure", None)  # no stream of a file: a test's, a notebook's
    if change is not None:
        with suppress(OSError, ValueError):  # it cannot be flushed
            change(**settings)


def _occupy() -> None:
    """A file that is opened while descriptor 1 is closed would get it, and all that libraries print."""
    while True:
        number = os.open(os.devnull, os.O_RDWR)
        if number > 2:
            os.close(number)
            return


class Terminated(KeyboardInterrupt):
    """A signal asks the process to end.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end a run so that it keeps what it has, and says so; one that comes later
    than that of the same press of keys ends it at once, with a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    ours = (signal.SIG_DFL, signal.default_int_handler)  # nohup ignores SIGHUP, a shell's & ignores SIGINT
    end = _Ender()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in ours:
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Ender:
    """Takes the signals that end a run."""

    def __init__(self) -> None:
        self._begin: float | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self._begin is None:
            self._begin = time.monotonic()
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)
        if time.monotonic() - self._begin < PRESS:
            return
        with suppress(OSError):
            os.write(2, _AT_ONCE)
        os._exit(128 + number)
