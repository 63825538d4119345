"""Only the row that is about to be committed."""

from __future__ import annotations

from nabla.core.trajectory import Trajectory
from nabla.refinement.rows.base import Rows, rows


@rows.register("first")
class FirstRow(Rows):
    """Optimise the first uncommitted row over the whole vocabulary; later tokens stay hard."""

    def positions(self, trajectory: Trajectory) -> slice:
        return slice(trajectory.committed, trajectory.committed + 1)
