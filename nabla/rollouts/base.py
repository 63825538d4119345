"""Rollouts: the language model writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Account
from nabla.core.errors import NablaError
from nabla.core.registry import Registry
from nabla.core.sampling import Sampling
from nabla.core.trajectory import States
from nabla.models.causal_lm import CausalLM
from nabla.models.runner import Runner
from nabla.rollouts.boundaries.base import Boundary


@dataclass(frozen=True, eq=False)
class Opening:
    """Where a rollout begins.

    Args:
        prompt: prompt ids.
        response: response ids that are given ``[p]``.
        sampling: how to draw, and the length limit of the whole response.
        key: of the Gumbel field the row draws from.
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
        log_probs: ``log π`` of each at temperature 1, nats ``[n]``.
        states: what the language model knew while writing; None where it runs elsewhere.
        keyed: the tokens were drawn from the opening's Gumbel field.
    """

    tokens: Int[Tensor, " n"]
    finished: bool
    log_probs: Float[Tensor, " n"]
    states: States | None = None
    keyed: bool = True


class Rollout(ABC):
    """Continues responses; settings only."""

    @abstractmethod
    def generate(
        self, lm: CausalLM, openings: Sequence[Opening], runner: Runner
    ) -> list[Continuation | NablaError]:
        """One continuation per opening, in order, or the error of that row alone.

        A row's tokens depend on its own opening only, not on its batch. Openings have room for at least
        one token and do not end with an end-of-sequence token (the engine sees to both).
        """


rollouts: Registry[Rollout] = Registry("rollouts", lambda: Rollout, __package__)
