"""Moves: laws over (position, token) of a response, from which a search draws what it changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.change_point import ChangePoint
from nabla.core.errors import ConfigError, require_positive
from nabla.core.registry import Registry
from nabla.core.trajectory import Trajectory

if TYPE_CHECKING:
    from nabla.engine.initial_rows import InitialRows
    from nabla.engine.session import Session


@dataclass(frozen=True, eq=False)
class MoveView:
    """What a law is formed from.

    Args:
        trajectory: the response; with values at its tokens where the move needs them.
        reference: the language model's rows of its free positions, over a support of candidates.
        session: of the problem.
    """

    trajectory: Trajectory
    reference: InitialRows
    session: Session

    @cached_property
    def log_policy(self) -> Float[Tensor, "rows k"]:
        """``log π(v | y_<l)`` at temperature 1, over the candidates."""
        logits = self.reference.logits.double()
        total = self.reference.normalisers
        return logits - (logits.logsumexp(-1) if total is None else total.double()).unsqueeze(-1)

    @property
    def values(self) -> list[float]:
        """The reward's values at the free positions, NaN where there is none."""
        return self.trajectory.values[self.reference.positions]

    @cached_property
    def own(self) -> Float[Tensor, " rows"]:
        """``log π`` of the response's own tokens at the free positions, temperature 1."""
        return self.log_policy.gather(-1, self.reference.chosen.unsqueeze(-1))[:, 0]

    @property
    def surprising(self) -> list[float]:
        """What a change point takes for the probability of these tokens, nats: the language model's, unless
        the reward's values are such (:meth:`nabla.rewards.base.Reward.token_log_probs`)."""
        reward, own = self.session.workspace.reward, self.own.tolist()
        return own if reward is None else reward.token_log_probs(self.values, own)


#: More than so many torch.multinomial does not draw from at once.
CATEGORIES = 2**24


@dataclass(frozen=True, eq=False)
class Law:
    """A law over pairs of a position and another token for it.

    Args:
        first: position of the first row.
        candidates: ids ``[L, K]``.
        log_weights: not normalised, -inf where nothing may be drawn ``[L, K]``.
    """

    first: int
    candidates: Int[Tensor, "rows k"]
    log_weights: Float[Tensor, "rows k"]

    def draw(
        self,
        generator: torch.Generator,
        *,
        tried: Collection[tuple[int, int]] = (),
        last: int | None = None,
    ) -> tuple[int, int] | None:
        """A (position, token); None where nothing is left.

        Args:
            generator: draws.
            tried: pairs that are not drawn again.
            last: the last position that may be drawn.
        """
        weights = self.log_weights.clone()
        if last is not None:
            weights[max(last - self.first + 1, 0) :] = float("-inf")
        for position, token in tried:
            row = position - self.first
            if 0 <= row < len(weights):
                weights[row][self.candidates[row] == token] = float("-inf")
        flat = weights.flatten()
        if not bool((flat > float("-inf")).any()):
            return None
        chances = (weights - flat.max()).exp()
        if flat.numel() <= CATEGORIES:
            chosen = int(torch.multinomial(chances.flatten(), 1, generator=generator))
            row, column = divmod(chosen, weights.shape[-1])
        else:
            row = int(torch.multinomial(chances.sum(-1), 1, generator=generator))
            column = int(torch.multinomial(chances[row], 1, generator=generator))
        return self.first + row, int(self.candidates[row, column])

    def log_weight(self, position: int, token: int) -> float:
        """As the move gave it, not normalised; -inf for a pair that is never drawn."""
        row = position - self.first
        if not 0 <= row < len(self.log_weights):
            return float("-inf")
        own = self.log_weights[row][self.candidates[row] == token]
        return float(own[0]) if len(own) else float("-inf")

    def log_density(self, position: int, token: int) -> float:
        """``log q(position, token)``; -inf for a pair that is never drawn."""
        weight = self.log_weight(position, token)
        if weight == float("-inf"):
            return weight
        return weight - float(self.log_weights.flatten().logsumexp(0))


