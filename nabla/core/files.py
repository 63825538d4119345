"""Files that a user names: read without surprises, written without harm.

Whatever cannot be read, pipes that nobody writes to included, is an error with the file's name in it. What is
written is UTF-8 whatever the terminal's locale says, a line is on disk whole or not at all, and nothing that
was there before is written over.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError, NablaError, StorageError

#: Byte order marks of encodings that are not read, the longest first.
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip
#: Most lists and mappings in each other in a JSON value, as in a configuration.
LEVELS = 64
#: Pipes that are open already: ``<(...)`` and ``/dev/stdin``.
_OPEN = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


def expanded(path: str | Path) -> Path:
    """A path with ``~`` written out; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def read_bytes(path: str | Path) -> bytes:
    """A regular file's bytes. Raises OSError; a pipe without a writer would block for ever, a device never
    end."""
    if not str(path).startswith(_OPEN):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
            raise OSError(f"it is {kind}, no file")
    return Path(path).read_bytes()


def decode(data: bytes) -> str:
    """UTF-8, a byte order mark of it left out. Raises ValueError that says which byte is none."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            raise ValueError(f"it is {encoding}; save it as UTF-8")
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"byte {error.start} (line {line}) is no UTF-8; save it as UTF-8") from error


def read_text(
    path: str | Path, what: str, *, fix: str | None = None, kind: type[NablaError] = ConfigError
) -> str:
    """A text file. Raises ``kind``; ``what`` names the file in the message."""
    try:
        return decode(read_bytes(path))
    except FileNotFoundError as error:
        raise kind(f"The {what} cannot be read: it does not exist", got=str(path), fix=fix) from error
    except (OSError, ValueError) as error:
        raise kind(f"The {what} cannot be read: {reason(error)}", got=str(path), fix=fix) from error


def parse_json(text: str | bytes) -> Any:
    """One JSON value. Raises ValueError for everything that Python's reader stumbles over: nesting of any
    depth and whole numbers of thousands of digits too."""
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        found = json.loads(text)
        # What Python could just about read, it could not write again from deeper within.
        if text.count("[") + text.count("{") > LEVELS and _depth(found) > LEVELS:
            raise RecursionError
        return found
    except RecursionError as error:
        raise ValueError(f"it is nested in more than {LEVELS} levels") from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        digits = "integer string conversion" in str(error)
        raise ValueError("a whole number in it has too many digits" if digits else str(error)) from error


def _depth(value: Any) -> int:
    """Levels of lists and mappings in each other, without recursion."""
    deepest, level = 0, [value]
    while level := [v for v in level if isinstance(v, dict | list)]:
        deepest += 1
        level = [w for v in level for w in (v.values() if isinstance(v, dict) else v)]
    return deepest


def reason(error: BaseException) -> str:
    """What went wrong, without the number and the path that an OSError repeats."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


#: What a system says where there is no room for more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: OSError) -> bool:
    """Whether a disk, or what one may use of it, is full."""
    return error.errno in _FULL


def json_line(row: Any) -> str:
    """A value as one line of JSON; half a character (a lone surrogate) is written as its escape."""
    text = json.dumps(row, ensure_ascii=False)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def require_free(folder: Path, allowed: Sequence[str] = ()) -> None:
    """Raises ConfigError unless a folder is empty or not there: a run writes over nothing that it did not
    make.

    Args:
        folder: where a run is to write.
        allowed: names that may be in it, with ``*`` for any signs.
    """
    try:
        if (folder / "run.json").exists():
            raise ConfigError(
                "The folder holds a run already", got=str(folder), fix="Choose another --output."
            )
        if folder.exists() and not folder.is_dir():
            raise ConfigError(
                "The run's folder cannot be written: it is a file",
                got=str(folder),
                fix="Choose another --output, or --output none to keep nothing.",
            )
        there = others(folder, allowed) if folder.exists() else []
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise unwritable(folder, error) from error
    if there:
        shown = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
        raise ConfigError(
            f"The folder is not empty ({shown}): a run writes over nothing that it did not make",
            got=str(folder),
            fix="Choose another --output: a new folder, or an empty one.",
        )


def others(folder: Path, allowed: Sequence[str]) -> list[str]:
    """Names in a folder but for those that may be in it, with ``*`` for any signs. Raises OSError."""
    found = sorted(p.name for p in folder.iterdir())
    return [name for name in found if not any(fnmatchcase(name, own) for own in allowed)]


#: What the files that try a folder are called like; a kill may leave one.
PROBE = ".writable"


