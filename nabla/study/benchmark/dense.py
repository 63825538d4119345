"""The dense reference of ``experiments/benchmarks/dense.py``: there in a checkout, not in the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nabla.core.costs import Account, CostMeter
from nabla.core.prompt import Prompt
from nabla.rewards.base import Response
from nabla.study.benchmark.models import OBJECTIVES, Workbench

WHY_NOT = "the dense reference is in the source checkout only (experiments/benchmarks/dense.py)"


def load_dense() -> Any | None:
    """The module, None outside a checkout."""
    path = Path(__file__).resolve().parents[3] / "experiments" / "benchmarks" / "dense.py"
    if not path.exists():
        return None
    name = "nabla_dense_reference"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    return sys.modules[name]


def dense_problem(dense: Any, bench: Workbench, prompt: Prompt, tokens: Tensor, objective: str) -> Any:
    """The same problem for the reference."""
    account = Account("dense", CostMeter(), "gradient")
    layout = bench.reward.layout(Response(prompt, tokens, account))
    weights = OBJECTIVES[objective]["weights"]
    device = torch.device(bench.setting.device)
    return dense.Problem(
        bench.lm.model,
        bench.reward.model,
        bench.lm.encode(prompt).to(device),
        layout.before.to(device),
        layout.after.to(device),
        tokens.to(device),
        reward=weights.get("reward", 0.0),
        likelihood=weights.get("likelihood", 0.0),
    )
