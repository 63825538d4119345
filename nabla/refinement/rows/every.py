"""All rows: Algorithm 2 as printed."""

from __future__ import annotations

from nabla.core.trajectory import Trajectory
from nabla.refinement.rows.base import Rows, rows


@rows.register("all")
class AllRows(Rows):
    """Optimise every uncommitted row, each over its ``support`` most likely candidates.

    Sampling is top-k/top-p anyway; the tail's share of the softmax gradient is bounded by its
    probability, which refinement reports. ``support: null`` keeps the whole vocabulary (L×V
    numbers).
    """

    def __init__(self, support: int | None = 64) -> None:
        super().__init__(support)

    def positions(self, trajectory: Trajectory) -> slice:
        return slice(trajectory.committed, len(trajectory))
