"""The folder that a run leaves behind: its resolved configuration, versions and solutions."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError
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


class RunFolder:
    """Writes ``config.yaml`` and ``run.json`` at once, ``*.jsonl`` rows as they come.

    Args:
        path: created with its parents. Raises ConfigError if it holds a run already or cannot be made.
        config: resolved configuration, plain data.
        arguments: the command line.
        device: what the models ran on.
    """

    def __init__(
        self, path: Path, config: Mapping[str, Any], *, arguments: list[str], device: str = "unknown"
    ) -> None:
        self.path = path
        if (path / "run.json").exists():
            raise ConfigError("The folder holds a run already", got=str(path), fix="Choose another --output.")
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / "config.yaml").write_text(dump(dict(config)), encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"The run's folder cannot be written: {error}",
                got=str(path),
                fix="Choose another --output, or --output none to keep nothing.",
            ) from error
        self._about: dict[str, Any] = {
            "arguments": arguments,
            "started": _now(),
            "status": "running",
            "device": device,
            "versions": versions(),
            "git_commit": git_commit(),
        }
        self._write()

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """One line of ``name``, on disk when this returns."""
        with (self.path / name).open("a") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def finish(self, status: str, **about: Any) -> None:
        """Records how the run ended: ``finished``, ``failed`` or ``interrupted``."""
        self._about |= {"status": status, "ended": _now(), **about}
        self._write()

    def _write(self) -> None:
        (self.path / "run.json").write_text(json.dumps(self._about, indent=2, ensure_ascii=False) + "\n")


def default_folder(method: str) -> Path:
    """``runs/<time>-<method>``, with a number behind it if that exists."""
    stem = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{method}"
    folder = Path("runs") / stem
    number = 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{stem}-{number}"
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
