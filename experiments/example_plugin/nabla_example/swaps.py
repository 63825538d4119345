"""Several swaps from one backward pass, rolled out together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.methods.base import Method
from nabla.objectives.base import Objective, objectives
from nabla.schedulers.base import Step

if TYPE_CHECKING:
    from nabla.engine.session import Session


class ParallelSwaps(Method):
    """Each round: one gradient, the ``width`` swaps that it likes best, one batch, the best text goes on."""

    def __init__(self, objective: Objective | str = "sum", width: int = 4, rounds: int = 2, length: int = 96):
        self.objective, self.width, self.rounds = objectives.build(objective), width, rounds
        self.sampling = Sampling(max_new_tokens=length)

    async def solve(self, session: Session) -> Solution:
        (best,) = await session.score(await session.rollout(self.sampling))
        rounds = 0
        while session.proceed(rounds < self.rounds):
            gradient = await session.gradient(best, self.objective)
            part = gradient.total(self.objective.terms(), Step())
            rows = session.reference(best, slice(0, len(best)))
            slopes = session.gradient_rows(gradient, part, rows)
            gains = slopes.gather(-1, rows.chosen[:, None]) - slopes  # first order: how far the loss falls
            gains = gains.masked_fill(rows.logits.log_softmax(-1) < -6, float("-inf"))
            places = gains.flatten().topk(self.width).indices
            edits = torch.stack([places // gains.shape[-1], places % gains.shape[-1]], -1).tolist()
            found = await session.score(await session.fork(best, [tuple(edit) for edit in edits]))
            best, rounds = max([best, *found], key=lambda text: text.reward), rounds + 1
            session.report(best)
        return self.solution(session, best, candidates=1 + rounds * self.width)
