"""Grading processes of this process: started when first needed, replaced when they die."""

from __future__ import annotations

import atexit
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.extras import require_extra

logger = logging.getLogger(__name__)

_START_SECONDS = 120.0
_CHILD = Path(__file__).with_name("child.py")


class Unanswered(Exception):
    """The grading process died or ran out of time over a request."""


@dataclass
class Counts:
    """What happened so far: requests that were answered, and those over which the process was lost."""

    answered: int = 0
    unanswered: int = 0
    started: int = 0


@dataclass(frozen=True)
class Program:
    """What a child process runs, and what it needs.

    Args:
        path: of the program; ``child.py`` says what it has.
        require: raises ConfigError unless what it needs is installed.
        what: it does, for the message where it does not start: "grades mathematical answers".
        fix: for that message.
    """

    path: Path
    require: Callable[[], None]
    what: str
    fix: str


def _require_math_verify() -> None:
    require_extra("eval", "math_verify", purpose="Grading mathematical answers")


#: math-verify's.
MATH = Program(
    Path(__file__).with_name("worker.py"),
    _require_math_verify,
    "grades mathematical answers",
    "It needs the package math-verify: pip install 'math-verify[antlr4_13_2]'.",
)


class GradingProcess:
    """A child process that answers requests one at a time; safe for threads and after a fork.

    A fork gets a process of its own with its next request; two must not share one pipe.

    Args:
        program: what it runs.
    """

    def __init__(self, program: Program = MATH) -> None:
        self.program = program
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self.counts = Counts()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def ask(self, request: dict[str, Any], seconds: int) -> Any:
        """The value of a request.

        Args:
            request: JSON-ready, as the program takes it.
            seconds: CPU time that the request may use. A process that stalls without using any is ended
                after ten times as long.

        Raises Unanswered, and ConfigError if the process cannot be started at all.
        """
        with self._lock:
            process = self._running()
            line = json.dumps({**request, "seconds": seconds}).encode() + b"\n"
            try:
                assert process.stdin is not None
                process.stdin.write(line)
                process.stdin.flush()
                reply = self._read(process, 10.0 * seconds + 10.0)
            except OSError:
                reply = None
            if reply is None:
                self._stop()
                self.counts.unanswered += 1
                raise Unanswered
            self.counts.answered += 1
            return reply["value"]

    def close(self) -> None:
        """Ends the child process; the next request starts another."""
        with self._lock:
            self._stop()

    @property
    def pid(self) -> int | None:
        """Of the child process, if there is one."""
        return None if self._process is None else self._process.pid

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        self.program.require()
        # -P: modules beside the program must not hide packages of their names (math).
        process = self._process = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD), str(self.program.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"},
            start_new_session=True,  # Ctrl-C in the terminal is for the run, which closes this one
        )
        self.counts.started += 1
        hello = self._read(process, _START_SECONDS)
        if hello is None or "error" in hello:
            self._stop()
            raise ConfigError(
                f"The process that {self.program.what} does not start",
                got="no reply" if hello is None else hello["error"],
                fix=self.program.fix,
            )
        return process

    def _read(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any] | None:
        """The next line as JSON; None at the deadline or the end of the pipe."""
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        end = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                return None
            piece = os.read(pipe, 1 << 16)
            if not piece:
                return None
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _stop(self) -> None:
        process, self._process, self._rest = self._process, None, b""
        if process is not None:
            process.kill()
            process.wait()
            _close_pipes(process)

    def _forget(self) -> None:
        """In a forked child: the process and its pipes are the parent's, not ours to end."""
        process, self._process, self._rest = self._process, None, b""
        self._lock = threading.Lock()  # another thread may have held the old one
        self.counts = Counts()
        if process is not None:
            process.returncode = 0  # nothing here to wait for
            _close_pipes(process)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was still to be written went to a dead process
                logger.debug("a pipe of the grading process was broken")


#: The one of this Python process.
grading = GradingProcess()
