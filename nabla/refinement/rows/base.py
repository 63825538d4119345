"""Update rules: which rows of the response are optimised, and over which candidates."""

from __future__ import annotations

from abc import ABC, abstractmethod

from nabla.core.errors import require_count
from nabla.core.registry import Registry
from nabla.core.trajectory import Trajectory


class Rows(ABC):
    """Rows to optimise when a position is refined; settings only.

    Args:
        support: candidates per row, the most likely ones and the row's own token; None keeps all.
    """

    def __init__(self, support: int | None = None) -> None:
        if support is not None:
            require_count("support", support, minimum=2, note=" candidates, or None for all")
        self.support = support

    @abstractmethod
    def positions(self, trajectory: Trajectory) -> slice:
        """Contiguous rows from the first uncommitted position on."""


rows: Registry[Rows] = Registry("rows", lambda: Rows, __package__)
