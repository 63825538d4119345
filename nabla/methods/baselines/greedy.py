"""Greedy decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.methods.base import Method, methods

if TYPE_CHECKING:
    from nabla.engine.session import Session


@methods.register("greedy")
class Greedy(Method):
    """One response, the most likely token at every step.

    Args:
        max_new_tokens: length limit of the response.
    """

    def __init__(self, max_new_tokens: int = 1024) -> None:
        self.sampling = Sampling(temperature=0.0, max_new_tokens=max_new_tokens)

    async def solve(self, session: Session) -> Solution:
        (trajectory,) = await session.rollout(self.sampling)
        return self.solution(session, trajectory.commit(len(trajectory)))
