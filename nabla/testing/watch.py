"""Measuring a run from outside: what went through the models, and what a method did at which cost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nabla.core.deadline import Late, within
from nabla.core.errors import ComponentError, NablaError
from nabla.core.trajectory import Trajectory
from nabla.engine.progress import Progress
from nabla.engine.session import Session
from nabla.models.body import Body

#: Seconds that a method may compute between two awaits, questions about its budget, and awaits in all.
PATIENCE, QUESTIONS, AWAITS = 5.0, 1000, 1000
#: Calls beyond which a method does not end at all: so many times its budget, and so many more.
TIMES, MORE = 4, 500

Solve = Callable[[Session], Coroutine[Any, Any, Any]]


class Odometer:
    """Counts what goes through the layers of models, by hooks on them; a context manager.

    Args:
        bodies: of the models; rows must run one at a time, so that there is no padding.

    Attributes ``forward`` and ``backward`` count passes, ``tokens`` those of both.
    """

    def __init__(self, bodies: Sequence[Body]) -> None:
        self.modules = {id(body.module): body.module for body in bodies}
        self.forward = self.backward = self.tokens = 0
        self._hooks: list[Any] = []

    def __enter__(self) -> Odometer:
        for module in self.modules.values():
            self._hooks.append(module.register_forward_hook(self._count, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count(self, _: Any, __: Any, named: dict[str, Any], output: Any) -> None:
        given = next(named[name] for name in ("inputs_embeds", "input_ids") if named.get(name) is not None)
        tokens = int(given.shape[0] * given.shape[1])
        self.forward += 1
        self.tokens += tokens
        if output.last_hidden_state.requires_grad:

            def back(_: Any) -> None:
                self.backward += 1
                self.tokens += tokens

            output.last_hidden_state.register_hook(back)


@dataclass
class Journal:
    """What one problem's method did.

    Args:
        reports: calls of the problem whenever an answer was handed in, repeated ones too.
        questions: how often it asked whether to go on.
        rounds: how often it was told to.
        awaits: how often it awaited the engine.
        broken: why it was stopped; empty where it ended by itself.
    """

    reports: list[int] = field(default_factory=list)
    questions: int = 0
    rounds: int = 0
    awaits: int = 0
    broken: str = ""

    def stop(self, reason: str) -> NablaError:
        """The error that ends the method."""
        self.broken = reason
        return ComponentError(reason)


class _Noted(Progress):
    """Progress that writes a journal."""

    def __init__(self, inner: Progress, journal: Journal) -> None:
        super().__init__(inner.budgets, inner.meter)
        self.journal = journal

    def proceed(self, wanted: bool) -> bool:
        self.journal.questions += 1
        if self.journal.questions > QUESTIONS:
            raise self.journal.stop(f"it asked {QUESTIONS} times whether to go on, and did not end")
        going = super().proceed(wanted)
        self.journal.rounds += going
        return going

    def require_end(self) -> None:
        """Raises NablaError far behind every budget."""
        total = self.meter.snapshot().total
        far = [getattr(total, b.unit) > TIMES * b.limit + MORE for b in self.budgets if b.unit == "calls"]
        if far and all(far):
            raise self.journal.stop(f"{total.calls} calls under {self.budgets[0]}, and it does not end")

    def report(self, trajectory: Trajectory, decode: Callable[[Tensor], str]) -> None:
        self.journal.reports.append(self.meter.snapshot().total.calls)
        super().report(trajectory, decode)


def watched(solve: Solve, journals: dict[str, Journal]) -> Solve:
    """The method, with a journal for each problem; one that does not end is stopped.

    Args:
        solve: of the method.
        journals: filled by problem.
    """

    async def run(session: Session) -> Any:
        journal = journals[session.prompt.id] = Journal()
        session.progress = progress = _Noted(session.progress, journal)
        return await _Fused(solve(session), journal, progress)

    return run


class _Fused(Awaitable[Any]):
    """A method's coroutine that may not go on for ever, neither between two awaits nor with more of them."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], journal: Journal, progress: _Noted) -> None:
        self.coroutine, self.journal, self.progress = coroutine, journal, progress

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[..., Any] = self.coroutine.send
        value: Any = None
        try:
            while True:
                try:
                    wanted = within(PATIENCE, self._once, step, value)
                except Late:
                    raise self.journal.stop(f"it computed for {PATIENCE:g} s without an await") from None
                if wanted.ended:
                    return wanted.value
                self.journal.awaits += 1
                if self.journal.awaits > AWAITS:
                    raise self.journal.stop(f"it awaited the engine {AWAITS} times, and did not end")
                self.progress.require_end()
                try:
                    value = yield wanted.value
                    step = self.coroutine.send
                except NablaError as error:
                    value, step = error, self.coroutine.throw
        finally:
            self.coroutine.close()

    @staticmethod
    def _once(step: Callable[..., Any], value: Any) -> _Wanted:
        try:
            return _Wanted(step(value), False)
        except StopIteration as stop:
            return _Wanted(stop.value, True)


@dataclass(frozen=True)
class _Wanted:
    """What a method awaits, or its result."""

    value: Any
    ended: bool
