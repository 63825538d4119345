"""Laws of callbacks: what listens to a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from nabla.core.errors import ComponentError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.engine.events import Callback, Events, Run
from nabla.launch.callbacks.base import callbacks
from nabla.methods.base import Method
from nabla.methods.nabla_reasoner import NablaReasonerMethod
from nabla.testing.laws import MAX_EXAMPLES, Kit, Violation, require, untouched_global_noise
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_reward

PROMPTS = tuple(Prompt.of(text, id=text) for text in ("ab", "ba", "cd"))


class LoggerStandIn:
    """What a callback may expect of a Lightning logger."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Takes numbers by name."""

    def finalize(self, status: str) -> None:
        """The run is over."""


@dataclass(frozen=True)
class Heard:
    """A run that was listened to: its solutions, and every event with whom it was about, in order."""

    solutions: tuple[Solution, ...]

    @property
    def facts(self) -> list[Any]:
        """What must not depend on who listens: all but seconds."""
        return [
            (s.prompt.id, s.tokens, s.reward, s.cost.total.calls, s.cost.total.tokens, len(s.revisions))
            for s in self.solutions
        ]


@cache
def _method() -> Method:
    return NablaReasonerMethod(
        dto={"steps": 2},
        selector="all",
        proposal={"name": "sample", "temperature": 2.0},
        max_rollouts=4,
        sampling={"max_new_tokens": 6, "temperature": 1.0},
    )


@cache
def _models() -> tuple[Any, Any]:
    tokenizer = char_tokenizer("abcd")
    return tiny_lm(tokenizer), tiny_reward(tokenizer)


def listened(
    listeners: Sequence[Callback], *, world_size: int = 1, main: bool = True, solve: Any = None
) -> Heard:
    """A small run of three problems at once, with every kind of event, told to the listeners."""
    engine = Engine(*_models(), events=Events(listeners))
    run = Run(engine.vocabulary, world_size, main, (LoggerStandIn(),))
    events = engine.workspace.events
    events.on_run_start(run, PROMPTS)
    found = dict(engine.run(solve or _method().solve, PROMPTS))
    solutions = tuple(s for s in (found[p] for p in PROMPTS) if isinstance(s, Solution))
    events.on_run_end(run, solutions)
    return Heard(solutions)


kit: Kit[Callback] = Kit(callbacks, "a callback", "check_callback")


def check_callback(
    callback: object,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law of callbacks, on runs of a tiny model with every kind of event; the callback does in
    them whatever it does (prints, writes its file).

    Raises ContractError at the first law that is broken; the arguments are
    :func:`nabla.testing.check_estimator`'s.
    """
    kit.check(callback, laws=laws, skip=skip, max_examples=max_examples, seed=seed)


@kit.law()
def listening_changes_nothing(callback: Callback) -> None:
    """Solutions, rewards and costs are the same with and without it; it draws nothing from global generators
    and leaves texts as they are. An error of a callback ends the run, so it raises none."""
    expected = listened([]).facts
    with untouched_global_noise():
        found = listened([callback]).facts
    require(found == expected, f"with it the run gave {found}, without {expected}"[:400])


@kit.law()
def it_hears_one_run_after_another(callback: Callback) -> None:
    """The same object serves several runs: what it keeps begins anew with ``on_run_start``, also where a run
    before it was never ended."""
    for _ in range(2):
        _told(lambda: listened([callback]), "in a second run")
    engine = Engine(*_models())
    _told(lambda: callback.on_run_start(_about(engine), PROMPTS), "at a start")  # broken off, never ended
    _told(lambda: listened([callback]), "in a run after one that was never ended")


@kit.law()
def it_bears_failures(callback: Callback) -> None:
    """Problems fail while others are solved (``on_exception``), and a run may end without any solution."""

    async def fails(session: Any) -> Solution:
        if session.prompt.id == "ba":
            raise ComponentError("A part of the method failed", got="ba")
        return await _method().solve(session)

    _told(lambda: listened([callback], solve=fails), "in a run with a failed problem")

    async def fails_always(session: Any) -> Solution:
        raise ComponentError("A part of the method failed", got=session.prompt.id)

    _told(lambda: listened([callback], solve=fails_always), "in a run without solutions")


@kit.law()
def it_works_in_every_process(callback: Callback) -> None:
    """With several processes each has its own callback: one that is not the first (``run.main``) hears its
    share of the problems, and all solutions at the end."""
    _told(lambda: listened([callback], world_size=2, main=False), "in the second of two processes")


def _about(engine: Engine) -> Run:
    return Run(engine.vocabulary, loggers=(LoggerStandIn(),))


def _told(tell: Callable[[], Any], where: str) -> None:
    try:
        tell()
    except Exception as error:
        raise Violation(f"it raised {type(error).__name__} {where}: {error}"[:400]) from error
