"""QAlign: Metropolis-Hastings over texts whose suffixes are drawn anew (arXiv 2504.03790)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch

from nabla.acceptance.base import Densities
from nabla.acceptance.metropolis import MetropolisHastings
from nabla.core.errors import ConfigError, require_finite, require_one_of, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.edits import cut
from nabla.methods.base import Method, methods, tell
from nabla.methods.pools import better
from nabla.rewards.base import require_reward

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


@methods.register("qalign")
class QAlign(Method):
    """A Markov chain on ``π(y) e^{r(y)/β}``, with π the sampler of rollouts (temperature, top-p and length
    limit included).

    A step draws a position i of the text uniformly and everything from i on anew, from π; the new text y'
    is accepted with probability ``min(1, e^{(r' - r)/β} |y| / |y'|)``. |y| counts the end token, whose
    position can be drawn as well. The quotient of lengths is that of the positions' probabilities (SPEC
    section 15): without it, or with an end token that stays, the chain has another stationary law.

    Args:
        steps: of the chain, without a budget.
        beta: in the reward's unit, > 0; small ones climb.
        sampling: π.
        answer: the chain's ``best`` text by reward, or its ``last`` one, which is the sample.
    """

    def __init__(
        self,
        steps: int = 15,
        beta: float = 1.0,
        sampling: Sampling | dict[str, Any] | None = None,
        answer: Literal["best", "last"] = "best",
    ) -> None:
        require_positive(steps=steps)
        self.steps, self.beta = steps, require_finite("beta", beta)
        if self.beta <= 0:
            raise ConfigError("beta must be positive", got=beta)
        self.acceptance = MetropolisHastings(self.beta)
        require_one_of(answer, ("best", "last"), "Unknown answer", "Answers")
        self.sampling, self.answer = construct(Sampling, sampling), answer

    @property
    def keeps_best(self) -> bool:
        return self.answer == "best"

    def check(self, engine: Engine) -> None:
        require_reward(engine.reward, "QAlign weighs texts by reward")

    async def solve(self, session: Session) -> Solution:
        (current,) = await session.score(await session.rollout(self.sampling))
        held, steps = current, 0
        session.report(current)
        while session.proceed(steps < self.steps):
            current = await self.step(session, current, steps)
            held, steps = better(held, current), steps + 1
            session.report(held if self.answer == "best" else current)
        chosen = held if self.answer == "best" else current
        return self.solution(session, chosen.commit(len(chosen)), candidates=steps + 1)

    async def step(self, session: Session, current: Trajectory, number: int) -> Trajectory:
        """One step of the chain from a scored text."""
        generator = session.generator("qalign", number)
        position = int(torch.randint(len(current), (), generator=generator))
        (proposal,) = await session.score(await session.extend([cut(current, position)]))
        session.events.on_proposal(session.prompt, current, position, int(proposal.tokens[position]))
        # Positions are drawn uniformly, and suffixes from π itself, which cancels against the target.
        lengths = Densities(-math.log(len(current)), -math.log(len(proposal)), 0.0)
        accepted = self.acceptance.accept(current, proposal, generator, lengths)
        tell(session, current, proposal, position, accepted, self.acceptance.reason(current, proposal))
        return proposal if accepted else current
