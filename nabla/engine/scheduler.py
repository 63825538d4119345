"""Which requests run when: many problems advance in turn, and what they wait for runs in batches."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from nabla.core.costs import CostMeter, Usage
from nabla.core.errors import ComponentError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.remote import RemoteRollouts
from nabla.engine.requests import Request, RolloutRequest
from nabla.engine.session import Session
from nabla.engine.workspace import Workspace
from nabla.rollouts.base import Writer

#: Steps of decoding at the most before others are looked at again.
STEPS = 64
#: A method as the engine takes it: sequential code for one problem.
Solve = Callable[[Session], Coroutine[Any, Any, Solution]]


class Live:
    """A live problem: its coroutine, what it waits for and since when, and in the end its result.

    Its requests are answered in parts where they are of several kinds; it advances when all answers are in.
    """

    written: Mapping[int, int] = MappingProxyType({})

    def __init__(self, session: Session, coroutine: Coroutine[Any, Any, Solution]) -> None:
        self.session, self.prompt, self.coroutine = session, session.prompt, coroutine
        self.requests: list[Request] | None = None
        #: Of its requests, by index.
        self.answers: dict[int, Any] = {}
        #: Answers to its rollout requests while they are written elsewhere.
        self.away: Future[list[Any]] | None = None
        #: Of its rollout requests that are being written here: the writer's number → index.
        self.written: Mapping[int, int] = {}
        self.result: Solution | NablaError | None = None
        #: Flushes of others that it has waited through.
        self.passed_over = 0

    @property
    def kinds(self) -> frozenset[str]:
        """Of the requests that it waits for, rollouts apart that are being written."""
        return frozenset(request.kind for _, request in self.waiting)

    @property
    def open(self) -> list[tuple[int, Request]]:
        """Requests without an answer, with their index."""
        return [(i, request) for i, request in enumerate(self.requests or ()) if i not in self.answers]

    @property
    def waiting(self) -> list[tuple[int, Request]]:
        """Requests without an answer that nobody works on."""
        written = self.written.values()
        return [(i, request) for i, request in self.open if i not in written]

    @property
    def here(self) -> bool:
        """It waits for this process."""
        return self.requests is not None and self.away is None

    def start(self) -> None:
        """Runs the method up to its first await."""
        self._advance(None)

    def resume(self, answers: dict[int, Any]) -> None:
        """Takes in answers; with the last one the method goes on to its next await."""
        self.answers |= answers
        if not self.open:
            values = [self.answers[i] for i in range(len(self.requests or ()))]
            self.answers = {}
            self._advance(values)

    def _advance(self, values: list[Any] | None) -> None:
        """The method's own arithmetic is timed as phase "method"."""
        self.requests, self.passed_over = None, 0
        begin = time.perf_counter()
        try:
            failure = next((v for v in values or () if isinstance(v, NablaError)), None)
            if failure is not None:
                self.requests = self.coroutine.throw(failure)
            else:
                self.requests = self.coroutine.send(values)
        except StopIteration as stop:
            self.result = stop.value
            if self.result is None:  # would look like a problem that is still alive
                self.result = ComponentError("The method returned no solution", got=self.prompt.id)
        except NablaError as error:
            self.result = error
        except (Exception, SystemExit) as error:  # no component ends the program
            self.result = ComponentError.of(error, f"Solving problem {self.prompt.id!r}")
        finally:
            self.session.meter.add("method", Usage(seconds=time.perf_counter() - begin))
            if isinstance(self.result, Solution):
                self.result = replace(self.result, cost=self.session.cost)
            elif isinstance(self.result, NablaError):
                self.result.cost = self.session.cost
                self.result.checkpoints = tuple(self.session.checkpoints)


class Policy(ABC):
    """Whom to serve next; settings only."""

    @abstractmethod
    def choose(self, waiting: Sequence[Live]) -> Sequence[Live]:
        """Problems whose requests run now, at least one of ``waiting`` (the longest alive come first).

        Nobody may wait for ever: there is a bound on how often a problem is passed over.
        """

    def lacking(self, waiting: Sequence[Live], writing: Sequence[Live], decoding: bool) -> int:
        """How many of those whose rollouts are being written here must be answered before others are served;
        0: serve now. By default each side has its turn: one problem's gradients hold up nobody's rollouts.

        Args:
            waiting: problems that wait for something else, or for both.
            writing: problems with rollouts on their way.
            decoding: whether steps were taken last, rather than others served.
        """
        return 0 if not writing or (waiting and decoding) else 1