class Move(ABC):
    """Weighs pairs of a position and a token; settings only."""

    #: Of a response's candidates, those that are looked at, by the language model's probability.
    support: int = 64

    @property
    def needs_values(self) -> bool:
        """Whether the reward's values must be there."""
        return False

    @property
    def needs_gradient(self) -> bool:
        """Whether it awaits a gradient: the method must have an objective then."""
        return False

    @property
    def has_densities(self) -> bool:
        """Whether the law is a function of the text alone, so that a way back has a density too."""
        return True

    def with_change_point(self, point: ChangePoint) -> Move:
        """This move with the weights that a gate has fitted; itself where it has none."""
        return self

    @abstractmethod
    async def log_weights(self, view: MoveView) -> Float[Tensor, "rows k"]:
        """``log w(l, v)`` up to a constant, over the view's rows and candidates; -inf forbids."""

    async def law(self, trajectory: Trajectory, session: Session) -> Law:
        """The law at a response; the response's own tokens are no moves.

        Raises ConfigError where ``log_weights`` returns something else, or values are missing.
        """
        if self.needs_values and trajectory.score is None:
            (trajectory,) = await session.judge([trajectory])
        (trajectory,) = await session.states([trajectory])
        rows = slice(trajectory.committed, len(trajectory))
        support = min(self.support, session.vocabulary.usable)
        reference = session.reference(trajectory, rows, support)
        view = MoveView(trajectory, reference, session)
        weights: Any = await self.log_weights(view)
        shape = reference.logits.shape
        known = isinstance(weights, Tensor) and weights.shape == shape
        if not known or bool((weights.isnan() | (weights == float("inf"))).any()):
            raise ConfigError(
                f"{type(self).__name__}.log_weights must return numbers of shape {list(shape)}, none of them "
                "infinite but -inf",
                got=weights,
            )
        count = shape[0]
        candidates = reference.candidates
        if candidates is None:
            candidates = torch.arange(shape[-1]).expand(shape)
        weights = weights.to(reference.logits.device, torch.float64, copy=True)
        weights[reference.logits == float("-inf")] = float("-inf")
        own = torch.arange(count, device=weights.device)
        weights[own, reference.chosen] = float("-inf")
        return Law(rows.start, candidates.cpu(), weights.cpu())


moves: Registry[Move] = Registry("moves", lambda: Move, __package__)


@moves.register("sum")
class WeightedSum(Move):
    """``Σ_m w_m log w_m(l, v)``: a product of laws.

    Args:
        parts: the moves.
        weights: one for each; 1 by default.
    """

    def __init__(
        self, parts: list[Move | str | dict[str, Any]], weights: list[float] | None = None
    ) -> None:
        require_positive(parts=len(parts))
        self.parts = [moves.build(part) for part in parts]
        self.weights = [1.0] * len(parts) if weights is None else [float(w) for w in weights]
        if len(self.weights) != len(self.parts):
            raise ConfigError(f"A sum of {len(self.parts)} moves needs as many weights", got=self.weights)

    @property
    def needs_values(self) -> bool:
        return any(part.needs_values for part in self.parts)

    @property
    def needs_gradient(self) -> bool:
        return any(part.needs_gradient for part in self.parts)

    @property
    def has_densities(self) -> bool:
        return all(part.has_densities for part in self.parts)

    def with_change_point(self, point: ChangePoint) -> Move:
        return WeightedSum([part.with_change_point(point) for part in self.parts], self.weights)

    async def log_weights(self, view: MoveView) -> Float[Tensor, "rows k"]:
        total = torch.zeros_like(view.log_policy)
        for weight, part in zip(self.weights, self.parts, strict=True):
            found = (await part.log_weights(view)).double()
            forbidden = found == float("-inf")
            total = (total + weight * found.masked_fill(forbidden, 0.0)).masked_fill(forbidden, float("-inf"))
        return total
