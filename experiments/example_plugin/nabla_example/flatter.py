"""A sweep over flatter rows: a method as a composition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nabla.core.trajectory import Trajectory
from nabla.methods.sources import Row, RowSource
from nabla.methods.sweep import Sweep

if TYPE_CHECKING:
    from nabla.engine.session import Session


class Flattened(RowSource):
    """The language model's own row, divided by ``temperature``."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    async def row(self, session: Session, trajectory: Trajectory, ahead: Sequence[int]) -> Row:
        position = trajectory.committed
        rows = session.reference(trajectory, slice(position, position + 1), ahead=ahead)
        return Row(rows.logits[0] / self.temperature, rows)


def flatter_revision(temperature: float = 2.0, max_rollouts: int = 8) -> Sweep:
    """Revision that explores: tokens are drawn again from flatter rows."""
    return Sweep(rows=Flattened(temperature), max_rollouts=max_rollouts)
