"""Moves by the language model's own probabilities."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import ConfigError, require_finite
from nabla.moves.base import Move, MoveView, moves


def tempered(view: MoveView, temperature: float, floor: float) -> Float[Tensor, "rows k"]:
    """``log π(v)/τ`` where ``π(v) > floor``, -inf elsewhere."""
    log_policy = view.log_policy
    lowest = math.log(floor) if floor > 0 else float("-inf")
    return (log_policy / temperature).masked_fill(log_policy <= lowest, float("-inf"))


class _Tempered(Move):
    """With a temperature and a floor.

    Args:
        temperature: τ > 0 of the language model's probabilities.
        floor: tokens of at most this probability are no moves.
    """

    def __init__(self, temperature: float = 0.5, floor: float = 1e-3) -> None:
        self.temperature = require_finite("temperature", temperature)
        if self.temperature <= 0:
            raise ConfigError("temperature must be positive", got=temperature)
        if not 0 <= floor < 1:
            raise ConfigError("floor must be at least 0 and below 1", got=floor)
        self.floor = floor


@moves.register("policy")
class Policy(_Tempered):
    """``π(v | y_<l)^(1/τ)``: positions and tokens jointly, where the language model hesitates."""

    async def log_weights(self, view: MoveView) -> Float[Tensor, "rows k"]:
        return tempered(view, self.temperature, self.floor)


@moves.register("uniform-position")
class UniformPosition(_Tempered):
    """Every position alike, then a token by ``π^(1/τ)``."""

    async def log_weights(self, view: MoveView) -> Float[Tensor, "rows k"]:
        weights = tempered(view, self.temperature, self.floor)
        own = torch.arange(len(weights), device=weights.device)
        weights[own, view.reference.chosen] = float("-inf")
        total = weights.logsumexp(-1, keepdim=True)
        return torch.where(total > float("-inf"), weights - total, weights)


@moves.register("surprise")
class Surprise(Move):
    """``-weight · log π(y_l)`` of the response's own token: where it was improbable.

    Args:
        weight: of the log-probability.
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = require_finite("weight", weight)

    async def log_weights(self, view: MoveView) -> Float[Tensor, "rows k"]:
        return (-self.weight * view.own).unsqueeze(-1).expand_as(view.log_policy)
