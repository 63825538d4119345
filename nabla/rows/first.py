"""Only the row that is about to be committed."""

from __future__ import annotations

from nabla.rows.base import Rows, rows
from nabla.types import Trajectory


@rows.register("first")
class FirstRow(Rows):
    """Optimise the first uncommitted row over the whole vocabulary; later tokens stay hard."""

    def positions(self, trajectory: Trajectory) -> slice:
        return slice(trajectory.committed, trajectory.committed + 1)
