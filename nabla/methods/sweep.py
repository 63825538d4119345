"""The loop that ∇-Reasoner and its controls share (arXiv 2603.04948, Algorithms 1 and 3).

A sweep goes once over a rollout: select, propose, accept, commit, one token at a time. The methods differ
in one part alone, the source of rows: the distribution that the token of a selected position is proposed
from. All draws have the same labels, so that a control meets the same rollouts and the same noise as the
method that it is a control of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nabla.acceptance.base import Acceptance, Densities, acceptances
from nabla.core.errors import ConfigError, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Revision, Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, revision, tell
from nabla.methods.pools import better
from nabla.methods.sources import RowSource
from nabla.methods.steps import value
from nabla.models.causal_lm import require_lm
from nabla.objectives.base import trajectory_terms
from nabla.proposals.base import Proposal, ProposalView, proposals
from nabla.rewards.base import require_differentiable
from nabla.selectors.base import Selector, selectors

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


@dataclass(frozen=True)
class _State:
    """All that changes while a problem is solved. ``rollouts`` and ``revisions`` count over all rounds,
    so that no two rounds share a draw; ``first`` is the first revision of the round."""

    current: Trajectory
    selected: tuple[bool, ...] = ()
    rollouts: int = 1
    limit: float = float("inf")
    revisions: tuple[Revision, ...] = field(default=())
    first: int = 0
    #: Of the rounds before: the best response, and the positions that were revised in it.
    held: Trajectory | None = None
    held_revised: tuple[int, ...] = ()

    @property
    def position(self) -> int:
        return self.current.committed

    @property
    def ahead(self) -> tuple[int, ...]:
        """Selected positions behind this one."""
        return tuple(i for i in range(self.position + 1, len(self.selected)) if self.selected[i])

    @property
    def spent(self) -> bool:
        """Algorithm 3 (c): the round has had its rollouts."""
        return self.rollouts >= self.limit

    @property
    def answer(self) -> Trajectory:
        return better(self.held, self.current)

    @property
    def revised(self) -> tuple[int, ...]:
        """Positions of the answer that a revision changed."""
        if self.answer is self.held:
            return self.held_revised
        return tuple(r.position for r in self.revisions[self.first :] if r.accepted)


class Sweep(Method):
    """Rounds of select, propose, accept, commit. A round starts from a fresh rollout; the answer is the
    best round's response by reward (without rewards the last round's).

    Args:
        rows: what tokens are proposed from.
        selector: positions worth a proposal; the others are committed as they are.
        proposal: row → token.
        acceptance: whether a proposal replaces the current response.
        sampling: of rollouts.
        max_rollouts: N_max; after that many in a round the rest is committed as it is. None: no limit.
        rounds: sweeps; under budgets as many as these allow, the last up to the proposal that exceeds them.
        width: draws from a position's row; the different tokens among them are rolled out and scored in one
            batch, and the best of them is the proposal.

    Raises ConfigError for a selector that looks at a gradient where the rows have no objective, and for exact
    acceptance of the best of several.
    """

    def __init__(
        self,
        rows: RowSource,
        selector: Selector | str | dict[str, Any] = "entropy",
        proposal: Proposal | str | dict[str, Any] = "sample",
        acceptance: Acceptance | str | dict[str, Any] = "strict",
        sampling: Sampling | dict[str, Any] | None = None,
        max_rollouts: int | None = 8,
        rounds: int = 1,
        width: int = 1,
    ) -> None:
        self.rows = rows
        self.selector = selectors.build(selector)
        self.proposal = proposals.build(proposal)
        self.acceptance = acceptances.build(acceptance)
        self.sampling = construct(Sampling, sampling)
        if max_rollouts is not None:
            require_positive(max_rollouts=max_rollouts)
        require_positive(rounds=rounds, width=width)
        self.max_rollouts = max_rollouts
        self.rounds, self.width = rounds, width
        if self.selector.needs_gradient and rows.selection_objective is None:
            raise ConfigError(
                "The selector looks at a gradient, and the rows come with no objective",
                fix="Pass an objective, or choose another selector, e.g. 'entropy'.",
            )

    def _differentiates(self, model: str) -> bool:
        """Whether gradients at current responses go through a model: ``needs_reward`` or
        ``needs_likelihood``."""
        selection = self.rows.selection_objective if self.selector.needs_gradient else None
        asked = [objective for objective in (self.rows.differentiated, selection) if objective is not None]
        return any(getattr(t.objective, model) for o in asked for t in trajectory_terms(o) if t.active)

    @property
    def keeps_best(self) -> bool:
        return self.acceptance.strict

    def check(self, engine: Engine) -> None:
        require_lm(engine.lm, "A sweep proposes tokens from the language model's rows")
        self.rows.check(engine)
        selection = self.rows.selection_objective if self.selector.needs_gradient else None
        if selection is not None and any(t.objective.needs_reward for t in trajectory_terms(selection)):
            require_differentiable(
                engine.reward,
                "The selector's objective has a reward term",
                "choose another selector, e.g. 'entropy'",
            )
        dense = self.rows.of_prefix and self.proposal.dense and self.width == 1
        if self.acceptance.needs_densities and not dense:
            raise ConfigError(
                f"Acceptance {acceptances.name_of(self.acceptance)!r} needs the densities of proposals, and "
                "these have none",
                got=f"{type(self.rows).__name__} rows, proposal {proposals.name_of(self.proposal)!r}, "
                f"width {self.width}",
                fix="Draw from the language model's own rows (method 'revision') with the proposal 'sample' "
                "at a positive temperature and width 1, or choose acceptance 'metropolis'.",
            )
        if self.acceptance.needs_reward and engine.reward is None:
            raise ConfigError(
                f"Acceptance {acceptances.name_of(self.acceptance)!r} compares rewards, and there is none",
                fix="Pass a reward model (rm=...) or a Python reward, or choose acceptance='always'.",
            )

    async def solve(self, session: Session) -> Solution:
        session.objective = self.rows.selection_objective
        state = await self._round(session, None)
        rounds = 1
        while session.proceed(rounds < self.rounds):
            state = await self._round(session, state)
            rounds += 1
        return self.solution(
            session,
            state.answer,
            revisions=state.revisions,
            revised=state.revised,
            candidates=state.rollouts,
        )

    async def _round(self, session: Session, before: _State | None) -> _State:
        """One sweep over a fresh rollout."""
        (trajectory,) = await session.rollout(self.sampling)
        limit = float("inf") if self.max_rollouts is None else self.max_rollouts
        if before is None:
            state = _State(trajectory, limit=limit)
        else:
            state = _State(
                trajectory,
                rollouts=before.rollouts + 1,
                limit=before.rollouts + limit,
                revisions=before.revisions,
                first=len(before.revisions),
                held=before.answer,
                held_revised=before.revised,
            )
        state = await self._adopt(session, state, trajectory)
        while not state.current.complete:
            if state.spent or session.spent:
                state = self._commit(session, state, len(state.current))
            elif not state.selected[state.position]:  # Algorithm 3 (a): selection
                upto = next(iter(state.ahead), len(state.current))
                session.meter.count("skipped_positions", upto - state.position)
                state = self._commit(session, state, upto - state.position)
            else:
                state = await self._revise(session, state)
        session.report(state.answer)
        return state

    async def _revise(self, session: Session, state: _State) -> _State:
        """Algorithm 1, lines 4 to 12: refine, draw, roll out, compare, commit one token."""
        position = state.position
        view = await self._view(session, state)
        if session.spent:  # refining has cost the rest: no proposal would count
            return self._commit(session, state, len(state.current))
        tokens = self._tokens(view)[: int(min(self.width, state.limit - state.rollouts))]
        if not tokens:  # Algorithm 3 (b): nothing new, keep the rollout
            session.meter.count("unchanged_proposals")
            return self._commit(session, state, 1)
        edits = [(position, token) for token in tokens]
        for edit in edits:
            session.events.on_proposal(session.prompt, state.current, *edit)
        offered = await session.fork(state.current, edits)
        best = 0
        if self.acceptance.needs_reward:
            offered = await session.score(offered, keep_graph=self._continues(state, len(edits)))
            best = max(range(len(offered)), key=lambda i: value(offered[i]))
        proposal, token = offered[best], tokens[best]
        densities = self._densities(session, view, token) if self.acceptance.needs_densities else None
        rollouts = state.rollouts + len(edits)
        accepted = self.acceptance.accept(
            state.current, proposal, session.generator("accept", state.rollouts), densities
        )
        made = revision(session, state.current, proposal, (position, token), accepted)
        state = replace(state, rollouts=rollouts, revisions=(*state.revisions, made))
        why = self.acceptance.reason(state.current, proposal)
        tell(session, state.current, proposal, position, accepted, why)
        if accepted:
            state = await self._adopt(session, state, proposal)
        else:
            session.drop_graphs(but=[state.current])
        return self._commit(session, state, 1)

    def _tokens(self, view: ProposalView) -> list[int]:
        """What is proposed in place of a position's token: no token twice, and never that token itself."""
        drawn = dict.fromkeys(self.proposal.propose(view) for _ in range(self.width))
        return [token for token in drawn if token != int(view.trajectory.tokens[view.position])]

    def _continues(self, state: _State, offered: int) -> bool:
        """Whether a proposal's gradient through the reward may be asked for, if it is accepted."""
        last = state.rollouts + offered >= state.limit or state.position + 1 >= len(state.current)
        return not last and self._differentiates("needs_reward")

    async def _adopt(self, session: Session, state: _State, trajectory: Trajectory) -> _State:
        """Makes a trajectory the current one: its reward and its selected positions are known."""
        session.drop_graphs(but=[trajectory])
        if self.acceptance.needs_reward:
            differentiated = not state.spent and self._differentiates("needs_reward")
            (trajectory,) = await session.score([trajectory], keep_graph=differentiated)
        state = replace(state, current=trajectory, selected=(False,) * len(trajectory))
        session.report(state.answer)
        if state.spent or session.spent:  # nothing will be refined any more
            return state
        differentiated = self._differentiates("needs_likelihood")
        # A pass where it was written elsewhere.
        (trajectory,) = await session.states([trajectory], keep_graph=differentiated)
        state = replace(state, current=trajectory)
        mask = tuple(bool(chosen) for chosen in await self.selector.select(trajectory, session))
        session.events.on_select(session.prompt, trajectory, [i for i, chosen in enumerate(mask) if chosen])
        return replace(state, selected=mask)

    async def _view(self, session: Session, state: _State) -> ProposalView:
        row = await self.rows.row(session, state.current, state.ahead)
        return ProposalView(
            row.logits,
            row.reference.logits[0],
            row.reference.ids(0),
            state.current,
            state.position,
            session.generator("propose", state.rollouts, state.position),
        )

    def _densities(self, session: Session, view: ProposalView, token: int) -> Densities:
        """Of a token in place of the current one. Both texts share the row, and the suffixes, which the
        sampler draws, cancel against the target. No selector chooses an end of sequence: from a text that
        ends here there is no way back."""
        current = view.trajectory
        old = int((view.candidates == current.tokens[view.position]).nonzero()[0, 0])
        new = int((view.candidates == token).nonzero()[0, 0])
        own = current.sampling.filter(view.reference).log_softmax(-1)
        ends = token in session.vocabulary.eos_ids
        return Densities(
            self.proposal.log_density(view, new),
            -math.inf if ends else self.proposal.log_density(view, old),
            float(own[new] - own[old]),
        )

    def _commit(self, session: Session, state: _State, count: int) -> _State:
        current = state.current.commit(count)
        session.events.on_commit(session.prompt, current)
        return replace(state, current=current)
