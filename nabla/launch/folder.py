"""The folder that a run leaves behind: its resolved configuration, versions and solutions."""

from __future__ import annotations

import errno
import json
import os
import platform
import secrets
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nabla.core.errors import StorageError
from nabla.core.files import (
    Appender,
    json_line,
    reason,
    replace_whole,
    require_free,
    unwritable,
    write_new,
)
from nabla.core.solution import Interrupted, Stopped
from nabla.launch.config.reader import dump

#: Packages whose versions can change a result.
PACKAGES = (
    "nabla-reasoner",
    "torch",
    "transformers",
    "tokenizers",
    "lightning",
    "peft",
    "accelerate",
    "safetensors",
    "numpy",
    "jsonargparse",
)

#: What a full disk is called in an error of it.
_FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]


class RunFolder:
    """Writes ``config.yaml`` and ``run.json`` at once, ``*.jsonl`` rows as they come; never over a file that
    it did not make.

    Rows that the disk does not take are kept in memory, and written as soon as it takes one again.

    Args:
        path: created with its parents. Raises ConfigError if it is not empty or cannot be made.
        config: resolved configuration, plain data.
        arguments: the command line.
        device: what the models ran on.
        resumed: the folder is of the same run, which was interrupted: its configuration stays, and its
            record says when it went on.
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        *,
        arguments: list[str],
        device: str = "unknown",
        resumed: bool = False,
    ) -> None:
        self.path = path
        self._resumed = resumed
        self._files: dict[str, Appender] = {}
        self._about: dict[str, Any] = {
            "arguments": arguments,
            "started": _now(),
            "status": "running",
            "device": device,
            "versions": versions(),
            "git_commit": git_commit(),
        }
        if resumed:
            before = _record(path)
            known = ("started",) if device != "unknown" else ("started", "device")
            self._about |= {key: before[key] for key in known if key in before}
            self._about["resumed"] = [*before.get("resumed", []), _now()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (resumed and (path / "config.yaml").exists()):
                write_new(path / "config.yaml", dump(dict(config)))
            try:
                (replace_whole if resumed else write_new)(path / "run.json", self._text)
            except OSError:
                if not resumed:
                    (path / "config.yaml").unlink()
                raise
        except FileExistsError as error:
            require_free(path)
            raise unwritable(path, error) from error
        except (OSError, ValueError) as error:
            raise unwritable(path, error) from error

    @property
    def _text(self) -> str:
        return json.dumps(self._about, indent=2, ensure_ascii=False) + "\n"

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """One line of ``name``, on disk when this returns; see :class:`~nabla.core.files.Appender`."""
        if name not in self._files:
            self._files[name] = Appender(self.path / name, shared=self._resumed)
        self._files[name].append(json_line(row))

    def finish(self, status: str, **about: Any) -> None:
        """Records how the run ended: ``finished``, ``failed`` or ``interrupted``.

        Raises StorageError where the disk does not take this record, or lines are left that it does not take;
        a run without them is not finished.
        """
        errors = [error for file in self._files.values() if (error := file.flush()) is not None]
        if errors and status == "finished":
            status = "failed"  # of what it found, a part is missing
        self._about |= {"status": status, "ended": _now(), **about}
        try:
            replace_whole(self.path / "run.json", self._text)
        except OSError as error:
            if not errors:
                raise StorageError(
                    f"The end of the run cannot be recorded: {reason(error)}", got=str(self.path)
                ) from error
        if errors:
            left = sum(file.left for file in self._files.values())
            what, got = errors[0].what, errors[0].got
            mend = "Make room" if any(said in what for said in _FULL) else "Mend this"
            raise StorageError(
                f"{left} lines could not be stored: {what}",
                got=got,
                fix=f"{mend} and run again; what was solved has been printed.",
            )


def ended(error: BaseException | None) -> str:
    """How a run ended that raised this, or nothing: by a signal it was interrupted, by anything else it has
    failed."""
    if error is None:
        return "finished"
    signalled = isinstance(error, KeyboardInterrupt | Interrupted) and not isinstance(error, Stopped)
    return "interrupted" if signalled else "failed"


def default_folder(method: str) -> Path:
    """``runs/<time>-<method>-<four random digits>``: runs that begin in the same second, on whatever machines
    that share the folder, do not meet."""
    stem = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{method}"
    while (folder := Path("runs") / f"{stem}-{secrets.token_hex(2)}").exists():
        pass
    return folder


def versions() -> dict[str, str]:
    """Of Python, the platform and the packages that matter."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform}-{platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit that the package runs from, ``-dirty`` behind it for uncommitted changes; None if it is
    installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def status(path: Path) -> str | None:
    """How the run of a folder ended, as far as that was recorded."""
    found = _record(path).get("status")
    return found if isinstance(found, str) else None


def _record(path: Path) -> dict[str, Any]:
    """``run.json`` of a folder; empty if a kill has left none, or a part."""
    try:
        found = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
