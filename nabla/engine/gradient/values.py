"""What a gradient request is, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Account
from nabla.core.trajectory import Trajectory
from nabla.engine.gradient.graphs import FreeText
from nabla.models.causal_lm import CausalLM
from nabla.models.channels import Channel, Pull, TableChannel
from nabla.objectives.base import Term
from nabla.rewards.base import RelaxedResponse, Response, Reward, SoftTokens
from nabla.schedulers.base import Step


@dataclass(frozen=True, eq=False)
class TermGradient:
    """One term's value and gradient, unweighted.

    Args:
        value: of the term, in its unit.
        pulls: what arrives through each channel, the language model's first; None where the term does not
            reach it.
        direct: ``∂term/∂ℓ_i``, the factor of ``log π(.|y_<i, x)`` in row i ``[n]``.
    """

    value: float
    pulls: tuple[Pull | None, ...]
    direct: Float[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class TrajectoryGradient:
    """Gradient of all trajectory terms at one text, valid for every position from ``start`` on.

    Args:
        tokens: the text it was taken at (hard tokens) ``[L]``.
        start: first position covered.
        terms: by name.
        hidden: states that predict positions ``start..L-1`` of this text, if a term needs ``log π``.
        normalisers: log-partition of each of those rows ``[n]``.
        reward: of this text, if a term needs it.
        hard: no row was relaxed.
    """

    tokens: Int[Tensor, " length"]
    start: int
    terms: dict[str, TermGradient]
    hidden: Float[Tensor, "n hidden"] | None
    normalisers: Float[Tensor, " n"] | None
    reward: float | None
    hard: bool = True

    def rows_wanted(
        self, part: TermGradient, places: Int[Tensor, " rows"], candidates: Tensor | None, account: Account
    ) -> RowsRequest:
        """A request for rows of ``part`` (one of the terms, or their total), counted from ``start``."""
        return RowsRequest(
            part,
            places,
            candidates,
            account,
            None if self.hidden is None else self.hidden[places],
            None,
            None if self.normalisers is None else self.normalisers[places],
        )

    def total(self, terms: Sequence[Term], step: Step) -> TermGradient:
        """The weighted sum of the terms at a step."""
        weights = {term.name: term.weight(step) for term in terms}
        parts = [(weights[name], part) for name, part in self.terms.items()]
        width = len(parts[0][1].pulls)
        pulls: list[Pull | None] = []
        for index in range(width):
            present = [(w, p.pulls[index]) for w, p in parts]
            scaled = [pull.scaled(w) for w, pull in present if pull is not None]
            pulls.append(reduce(lambda a, b: a.plus(b), scaled) if scaled else None)
        direct = sum((w * p.direct for w, p in parts), torch.zeros_like(parts[0][1].direct))
        return TermGradient(sum(w * p.value for w, p in parts), tuple(pulls), direct)


@dataclass(frozen=True, eq=False)
class GradientTask:
    """One gradient to compute.

    Args:
        prompt_ids: of the language model.
        trajectory: gives the prompt, and the states of the prefix.
        tokens: the hard text: the trajectory's, or with replaced tokens from ``start`` on.
        start: first free position.
        soft: relaxed rows, or None.
        account: who pays.
    """

    prompt_ids: Int[Tensor, " prompt"]
    trajectory: Trajectory
    tokens: Int[Tensor, " length"]
    start: int
    soft: SoftTokens | None
    account: Account

    @property
    def known(self) -> bool:
        """The text is the trajectory's own, whose log-probabilities its rollout knows."""
        return self.soft is None and torch.equal(self.tokens, self.trajectory.tokens)

    @property
    def free(self) -> FreeText:
        """As a kept graph knows it."""
        return FreeText(self.account, self.trajectory.prompt, self.tokens, self.start)

    def relaxed(self) -> RelaxedResponse:
        """As the models take it."""
        response = Response(self.trajectory.prompt, self.tokens, self.account)
        return RelaxedResponse(response, self.start, self.soft)


@dataclass(frozen=True, eq=False)
class RowsRequest:
    """Rows of one gradient to be formed.

    Args:
        part: a term's gradient, or a weighted total.
        places: rows of it, counted from its start ``[R]``.
        candidates: support of each row ``[R, K]``; None: all usable ids.
        account: who pays.
        hidden: states that predict the rows ``[R, H]``; None where no term needs ``log π``.
        logits: of these states over the support, where known ``[R, K]``.
        normalisers: log-partitions of the rows, where known ``[R]``.
    """

    part: TermGradient
    places: Int[Tensor, " rows"]
    candidates: Int[Tensor, "rows k"] | None
    account: Account
    hidden: Float[Tensor, "rows hidden"] | None
    logits: Float[Tensor, "rows k"] | None = None
    normalisers: Float[Tensor, " rows"] | None = None


def channels(lm: CausalLM, reward: Reward | None) -> tuple[Channel, ...]:
    """Channels that a gradient has pulls through, the language model's first."""
    extra = reward.channels() if reward is not None and reward.differentiable else ()
    return (TableChannel(lm.table), *extra)
