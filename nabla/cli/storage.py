"""Where a command stores its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nabla.core.errors import ConfigError
from nabla.core.quiet import main_process
from nabla.launch.folder import RunFolder, default_folder


def output_path(option: str | None, name: str) -> Path | None:
    """The folder that ``--output`` means: None for ``none``, a new one under ``runs/`` if it is not given."""
    if option == "none" or not main_process():
        return None
    return default_folder(name) if option is None else Path(option)


def make_folder(path: Path) -> None:
    """The folder, made if it does not exist. Raises ConfigError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The folder cannot be made: {error}", got=str(path), fix="Pass another --output."
        ) from error


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
