"""What a target measures on: models, settings and how a solve is driven."""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch

from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.models.causal_lm import CausalLM
from nabla.rewards.transformer import TransformerReward
from nabla.study.benchmark.floor import gemm_peak
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.models import Workbench
from nabla.study.benchmark.settings import Setting

R = TypeVar("R")


@dataclass
class Stand:
    """What a target's measurement gets, and where it leaves its figures.

    Args:
        setting: what to measure.
        repeats: samples per figure.
        dense_repeats: samples of the dense reference, which takes a minute each; 0 leaves it out.
        tell: hears of progress.
        threads: of torch on the CPU.
        models: of a setting whose models are given.
    """

    setting: Setting
    repeats: int = 7
    dense_repeats: int = 1
    tell: Callable[[str], None] = lambda _: None
    threads: int = 2
    models: tuple[CausalLM, TransformerReward] | None = None
    #: name → samples, seconds (or bytes).
    samples: dict[str, list[float]] = field(default_factory=dict)
    #: rows of the growth sweeps.
    growth: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def workbench(self) -> Workbench:
        """The setting's models, built once."""
        if self.models is None:
            self.tell("building models")
        return Workbench(self.setting, self.models)

    @cached_property
    def peak(self) -> float:
        """FLOPs per second of a large matrix product."""
        return gemm_peak(getattr(torch, self.setting.dtype), self.setting.device)

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Leaves the GPU to another process: the models wait in main memory."""
        held = "workbench" in vars(self) and self.setting.device == "cuda"
        models = [self.workbench.lm.model, self.workbench.reward.model] if held else []
        for model in models:
            model.to("cpu")
        if held:
            gc.collect()
            torch.cuda.empty_cache()
        try:
            yield
        finally:
            for model in models:
                model.to(self.setting.device)

    def keep(self, name: str, samples: Sequence[float]) -> None:
        """Stores raw samples for the report."""
        self.samples.setdefault(name, []).extend(samples)

    def judge(self, found: Sequence[Measurement]) -> list[Measurement]:
        """Without verdicts where the targets are not meant for the setting."""
        return [replace(m, judged=m.judged and self.setting.judged) for m in found]


def drive(
    engine: Engine, prompts: Sequence[Prompt], work: Callable[[Session], Coroutine[Any, Any, R]]
) -> list[R]:
    """Runs ``await work(session)`` for each prompt, all together; results in their order."""

    async def wrapped(session: Session) -> Any:
        return (await work(session),)

    found: dict[str, Any] = {}
    for prompt, value in engine.run(wrapped, prompts):
        if isinstance(value, NablaError):
            raise value
        found[prompt.id] = value
    return [found[prompt.id][0] for prompt in prompts]
