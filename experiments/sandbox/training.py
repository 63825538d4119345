"""What both trainings share: the optimiser, batches made on the fly, and a Lightning trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

Batch = dict[str, Tensor]


class Stream(IterableDataset[Batch]):
    """An endless stream of batches from a function; the seed is the function's own."""

    def __init__(self, make: Callable[[], Batch]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.make()


class Trained(pl.LightningModule):
    """Muon for the matrices of the layers, AdamW for the rest, both with warm-up and decay."""

    def __init__(self, lr: float, steps: int, warmup: int, clip: float = 1.0) -> None:
        super().__init__()
        self.lr, self.steps, self.warmup, self.clip = lr, steps, warmup, clip
        self.automatic_optimization = False

    def loss(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to a twentieth."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def configure_optimizers(self) -> Any:
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, parameter in self.named_parameters():
            inner = ".layers." in name and parameter.ndim == 2
            (matrices if inner else others).append(parameter)
        muon = torch.optim.Muon(
            matrices, lr=self.lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        )
        adam = torch.optim.AdamW(others, lr=self.lr, betas=(0.9, 0.98), weight_decay=0.0)
        return [muon, adam], [
            torch.optim.lr_scheduler.LambdaLR(optimiser, self.rate) for optimiser in (muon, adam)
        ]

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        optimisers: Any = self.optimizers()
        loss = self.loss(batch)
        for optimiser in optimisers:
            optimiser.zero_grad()
        self.manual_backward(loss)
        nn.utils.clip_grad_norm_(self.parameters(), self.clip)
        for optimiser in optimisers:
            optimiser.step()
        schedulers: Any = self.lr_schedulers()
        for scheduler in schedulers:
            scheduler.step()
        return loss.detach()


def fit(module: Trained, make: Callable[[], Batch], callbacks: list[pl.Callback]) -> None:
    """Run `module.steps` steps on the CPU without Lightning's own logs and checkpoints."""
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        limit_train_batches=module.steps,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(Stream(make), batch_size=None))
