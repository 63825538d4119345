"""Finishing greedily: any search, and the rest of its budget for one greedy text (SPEC section 14)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from nabla.core.errors import require_finite
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.edits import cut
from nabla.methods.base import Method, methods
from nabla.methods.pools import better
from nabla.models.causal_lm import require_lm
from nabla.rewards.base import require_reward

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


@methods.register("greedy-finish")
class GreedyFinish(Method):
    """Another method's answer, written anew from its worst token on, the most likely token at every step; the
    better one by reward is the answer.

    The worst token is the first one whose value is within ``slack`` of the text's smallest; where the reward
    has no values, the one that the language model finds least likely. The cost of a text is set aside for
    this inside the largest budget: that of the method's own first answer. Where the method's last round took
    that too, its answer stays as it is.

    Args:
        method: the search; it has its own sampling, boundary and the like.
        slack: in the reward's unit.
        max_new_tokens: length limit of the greedy text; an answer whose worst token lies behind it stays.
    """

    def __init__(
        self,
        method: Method | str | dict[str, Any] = "best-of-n",
        slack: float = 1.0,
        max_new_tokens: int = 1024,
    ) -> None:
        self.method = methods.build(method)
        self.slack = require_finite("slack", slack, minimum=0.0)
        self.sampling = Sampling(temperature=0.0, max_new_tokens=max_new_tokens)

    @property
    def max_new_tokens(self) -> int:
        """Of the greedy text."""
        return self.sampling.max_new_tokens

    @property
    def keeps_best(self) -> bool:
        return self.method.keeps_best

    def check(self, engine: Engine) -> None:
        require_lm(engine.lm, "Finishing greedily reads an answer")
        require_reward(engine.reward, "Finishing greedily keeps the better of two texts")
        self.method.check(engine)

    async def solve(self, session: Session) -> Solution:
        session.progress.reserving = True
        found = await self.method.solve(session)
        session.progress.reserving = False
        if session.spent:  # the search's last round took what was set aside: no later text counts
            return replace(found, method=methods.name_of(self))
        (text,) = await session.judge(await session.read([torch.tensor(found.tokens)], self.sampling))
        head = cut(text, self.worst(text))
        (greedy,) = await session.judge(await session.extend([head]))
        written = len(greedy) > len(head)  # else the head fills all the room there is
        chosen = better(text, greedy) if written else text
        return self.solution(
            session,
            chosen.commit(len(chosen)),
            revisions=found.revisions,
            revised=found.revised_positions if chosen is text else (),
            candidates=found.candidates + written,
        )

    def worst(self, text: Trajectory) -> int:
        """Position of the worst token."""
        known = [value for value in text.values if not math.isnan(value)]
        if not known:
            return int(text.log_probs.argmin())
        lowest = min(known) + self.slack
        return next(i for i, value in enumerate(text.values) if value <= lowest)
