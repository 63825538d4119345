"""Several processes of one run, by Lightning Fabric: each is this program, started again."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nabla.core.errors import NablaError
from nabla.core.files import warn
from nabla.core.processes import no_file
from nabla.core.quiet import main_process

if TYPE_CHECKING:
    from lightning.fabric import Fabric

#: Seconds between two looks at the other processes.
_EVERY = 0.5
#: Seconds that this process has, once another one ended with an error or by Ctrl-C: most often it meets the
#: same, says it in its own words, and stores what it has.
_MEETS = 30.0
#: Seconds that it has from then on to write down what it has.
_GRACE = 10.0
#: Seconds between two looks at whether the others are about to join.
_SOON = 0.05
#: Variable that names the folder in which they say so.
_DOOR = "NABLA_DOOR"
#: Signals that end a run.
_ENDING = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
#: This process ends, by a signal.
_leaving = threading.Event()
#: The processes that this one has started.
_others: list[subprocess.Popen[bytes]] = []
#: Those of them that were asked to end.
_asked: set[subprocess.Popen[bytes]] = set()
_FIX = "What was finished is kept: start the same command again, with fewer processes if memory ran out."


def launch(fabric: Fabric) -> None:
    """Starts the other processes, or joins those that started this one. A process that dies ends the run with
    a word.

    Raises ConfigError where this program cannot be started again.
    """
    from lightning.fabric.strategies.launchers import subprocess_script

    require_file()
    # Lightning's own observer kills this process without a word, in the middle of whatever it writes.
    name = "_launch_process_observer"
    before = getattr(subprocess_script, name, None)
    if before is not None:
        setattr(subprocess_script, name, _observe)
    try:
        with _door(), together():
            fabric.launch()
    finally:
        if before is not None:
            setattr(subprocess_script, name, before)
    atexit.register(leave_group)


def require_file() -> None:
    """Raises ConfigError in a program that cannot be started again: it has no file."""
    import __main__

    if not main_process() or torch.distributed.is_initialized():
        return
    if hasattr(sys, "ps1") or (__main__.__spec__ is None and not Path(sys.argv[0]).is_file()):
        raise no_file(sys.argv[0] or "an interactive session")


@contextmanager
def together() -> Iterator[None]:
    """What all processes do at once. Raises NablaError where another one has died, or does not answer.

    A signal that ends this process ends the others first.
    """
    try:
        with _heard():
            yield
    except KeyboardInterrupt:
        dismiss()
        raise
    except RuntimeError as error:
        closed = "closed by peer" in str(error) or "reset by peer" in str(error)
        what = "has died" if closed else f"does not answer ({error})"
        raise NablaError(f"Another process of this run {what}", fix=_FIX) from error


def leave_group() -> None:
    """Ends the process group before the interpreter ends: its threads would abort the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def dismiss() -> None:
    """Ends the processes that this one has started, for one that a signal ends: they keep what they have, and
    no longer write when this returns."""
    _leaving.set()
    _end(_others)
    end = time.monotonic() + _GRACE
    for other in _others:
        with suppress(subprocess.TimeoutExpired):
            other.wait(max(end - time.monotonic(), 0.0))
        if other.poll() is None:
            other.kill()
            with suppress(subprocess.TimeoutExpired):
                other.wait(_GRACE)


def _end(others: Sequence[subprocess.Popen[bytes]]) -> None:
    """Asks each to end, once: a second signal would end it in the middle of what it keeps."""
    for other in others:
        if other not in _asked:
            _asked.add(other)
            with suppress(OSError):
                other.terminate()


@contextmanager
def _heard() -> Iterator[None]:
    """Waiting for other processes is the library's own and hears of no signal before it ends: when one
    comes, a thread ends the others, and with them the waiting."""
    if not _others or threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def listen() -> None:
        while number := os.read(reader, 1):
            if number[0] in _ENDING and signal.getsignal(number[0]) is not signal.SIG_IGN:
                _end(_others)
        os.close(reader)

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)


@contextmanager
def _door() -> Iterator[None]:
    """Where the other processes of this machine say that they are about to join; they do so here."""
    place = os.environ.get(_DOOR)
    if place is not None:
        with suppress(OSError):
            (Path(place) / os.environ.get("LOCAL_RANK", "0")).touch()
        yield
        return
    with tempfile.TemporaryDirectory(prefix="nabla-") as place:
        os.environ[_DOOR] = place
        try:
            yield
        finally:
            del os.environ[_DOOR]


def _observe(others: Sequence[subprocess.Popen[bytes]]) -> None:
    """Watches the processes that were started, and waits until all of them are about to join: joining itself
    hears of no signal, and they may load for long."""
    _others[:] = others
    threading.Thread(target=_watch, args=(others,), daemon=True).start()
    place = Path(os.environ[_DOOR])
    while len(list(place.iterdir())) < len(others):
        if any(other.poll() is not None for other in others):
            raise NablaError("Another process of this run has ended before it joined", fix=_FIX)
        time.sleep(_SOON)


def _watch(others: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends the run when another process has died: this one would wait for it for ever."""
    while True:
        time.sleep(_EVERY)
        codes = [other.poll() for other in others]
        if all(code == 0 for code in codes):
            return
        dead = next((place for place, code in enumerate(codes) if code), None)
        if dead is not None:
            break
    code = codes[dead] or 0
    if (code > 0 or code == -signal.SIGINT) and _leaving.wait(_MEETS):  # Ctrl-C reaches all of them
        return
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
    warn(f"process {dead + 2} of {len(others) + 1} {how}, and the run ends. {_FIX}")
    _end(others)
    os.kill(os.getpid(), signal.SIGTERM)  # as far as it listens, it keeps what it has
    time.sleep(_GRACE)
    os._exit(1)
