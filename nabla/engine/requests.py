"""What a session asks of the engine, as values."""

from __future__ import annotations

from abc import ABC
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Int
from torch import Tensor

from nabla.core.costs import Account
from nabla.core.prompt import Prompt
from nabla.engine.gradient.values import GradientTask
from nabla.objectives.base import Objective, Term
from nabla.rewards.base import Reading, Response
from nabla.rollouts.base import Opening


@dataclass(frozen=True, eq=False)
class Request(ABC):
    """Something a session asks of the engine. ``group`` requests of a kind run together."""

    kind: ClassVar[str]
    account: Account

    @property
    def group(self) -> Any:
        """Requests run in one batch only with those of an equal group."""
        return None

    def checkpoint(self) -> Callable[[], None]:
        """Takes note of what answering may change beside accounts and prefixes; the function that is returned
        takes the changes back, before a failed request is answered again."""
        return _nothing


@dataclass(frozen=True, eq=False)
class RolloutRequest(Request):
    """Write a response, or continue one."""

    kind = "rollout"
    opening: Opening


@dataclass(frozen=True, eq=False)
class ReadRequest(Request):
    """Run the language model over a given response.

    ``text`` is what it answers, and ``free`` the first position that its gradient may be asked from: the pass
    may keep its graph for that.
    """

    kind = "read"
    prompt: Int[Tensor, " prompt"]
    tokens: Int[Tensor, " length"]
    text: Prompt
    free: int | None = None


@dataclass(frozen=True, eq=False)
class ScoreRequest(Request):
    """Score a response. ``free`` is the first position that its gradient may be asked from: the pass may keep
    its graph for that."""

    kind = "score"
    response: Response
    free: int | None = None


@dataclass(frozen=True, eq=False)
class JudgeRequest(Request):
    """Say what the reward says at each token of a response, finished or not."""

    kind = "judge"
    reading: Reading


@dataclass(frozen=True, eq=False)
class GradientRequest(Request):
    """Differentiate an objective at a text."""

    kind = "gradient"
    terms: tuple[Term, ...]
    task: GradientTask

    @property
    def group(self) -> Any:
        return identity(self.terms)


@dataclass(frozen=True, eq=False)
class ValueRequest(GradientRequest):
    """Say what an objective is at a hard text; forward passes only."""

    kind = "value"


@dataclass(frozen=True, eq=False)
class JointRequest(Request):
    """Arithmetic of a component that runs once for all problems that wait for it.

    Args:
        function: of the tasks; it may be called again with the same ones if a batch fails.
        task: what the problem hands in; never changed.
        remembered: checkpoints of what the problem remembers, which the function adds to.
    """

    kind = "joint"
    function: Callable[[Sequence[Any]], Sequence[Any]]
    task: Any
    remembered: Sequence[Callable[[], Callable[[], None]]]

    @property
    def group(self) -> Any:
        return self.function

    def checkpoint(self) -> Callable[[], None]:
        restores = [checkpoint() for checkpoint in self.remembered]

        def restore() -> None:
            for each in restores:
                each()

        return restore


class Wait(Awaitable[list[Any]]):
    """Hands requests to the engine and receives their results."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = list(requests)

    def __await__(self) -> Generator[list[Request], list[Any], list[Any]]:
        return (yield self.requests)


@dataclass(frozen=True, eq=False)
class ValuePlan:
    """Values of an objective at some texts: which are known, and requests for the rest.

    Args:
        terms: of the objective.
        keys: of all texts.
        new: of those that are not known.
        requests: for these.
    """

    terms: tuple[Term, ...]
    keys: list[Any]
    new: list[Any]
    requests: list[ValueRequest]


def _nothing() -> None:
    pass


def identity(terms: Sequence[Term]) -> tuple[tuple[str, Objective], ...]:
    """Equal for the same terms under the same names; weights apart, which are applied later."""
    return tuple((term.name, term.objective) for term in terms)
