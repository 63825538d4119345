"""Rollouts: the language model writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Account
from nabla.core.errors import NablaError
from nabla.core.registry import Registry
from nabla.core.sampling import Sampling
from nabla.core.trajectory import States
from nabla.models.causal_lm import CausalLM
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary
from nabla.rollouts.boundaries.base import Boundary


@dataclass(frozen=True, eq=False)
class Opening:
    """Where a rollout begins.

    Args:
        prompt: prompt ids.
        response: response ids that are given ``[p]``.
        sampling: how to draw, and the length limit of the whole response.
        key: of the Gumbel field the row draws from, 63 bits; a backend without such a field seeds its own
            draws with it. It depends on run seed, problem and request number alone.
        account: who pays.
        until: where the rollout may stop before its end; None writes to the end.
    """

    prompt: Int[Tensor, " prompt"]
    response: Int[Tensor, " p"]
    sampling: Sampling
    key: int
    account: Account
    until: Boundary | None = None


@dataclass(frozen=True, eq=False)
class Continuation:
    """What a rollout wrote behind its opening.

    Args:
        tokens: new ones, the last an end-of-sequence token if ``finished`` ``[n]``.
        finished: see tokens.
        log_probs: ``log π`` of each at temperature 1, nats ``[n]``; NaN where the backend does not tell.
        states: what the language model knew while writing; None where it runs elsewhere.
        keyed: the tokens were drawn from the opening's Gumbel field.
    """

    tokens: Int[Tensor, " n"]
    finished: bool
    log_probs: Float[Tensor, " n"]
    states: States | None = None
    keyed: bool = True


@dataclass(frozen=True, eq=False)
class Resources:
    """What a run lends to its rollout.

    Args:
        vocabulary: ids, end of sequence and context length.
        runner: batches and counts passes; holds the prefixes. Not for remote rollouts: it is used meanwhile.
        lm: the language model; None where there is a vocabulary alone.
        connection: what the rollout's own ``connect`` gave; None for local ones.
        rollout_bytes: of keys and values of rows that are written together, at the most; None: the rollout's
            own choice.
    """

    vocabulary: Vocabulary
    runner: Runner
    lm: CausalLM | None = None
    connection: Any = None
    rollout_bytes: float | None = None


class Writer(ABC):
    """Writes continuations of several problems, and takes in new ones while others are on their way.

    What a row writes and costs is what ``Rollout.generate`` writes and counts for it, whenever it came.
    """

    @abstractmethod
    def submit(self, openings: Sequence[Opening]) -> list[int]:
        """Takes in openings, all that a problem asks for in one call; a number for each."""

    @abstractmethod
    def advance(self, steps: int, enough: int) -> dict[int, Continuation | NablaError]:
        """Up to so many steps of all rows, or until all that so many problems asked for is written. Number →
        what was written, or the error of that row alone."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether anything is on its way."""


class Rollout(ABC):
    """Continues responses; settings only.

    A local rollout never waits: its ``generate`` runs to its end in the thread that calls it, a batch of many
    problems at a time. A remote one (``remote = True``) is awaited on an event loop beside the local batches,
    a call for each opening and all of them at once; it needs no local language model.
    """

    #: The text is written elsewhere, and ``generate`` awaits it.
    remote: ClassVar[bool] = False

    @abstractmethod
    async def generate(
        self, openings: Sequence[Opening], resources: Resources
    ) -> list[Continuation | NablaError]:
        """One continuation per opening, in order, or the error of that row alone.

        A row's tokens depend on its own opening only, not on its batch nor on who is answered first. Openings
        have room for at least one token and do not end with an end-of-sequence token (the engine sees to
        both).

        What was spent is added to the opening's account (``opening.account.add``). A remote rollout adds a
        decoding step and a token for each token that was written, and FLOPs if it knows them; the engine adds
        the seconds, checks what came back and cuts it at the end of its step (``until``).
        """

    def writer(self, resources: Resources) -> Writer | None:  # noqa: ARG002 - for those who have one
        """For local rollouts whose rows may join while others are written; None: ``generate`` is called, and
        whoever asks meanwhile waits for its end."""
        return None

    def connect(self) -> AbstractAsyncContextManager[Any]:
        """What a remote rollout keeps open while a run lasts, an HTTP client say; it is entered once per run
        and handed to ``generate`` as ``resources.connection``."""
        return nullcontext()


rollouts: Registry[Rollout] = Registry("rollouts", lambda: Rollout, __package__)
