"""Somebody else's function, with a limit on its time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class Late(Exception):
    """The time was over before the function returned."""


class _Alarm(BaseException):
    """Goes through the function's own ``except Exception``."""


def within(seconds: float | None, function: Callable[..., T], *arguments: Any) -> T:
    """``function(*arguments)``. Raises what it raises, and Late when ``seconds`` are over (None: no limit).

    In the main thread an alarm interrupts it, loops of Python code at any place and system calls too; a loop
    in C code that never looks at signals is not ended. Elsewhere, and on systems without alarms, the function
    goes on in a thread of its own that nobody waits for.
    """
    if seconds is None:
        return function(*arguments)
    main = threading.current_thread() is threading.main_thread()
    if main and hasattr(signal, "setitimer"):
        return _alarmed(seconds, function, arguments)
    return _threaded(seconds, function, arguments)


def _alarmed(seconds: float, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    over = False

    def ring(_: int, __: FrameType | None) -> None:
        if not over:  # an alarm may still be on its way while the timer is stopped
            raise _Alarm

    before = signal.signal(signal.SIGALRM, ring)
    begin = time.monotonic()
    # Again and again, should the function catch the first one.
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, min(seconds, 1.0))
    try:
        return function(*arguments)
    except _Alarm:
        raise Late from None
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # an alarm that was set by somebody else
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begin), 1e-3), interval)


def _threaded(seconds: float, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    found: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            found.append(function(*arguments))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise Late
    if raised:
        raise raised[0]
    return found[0]
