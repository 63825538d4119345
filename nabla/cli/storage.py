"""Where a command stores its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nabla.core.errors import ConfigError
from nabla.core.files import require_free, require_writable, unwritable
from nabla.core.quiet import main_process
from nabla.launch.folder import RunFolder, default_folder
from nabla.launch.resume import IDENTITY, LEFTOVERS


def output_path(option: str | None, name: str, *, resume: bool = False) -> Path | None:
    """The folder that ``--output`` means: None for ``none``, a new one under ``runs/`` if it is not given.

    Raises ConfigError for one that is not empty or cannot be written, before anything is computed; with
    ``resume`` it may be that of a run that goes on.
    """
    if option == "none" or not main_process():
        return None
    require_named(option, "Name a folder, or 'none' to keep nothing.")
    folder = default_folder(name) if option is None else Path(option)
    if not (resume and (folder / IDENTITY).is_file()):
        require_free(folder, LEFTOVERS if resume else ())
    require_writable(folder)
    return folder


def require_named(output: str | None, fix: str) -> None:
    """Raises ConfigError for an ``--output`` of blanks: its path would be the folder that one stands in."""
    if output is not None and not output.strip():
        raise ConfigError("--output has no name", got=output, fix=fix)


def make_folder(folder: Path) -> None:
    """The folder, made with its parents. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise unwritable(folder, error) from error


def open_folder(
    path: Path | None,
    resolved: Mapping[str, Any],
    arguments: Sequence[str],
    device: torch.device,
    *,
    resumed: bool = False,
) -> RunFolder | None:
    """The run's folder, its configuration and versions written."""
    if path is None:
        return None
    return RunFolder(path, resolved, arguments=list(arguments), device=_device(device), resumed=resumed)


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)
