"""How rows that are decoded together draw their tokens: each with its own settings and noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.random import gumbel
from nabla.core.sampling import Sampling

#: Numbers of Gumbel noise formed at once, for steps to come.
NOISE_ELEMENTS = 1 << 16


class Draws:
    """What the rows of a batch are drawn with: each its own settings, key and position in its response.

    Args:
        samplings: settings per row.
        keys: of the Gumbel field, per row.
        first: position in its response that each row starts at.
        vocabulary: number of ids drawn from.
    """

    def __init__(
        self,
        samplings: Sequence[Sampling],
        keys: Int[Tensor, " rows"],
        first: Int[Tensor, " rows"],
        vocabulary: int,
    ) -> None:
        self.samplings, self.keys, self.first = list(samplings), keys, first
        self._ids = torch.arange(vocabulary, device=keys.device)
        self._groups = self._grouped()
        self._noise: Tensor | None = None
        self._noise_from = 0

    def _grouped(self) -> dict[Sampling, Int[Tensor, " _"]]:
        """The rows of each setting."""
        rows: dict[Sampling, list[int]] = {}
        for row, sampling in enumerate(self.samplings):
            rows.setdefault(sampling, []).append(row)
        return {s: torch.tensor(own, device=self.keys.device) for s, own in rows.items()}

    def select(self, rows: Sequence[int]) -> None:
        """Keeps some rows of the batch, in this order."""
        kept = torch.tensor(rows, device=self.keys.device)
        self.keys, self.first = self.keys[kept], self.first[kept]
        self.samplings = [self.samplings[row] for row in rows]
        self._groups = self._grouped()
        if self._noise is not None:
            self._noise = self._noise[kept]

    def replace(
        self, rows: Sequence[int], samplings: Sequence[Sampling], keys: Sequence[int], first: Sequence[int]
    ) -> None:
        """Other rows in the place of some; ``first`` is the position that each would have had at step 0."""
        if not rows:
            return
        where = torch.tensor(rows, device=self.keys.device)
        self.keys[where] = torch.tensor(keys, device=self.keys.device)
        self.first[where] = torch.tensor(first, device=self.keys.device)
        for row, sampling in zip(rows, samplings, strict=True):
            self.samplings[row] = sampling
        self._groups = self._grouped()
        if self._noise is not None:
            self._noise[where] = self._formed(where, self._noise.shape[1])

    def draw(self, logits: Float[Tensor, "rows v"], step: int) -> Int[Tensor, " rows"]:
        """One token per row, ``step`` tokens after its first. Steps are drawn in increasing order."""
        noise = None
        if any(sampling.temperature > 0 for sampling in self._groups):
            noise = self._field(step).to(logits.dtype)
        if len(self._groups) == 1:
            return self.samplings[0].draw(logits, noise)
        chosen = torch.empty(len(logits), dtype=torch.long, device=logits.device)
        for sampling, rows in self._groups.items():
            chosen[rows] = sampling.draw(logits[rows], None if noise is None else noise[rows])
        return chosen

    def _field(self, step: int) -> Float[Tensor, "rows v"]:
        """Gumbel noise of a step. It depends on key, position and id alone, so that several steps are formed
        at once: with few ids the calls take longer than the numbers."""
        if self._noise is None or step >= self._noise_from + self._noise.shape[1]:
            self._noise_from = step
            every = torch.arange(len(self.keys), device=self.keys.device)
            self._noise = self._formed(every, max(1, NOISE_ELEMENTS // (len(self.keys) * len(self._ids))))
        return self._noise[:, step - self._noise_from]

    def _formed(self, rows: Int[Tensor, " some"], count: int) -> Float[Tensor, "some steps v"]:
        steps = torch.arange(self._noise_from, self._noise_from + count, device=self.keys.device)
        keys = self.keys[rows].unsqueeze(1).expand(-1, count)
        return gumbel(keys, self.first[rows].unsqueeze(1) + steps, self._ids)
