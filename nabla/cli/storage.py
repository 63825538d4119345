"""Where a command stores its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nabla.core.errors import ConfigError
from nabla.core.files import only_filled, require_free, require_writable, unwritable
from nabla.core.locks import Lock
from nabla.core.quiet import main_process
from nabla.launch.folder import RunFolder, default_folder
from nabla.launch.resume import IDENTITY, LEFTOVERS, LOCK


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
        require_free(folder, LEFTOVERS)
    require_writable(folder)
    return folder


def require_named(given: str | None, fix: str, option: str = "--output") -> None:
    """Raises ConfigError for a path of blanks: it would be the folder that one stands in."""
    if given is not None and not given.strip():
        raise ConfigError(f"{option} has no name", got=given, fix=fix)


def make_folder(folder: Path, what: str = "run's folder", fix: str | None = None) -> None:
    """The folder, made with its parents. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise unwritable(folder, error, what, fix) from error


@contextmanager
def held(folder: Path | None) -> Iterator[None]:
    """Inside, an empty folder is this process's, so that no other one that was started at the same time
    stores its results over these; it goes again if nothing was stored. None is no folder.

    Raises ConfigError for one that cannot be made, that another process holds, or that is not empty.
    """
    if folder is None:
        yield
        return
    with only_filled(folder):
        make_folder(folder)
        with _locked(folder):
            try:
                require_free(folder, LEFTOVERS)
                yield
            finally:
                (folder / LOCK).unlink(missing_ok=True)


def _locked(folder: Path) -> Lock:
    try:
        return Lock(folder / LOCK, what="run's folder")
    except OSError as error:
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
