"""Pools of independent responses that grow until a budget is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nabla.engine import Session


def next_round(session: Session, have: int, wanted: int) -> int:
    """How many responses (or other independent parts) to ask for next.

    Without a budget all that are missing, in one batch. With one a fifth of the pool at most, so that at
    any budget at least four fifths of it are in the answer; the pool itself is the same either way, since
    a response depends on its number alone.

    Args:
        session: tells whether there is a budget.
        have: size of the pool.
        wanted: size that the method's settings ask for.
    """
    if not session.engine.budgets:
        return wanted - have
    return max(1, have // 4)