class AllKinds(Policy):
    """Everybody who waits."""

    def choose(self, waiting: Sequence[Live]) -> Sequence[Live]:
        return waiting


class FullestFirst(Policy):
    """Serves the largest group of problems that wait for the same kinds of request, so that batches are full.

    Among groups of equal size the one with the problem longest alive is served. Rollouts are served only
    when nobody waits for anything else: a rollout is the longest chain of steps, and a step costs almost
    the same for one row as for many.

    The other problems go on waiting. Those that were served soon ask for what the others wait for, and run
    in one batch with them. If all were served at once, problems that started at different times would stay
    out of step, in batches of a few rows.

    Where rows of rollouts join while others are written, decoding goes on until a share of all problems waits
    for something else; these are served until all of them wait for rollouts again, and join. Batches of
    either kind are then neither small nor late.

    Args:
        patience: flushes that a problem is passed over at most; then its kinds come first.
        share: of the problems, that wait for other things before decoding stops for them. With 1 the last
            rows are decoded alone, again and again where problems write several times before they ask for
            anything else. Where a step and a batch of the others cost as much as some 25 rows in them
            do, and texts end at random, one half costs the least, and from 0.4 to 0.7 little more.
    """

    def __init__(self, patience: int = 64, share: float = 0.5) -> None:
        self.patience, self.share = patience, share

    def lacking(self, waiting: Sequence[Live], writing: Sequence[Live], decoding: bool) -> int:
        if not waiting or not writing:
            everybody = len(waiting) + len(writing)
            return max(math.ceil(self.share * everybody), 1) if writing else 0
        longest = [max(problem.passed_over for problem in group) for group in (waiting, writing)]
        if max(longest) >= self.patience:
            return 0 if longest[0] >= longest[1] else 1
        if not decoding:  # all others first: they may ask for rollouts next
            return 0
        everybody = len({id(problem) for problem in (*waiting, *writing)})
        return max(math.ceil(self.share * everybody) - len(waiting), 0)

    def choose(self, waiting: Sequence[Live]) -> Sequence[Live]:
        # A problem may wait for several kinds at once: groups are of equal sets of kinds.
        groups: dict[frozenset[str], list[Live]] = {}
        for problem in waiting:
            groups.setdefault(problem.kinds, []).append(problem)
        oldest = max(waiting, key=lambda problem: problem.passed_over)
        if oldest.passed_over >= self.patience:  # or a small group would wait while larger ones form anew
            return groups[oldest.kinds]
        # First groups without rollouts, then large ones. Among equals max takes the first, and ``waiting``
        # begins with the problem longest alive.
        return groups[max(groups, key=lambda kinds: ("rollout" not in kinds, len(groups[kinds])))]


