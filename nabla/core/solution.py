"""What a method returns, answers on the way there, and how a run can end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nabla.core import html, pages
from nabla.core.costs import Cost, Usage
from nabla.core.errors import NablaError
from nabla.core.pages import Page
from nabla.core.prompt import Prompt


@dataclass(frozen=True)
class Revision:
    """One proposal of a run, accepted or not (for inspection and reports)."""

    position: int
    old_token: int
    new_token: int
    old_reward: float | None
    new_reward: float | None
    accepted: bool
    old_response: str
    new_response: str


@dataclass(frozen=True)
class Details:
    """What is known of the answer's tokens; empty where nobody knows.

    Args:
        pieces: the text that each adds.
        log_probs: ``log π``, nats, at temperature 1.
        entropy: of the language model's row, nats.
        values: of the reward, NaN where it has none.
    """

    pieces: tuple[str, ...] = ()
    log_probs: tuple[float, ...] = ()
    entropy: tuple[float, ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Solution:
    """What a method returns for one prompt.

    Args:
        prompt: the problem.
        response: decoded text, special tokens removed.
        tokens: response ids, end-of-sequence token included.
        reward: of the response, if it was scored.
        finished: False where the length limit cut the response off.
        method: registered name of the method.
        cost: everything this problem cost (SPEC section 13).
        revisions: proposals in order.
        candidates: number of complete responses considered.
        checkpoints: answers on the way, each with the cost until then; the last is the response.
        details: of its tokens, for people; nothing compares them.
    """

    prompt: Prompt
    response: str
    tokens: tuple[int, ...]
    reward: float | None
    finished: bool
    method: str
    cost: Cost
    revisions: tuple[Revision, ...] = ()
    candidates: int = 1
    #: Positions of tokens in the final text that an accepted revision put there.
    revised_positions: tuple[int, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    details: Details | None = field(default=None, compare=False, repr=False)

    def to_html(self, path: str | Path) -> Path:
        """Writes the answer as a page of its own, that opens in any browser; see ``nabla view``.

        Raises ConfigError for a file that is there and no such page, or that cannot be written.
        """
        return pages.write([self], Path(path))

    def show(self) -> Page:
        """The same page, in a notebook."""
        return Page(pages.render([self]))

    def _repr_html_(self) -> str:
        total, details = self.cost.total, self.details or Details()
        accepted = sum(revision.accepted for revision in self.revisions)
        facts = {
            "method": self.method,
            **({} if self.reward is None else {"reward": f"{self.reward:.4g}"}),
            **({} if self.finished else {"length": "cut off at the limit"}),
            "proposals": f"{accepted} accepted, {len(self.revisions) - accepted} rejected",
            "cost": f"{total.calls:,} calls, {total.tokens:,} tokens, {total.flops:.2e} FLOPs, "
            f"{total.seconds:.2f} s",
        }
        marked = self.revised_positions if details.pieces else ()
        answer = html.marked(details.pieces or [self.response], marked)
        return html.box(html.escape(self.prompt.text)) + html.box(answer) + html.card("Solution", facts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "id": self.prompt.id,
            "prompt": self.prompt.text,
            "response": self.response,
            "tokens": list(self.tokens),
            "reward": self.reward,
            "finished": self.finished,
            "method": self.method,
            "candidates": self.candidates,
            "accepted": sum(r.accepted for r in self.revisions),
            "rejected": sum(not r.accepted for r in self.revisions),
            "revisions": [vars(r) for r in self.revisions],
            "revised_positions": list(self.revised_positions),
            "cost": self.cost.to_dict(),
        }


@dataclass(frozen=True)
class Checkpoint:
    """A method's answer at some point of its run.

    Args:
        usage: the cost of the problem until then, all phases.
        tokens: response ids.
        response: their text.
        reward: of the response, if it was scored.
        finished: False where the length limit cut the response off.
    """

    usage: Usage
    tokens: tuple[int, ...]
    response: str
    reward: float | None
    finished: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "usage": self.usage.to_dict(), "tokens": list(self.tokens)}


def answer_within(checkpoints: Sequence[Checkpoint], unit: str, value: float) -> Checkpoint | None:
    """The last answer that was there before the budget ran out; None if there was none yet."""
    within = [c for c in checkpoints if float(getattr(c.usage, unit)) <= value]
    return within[-1] if within else None


class RunError(NablaError):
    """Some problems of a run failed; the solutions of all others are kept.

    Attributes:
        solutions: what was finished, in the order of the problems.
        failures: problem id → its error.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.solutions, self.failures)

    def __init__(self, solutions: list[Solution], failures: dict[str, NablaError]) -> None:
        self.solutions, self.failures = solutions, failures
        first_id, first = next(iter(failures.items()))
        total = len(solutions) + len(failures)
        if total == 1:
            super().__init__(first.what, fix=first.fix)
            self.got = first.got
            self.args = first.args
        else:
            super().__init__(
                f"{len(failures)} of {total} problems failed; first, {first_id!r}: {first}",
                fix="The finished solutions are in the error's .solutions.",
            )

    @property
    def failed_cost(self) -> Cost:
        """What the failed problems cost, together."""
        return Cost.sum(error.cost for error in self.failures.values() if error.cost is not None)


class Interrupted(NablaError):
    """The run was stopped by the user (Ctrl-C); finished solutions are in ``solutions``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.solutions, self.total)

    def __init__(self, solutions: list[Solution], total: int) -> None:
        self.solutions, self.total = solutions, total
        super().__init__(
            f"Interrupted after {len(solutions)} of {total} problems",
            fix="The finished solutions are kept; run the remaining prompts again.",
        )


class Stopped(Interrupted):
    """A run that an error ended, of a callback say; finished solutions are in ``solutions``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.solutions, self.total, self.error)

    def __init__(self, solutions: list[Solution], total: int, error: BaseException) -> None:
        super().__init__(solutions, total)
        self.error = error
        said = str(error) if isinstance(error, NablaError) else f"{type(error).__name__}: {error}"
        self.what = f"Stopped after {len(solutions)} of {total} problems: {said}"
        self.args = (f"{self.what}. {self.fix}" if solutions else self.what,)
