"""Exclusive use of a file by one process."""

from __future__ import annotations

import errno
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


class Lock:
    """Exclusive use of a file as long as this process lives. Raises ConfigError if another one has it, or if
    its file system has no locks."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        try:
            _take(self._file)
        except OSError as error:
            self._file.close()
            if error.errno not in _TAKEN:
                raise ConfigError(
                    f"The results folder cannot be locked against other processes: {reason(error)}",
                    got=str(path),
                    fix="Choose an --output on a file system that has locks.",
                ) from error
            raise ConfigError(
                "Another process is writing to this results folder",
                got=str(path),
                fix="Wait until it has ended, or choose another --output.",
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