class Scheduler:
    """Advances up to ``live`` problems together.

    What runs in this process runs in this thread: without remote rollouts the same requests always meet in
    the same batches. Remote rollouts are sent off as soon as a problem waits for them, and looked at between
    two batches; who is answered first decides which requests meet, not what their answers are.

    Args:
        workspace: answers requests.
        policy: whom to serve next.
        live: problems in flight at a time.
        continuous: rows of rollouts join while others are written, if the rollout can do that.
    """

    def __init__(self, workspace: Workspace, policy: Policy, live: int, continuous: bool = True) -> None:
        self.workspace, self.policy, self.live, self.continuous = workspace, policy, live, continuous
        self._decoding = False
        #: Of the problems that are being solved, by their ids.
        self.meters: dict[str, CostMeter] = {}

    def run(self, method: Solve, prompts: Iterable[Prompt]) -> Iterator[tuple[Prompt, Solution | NablaError]]:
        """(prompt, solution or its error), as problems finish. Closing the iterator stops the run and cancels
        what is away."""
        workspace = self.workspace
        parts = workspace.rollout, workspace.resources, workspace.reward
        with RemoteRollouts(*parts) if workspace.rollout.remote else nullcontext() as remote:
            yield from self._run(method, prompts, remote)

    def _run(
        self, method: Solve, prompts: Iterable[Prompt], remote: RemoteRollouts | None
    ) -> Iterator[tuple[Prompt, Solution | NablaError]]:
        events, store = self.workspace.events, self.workspace
        writer = self.workspace.writer() if self.continuous and remote is None else None
        waiting = iter(prompts)
        active: list[Live] = []
        self.meters = {}
        try:
            while True:
                while len(active) < self.live:
                    prompt = next(waiting, None)
                    if prompt is None:
                        break
                    problem = self._start(method, prompt)
                    if isinstance(problem, NablaError):
                        events.on_exception(prompt, problem)
                        yield prompt, problem
                    else:
                        active.append(problem)
                if not active:
                    return
                if remote is not None:
                    self._send(remote, active)
                if writer is None:
                    self._flush([p for p in active if p.here])
                else:
                    self._write_or_flush(writer, active)
                self._collect(active)
                for problem in active:
                    if problem.result is not None:
                        store.release(problem.prompt.id)
                        if isinstance(problem.result, NablaError):
                            events.on_exception(problem.prompt, problem.result)
                        else:
                            events.on_solution(problem.result)
                        self.meters.pop(problem.prompt.id, None)
                        yield problem.prompt, problem.result
                active = [p for p in active if p.result is None]
        finally:
            for problem in active:
                if problem.away is not None:
                    problem.away.cancel()
                problem.coroutine.close()
                store.release(problem.prompt.id)

    def _start(self, method: Solve, prompt: Prompt) -> Live | NablaError:
        try:
            session = Session(self.workspace, prompt)
        except NablaError as error:
            return error
        self.meters[prompt.id] = session.meter
        problem = Live(session, method(session))
        problem.start()
        return problem

    @staticmethod
    def _send(remote: RemoteRollouts, active: Sequence[Live]) -> None:
        """Sends off the rollout requests that problems wait for."""
        for problem in active:
            requests = [request for _, request in problem.open if isinstance(request, RolloutRequest)]
            if problem.here and requests:
                problem.away = remote.submit(requests)

    def _write_or_flush(self, writer: Writer, active: Sequence[Live]) -> None:
        """Hands over new rollout requests; then some steps of all that are being written, or requests of
        other kinds."""
        for problem in active:
            if not problem.written:
                rows = [(i, r) for i, r in problem.waiting if isinstance(r, RolloutRequest)]
                numbers = writer.submit([r.opening for _, r in rows]) if rows else []
                problem.written = {number: i for number, (i, _) in zip(numbers, rows, strict=True)}
        waiting = [p for p in active if p.waiting]
        writing = [p for p in active if p.written]
        enough = self.policy.lacking(waiting, writing, self._decoding)
        self._decoding = enough > 0
        if not enough:
            for problem in writing:
                problem.passed_over += problem not in waiting
            self._flush(waiting)
            return
        found = writer.advance(STEPS, enough)
        for problem in waiting:
            problem.passed_over += problem not in writing
        for problem in writing:
            if not problem.waiting:
                problem.passed_over = 0
            answers = {i: found[number] for number, i in problem.written.items() if number in found}
            if answers:
                problem.written = {n: i for n, i in problem.written.items() if i not in answers}
                problem.resume(answers)

    @staticmethod
    def _collect(active: Sequence[Live]) -> None:
        """Advances the problems whose rollouts have come back; waits for one if nothing else is to do."""
        away = [problem.away for problem in active if problem.away is not None]
        if away and len(away) == len(active):
            wait(away, return_when=FIRST_COMPLETED)
        for problem in active:
            if problem.away is not None and problem.away.done():
                rows = [i for i, request in problem.open if isinstance(request, RolloutRequest)]
                found, problem.away = problem.away.result(), None
                problem.resume(dict(zip(rows, found, strict=True)))

    def _flush(self, waiting: Sequence[Live]) -> None:
        """Serves those whom the policy chooses, kind by kind and group by group, then advances them."""
        if not waiting:
            return
        chosen = self.policy.choose(waiting)
        for problem in waiting:
            problem.passed_over += 1
        batches: dict[tuple[str, Any], list[tuple[int, int, Request]]] = {}
        for number, problem in enumerate(chosen):
            for index, request in problem.waiting:
                batches.setdefault((request.kind, request.group), []).append((number, index, request))
        results: list[dict[int, Any]] = [{} for _ in chosen]
        for rows in batches.values():
            found = self.workspace.answer([request for _, _, request in rows])
            for (number, index, _), value in zip(rows, found, strict=True):
                results[number][index] = value
        for problem, values in zip(chosen, results, strict=True):
            problem.resume(values)
