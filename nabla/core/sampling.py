"""How a token is drawn from logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ConfigError, require_count, require_finite

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits, in rollouts and proposals alike.

    Args:
        temperature: 0 means argmax (never 1).
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of tokens with at least this mass; 1 keeps all.
        max_new_tokens: length limit of a response, in tokens (>= 1).
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        require_finite("temperature", self.temperature, minimum=0)
        require_count("top_k", self.top_k, note=" (0 keeps all tokens)")
        if not 0 < require_finite("top_p", self.top_p) <= 1:
            raise ConfigError("top_p must be in (0, 1] (1 keeps all tokens)", got=self.top_p)
        require_count("max_new_tokens", self.max_new_tokens, minimum=1, note=": a response needs room")

    def filter(self, logits: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        """Logits divided by the temperature, -inf outside top-k and top-p. Needs temperature > 0."""
        if self.temperature == 0:
            raise ConfigError("Temperature 0 has no distribution to filter", fix="Use draw: it is argmax.")
        # Differences first: a tiny temperature would overflow the quotient.
        scores = (logits - logits.amax(-1, keepdim=True)) / self.temperature
        if 0 < self.top_k < scores.shape[-1]:
            kth = scores.topk(self.top_k, dim=-1).values[..., -1:]
            scores = scores.masked_fill(scores < kth, float("-inf"))
        if self.top_p < 1:
            ordered, index = scores.sort(dim=-1, descending=True, stable=True)
            before = ordered.softmax(-1).cumsum(-1).roll(1, -1)
            before[..., 0] = 0  # the first token stays, whatever its mass
            drop = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, index, before >= self.top_p)
            scores = scores.masked_fill(drop, float("-inf"))
        return scores

    def draw(
        self, logits: Float[Tensor, "*batch k"], noise: Float[Tensor, "*batch k"] | None
    ) -> Int[Tensor, "*batch"]:
        """Indices drawn by the Gumbel-max rule, ``argmax(filter(z) + g)``; argmax at temperature 0."""
        if self.temperature == 0:
            return logits.argmax(-1)
        if noise is None:
            raise ConfigError("Drawing at a positive temperature needs Gumbel noise")
        return (self.filter(logits) + noise).argmax(-1)
