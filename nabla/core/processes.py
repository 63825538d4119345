"""Processes that work for this one: started from a program that stands it, ended with it, missed when they
die."""

from __future__ import annotations

import ast
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import FrameType
from typing import Any

from nabla.core.errors import ConfigError, NablaError

#: Seconds between two looks at whether the parent lives.
_EVERY = 0.5


@contextmanager
def spawned(
    count: int, start: Callable[..., object] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, which end when this one is killed, and at once where it is interrupted.

    Args:
        count: of processes.
        start: what each begins with.
        arguments: of that.

    Raises ConfigError for a program that would run itself again in each of them, and NablaError where one of
    them dies.
    """
    require_guarded()
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    found = ProcessPoolExecutor(count, context, _begin, (os.getpid(), start, arguments))
    try:
        yield found
    except BrokenProcessPool as error:
        raise NablaError(
            "A process of this run has died",
            fix="What was finished is kept: start it again, with fewer processes if memory ran out.",
        ) from error
    except (KeyboardInterrupt, SystemExit):  # a signal: nobody waits for what they still do
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        found.shutdown(cancel_futures=True)


def _begin(parent: int, start: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    """Ends this process when the one that started it is killed, and at Ctrl-C without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if start is not None:
        start(*arguments)


def require_guarded() -> None:
    """Raises ConfigError where this is called by a program's own lines, outside of ``if __name__ ==
    "__main__"``: each new process runs them again, and would come here, too. Likewise for a program that is
    piped in, which no process finds."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path and getattr(main, "__spec__", None) is None and not os.path.isfile(path):
        raise no_file(path)
    line = _unguarded()
    if line is not None:
        raise ConfigError(
            "Several processes are started by a line of the program that each of them would run again",
            got=line,
            fix='Put it under: if __name__ == "__main__": (or take one process).',
        )


def no_file(program: str) -> ConfigError:
    """For a program that was piped in or typed, where other processes are to run it too."""
    return ConfigError(
        "Several processes each start this program again, and it is no file",
        got=program,
        fix="Write it to a file and run that, or take one process.",
    )


def _unguarded() -> str | None:
    """``FILE:LINE`` of the main program's line that is running, where no guard is around it; None also where
    the program is no file, which no process runs again."""
    main = vars(sys.modules["__main__"])
    path = main.get("__file__")
    frame: FrameType | None = sys._getframe()
    while frame is not None and not (frame.f_globals is main and frame.f_code.co_name == "<module>"):
        frame = frame.f_back
    if frame is None or not path:
        return None
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return None
    line = frame.f_lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "__name__" in ast.dump(node.test):
            end = node.body[-1].end_lineno or node.lineno
            if node.lineno <= line <= end:
                return None
    return f"{path}:{line}"
