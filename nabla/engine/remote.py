"""Rollouts that are written elsewhere: awaited in a thread of their own, while this one computes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from nabla.core import coroutines
from nabla.core.costs import Usage
from nabla.core.errors import ComponentError, ConfigError, NablaError, ServerError
from nabla.core.trajectory import States
from nabla.engine.requests import RolloutRequest
from nabla.rewards.base import Reward
from nabla.rollouts.base import Continuation, Opening, Resources, Rollout

log = logging.getLogger(__name__)


def at_once(coroutine: Coroutine[Any, Any, list[Any]], rollout: Rollout) -> list[Any]:
    """The result of a local rollout, which awaits nothing. Raises ConfigError if it does."""
    try:
        return coroutines.at_once(coroutine)
    except coroutines.Waiting as error:
        raise ConfigError(
            "A rollout waits for something and is not declared remote",
            got=type(rollout).__name__,
            fix="Set remote = True on its class: it is then awaited beside the local batches.",
        ) from error


class RemoteRollouts:
    """An event loop in a background thread, for the length of a run; a context manager.

    While a problem's requests are away, its account belongs to that thread: the scheduler looks at the
    problem again when all of them are answered.

    Args:
        rollout: a remote one.
        resources: of the engine.
        reward: what it cannot read is an error of the response that says it.
    """

    def __init__(self, rollout: Rollout, resources: Resources, reward: Reward | None = None) -> None:
        self.rollout, self.resources = rollout, resources
        missing = None if reward is None else reward.unreadable
        self.unreadable = frozenset(() if missing is None else missing.tolist())
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread: threading.Thread

    def __enter__(self) -> RemoteRollouts:
        """Starts the thread and connects. Raises NablaError if that fails."""
        ready: Future[Any] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="nabla-rollouts", daemon=True)
        self._thread.start()
        try:
            connection = ready.result()
        except NablaError:
            raise
        except Exception as error:
            raise ComponentError.of(error, f"Connecting {type(self.rollout).__name__}") from error
        self.resources = replace(self.resources, connection=connection)
        return self

    def __exit__(self, *_: object) -> None:
        """Cancels what is away, disconnects, and waits for the thread to end."""
        self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:  # a forgotten run may be collected there
            self._thread.join()

    def submit(self, requests: Sequence[RolloutRequest]) -> Future[list[Any]]:
        """Sends the requests of a problem off; a continuation or NablaError for each, once all are there."""
        return asyncio.run_coroutine_threadsafe(self._answers(requests), self._loop)

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self, ready: Future[Any]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:
            if ready.done():
                log.warning("The connection of %s did not close: %r", type(self.rollout).__name__, error)
            else:
                ready.set_exception(error)

    async def _serve(self, ready: Future[Any]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self.rollout.connect() as connection:
            ready.set_result(connection)
            await self._stop.wait()
            away = asyncio.all_tasks() - {asyncio.current_task()}
            for task in away:
                task.cancel()
            await asyncio.gather(*away, return_exceptions=True)

    async def _answers(self, requests: Sequence[RolloutRequest]) -> list[Any]:
        begin = time.perf_counter()
        answers = (self._answer(request.opening) for request in requests)
        found = await asyncio.gather(*answers, return_exceptions=True)
        seconds = time.perf_counter() - begin
        for request in requests:
            request.account.meter.add(request.account.phase, Usage(seconds=seconds / len(requests)))
        return [
            ComponentError.of(value, "A rollout request")
            if isinstance(value, BaseException) and not isinstance(value, NablaError)
            else value
            for value in found
        ]

    async def _answer(self, opening: Opening) -> Continuation | NablaError:
        (found,) = await self.rollout.generate([opening], self.resources)
        return found if isinstance(found, NablaError) else self._checked(found, opening)

    def _checked(self, found: Continuation, opening: Opening) -> Continuation:
        """What came from elsewhere, up to the end of its step. Raises ServerError if it cannot be right."""
        vocabulary, tokens = self.resources.vocabulary, found.tokens.tolist()
        limit = vocabulary.room(len(opening.prompt), opening.sampling.max_new_tokens) - len(opening.response)
        strange = [token for token in tokens if not 0 <= token < vocabulary.usable]
        ends = [i for i, token in enumerate(tokens) if token in vocabulary.eos_ids]
        unread = self.unreadable.intersection(tokens)
        if strange:
            raise _wrong("ids that the vocabulary does not have", strange[0])
        if not 1 <= len(tokens) <= limit:
            raise _wrong(f"another number of tokens than 1 to {limit}", len(tokens))
        if ends[:1] != ([len(tokens) - 1] if found.finished else []):
            raise _wrong("an end of sequence that is not its end", (tokens[-8:], found.finished))
        if found.log_probs.shape != found.tokens.shape or bool((found.log_probs > 1e-3).any()):
            raise _wrong("log-probabilities that are none", found.log_probs.tolist())
        if unread:
            raise _wrong("a token that the reward model does not have", min(unread))
        end = len(tokens) if opening.until is None else opening.until.first(tokens, vocabulary)
        if end == len(tokens):
            return found
        states = found.states
        if states is not None:
            states = States(states.hidden[:end], states.entropy[:end], states.top1[:end])
        return Continuation(found.tokens[:end], False, found.log_probs[:end], states, found.keyed)


def _wrong(what: str, got: object) -> ServerError:
    return ServerError(
        f"A rollout came back with {what}",
        got=got,
        fix="Check that the server's model and the vocabulary belong together, and the rollout's code.",
    )
