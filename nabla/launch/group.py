"""Several processes of one run, by Lightning Fabric: each is this program, started again."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
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
#: Seconds that this process has, once another one ended with an error: most often it meets the same, says
#: it in its own words, and stores what it has.
_MEETS = 30.0
#: Seconds that it has from then on to write down what it has.
_GRACE = 10.0
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
        with together():
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
    """What all processes do at once. Raises NablaError where another one has died, or does not answer."""
    try:
        yield
    except RuntimeError as error:
        closed = "closed by peer" in str(error) or "reset by peer" in str(error)
        what = "has died" if closed else f"does not answer ({error})"
        raise NablaError(f"Another process of this run {what}", fix=_FIX) from error


def leave_group() -> None:
    """Ends the process group before the interpreter ends: its threads would abort the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _observe(others: Sequence[subprocess.Popen[bytes]]) -> None:
    threading.Thread(target=_watch, args=(others,), daemon=True).start()


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
    if code > 0:
        time.sleep(_MEETS)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
    warn(f"process {dead + 2} of {len(others) + 1} {how}, and the run ends. {_FIX}")
    for other in others:
        with suppress(OSError):
            other.terminate()
    os.kill(os.getpid(), signal.SIGTERM)  # as far as it listens, it keeps what it has
    time.sleep(_GRACE)
    os._exit(1)
