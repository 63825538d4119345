"""∇-Reasoner (Wang et al., ICLR 2026, arXiv 2603.04948): Algorithms 1 to 4 as a composition of parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nabla.acceptance.base import Acceptance, acceptances
from nabla.dto import DTO, Refinement
from nabla.errors import ConfigError
from nabla.methods.base import Method, methods
from nabla.proposals.base import Proposal, ProposalView, proposals
from nabla.registry import construct
from nabla.selectors.base import SelectionView, Selector, selectors
from nabla.types import Revision, Sampling, Solution, Trajectory

if TYPE_CHECKING:
    from nabla.engine import Engine, Session


@dataclass(frozen=True)
class _State:
    """All that changes while a problem is solved."""

    current: Trajectory
    selected: tuple[bool, ...]
    rollouts: int
    revisions: tuple[Revision, ...] = field(default=())

    @property
    def position(self) -> int:
        return self.current.committed


@methods.register("nabla-reasoner")
class NablaReasonerMethod(Method):
    """Refine, propose, accept, commit: one token at a time.

    With ``selector="all"`` and a large ``max_rollouts`` this is Algorithm 1, with a selector Algorithm 3;
    rollout reuse and gradient caching (Algorithm 4) are the engine's and always exact.

    Args:
        dto: the inner loop.
        selector: positions worth refining; the others are committed as they are.
        proposal: refined row → token.
        acceptance: whether a proposal replaces the current response.
        sampling: of rollouts.
        max_rollouts: N_max; after that many the rest is committed unrefined.
    """

    def __init__(
        self,
        dto: DTO | dict[str, Any] | None = None,
        selector: Selector | str | dict[str, Any] = "entropy",
        proposal: Proposal | str | dict[str, Any] = "sample",
        acceptance: Acceptance | str | dict[str, Any] = "strict",
        sampling: Sampling | dict[str, Any] | None = None,
        max_rollouts: int = 8,
    ) -> None:
        self.dto = construct(DTO, dto)
        self.selector = selectors.build(selector)
        self.proposal = proposals.build(proposal)
        self.acceptance = acceptances.build(acceptance)
        self.sampling = construct(Sampling, sampling)
        if max_rollouts < 1:
            raise ConfigError("max_rollouts must be at least 1", got=max_rollouts)
        self.max_rollouts = max_rollouts

    def check(self, engine: Engine) -> None:
        reward = engine.reward
        if self.dto.needs_reward and (reward is None or not reward.differentiable):
            raise ConfigError(
                "The objective has a reward term, which needs a differentiable reward",
                got=None if reward is None else type(reward).__name__,
                fix="Pass a reward model (rm=...), or choose objective='likelihood'.",
            )
        if self.acceptance.needs_reward and reward is None:
            raise ConfigError(
                f"Acceptance {acceptances.name_of(self.acceptance)!r} compares rewards, and there is none",
                fix="Pass a reward model (rm=...) or a Python reward, or choose acceptance='always'.",
            )

    async def solve(self, session: Session) -> Solution:
        (trajectory,) = await session.rollout(self.sampling)
        state = await self._adopt(session, _State(trajectory, (), 1), trajectory)
        while not state.current.complete:
            if state.rollouts >= self.max_rollouts:  # Algorithm 3 (c): early stop
                state = self._commit(session, state, len(state.current))
            elif not state.selected[state.position]:  # Algorithm 3 (a): selection
                session.meter.count("skipped_positions")
                state = self._commit(session, state, 1)
            else:
                state = await self._revise(session, state)
        return self.solution(
            session,
            state.current,
            revisions=state.revisions,
            revised=[r.position for r in state.revisions if r.accepted],
            candidates=state.rollouts,
        )

    async def _revise(self, session: Session, state: _State) -> _State:
        """Algorithm 1, lines 4 to 12: refine, draw, roll out, compare, commit one token."""
        position = state.position
        refinement = await self.dto.refine(state.current, session)
        token = self._propose(session, state, refinement)
        if token == int(state.current.tokens[position]):  # Algorithm 3 (b): nothing new, keep the rollout
            session.meter.count("unchanged_proposals")
            return self._commit(session, state, 1)
        session.events.on_proposal(session.prompt, state.current, position, token)
        (proposal,) = await session.branches(state.current, position, [token])
        if self.acceptance.needs_reward:
            (proposal,) = await session.score([proposal])
        accepted = self.acceptance.accept(
            state.current, proposal, session.generator("accept", state.rollouts)
        )
        revision = Revision(
            position,
            int(state.current.tokens[position]),
            token,
            state.current.reward,
            proposal.reward,
            accepted,
            session.decode(state.current.tokens),
            session.decode(proposal.tokens),
        )
        session.meter.count("accepted_proposals" if accepted else "rejected_proposals")
        state = _State(
            state.current, state.selected, state.rollouts + 1, (*state.revisions, revision)
        )
        if accepted:
            session.events.on_accept(session.prompt, state.current, proposal, position)
            state = await self._adopt(session, state, proposal)
        else:
            session.events.on_reject(session.prompt, state.current, proposal, position)
        return self._commit(session, state, 1)

    async def _adopt(self, session: Session, state: _State, trajectory: Trajectory) -> _State:
        """Makes a trajectory the current one: its reward and its selected positions are known."""
        if self.acceptance.needs_reward:
            (trajectory,) = await session.score([trajectory])
        if state.rollouts >= self.max_rollouts:  # nothing will be refined any more
            return _State(trajectory, (False,) * len(trajectory), state.rollouts, state.revisions)
        norms = centred = None
        if self.selector.needs_gradient:
            norms, centred = await session.gradient_norms(trajectory, self.dto.objective)
        view = SelectionView(
            trajectory, norms, centred, session.generator("select", state.rollouts)
        )
        mask = tuple(bool(chosen) for chosen in self.selector.select(view))
        session.events.on_select(
            session.prompt, trajectory, [i for i, chosen in enumerate(mask) if chosen]
        )
        return _State(trajectory, mask, state.rollouts, state.revisions)

    def _propose(self, session: Session, state: _State, refinement: Refinement) -> int:
        view = ProposalView(
            refinement.logits[0],
            refinement.reference.logits[0],
            refinement.reference.ids(0),
            state.current,
            state.position,
            session.generator("propose", state.rollouts, state.position),
        )
        return self.proposal.propose(view)

    def _commit(self, session: Session, state: _State, count: int) -> _State:
        current = state.current.commit(count)
        session.events.on_commit(session.prompt, current)
        return _State(current, state.selected, state.rollouts, state.revisions)
