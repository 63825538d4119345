"""A batch that fails is run again in halves, and gives what it would have given at once.

The same answers and the same counts: draws depend on keys that requests carry, whatever a failed attempt has
added to accounts is taken back (seconds apart, which were spent), and so is what it has put into caches.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch

from nabla.core.errors import ComponentError, NablaError
from nabla.engine.requests import Request
from nabla.models.runner import Runner

#: Runs requests of one kind and group: an answer for each.
Handler = Callable[[Sequence[Any]], list[Any]]


def answered(handler: Handler, requests: Sequence[Request], runner: Runner) -> list[Any]:
    """An answer or NablaError for each request; at least one is given.

    A request that fails alone has failed, unless the fault may pass by itself (out of memory, an error of
    the runtime or of the system): then it has a second try.
    """
    return _halved(handler, requests, runner, tries=2)


def _halved(handler: Handler, requests: Sequence[Request], runner: Runner, tries: int) -> list[Any]:
    undo = _checkpoint(requests, runner)
    try:
        return handler(requests)
    except Exception as error:
        exhausted = isinstance(error, torch.OutOfMemoryError)
        passing = exhausted or isinstance(error, RuntimeError | OSError)
        failure: NablaError | None = _told(error, requests[0].kind)
    if len(requests) == 1 and (tries == 1 or not passing):
        return [failure]
    # The error's frames hold the tensors of the failed attempt.
    del failure
    if exhausted:
        free_memory()
    undo()
    if len(requests) == 1:
        return _halved(handler, requests, runner, tries - 1)
    middle = len(requests) // 2
    parts = requests[:middle], requests[middle:]
    return [answer for part in parts for answer in _halved(handler, part, runner, tries)]


def _checkpoint(requests: Sequence[Request], runner: Runner) -> Callable[[], None]:
    """Takes note of what an attempt may change; the function that is returned takes the changes back."""
    meters = {id(request.account.meter): request.account.meter for request in requests}
    before = [(meter, meter.snapshot()) for meter in meters.values()]
    problems = {request.account.problem for request in requests}
    stored = [(problem, runner.store.snapshot(problem)) for problem in problems]
    others = [request.checkpoint() for request in requests]

    def undo() -> None:
        for meter, cost in before:
            meter.roll_back(cost)
        for problem, entries in stored:
            runner.store.restore(problem, entries)
        for restore in others:
            restore()

    return undo


def _told(error: Exception, kind: str) -> NablaError:
    if isinstance(error, torch.OutOfMemoryError):
        return out_of_memory(error)
    return error if isinstance(error, NablaError) else ComponentError.of(error, f"A {kind} request")


def out_of_memory(error: BaseException) -> NablaError:
    """What to tell a user."""
    return NablaError(
        "The device is out of memory",
        got=str(error).splitlines()[0] if str(error) else "",
        fix="Lower batch_size or live, shorten max_new_tokens, or use a smaller dtype.",
    )


def free_memory() -> None:
    """Lets go of what a failed attempt has left: frames that refer to each other, the allocator's blocks."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
