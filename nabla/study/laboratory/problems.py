"""Problems small enough to enumerate: the exact gradient of ``F(z) = E_{y ~ softmax(z)}[f(y)]`` is known.

A text is L rows over K candidates, drawn independently: K^L texts. f is given at texts (its values are all
that F depends on), and extended to relaxed rows, where estimators with gradient feedback ask for ``∂f/∂y``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from nabla.core.errors import ConfigError

#: Largest number of texts to enumerate.
MOST_TEXTS = 20_000


@dataclass(frozen=True, eq=False)
class Problem:
    """An objective over ``K^L`` texts and a law to draw them from.

    Args:
        family: what f is.
        logits: z, float64 ``[L, K]``.
        values: f at every text, in lexicographic order ``[K^L]``.
        slopes: ``∂f/∂y`` at every text ``[K^L, L, K]``.
        relaxed: ``∂f/∂y`` at relaxed rows, ``[n, L, K] → [n, L, K]``.
    """

    family: str
    logits: Float[Tensor, "length k"]
    values: Float[Tensor, " texts"]
    slopes: Float[Tensor, "texts length k"]
    relaxed: Callable[[Tensor], Tensor]

    @property
    def entropy(self) -> float:
        """Of a row of ``softmax(z)``, nats, averaged over the rows."""
        return mean_entropy(self.logits)

    def tempered(self, entropy: float) -> Problem:
        """The same f under ``β z`` whose rows have this entropy on average, nats."""
        return replace(self, logits=with_entropy(self.logits, entropy))

    def number(self, rows: Float[Tensor, "*batch length k"]) -> Int[Tensor, "*batch"]:
        """Which text one-hot rows are."""
        length, width = self.logits.shape
        powers = width ** torch.arange(length - 1, -1, -1)
        return (rows.argmax(-1) * powers).sum(-1)

    def at(self, rows: Float[Tensor, "*batch length k"]) -> Float[Tensor, "*batch"]:
        """f at texts, given as one-hot rows."""
        return self.values[self.number(rows)]

    def derivative(self, rows: Float[Tensor, "n length k"], *, hard: bool) -> Float[Tensor, "n length k"]:
        """``∂f/∂y`` at rows: looked up where they are texts."""
        return self.slopes[self.number(rows)] if hard else self.relaxed(rows)

    def exact(self, temperature: float = 1.0) -> Float[Tensor, "length k"]:
        """``∂/∂z E_{y ~ softmax(z/temperature)}[f(y)]``, by enumeration of every text."""
        z = self.logits.clone().requires_grad_()
        length, width = z.shape
        log_p = (z / temperature).log_softmax(-1)
        texts = all_texts(length, width)
        taken = log_p[torch.arange(length), texts].sum(-1)
        (gradient,) = torch.autograd.grad((taken.exp() * self.values).sum(), z)
        return gradient


def all_texts(length: int, width: int) -> Int[Tensor, "texts length"]:
    """Every text, in lexicographic order. Raises ConfigError for more than MOST_TEXTS."""
    if width**length > MOST_TEXTS:
        raise ConfigError(
            "Too many texts to enumerate",
            got=f"{width}^{length}",
            fix=f"Keep candidates^length under {MOST_TEXTS}.",
        )
    return torch.tensor(list(itertools.product(range(width), repeat=length)))


def text_rows(length: int, width: int) -> Float[Tensor, "texts length k"]:
    """Every text as one-hot rows."""
    return one_hot(all_texts(length, width), width).double()


def entropies(logits: Float[Tensor, "*batch length k"]) -> Float[Tensor, "*batch"]:
    """Entropy of ``softmax(z)``, nats, averaged over the rows of each batch entry."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean(-1)


def mean_entropy(logits: Float[Tensor, "length k"]) -> float:
    """Entropy of ``softmax(z)``, nats, averaged over the rows."""
    return float(entropies(logits))


def with_entropy(
    logits: Float[Tensor, "*batch length k"], entropy: float
) -> Float[Tensor, "*batch length k"]:
    """``β z`` with this entropy per row on average, nats; β by bisection, one for each batch entry.

    Raises ConfigError outside (0, log K).
    """
    if not 0 < entropy < math.log(logits.shape[-1]):
        raise ConfigError(
            "An entropy is between 0 and log K nats", got=entropy, fix=f"K is {logits.shape[-1]}."
        )
    low = torch.full(logits.shape[:-2], -30.0, dtype=logits.dtype)  # of log β
    high = -low
    for _ in range(100):
        middle = (low + high) / 2
        above = entropies(middle.exp()[..., None, None] * logits) > entropy
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return low.exp()[..., None, None] * logits


def normal_logits(length: int, width: int, generator: torch.Generator) -> Float[Tensor, "length k"]:
    """Standard normal z."""
    return torch.randn(length, width, generator=generator, dtype=torch.float64)


def _from_function(
    family: str, logits: Tensor, f: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]
) -> Problem:
    rows = text_rows(*logits.shape)
    return Problem(family, logits, f(rows), slope(rows), slope)


def linear(logits: Float[Tensor, "length k"], generator: torch.Generator) -> Problem:
    """``f(y) = Σ_l a_l·y_l``, a standard normal."""
    a = torch.randn(logits.shape, generator=generator, dtype=logits.dtype)
    return _from_function("linear", logits, lambda y: (a * y).sum((-2, -1)), lambda y: a.expand_as(y))


def quadratic(logits: Float[Tensor, "length k"], generator: torch.Generator) -> Problem:
    """``f(y) = ½ y^T A y + a·y`` over all rows together, a and the symmetric A standard normal."""
    size = logits.numel()
    a = torch.randn(logits.shape, generator=generator, dtype=logits.dtype)
    b = torch.randn(size, size, generator=generator, dtype=logits.dtype)
    matrix = (b + b.T) / math.sqrt(2)

    def slope(y: Tensor) -> Tensor:
        return a + (y.flatten(-2) @ matrix).reshape(y.shape)

    def f(y: Tensor) -> Tensor:
        return ((slope(y) + a) * y).sum((-2, -1)) / 2

    return _from_function("quadratic", logits, f, slope)


def exponential(logits: Float[Tensor, "length k"], generator: torch.Generator, size: float) -> Problem:
    """``f(y) = exp(ε Σ_l a_l·y_l) / ε``, a standard normal, of size ε: terms of order k are ε^(k-1) large."""
    a = torch.randn(logits.shape, generator=generator, dtype=logits.dtype)

    def f(y: Tensor) -> Tensor:
        return (size * (a * y).sum((-2, -1))).exp() / size

    return _from_function("exponential", logits, f, lambda y: (size * f(y))[..., None, None] * a)
