"""Pairs of a position and a token drawn jointly: revision without an order (SPEC section 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nabla.acceptance.base import Acceptance, acceptances
from nabla.core.errors import ConfigError, require_finite, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Revision, Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods, revision, tell
from nabla.methods.pools import better
from nabla.methods.searches.agreement import Agreement
from nabla.methods.steps import value
from nabla.models.causal_lm import require_lm
from nabla.moves.base import Move, moves
from nabla.objectives.base import Objective, objectives, trajectory_terms
from nabla.rewards.base import require_differentiable, require_reward, require_values

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session

#: Changes in a row that run no model (texts of one token, a reward that is a function) after which a fresh
#: text begins, which does: where what is no better is accepted they could go on for ever.
FREE = 64

#: Proposals of a problem before first-order gains are judged by them.
LEAST = 6


@methods.register("pairs")
class Pairs(Method):
    """One pair of a position and a token is drawn from a law over all of them, the text goes on from there,
    and is kept or not. The answer is the best text.

    Args:
        move: the law.
        acceptance: whether a changed text replaces the current one.
        sampling: how tokens are drawn.
        width: pairs of one text that are written and scored in one batch; the best of them is offered.
        objective: of moves by first-order gains.
        agreement: of such moves: rank agreement (Kendall's τ) of their weights with the exact gains, over
            the proposals of a problem that are paid for anyway, below which no other gradient is taken and
            pairs are drawn from ``fallback``; null always takes it.
        fallback: a move without a gradient.
        attempts: texts per problem, without a budget.
        patience: failures in a row after which a fresh text begins.

    Raises ConfigError for exact acceptance: pairs are drawn without replacement, so there are no densities.
    """

    def __init__(
        self,
        move: Move | str | dict[str, Any] = "policy",
        acceptance: Acceptance | str | dict[str, Any] = "strict",
        sampling: Sampling | dict[str, Any] | None = None,
        width: int = 1,
        objective: Objective | str | dict[str, Any] | None = None,
        agreement: float | None = None,
        fallback: Move | str | dict[str, Any] = "policy",
        attempts: int = 16,
        patience: int = 12,
    ) -> None:
        require_positive(width=width, attempts=attempts, patience=patience)
        self.move, self.acceptance = moves.build(move), acceptances.build(acceptance)
        self.sampling = construct(Sampling, sampling)
        self.objective = None if objective is None else objectives.build(objective)
        self.width, self.attempts, self.patience = width, attempts, patience
        self.agreement = None if agreement is None else require_finite("agreement", agreement)
        self.fallback = moves.build(fallback)
        if self.fallback.needs_gradient or (agreement is not None and not self.move.needs_gradient):
            raise ConfigError(
                "Agreement chooses between a move by first-order gains and a fallback without a gradient",
                got=[moves.name_of(self.move), moves.name_of(self.fallback)],
                fix="Use move 'first-order' and fallback 'policy', say.",
            )
        if self.acceptance.needs_densities:
            raise ConfigError(
                "Pairs are drawn without replacement: exact acceptance is not defined with them",
                got=acceptances.name_of(self.acceptance),
                fix="Use acceptance 'metropolis' or 'strict', or the method 'qalign'.",
            )
        if self.move.needs_gradient and self.objective is None:
            raise ConfigError(
                "The move looks at a gradient, and there is no objective", fix="Pass an objective."
            )

    def check(self, engine: Engine) -> None:
        require_lm(engine.lm, "Pairs are drawn from the language model's rows")
        require_reward(engine.reward, "Pairs compare texts by reward")
        if self.move.needs_values or self.fallback.needs_values:
            require_values(engine.reward, "The move weighs positions by values")
        terms = () if self.objective is None else trajectory_terms(self.objective)
        if any(term.objective.needs_reward for term in terms):
            what, fix = "The move's objective has a reward term", "choose another move"
            require_differentiable(engine.reward, what, fix)

    async def solve(self, session: Session) -> Solution:
        session.objective = self.objective
        current = held = await self._fresh(session)
        session.report(held)
        tried: set[tuple[int, int]] = set()
        texts, failures, revisions, calls = 1, 0, list[Revision](), -1
        # A changed text may end at once and cost nothing: a round goes on until a model has run.
        free, promises = 0, Agreement(self.agreement if self.agreement is not None else -1.0, LEAST)
        while session.cost.total.calls == calls or session.proceed(texts < self.attempts):
            free = free + 1 if session.cost.total.calls == calls else 0
            calls = session.cost.total.calls
            fresh = failures >= self.patience or free >= FREE
            move = self.move if promises.trusted else self.fallback
            edits = {} if fresh else await self._edits(session, move, current, tried, texts)
            if not edits:
                current, tried, failures, texts = await self._fresh(session), set(), 0, texts + 1
                held = better(held, current)
                session.report(held)
                continue
            tried.update(edits)
            offered = await self._score(session, await session.fork(current, list(edits)))
            texts += len(offered)
            if move.needs_gradient:
                for gain, text in zip(edits.values(), offered, strict=True):
                    promises.add(gain, value(text) - value(current))
            best = max(range(len(offered)), key=lambda i: value(offered[i]))
            accepted = self.acceptance.accept(current, offered[best], session.generator("accept", texts))
            edit = list(edits)[best]
            why = self.acceptance.reason(current, offered[best])
            tell(session, current, offered[best], edit[0], accepted, why)
            revisions.append(revision(session, current, offered[best], edit, accepted))
            held = better(held, offered[best])
            if accepted:
                current, tried, failures = offered[best], set(), 0
            else:
                failures += 1
            session.report(held)
        return self.solution(session, held.commit(len(held)), revisions=revisions, candidates=texts)

    async def _fresh(self, session: Session) -> Trajectory:
        return (await self._score(session, await session.rollout(self.sampling)))[0]

    async def _score(self, session: Session, texts: list[Trajectory]) -> list[Trajectory]:
        """With values where the move reads them: the same pass gives both."""
        return await (session.judge(texts) if self.move.needs_values else session.score(texts))

    async def _edits(
        self,
        session: Session,
        move: Move,
        current: Trajectory,
        tried: set[tuple[int, int]],
        texts: int,
    ) -> dict[tuple[int, int], float]:
        """Pairs, with the weights that they were drawn by."""
        law, edits = await move.law(current, session), dict[tuple[int, int], float]()
        drawn = session.generator("move", texts)
        for _ in range(self.width):
            pair = law.draw(drawn, tried={*tried, *edits})
            if pair is not None:
                session.events.on_proposal(session.prompt, current, *pair)
                edits[pair] = law.log_weight(*pair)
        return edits
