"""Moves by first-order gains, and their control."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import ConfigError, require_finite
from nabla.moves.base import Move, MoveView, moves
from nabla.objectives.base import trajectory_terms
from nabla.schedulers.base import Step


async def gains(view: MoveView) -> Float[Tensor, "rows k"]:
    """First-order gain of each candidate, ``-(∂L/∂y_lv - ∂L/∂y_l,own)`` (SPEC section 7)."""
    session = view.session
    if session.objective is None:
        raise ConfigError(
            "A move by first-order gains needs an objective", fix="Set the method's objective."
        )
    gradient = await session.gradient(view.trajectory, session.objective)
    total = gradient.total(trajectory_terms(session.objective), Step())
    rows = session.gradient_rows(gradient, total, view.reference).double()
    own = rows.gather(-1, view.reference.chosen.unsqueeze(-1).to(rows.device))
    return own - rows


@moves.register("first-order")
class FirstOrder(Move):
    """``gain / temperature``; with temperature 2 and the log-target as objective the locally balanced
    proposal ``e^{Δ/2}`` (arXiv 1711.07424).

    Args:
        temperature: in the objective's unit, > 0.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = require_finite("temperature", temperature)
        if self.temperature <= 0:
            raise ConfigError("temperature must be positive", got=temperature)

    @property
    def needs_gradient(self) -> bool:
        return True

    async def log_weights(self, view: MoveView) -> Float[Tensor, "rows k"]:
        return await gains(view) / self.temperature


@moves.register("random-direction")
class RandomGains(FirstOrder):
    """The gains in random order within each row: as large, but without a direction. The control of
    ``first-order`` at the same cost."""

    @property
    def has_densities(self) -> bool:
        return False  # another order every time

    async def log_weights(self, view: MoveView) -> Float[Tensor, "rows k"]:
        found = await gains(view)
        generator = view.session.generator("random-direction", view.session.written)
        order = torch.rand(found.shape, generator=generator, dtype=torch.float64).argsort(-1)
        return found.gather(-1, order.to(found.device)) / self.temperature
