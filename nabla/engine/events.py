"""Callbacks: declared hooks that do nothing. A misspelt hook is an error, not a silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from nabla.core.costs import Usage
from nabla.core.errors import NablaError, require_one_of
from nabla.core.files import warn
from nabla.core.intact import intact
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.reports import Decision, Refinement, StepReport
from nabla.models.vocabulary import Vocabulary


@dataclass(frozen=True)
class Run:
    """What a callback may know of the run that it hears of.

    Args:
        vocabulary: of the language model: decodes ids.
        world_size: processes, each with its share of the problems.
        main: whether this is the first process.
        loggers: Lightning loggers of the run.
        method: registered name of the method.
        usage: problem's id → what it has used so far; None for one that is not being solved.
    """

    vocabulary: Vocabulary
    world_size: int = 1
    main: bool = True
    loggers: tuple[Any, ...] = ()
    method: str = ""
    usage: Callable[[str], Usage | None] = lambda _: None


class Callback:
    """Override what you need. ``prompt`` says which of the live problems an event belongs to."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        known = [name for name in dir(Callback) if name.startswith("on_")]
        for name in dir(cls):  # mixins too
            if name.startswith("on_"):
                require_one_of(name, known, f"{cls.__name__} defines a hook that nothing calls", "Hooks")

    def on_run_start(self, run: Run, prompts: Sequence[Prompt]) -> None:
        """Before the first problem."""

    def on_run_end(self, run: Run, solutions: Sequence[Solution]) -> None:
        """After the last problem, also after failures and interruption; the solutions are those of all
        processes, or of this one where the run was broken off."""

    def on_rollout(self, prompt: Prompt, trajectory: Trajectory) -> None:
        """The language model has written a response, or a continuation of one."""

    def on_score(self, prompt: Prompt, trajectory: Trajectory) -> None:
        """The reward has judged a text, finished or not; ``trajectory.values`` are those at its tokens."""

    def on_stop(self, prompt: Prompt, trajectory: Trajectory, position: int) -> None:
        """A screen has found the first bad token of a text; where it was not at its end, writing stops."""

    def on_norms(
        self,
        prompt: Prompt,
        trajectory: Trajectory,
        plain: Float[Tensor, " length"],
        centred: Float[Tensor, " length"],
    ) -> None:
        """A selector has asked for ``||∂L/∂y_i||`` at every position; NaN at committed ones."""

    def on_select(self, prompt: Prompt, trajectory: Trajectory, positions: Sequence[int]) -> None:
        """The selector has chosen positions of a new current response."""

    def on_prune(
        self, prompt: Prompt, kept: Sequence[Trajectory], dropped: Sequence[Trajectory]
    ) -> None:
        """A search goes on from some of the texts that it has just judged, and not from others."""

    def on_refine_step(self, prompt: Prompt, position: int, report: StepReport) -> None:
        """One optimisation step has been taken."""

    def on_refine(self, prompt: Prompt, position: int, refinement: Refinement) -> None:
        """A position has been refined."""

    def on_proposal(self, prompt: Prompt, current: Trajectory, position: int, token: int) -> None:
        """A token other than the current one is proposed."""

    def on_restart(self, prompt: Prompt, kept: Trajectory) -> None:
        """A fresh text begins in place of one that changes have not made better."""

    def on_accept(self, prompt: Prompt, old: Trajectory, new: Trajectory, position: int) -> None:
        """A proposal has replaced the current response."""

    def on_reject(self, prompt: Prompt, kept: Trajectory, other: Trajectory, position: int) -> None:
        """A proposal has been turned down."""

    def on_decision(self, prompt: Prompt, decision: Decision) -> None:
        """A proposal has been taken or turned down, and why; ``on_accept`` or ``on_reject`` follows."""

    def on_commit(self, prompt: Prompt, trajectory: Trajectory) -> None:
        """Tokens have become final; ``trajectory.committed`` counts them."""

    def on_solution(self, solution: Solution) -> None:
        """A problem is solved."""

    def on_exception(self, prompt: Prompt, error: NablaError) -> None:
        """A problem has failed; the others go on."""


class Events(Callback):
    """Passes every event on to the callbacks that override its hook."""

    def __init__(self, listeners: Sequence[Callback] = ()) -> None:
        self.listeners = tuple(listeners)
        for name in [n for n in dir(Callback) if n.startswith("on_")]:
            heard = [
                getattr(listener, name)
                for listener in self.listeners
                if getattr(type(listener), name) is not getattr(Callback, name) or name in vars(listener)
            ]
            if name == "on_run_start":
                setattr(self, name, _starting(self.listeners))
            else:
                setattr(self, name, _ending(heard) if name == "on_run_end" else _broadcast(heard))

    def hears(self, hook: str) -> bool:
        """Whether anybody listens: events that cost something to make are skipped otherwise."""
        return any(
            getattr(type(listener), hook) is not getattr(Callback, hook) or hook in vars(listener)
            for listener in self.listeners
        )


def _broadcast(heard: Sequence[Any]) -> Any:
    def call(*arguments: Any, **named: Any) -> None:
        parts = [value if isinstance(value, list | tuple) else (value,) for value in arguments]
        shown = [value for part in parts for value in part if isinstance(value, Trajectory)]
        for hook in heard:
            if not shown:
                hook(*arguments, **named)
                continue
            with intact(getattr(hook, "__self__", hook), *shown):
                hook(*arguments, **named)

    return call


def _starting(listeners: Sequence[Callback]) -> Any:
    """Where one does not begin, those before it, which have begun, hear the end: a display is on, say."""

    def call(run: Run, prompts: Sequence[Prompt]) -> None:
        for place, listener in enumerate(listeners):
            try:
                listener.on_run_start(run, prompts)
            except BaseException:  # a signal, too
                try:
                    _ending([begun.on_run_end for begun in listeners[:place]])(run, [])
                except (Exception, SystemExit) as error:
                    _tell(error)
                raise

    return call


def _ending(heard: Sequence[Any]) -> Any:
    """Everybody hears the end, whoever fails at it: others have lines to write and files to close. The first
    failure is raised then, and the others are told."""

    def call(*arguments: Any) -> None:
        failures: list[Exception | SystemExit] = []
        for hook in heard:
            try:
                hook(*arguments)
            except (Exception, SystemExit) as error:
                failures.append(error)
        for other in failures[1:]:
            _tell(other)
        if failures:
            raise failures[0]

    return call


def _tell(error: BaseException) -> None:
    warn(f"Another callback failed at the end, too: {type(error).__name__}: {error}")
