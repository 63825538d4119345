"""Which requests run when: many problems advance in turn, and what they wait for runs in batches."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from nabla.core.costs import Usage
from nabla.core.errors import ComponentError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.requests import Request
from nabla.engine.session import Session
from nabla.engine.workspace import Workspace

#: A method as the engine takes it: sequential code for one problem.
Solve = Callable[[Session], Coroutine[Any, Any, Solution]]


class Live:
    """A live problem: its coroutine, what it waits for and since when, and in the end its result."""

    def __init__(self, session: Session, coroutine: Coroutine[Any, Any, Solution]) -> None:
        self.session, self.prompt, self.coroutine = session, session.prompt, coroutine
        self.requests: list[Request] | None = None
        self.result: Solution | NablaError | None = None
        #: Flushes of others that it has waited through.
        self.passed_over = 0

    @property
    def kinds(self) -> frozenset[str]:
        """Of the requests that it waits for."""
        return frozenset(request.kind for request in self.requests or ())

    def advance(self, values: list[Any] | None) -> None:
        """Runs the method up to its next await; its own arithmetic is timed as phase "method"."""
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
        except Exception as error:
            self.result = ComponentError.of(error, f"Solving problem {self.prompt.id!r}")
        finally:
            self.session.meter.add("method", Usage(seconds=time.perf_counter() - begin))
            if isinstance(self.result, Solution):
                self.result = replace(self.result, cost=self.session.cost)
            elif isinstance(self.result, NablaError):
                self.result.cost = self.session.cost


class Policy(ABC):
    """Whom to serve next; settings only."""

    @abstractmethod
    def choose(self, waiting: Sequence[Live]) -> Sequence[Live]:
        """Problems whose requests run now, at least one of ``waiting`` (the longest alive come first).

        Nobody may wait for ever: there is a bound on how often a problem is passed over.
        """


class AllKinds(Policy):
    """Everybody who waits."""

    def choose(self, waiting: Sequence[Live]) -> Sequence[Live]:
        return waiting


class FullestFirst(Policy):
    """The most problems that wait for the same kinds of request, the longest alive first among equals;
    those that wait for rollouts when nobody waits for anything else.

    The others go on waiting: whoever has been served comes round to what they wait for and runs in one
    batch with them. Serving all at once would leave problems that started at different times in batches
    of a few rows for good. A rollout is by far the longest chain of steps, and a step costs almost the same
    whatever the number of rows: it pays most to have them all together.

    Args:
        patience: flushes that a problem is passed over at most; then its kinds come first.
    """

    def __init__(self, patience: int = 64) -> None:
        self.patience = patience

    def choose(self, waiting: Sequence[Live]) -> Sequence[Live]:
        groups: dict[frozenset[str], list[Live]] = {}
        for problem in waiting:
            groups.setdefault(problem.kinds, []).append(problem)
        oldest = max(waiting, key=lambda problem: problem.passed_over)
        if oldest.passed_over >= self.patience:
            return groups[oldest.kinds]
        # Among equals max takes the first: whoever has been alive longest.
        return groups[max(groups, key=lambda kinds: ("rollout" not in kinds, len(groups[kinds])))]


class Scheduler:
    """Advances up to ``live`` problems together.

    There is no event loop: the same requests always meet in the same batches.

    Args:
        workspace: answers requests.
        policy: whom to serve next.
        live: problems in flight at a time.
    """

    def __init__(self, workspace: Workspace, policy: Policy, live: int) -> None:
        self.workspace, self.policy, self.live = workspace, policy, live

    def run(
        self, method: Solve, prompts: Iterable[Prompt]
    ) -> Iterator[tuple[Prompt, Solution | NablaError]]:
        """(prompt, solution or its error), as problems finish. Closing the iterator stops the run."""
        events, store = self.workspace.events, self.workspace.store
        waiting = iter(prompts)
        active: list[Live] = []
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
                self._flush([p for p in active if p.requests is not None])
                for problem in active:
                    if problem.result is not None:
                        store.release(problem.prompt.id)
                        if isinstance(problem.result, NablaError):
                            events.on_exception(problem.prompt, problem.result)
                        else:
                            events.on_solution(problem.result)
                        yield problem.prompt, problem.result
                active = [p for p in active if p.result is None]
        finally:
            for problem in active:
                problem.coroutine.close()
                store.release(problem.prompt.id)

    def _start(self, method: Solve, prompt: Prompt) -> Live | NablaError:
        try:
            session = Session(self.workspace, prompt)
        except NablaError as error:
            return error
        problem = Live(session, method(session))
        problem.advance(None)
        return problem

    def _flush(self, waiting: Sequence[Live]) -> None:
        """Serves those whom the policy chooses, kind by kind and group by group, then advances them."""
        if not waiting:
            return
        chosen = self.policy.choose(waiting)
        for problem in waiting:
            problem.passed_over += 1
        batches: dict[tuple[str, Any], list[tuple[int, int, Request]]] = {}
        for number, problem in enumerate(chosen):
            for index, request in enumerate(problem.requests or ()):
                batches.setdefault((request.kind, request.group), []).append((number, index, request))
        results: list[dict[int, Any]] = [{} for _ in chosen]
        for rows in batches.values():
            found = self.workspace.answer([request for _, _, request in rows])
            for (number, index, _), value in zip(rows, found, strict=True):
                results[number][index] = value
        for problem, values in zip(chosen, results, strict=True):
            problem.advance([values[i] for i in range(len(values))])
