"""Loggers by name, for Fabric's slot. Each attempt at a run writes its own log: none is written over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.extras import require_extra


def make_logger(name: str, folder: Path | None) -> Any:
    """A Lightning logger.

    Args:
        name: ``csv`` (metrics.csv), ``tensorboard`` (a folder of that name) or ``wandb`` (Weights & Biases;
            with WANDB_MODE=offline nothing leaves the machine, and ``wandb sync`` sends it later).
        folder: of the run. What an interrupted run has logged there stays, and the run that goes on logs
            beside it (``metrics-2/metrics.csv``, ``tensorboard-2``).

    Raises ConfigError without a folder, and for a package that is not installed, with the command for it.
    """
    if folder is None:
        raise ConfigError("Loggers need a folder to write to", got=name, fix="Pass --output DIR.")
    if name == "csv":
        from lightning.fabric.loggers import CSVLogger

        version = _free(folder, "metrics") if (folder / "metrics.csv").exists() else ""
        return CSVLogger(root_dir=folder, name="", version=version, flush_logs_every_n_steps=1)
    if name == "tensorboard":
        require_extra("loggers", "tensorboard", purpose="The logger tensorboard")
        from lightning.fabric.loggers import TensorBoardLogger

        version = _free(folder, name) if (folder / name).exists() else name
        return TensorBoardLogger(root_dir=folder, name="", version=version)
    require_extra("loggers", "wandb", purpose="The logger wandb")
    from lightning.pytorch.loggers import WandbLogger

    folder.mkdir(parents=True, exist_ok=True)  # wandb would write somewhere else
    return WandbLogger(save_dir=folder, project="nabla", name=folder.name)


def _free(folder: Path, name: str) -> str:
    number = 2
    while (folder / f"{name}-{number}").exists():
        number += 1
    return f"{name}-{number}"
