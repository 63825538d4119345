"""Langevin decoding: COLD (arXiv 2202.11705)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.errors import require_count, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.reports import Refinement
from nabla.methods.base import Method, methods
from nabla.methods.pools import better
from nabla.models.causal_lm import require_lm
from nabla.objectives.base import Objective
from nabla.proposals.base import Proposal, ProposalView, proposals
from nabla.refinement.dto import DTO
from nabla.rewards.base import require_differentiable
from nabla.schedulers.base import Schedule

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


@methods.register("cold")
class Cold(Method):
    """All rows of a rollout as soft tokens, moved by Langevin dynamics on the objective, then read as a text.

    The dynamics are those of :class:`~nabla.refinement.dto.DTO` with every row, soft embeddings, SGD and
    noise ``sqrt(2 η · langevin)``. Each row then gives one token, from the ``top_k`` that the language model
    finds likeliest there, as in the paper; but in the contexts of the rollout, whose states are known, where
    the paper reads the new text as it goes. The end-of-sequence token of the rollout stays; one drawn before
    it ends the text. The answer is the response of the highest reward among rollouts and their
    Langevin texts (without a reward, the last text).

    The paper takes 2,000 steps; the default is a few large ones, each a pass forward and back through both
    models: the gradient of a trained model's row is small, for it is scaled by the row's own probabilities.

    Args:
        objective: what the dynamics lower.
        steps: of the dynamics.
        learning_rate: η, in logits per unit of the objective's gradient.
        langevin: temperature of the noise; 0 is plain descent.
        temperature: of the soft tokens.
        top_k: candidates per position.
        proposal: moved row → token; ``coupled`` reads it with the rollout's own noise, so that tokens change
            only where the row has moved; ``argmax`` is the paper's, for rollouts at temperature 0.
        sampling: of the rollout that a round starts from.
        rounds: restarts; under budgets as many as these allow.
    """

    def __init__(
        self,
        objective: Objective | str | dict[str, Any] = "sum",
        steps: int = 8,
        learning_rate: float | Schedule | str | dict[str, Any] = 10.0,
        langevin: float | Schedule | str | dict[str, Any] = 0.001,
        temperature: float | Schedule | str | dict[str, Any] = 1.0,
        top_k: int = 16,
        proposal: Proposal | str | dict[str, Any] = "coupled",
        sampling: Sampling | dict[str, Any] | None = None,
        rounds: int = 1,
    ) -> None:
        require_positive(rounds=rounds)
        require_count("top_k", top_k, minimum=2, note=" candidates")
        self.dto = DTO(
            estimator={"name": "soft-embedding", "temperature": temperature},
            objective=objective,
            rows={"name": "all", "support": top_k},
            steps=steps,
            optimizer="SGD",
            learning_rate=learning_rate,
            langevin=langevin,
        )
        self.objective, self.steps, self.top_k = self.dto.objective, steps, top_k
        self.proposal = proposals.build(proposal)
        self.sampling = construct(Sampling, sampling)
        self.rounds = rounds

    def check(self, engine: Engine) -> None:
        require_lm(engine.lm, "COLD moves the language model's rows")
        if self.dto.needs_reward:
            require_differentiable(
                engine.reward, "The objective has a reward term", "choose objective='likelihood'"
            )

    async def solve(self, session: Session) -> Solution:
        best: Trajectory | None = None
        rounds = texts = 0
        while session.proceed(rounds < self.rounds):
            (start,) = await session.rollout(self.sampling)
            best, texts = better(best, await self._judge(session, start)), texts + 1
            session.report(best)
            if session.spent:
                break
            refinement = await self.dto.refine(start, session)
            tokens = self.text(session, start, refinement, session.generator("propose", rounds))
            if not torch.equal(tokens, start.tokens):
                (moved,) = await session.read([tokens], self.sampling)
                best, texts = better(best, await self._judge(session, moved)), texts + 1
                session.report(best)
            rounds += 1
        assert best is not None  # the first round always runs
        return self.solution(session, best.commit(len(best)), candidates=texts)

    async def _judge(self, session: Session, trajectory: Trajectory) -> Trajectory:
        return trajectory if not session.judged else (await session.score([trajectory]))[0]

    def text(
        self, session: Session, start: Trajectory, refinement: Refinement, noise: torch.Generator
    ) -> Int[Tensor, " length"]:
        """The moved rows as tokens, up to the first end of sequence."""
        tokens = start.tokens.clone()
        for position in range(len(start) - int(start.finished)):
            view = ProposalView(
                refinement.logits[position],
                refinement.reference.logits[position],
                refinement.reference.ids(position),
                start,
                position,
                noise,
            )
            tokens[position] = token = self.proposal.propose(view)
            if token in session.vocabulary.eos_ids:
                return tokens[: position + 1]
        return tokens
