"""Channels: where relaxed tokens enter a model, and how its gradient comes back as rows of ``∂L/∂y``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.models.head import EmbeddingTable


class Pull(ABC):
    """The gradient of one term at one text as it arrives through one channel.

    A channel may form rows in its own way; all that is asked is that rows are linear in the gradient.
    """

    @abstractmethod
    def rows(
        self, places: Int[Tensor, " r"], candidates: Int[Tensor, "r k"] | None
    ) -> Float[Tensor, "r k"]:
        """``∂term/∂y`` at free positions, over candidate ids of the language model (None: all usable)."""

    @abstractmethod
    def flops(self, rows: int, width: int) -> float:
        """Of :meth:`rows` for so many rows over so many candidates."""

    @abstractmethod
    def scaled(self, weight: float) -> Pull:
        """The gradient times a number."""

    def plus(self, other: Pull) -> Pull:
        """The gradient of the sum of two terms."""
        return SumPull((self, other))

    @property
    def batch(self) -> object | None:
        """Pulls of an equal batch are asked together (:meth:`together`); None: each for itself."""
        return None

    @staticmethod
    def together(
        pulls: Sequence[Pull],
        places: Sequence[Int[Tensor, " _"]],
        candidates: Sequence[Int[Tensor, "_ k"] | None],
    ) -> list[Float[Tensor, "_ k"]]:
        """Rows of several pulls of one batch; an override may save work that they share."""
        return [pull.rows(at, ids) for pull, at, ids in zip(pulls, places, candidates, strict=True)]


class Channel(ABC):
    """A place where relaxed tokens enter a model."""

    @abstractmethod
    def pull(self, slope: Float[Tensor, "n width"]) -> Pull:
        """What a derivative at this place (one vector per free position) stands for."""


@dataclass(frozen=True, eq=False)
class TablePull(Pull):
    """``E v``: the gradient with respect to embeddings, and the table they came from.

    Args:
        vectors: ``∂term/∂e`` per free position ``[n, H]``.
        table: E.
    """

    vectors: Float[Tensor, "n hidden"]
    table: EmbeddingTable

    def rows(
        self, places: Int[Tensor, " r"], candidates: Int[Tensor, "r k"] | None
    ) -> Float[Tensor, "r k"]:
        return self.table.products(self.vectors[places], candidates)

    def flops(self, rows: int, width: int) -> float:
        return self.table.flops(rows, width)

    def scaled(self, weight: float) -> TablePull:
        return replace(self, vectors=weight * self.vectors)

    def plus(self, other: Pull) -> Pull:
        if isinstance(other, TablePull) and other.table is self.table:
            return replace(self, vectors=self.vectors + other.vectors)
        return SumPull((self, other))

    @property
    def batch(self) -> object:
        return self.table

    @staticmethod
    def together(
        pulls: Sequence[Pull],
        places: Sequence[Int[Tensor, " _"]],
        candidates: Sequence[Int[Tensor, "_ k"] | None],
    ) -> list[Float[Tensor, "_ k"]]:
        """One product: it reads the whole table however few rows are asked for."""
        own = [pull for pull in pulls if isinstance(pull, TablePull)]
        vectors = torch.cat([pull.vectors[at] for pull, at in zip(own, places, strict=True)])
        given = [ids for ids in candidates if ids is not None]
        products = own[0].table.products(vectors, torch.cat(given) if given else None)
        return list(torch.split(products, [len(at) for at in places]))


@dataclass(frozen=True, eq=False)
class SumPull(Pull):
    """Several pulls as one."""

    parts: tuple[Pull, ...]

    def rows(
        self, places: Int[Tensor, " r"], candidates: Int[Tensor, "r k"] | None
    ) -> Float[Tensor, "r k"]:
        found = [part.rows(places, candidates) for part in self.parts]
        return sum(found[1:], found[0])

    def flops(self, rows: int, width: int) -> float:
        return sum(part.flops(rows, width) for part in self.parts)

    def scaled(self, weight: float) -> SumPull:
        return SumPull(tuple(part.scaled(weight) for part in self.parts))


@dataclass(frozen=True, eq=False)
class TableChannel(Channel):
    """Relaxed tokens enter as mixtures of a table's embeddings (SPEC section 1)."""

    table: EmbeddingTable

    def pull(self, slope: Float[Tensor, "n hidden"]) -> TablePull:
        return TablePull(slope, self.table)
