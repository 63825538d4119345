"""The right to a results folder: one run at a time, and of one configuration only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.files import PROBE, decode, others, parse_json, read_bytes, reason, replace_whole
from nabla.core.locks import Lock
from nabla.launch.fingerprint import difference, known_to

LOCK = ".lock"


def claim(folder: Path, name: str, about: Mapping[str, Any], what: str) -> Lock:
    """Makes the folder, or finds it to be of the same run; writes what it is of; locks it.

    Args:
        folder: of the results.
        name: of the file that says what they are results of.
        about: its contents.
        what: ``configuration`` or ``ablation``, for the error.

    Raises ConfigError for a folder that holds something else or cannot be written; nothing is changed then.
    """
    found = json.loads(json.dumps(about, default=str))  # as it reads from disk
    path = folder / name
    try:
        if path.exists():
            _require_same(path, found, what)
        elif folder.exists() and not _is_free(folder, name):
            raise ConfigError(
                "The results folder holds something else", got=str(folder), fix="Choose another --output."
            )
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder / LOCK)
        try:
            if not path.exists():
                replace_whole(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
            else:
                _require_same(path, found, what)  # somebody else may have been faster
        except BaseException:
            lock.close()  # a notebook keeps the error, and with it the lock
            raise
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The results folder cannot be written: {reason(error)}",
            got=str(folder),
            fix="Choose another --output.",
        ) from error
    return lock


def _is_free(folder: Path, name: str) -> bool:
    """An empty folder, but for what a kill may leave before the configuration is written."""
    return folder.is_dir() and not others(folder, (LOCK, f"{name}.*partial", f"{PROBE}*"))


def _require_same(path: Path, about: Mapping[str, Any], what: str) -> None:
    try:
        there = parse_json(decode(read_bytes(path)))
        if not isinstance(there, dict):
            raise ValueError("it is no mapping")
    except ValueError as error:
        raise ConfigError(
            f"{path.name} of the results folder is damaged: {error}", got=str(path)
        ) from error
    found = difference(there, known_to(there, about))
    if found is not None:
        raise ConfigError(
            f"The results folder is of another {what}; {found}",
            got=str(path.parent),
            fix="Choose another --output, or remove the folder.",
        )
