"""The slot of callbacks: what hears of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nabla.core.registry import Registry
from nabla.engine.events import Callback

if TYPE_CHECKING:
    pass


callbacks: Registry[Callback] = Registry("callbacks", lambda: Callback, __package__)
