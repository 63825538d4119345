"""Pools of independent responses: how they grow, and how one of them is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nabla.core.trajectory import Trajectory

if TYPE_CHECKING:
    from nabla.engine.session import Session


#: Of a response, by the language model itself: in all, and per token; nats.
LIKELIHOODS: dict[str, Callable[[Trajectory], float]] = {
    "log-probability": lambda t: t.log_likelihood,
    "mean-log-probability": lambda t: t.log_likelihood / len(t),
}


async def likelihoods(session: Session, trajectories: Sequence[Trajectory], kind: str) -> list[float]:
    """One of :data:`LIKELIHOODS` for each response. What the local language model wrote costs nothing more;
    what a server wrote is read once. Raises ConfigError where nobody can tell."""
    return [LIKELIHOODS[kind](t) for t in await session.states(trajectories)]


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
    if not session.budgeted:
        return wanted - have
    return max(1, have // 4)


def heaviest(
    groups: Sequence[int | None], weights: Sequence[float], ties: Sequence[float] = ()
) -> int | None:
    """The group with the largest sum of weights; None if nobody has an answer.

    Args:
        groups: group of each voter's answer, None without one.
        weights: of each voter.
        ties: decides between groups of equal weight by its largest value in the group; after it (or
            without it) the group that appears first wins.
    """
    totals: dict[int, float] = {}
    bests: dict[int, float] = {}
    second = ties or [0.0] * len(groups)
    for group, weight, tie in zip(groups, weights, second, strict=True):
        if group is not None:
            totals[group] = totals.get(group, 0.0) + weight
            bests[group] = max(bests.get(group, tie), tie)
    return max(totals, key=lambda group: (totals[group], bests[group]), default=None)


def better(held: Trajectory | None, new: Trajectory) -> Trajectory:
    """The response of the higher reward, the earlier among equals; where one has none, the later."""
    if held is None or held.reward is None or new.reward is None or new.reward > held.reward:
        return new
    return held


def sigmoid(x: float) -> float:
    """``1 / (1 + e^-x)`` without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
