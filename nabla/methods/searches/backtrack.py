"""Backtracking: stop writing at the first mistake, and draw again there or before (SPEC section 14)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from nabla.core.errors import require_one_of, require_positive
from nabla.core.prompt import Prompt
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Revision, Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods, revision, tell
from nabla.methods.calibrating import sample
from nabla.methods.controls.revision import revision as sweep
from nabla.methods.pools import better
from nabla.methods.screened import Writer, Written
from nabla.models.causal_lm import require_lm
from nabla.moves.base import Law, Move, moves
from nabla.rewards.base import require_values
from nabla.rollouts.boundaries.base import Boundary, boundaries
from nabla.screens.base import Screen, screens
from nabla.screens.gate import Calibration, Gate
from nabla.screens.sampled import Sampled

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session

#: Texts stopped in a row after which one is written to its end.
STOPS = 4

#: Texts in a round of the revision that takes over.
ROUND = 8


@dataclass
class _State:
    """Of one problem: the text that is changed, and the answer held so far."""

    head: Written
    held: Trajectory
    #: At the head; None where it has not been formed yet.
    law: Law | None = None
    tried: set[tuple[int, int]] = field(default_factory=set)
    failures: int = 0
    stopped: int = 0
    texts: int = 1
    revisions: list[Revision] = field(default_factory=list)


@methods.register("backtrack")
class Backtrack(Method):
    """A text is written step by step and read by the reward as it grows; at the first bad token it stops,
    another token is drawn there or before, and writing goes on from there.

    The first text is written to its end, so that an answer is always held. A changed text takes the place
    of the old one if it is good further (two complete ones: if its reward is higher). Pairs of a text are
    drawn without replacement; after ``patience`` failures a fresh text begins. After four stops in a row a
    text is written to its end. The answer is the best complete text. An attempt costs one pass of each model
    over its new tokens.

    Where several problems are solved together a gate asks first, of sampled texts and without labels, whether
    values say where a text goes wrong and whether stopping pays, and fits the weights of screen and move
    (SPEC section 14). If stopping does not pay, every text is written to its end; if values do not even say
    where, the problems are solved by ``revision`` with the same sampling. A single problem is solved with the
    weights as they are given.

    Args:
        screen: where a text is bad, and whether it is stopped there.
        move: what is changed: a law over (position, token).
        sampling: how tokens are drawn.
        boundary: where a step ends.
        every: the reward reads a text at the end of each ``step``, or of each ``token``: fewer tokens, more
            passes.
        gate: of the screen; with ``texts: 0`` nobody is asked.
        blind: what is done where the gate finds that values do not say where: ``revision``, or this
            ``search`` by the rewards of texts written to their ends.
        width: changes of one text that are written in one batch; the best of them is offered.
        attempts: texts per problem, without a budget.
        patience: failures in a row of one text.
    """

    #: What the gate has found; None before, and where there is none.
    calibration: Calibration | None = None

    def __init__(
        self,
        screen: Screen | str | dict[str, Any] = "posterior",
        move: Move | str | dict[str, Any] = "likely-mistake",
        sampling: Sampling | dict[str, Any] | None = None,
        boundary: Boundary | str | dict[str, Any] = "newline",
        every: Literal["step", "token"] = "step",
        gate: Gate | dict[str, Any] | None = None,
        blind: Literal["revision", "search"] = "revision",
        width: int = 1,
        attempts: int = 16,
        patience: int = 6,
    ) -> None:
        require_positive(width=width, attempts=attempts, patience=patience)
        require_one_of(every, ("step", "token"), "Unknown place for a screen to look", "Use")
        require_one_of(blind, ("revision", "search"), "Unknown way without values", "Use")
        self.screen = screens.build(screen)
        self.move = moves.build(move)
        self.sampling = construct(Sampling, sampling)
        self.boundary = boundaries.build(boundary)
        self.every: Literal["step", "token"] = every
        self.gate = construct(Gate, gate)
        self.blind: Literal["revision", "search"] = blind
        self.width, self.attempts, self.patience = width, attempts, patience
        if self.gate.file is not None:
            self._calibrate(Calibration.load(self.gate.file), [])

    def check(self, engine: Engine) -> None:
        require_lm(engine.lm, "Backtracking draws tokens from the language model's rows")
        require_values(engine.reward, "Backtracking reads texts token by token")

    def prepared(self, engine: Engine, prompts: Sequence[Prompt]) -> Method:
        gate = self.gate
        if not gate.texts or self.calibration is not None or len(prompts) < gate.least:
            return self
        texts, flops = sample(engine, prompts[: gate.prompts], gate.texts, self.sampling, self.boundary)
        ready = copy.copy(self)
        ready._calibrate(gate.judge(self.screen, texts, flops), texts)
        return ready

    @property
    def learnt(self) -> str | None:
        if self.calibration is None:
            return None
        return self.calibration.told + ("; revision in its place" if self.revises else "")

    @property
    def prepared_flops(self) -> float:
        return 0.0 if self.calibration is None else self.calibration.flops

    @property
    def revises(self) -> bool:
        """Whether the gate has handed the problems over to revision."""
        return self.calibration is not None and not self.calibration.aimed and self.blind == "revision"

    def _calibrate(self, found: Calibration, texts: Sequence[Sampled]) -> None:
        self.calibration = found
        self.move = self.move.with_change_point(found.change_point)
        self.screen = self.screen.fitted(texts, found.change_point)
        self.stopping = found.opened

    #: Whether texts are stopped at all.
    stopping: bool = True

    async def solve(self, session: Session) -> Solution:
        if self.revises:
            # About as many texts without a budget; with one, rounds go on until it is spent.
            rounds = -(-self.attempts // ROUND)
            instead = sweep(sampling=self.sampling, max_rollouts=ROUND, rounds=rounds, width=self.width)
            return replace(await instead.solve(session), method=methods.name_of(self))
        writer = Writer(self.screen, self.boundary, self.every)
        (head,) = await writer.finish(session, await session.rollout(self.sampling), None)
        state = _State(head, head.trajectory)
        session.report(state.held)
        while session.proceed(state.texts < self.attempts):
            # A changed text may end at once and cost nothing: a round goes on until a model has run.
            before = session.cost.total.calls
            while session.cost.total.calls == before:
                await self._attempt(session, writer, state)
            session.report(state.held)
        answer = state.held.commit(len(state.held))
        return self.solution(session, answer, revisions=state.revisions, candidates=state.texts)

    async def _attempt(self, session: Session, writer: Writer, state: _State) -> None:
        """Changed texts of the current one, or a fresh one."""
        head = state.head.trajectory
        pairs = await self._pairs(session, state)
        state.texts += max(len(pairs), 1)
        whole = not self.stopping or state.stopped >= STOPS
        until = None if whole else writer.until
        if pairs:
            begun = await session.fork(head, pairs, until=until)
        else:
            session.events.on_restart(session.prompt, head)
            begun = await session.rollout(self.sampling, until=until)
        new = await writer.finish(session, begun, state.held.reward, whole=whole)
        for text in new:
            ended = session.ended(text.trajectory)
            state.stopped = 0 if ended else state.stopped + 1
            session.meter.count("finished_texts" if ended else "stopped_texts")
            if ended:
                state.held = better(state.held, text.trajectory)
        best = 0
        for i, text in enumerate(new):
            if _further(session, text, new[best]):
                best = i
        accepted = not pairs or _further(session, new[best], state.head)
        if pairs:
            why = _reason(session, state.head, new[best])
            tell(session, head, new[best].trajectory, pairs[best][0], accepted, why)
            changed = revision(session, head, new[best].trajectory, pairs[best], accepted)
            state.revisions.append(changed)
        if accepted:
            state.head, state.law, state.tried, state.failures = new[best], None, set(), 0
        else:
            state.failures += 1

    async def _pairs(self, session: Session, state: _State) -> list[tuple[int, int]]:
        """What is changed next in the current text; nothing where it is given up."""
        pairs: list[tuple[int, int]] = []
        if state.failures >= self.patience:
            return pairs
        if state.law is None or not self.move.has_densities:  # the law is more than the text's own
            state.law = await self.move.law(state.head.trajectory, session)
        drawn = session.generator("move", state.texts + 1)
        last = state.head.bad if self.stopping else None
        for _ in range(self.width):
            pair = state.law.draw(drawn, tried=state.tried, last=last)
            if pair is not None:
                state.tried.add(pair)
                session.events.on_proposal(session.prompt, state.head.trajectory, *pair)
                pairs.append(pair)
        return pairs


def _further(session: Session, new: Written, old: Written) -> bool:
    """Good further; between two complete texts the reward decides."""
    if session.ended(new.trajectory) and session.ended(old.trajectory):
        return better(old.trajectory, new.trajectory) is new.trajectory
    return new.reach > old.reach


def _reason(session: Session, old: Written, new: Written) -> str:
    """Of taking one text for another, in words."""
    if session.ended(new.trajectory) and session.ended(old.trajectory):
        rewards = (text.trajectory.reward for text in (old, new))
        return "both complete; reward {:.4g} → {:.4g}".format(*rewards)
    ends = ("the end" if math.isinf(text.reach) else f"token {text.reach:.3g}" for text in (old, new))
    return "good up to {} before, {} now".format(*ends)
