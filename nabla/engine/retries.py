"""A batch that fails is run again in halves, and gives what it would have given at once.

The same answers and the same counts: draws depend on keys that requests carry, whatever a failed attempt has
added to accounts is taken back (seconds apart, which were spent), and so is what it has put into caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nabla.core.errors import ConfigError, NablaError
from nabla.engine.gradient.graphs import Graphs
from nabla.engine.requests import Request
from nabla.models.faults import exhausted, free_memory, may_pass, told
from nabla.models.runner import Runner

#: Runs requests of one kind and group: an answer for each.
Handler = Callable[[Sequence[Any]], list[Any]]


def answered(handler: Handler, requests: Sequence[Request], runner: Runner, graphs: Graphs) -> list[Any]:
    """An answer or NablaError for each request; at least one is given.

    A request that fails alone has failed, unless the fault may pass by itself (out of memory, an error of
    the runtime or of the system): then it has a second try. Where memory runs out graphs that are kept make
    room first, and one that there is no memory for in the end is not kept.
    """
    return _halved(handler, requests, runner, graphs, tries=2)


def _halved(
    handler: Handler, requests: Sequence[Request], runner: Runner, graphs: Graphs, tries: int
) -> list[Any]:
    undo = _checkpoint(requests, runner, graphs)
    try:
        found = handler(requests)
        if len(found) == len(requests):
            return found
        kind = requests[0].kind
        raise ConfigError(f"{len(requests)} {kind} requests were given {len(found)} answers: one each is due")
    except (Exception, SystemExit) as error:  # no component ends the program
        out, passing = exhausted(error), may_pass(error)
        failure: NablaError | None = told(error, f"A {requests[0].kind} request")
    last = len(requests) == 1 and (tries == 1 or not passing)
    if last and not (out and graphs.on):
        return [failure]
    # The error's frames hold the tensors of the failed attempt, and the checkpoint graphs.
    del failure
    undo()
    del undo
    if out:
        graphs.clear()
        free_memory()
    if last:
        with graphs.resting():
            return _halved(handler, requests, runner, graphs, 1)
    middle = _middle(requests)
    if not middle or (middle < 0 and passing and tries > 1):
        return _halved(handler, requests, runner, graphs, tries - 1)
    parts = requests[: abs(middle)], requests[abs(middle) :]
    return [answer for part in parts for answer in _halved(handler, part, runner, graphs, tries)]


def _middle(requests: Sequence[Request]) -> int:
    """Where to cut: between two problems if there are several, as near to the middle as may be; 0: not at
    all. Rollouts of a problem share the pass over their prompt: a negative number, cut with reluctance."""
    middle = len(requests) // 2
    problems = [request.account.problem for request in requests]
    cuts = [i for i in range(1, len(requests)) if problems[i] != problems[i - 1]]
    if cuts:
        return min(cuts, key=lambda i: abs(i - middle))
    return -middle if requests[0].kind == "rollout" else middle


def _checkpoint(requests: Sequence[Request], runner: Runner, graphs: Graphs) -> Callable[[], None]:
    """Takes note of what an attempt may change; the function that is returned takes the changes back."""
    meters = {id(request.account.meter): request.account.meter for request in requests}
    costs = [meter.checkpoint() for meter in meters.values()]
    problems = {request.account.problem for request in requests}
    stored = [(problem, runner.store.snapshot(problem)) for problem in problems]
    others = [graphs.checkpoint(problems), *(request.checkpoint() for request in requests)]

    def undo() -> None:
        for restore in costs:
            restore()
        for problem, entries in stored:
            runner.store.restore(problem, entries)
        for restore in others:
            restore()

    return undo
