"""One sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.methods.base import Method, methods

if TYPE_CHECKING:
    from nabla.engine.session import Session


@methods.register("sampling")
class SingleSample(Method):
    """One response, drawn from the language model; a budget changes nothing.

    Args:
        sampling: how it is drawn.
    """

    def __init__(self, sampling: Sampling | dict[str, Any] | None = None) -> None:
        self.sampling = construct(Sampling, sampling)

    async def solve(self, session: Session) -> Solution:
        (trajectory,) = await session.rollout(self.sampling)
        return self.solution(session, trajectory.commit(len(trajectory)))
