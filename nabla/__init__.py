"""nabla: test-time gradient descent on text (∇-Reasoner, arXiv 2603.04948).

Names are imported when they are first used, so that ``nabla --help`` does not load PyTorch.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nabla.core import pages
from nabla.core.version import __version__ as __version__

if TYPE_CHECKING:
    from nabla.core.errors import NablaError
    from nabla.core.prompt import Message, Prompt
    from nabla.core.sampling import Sampling
    from nabla.core.solution import Solution
    from nabla.core.trajectory import Trajectory
    from nabla.engine.engine import Engine
    from nabla.engine.events import Callback
    from nabla.engine.session import Session
    from nabla.launch.launcher import TestTimeLoop
    from nabla.launch.reasoner import NablaReasoner
    from nabla.methods.base import Method
    from nabla.models.causal_lm import CausalLM
    from nabla.refinement.dto import DTO
    from nabla.rewards.base import Reward

_HOMES = {
    "Callback": "engine.events",
    "CausalLM": "models.causal_lm",
    "DTO": "refinement.dto",
    "Engine": "engine.engine",
    "Message": "core.prompt",
    "Method": "methods.base",
    "NablaError": "core.errors",
    "NablaReasoner": "launch.reasoner",
    "Prompt": "core.prompt",
    "Reward": "rewards.base",
    "Sampling": "core.sampling",
    "Session": "engine.engine",
    "Solution": "core.solution",
    "TestTimeLoop": "launch.launcher",
    "Trajectory": "core.trajectory",
}

#: Names that documents and other packages use, and where these modules are now.
_MOVED = {
    "nabla.anchors": "nabla.estimators.anchors",
    "nabla.errors": "nabla.core.errors",
    "nabla.sandbox": "nabla.problems.sandbox",
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


class _Moved:
    """Finds a module under its earlier name: the same module, not a copy of it."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> ModuleSpec | None:
        """Of ``name`` if its folder has moved."""
        head = ".".join(name.split(".")[:2])
        if head not in _MOVED:
            return None
        return ModuleSpec(name, _Alias(_MOVED[head] + name.removeprefix(head)))  # type: ignore[arg-type]


class _Alias:
    """Loads a module by importing it under its name of today."""

    def __init__(self, home: str) -> None:
        self.home = home

    def create_module(self, _: ModuleSpec) -> ModuleType:
        """The module itself."""
        module = importlib.import_module(self.home)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; the import system has put the alias's spec in place of its own."""
        module.__spec__ = self.spec


# Core writes solutions as pages, and a room above makes them: only here both are known.
pages.made_by("nabla.launch.view.page:of_solutions")

if not any(finder is _Moved for finder in sys.meta_path):
    sys.meta_path.insert(0, _Moved)  # type: ignore[arg-type]


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