def require_writable(folder: Path) -> None:
    """Raises ConfigError for a folder that a run could not write to: tries it, and leaves nothing behind."""
    with only_filled(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f"{PROBE}-{os.getpid()}-{secrets.token_hex(4)}"
            try:
                write_new(probe, "x" * 4096)
            finally:
                probe.unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            raise unwritable(folder, error) from error


@contextmanager
def only_filled(folder: Path) -> Iterator[None]:
    """Inside, a folder may be made with its parents; those that are empty in the end go again."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    finally:
        for place in made:
            with suppress(OSError, ValueError):
                place.rmdir()


def unwritable(
    path: Path, error: Exception, what: str = "run's folder", fix: str | None = None
) -> ConfigError:
    """For a place that nothing can be written to; without ``fix`` advice on ``--output``."""
    return ConfigError(
        f"The {what} cannot be written: {reason(error)}",
        got=str(path),
        fix=fix or "Choose another --output, or --output none to keep nothing.",
    )


class Appender:
    """Lines at the end of a file of one's own making. What the disk does not take, or a signal breaks off, is
    kept in memory, and tried again with the next line and by :meth:`flush`.

    Args:
        path: of the file; made with its first line.
        shared: another process may have made it.
        many: other processes write to it at the same time, each with such an object; it takes turns.
    """

    def __init__(self, path: Path, *, shared: bool = False, many: bool = False) -> None:
        self.path = path
        self._made, self._many = shared or many, many
        self._waiting: list[bytes] = []
        #: Where the first of them begins in the file, once it was begun.
        self._begin: int | None = None

    def append(self, text: str) -> None:
        """One line of the file: on disk whole when this returns, or kept, which is said once."""
        before = bool(self._waiting)
        self._waiting.append((text + "\n").encode("utf-8", "backslashreplace"))
        error = self.flush()
        if error is not None and not before:
            warn(f"{error}. It is kept in memory, and written as soon as there is room.")

    def flush(self) -> StorageError | None:
        """Writes what is kept; the error where something is left."""
        try:
            while self._waiting:
                self._write(self._waiting[0])
                # A signal may come in up to here: the line is then written again in the same place. It
                # cannot come between these two.
                del self._waiting[0]
                self._begin = None
        except FileExistsError:
            what = "There is a file already that this run did not make"
        except OSError as error:
            what = f"A line cannot be written: {reason(error)}"
        else:
            return None
        return StorageError(what, got=str(self.path))

    @property
    def left(self) -> int:
        """Lines that are kept in memory."""
        return len(self._waiting)

    def _write(self, data: bytes) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | (0 if self._made else os.O_EXCL)
        descriptor = os.open(self.path, flags, 0o666)
        try:
            self._made = True
            if self._many:
                _take_turn(descriptor)
            if not self._is_there(descriptor, data):
                self._begin = os.fstat(descriptor).st_size
                append_whole(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)  # which ends the turn

    def _is_there(self, descriptor: int, data: bytes) -> bool:
        """Whether the line was written before, and but for its syncing. What was begun is cut off, unless
        others have written behind it."""
        if self._begin is None:
            return False
        os.lseek(descriptor, self._begin, os.SEEK_SET)
        there = os.read(descriptor, len(data))
        if there and there != data and data.startswith(there):  # shorter: nothing is behind it
            os.ftruncate(descriptor, self._begin)
        return there == data


def _take_turn(descriptor: int) -> None:
    """Waits until no other process writes to an open file, where the system knows such locks."""
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


def append_whole(descriptor: int, data: bytes, *, synced: bool = False) -> None:
    """Writes all of it at the end of a file, or nothing, also where a signal comes; ``synced``: on the disk
    when this returns. Raises OSError."""
    before = os.fstat(descriptor).st_size
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:])
        if synced:
            os.fsync(descriptor)
    except BaseException:
        os.ftruncate(descriptor, before)
        raise


def drop_torn_end(path: Path) -> None:
    """Cuts off what a kill has left of a file's last line. Raises OSError."""
    data = path.read_bytes()
    os.truncate(path, data.rfind(b"\n") + 1)


def write_new(path: Path, text: str) -> None:
    """A file that was not there, whole or not at all, also after a kill. Raises OSError, FileExistsError
    too."""
    partial = _partial(path)
    try:
        _write_here(partial, text)
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: a kill in between may leave a part
            _write_here(path, text)
    finally:
        partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """Where a file is written before it is whole: nobody else's, another thread's neither."""
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def _write_here(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        append_whole(descriptor, text.encode("utf-8", "backslashreplace"))
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def replace_whole(path: Path, text: str | bytes) -> None:
    """A file of one's own, the old one until the new one is there, whoever else writes it at the same time.
    A link stays one, to the new file. Raises OSError."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    partial = _partial(path)
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except BaseException:  # a signal, too
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def stored_in(folder: Path, what: str, fix: str) -> Iterator[None]:
    """Inside, an OSError is a StorageError that names the folder and says what to do."""
    try:
        yield
    except OSError as error:
        why = f"The {what} cannot be written: {reason(error)}"
        raise StorageError(why, got=str(folder), fix=fix) from error


#: What data of another shape than the reader's raise.
MISSHAPEN = (
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, StopIteration,
    csv.Error,
)  # fmt: skip


@contextmanager
def reading(what: str, *, got: object = None, fix: str | None = None) -> Iterator[None]:
    """Inside, whatever stored data of a wrong shape raise is a ConfigError: ``what`` is damaged; and what the
    system refuses is one, too.

    Args:
        what: is read, for the message.
        got: the file, where ``what`` does not say it.
        fix: what to do.
    """
    shown = {} if got is None else {"got": str(got)}
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {reason(error)}", **shown) from error
    except MISSHAPEN as error:
        raise ConfigError(f"{what} is damaged: {_shortened(error)}", fix=fix, **shown) from error


def _shortened(error: Exception) -> str:
    """An error's class and words; of data that it quotes, the beginning."""
    shown = repr(error)
    return shown if len(shown) <= 200 else shown[:197] + "..."


def warn(message: str) -> None:
    """To standard error, if there is one."""
    if sys.stderr is not None:
        print(f"nabla: {message}", file=sys.stderr)
