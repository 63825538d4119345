"""Exclusive use of a file by one process."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from nabla.core.errors import ConfigError
from nabla.core.files import reason

#: What a system says where another process has the lock (EDEADLK: Windows').
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def _take(file: IO[bytes]) -> None:
    """Locks an open file for this process or raises OSError, on Windows too."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


#: Seconds between two looks at a lock that another process has.
_PAUSE = 0.2


class Lock:
    """Exclusive use of a file as long as this process lives.

    Args:
        path: of the file.
        patience: seconds to wait for another process to let it go.
        what: is written under the lock, for messages.
        option: how another place is chosen, for messages.
        waiting: is called once, before the first wait.

    Raises ConfigError if another process has it, or if its file system has no locks.
    """

    def __init__(
        self,
        path: Path,
        *,
        patience: float = 0.0,
        what: str = "results folder",
        option: str = "--output",
        waiting: Callable[[], None] | None = None,
    ) -> None:
        self._file = path.open("ab")
        end = time.monotonic() + patience
        while True:
            try:
                _take(self._file)
                return
            except OSError as error:
                if error.errno in _TAKEN and time.monotonic() < end:
                    if waiting is not None:
                        waiting()
                        waiting = None
                    time.sleep(_PAUSE)
                    continue
                self._file.close()
                if error.errno not in _TAKEN:
                    raise ConfigError(
                        f"The {what} cannot be locked against other processes: {reason(error)}",
                        got=str(path),
                        fix=f"Choose an {option} on a file system that has locks.",
                    ) from error
                raise ConfigError(
                    f"Another process is writing to this {what}",
                    got=str(path),
                    fix=f"Wait until it has ended, or choose another {option}.",
                ) from error

    def close(self) -> None:
        """Lets others have it."""
        self._file.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
