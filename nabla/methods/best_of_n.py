"""Best-of-N sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nabla.errors import ConfigError
from nabla.methods.base import Method, methods
from nabla.registry import construct
from nabla.types import Sampling, Solution

if TYPE_CHECKING:
    from nabla.engine import Engine, Session


@methods.register("best-of-n")
class BestOfN(Method):
    """N independent responses in one batch; the one with the highest reward (the first among equals).

    Args:
        n: number of responses.
        sampling: how they are drawn.
    """

    def __init__(self, n: int = 8, sampling: Sampling | dict[str, Any] | None = None) -> None:
        if n < 1:
            raise ConfigError("n must be at least 1", got=n)
        self.n = n
        self.sampling = construct(Sampling, sampling)

    def check(self, engine: Engine) -> None:
        if engine.reward is None:
            raise ConfigError(
                "Best-of-N ranks by reward, and there is none",
                fix="Pass a reward model (rm=...) or a Python reward.",
            )

    async def solve(self, session: Session) -> Solution:
        candidates = await session.rollout(self.sampling, n=self.n)
        scored = await session.score(candidates)
        best = max(scored, key=lambda t: t.reward if t.reward is not None else float("-inf"))
        return self.solution(session, best.commit(len(best)), candidates=self.n)
