"""nabla: test-time gradient descent on text (∇-Reasoner, arXiv 2603.04948).

Names are imported when they are first used, so that ``nabla --help`` does not load PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nabla.callbacks.base import Callback
    from nabla.dto import DTO
    from nabla.engine import Engine, Session
    from nabla.errors import NablaError
    from nabla.loop import TestTimeLoop
    from nabla.methods.base import Method
    from nabla.models.causal_lm import CausalLM
    from nabla.reasoner import NablaReasoner
    from nabla.rewards.base import Reward
    from nabla.types import Message, Prompt, Sampling, Solution, Trajectory

__version__ = "0.1.0"

_HOMES = {
    "Callback": "callbacks.base",
    "CausalLM": "models.causal_lm",
    "DTO": "dto",
    "Engine": "engine",
    "Message": "types",
    "Method": "methods.base",
    "NablaError": "errors",
    "NablaReasoner": "reasoner",
    "Prompt": "types",
    "Reward": "rewards.base",
    "Sampling": "types",
    "Session": "engine",
    "Solution": "types",
    "TestTimeLoop": "loop",
    "Trajectory": "types",
}

__all__ = [
    "DTO",
    "Callback",
    "CausalLM",
    "Engine",
    "Message",
    "Method",
    "NablaError",
    "NablaReasoner",
    "Prompt",
    "Reward",
    "Sampling",
    "Session",
    "Solution",
    "TestTimeLoop",
    "Trajectory",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"nabla.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
