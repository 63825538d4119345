"""Bias, variance and direction of an estimator on a problem, with 95 % intervals.

Intervals are normal for means over draws. The bias is a vector: its interval comes from the 95 % ball around
the mean estimate (Satterthwaite's approximation of the norm of a normal vector), so that it holds whatever
the direction. Where the law is nearly one-hot, candidates that no draw took would make a sample variance of
zero; every standard error therefore has a floor, one unseen draw of the largest size, ``max|G - mean| / n``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from nabla.core.random import generator as make_generator
from nabla.estimators.base import Estimator
from nabla.study.laboratory.problems import Problem

LEVEL = 0.95
BOOTSTRAP = 200
#: Largest number of values to resample.
BLOCKS = 4000
_HALF = float(stats.norm.ppf((1 + LEVEL) / 2))


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; all three are equal where nothing is random."""

    value: float
    low: float
    high: float

    def __truediv__(self, scale: float) -> Interval:
        return Interval(self.value / scale, self.low / scale, self.high / scale)

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean_interval(sample: Float[Tensor, " n"]) -> Interval:
    """Normal interval of a mean; one number is taken as exact."""
    value = float(sample.mean())
    if len(sample) < 2:
        return Interval(value, value, value)
    half = _HALF * float(sample.std()) / math.sqrt(len(sample))
    return Interval(value, value - half, value + half)


@dataclass(frozen=True)
class Measurement:
    """An estimator on a problem. Norms are Euclidean over all L×K logits.

    Args:
        draws: estimates drawn (1 for deterministic estimators).
        exact: norm of the exact gradient.
        bias: norm of the mean error, relative to ``exact``.
        worst_z: largest |error / standard error| over the coordinates.
        p_value: that all coordinates are unbiased (Šidák over the coordinates).
        variance: trace of the covariance of one estimate, relative to ``exact`` squared.
        cosine: of one estimate with the exact gradient, on average.
        mean_cosine: of the mean estimate with the exact gradient.
        norm: of one estimate on average, relative to ``exact``.
        evaluations: texts (or rows) per estimate at which the models are asked.
    """

    draws: int
    exact: float
    bias: Interval
    worst_z: float
    p_value: float
    variance: Interval
    cosine: Interval
    mean_cosine: Interval
    norm: Interval
    evaluations: int

    @property
    def unbiased(self) -> bool:
        """Whether the interval of the bias holds 0, up to rounding."""
        return self.bias.low <= 1e-6


def estimates(
    estimator: Estimator, problem: Problem, draws: int, generator: torch.Generator
) -> Float[Tensor, "n length k"]:
    """Independent estimates of the gradient, as DTO would form them."""
    leaf = problem.logits.expand(draws, -1, -1).clone().requires_grad_()
    rows = estimator(leaf, generator=generator)
    found = rows.detach()
    if estimator.feedback == "value":
        feedback = problem.at(found.reshape(estimator.draws, *leaf.shape))
    else:
        feedback = problem.derivative(found, hard=estimator.hard)
    (gradient,) = torch.autograd.grad(estimator.loss(leaf, rows, feedback), leaf)
    return gradient


def measure(estimator: Estimator, problem: Problem, draws: int, generator: torch.Generator) -> Measurement:
    """Draws estimates and compares them with the exact gradient; a deterministic estimator is drawn once."""
    count = draws if estimator.stochastic else 1
    exact = problem.exact().flatten()
    sample = estimates(estimator, problem, count, generator).flatten(1)
    return summarise(sample, exact, estimator.draws if estimator.feedback == "value" else 1)


def summarise(sample: Float[Tensor, "n d"], exact: Float[Tensor, " d"], evaluations: int = 1) -> Measurement:
    """Statistics of estimates ``[n, d]`` of a gradient ``[d]``."""
    count, size = sample.shape
    scale = float(exact.norm()) or 1.0
    mean = sample.mean(0)
    error = mean - exact
    length = float(error.norm())
    bias, variance, worst, p = Interval(length, length, length), Interval(0.0, 0.0, 0.0), 0.0, 1.0
    rounding = 1e-9 * scale
    if count > 1:
        centred = sample - mean
        floor = float(centred.abs().max()) / count
        covariance = centred.T @ centred / (count - 1)
        noise = covariance / count
        trace, square = float(noise.trace()), float((noise**2).sum())
        radius = floor
        if trace > 0:
            freedom = trace**2 / square
            radius += math.sqrt(square / trace * float(stats.chi2.ppf(LEVEL, freedom)))
        value = math.sqrt(max(length**2 - trace, 0.0))
        low = max(length - radius, 0.0)
        bias = Interval(max(value, low), low, length + radius)
        deviation = (centred**2).sum(-1) * count / (count - 1)
        variance = mean_interval(deviation) / scale**2
        errors = (noise.diagonal().clamp_min(0) + floor**2).sqrt()
    else:
        errors = torch.zeros_like(error)
    scores = error.abs() / errors.clamp_min(rounding)
    worst = float(scores.max())
    p = 1 - (1 - 2 * float(stats.norm.sf(worst))) ** size
    norms = sample.norm(dim=-1)
    products = sample @ exact
    cosines = torch.where(norms > rounding, products / (norms.clamp_min(rounding) * scale), 0.0)
    return Measurement(
        draws=count,
        exact=float(exact.norm()),
        bias=bias / scale,
        worst_z=worst,
        p_value=p,
        variance=variance,
        cosine=mean_interval(cosines),
        mean_cosine=_mean_cosine(sample, exact),
        norm=mean_interval(norms) / scale,
        evaluations=evaluations,
    )


def _mean_cosine(sample: Tensor, exact: Tensor) -> Interval:
    """Cosine of the mean estimate with a percentile-bootstrap interval (fixed resamples; of means of
    equally many estimates where there are more than BLOCKS)."""

    def cosine(means: Tensor) -> Tensor:
        denominator = means.norm(dim=-1) * exact.norm()
        return torch.where(denominator > 0, means @ exact / denominator.clamp_min(1e-300), 0.0)

    value = float(cosine(sample.mean(0, keepdim=True))[0])
    if len(sample) < 2:
        return Interval(value, value, value)
    size = -(-len(sample) // BLOCKS)
    sample = sample[: len(sample) // size * size].reshape(-1, size, sample.shape[-1]).mean(1)
    count = len(sample)
    source = make_generator("laboratory", "bootstrap", count)
    picks = torch.randint(count, (BOOTSTRAP, count), generator=source)
    weights = torch.zeros(BOOTSTRAP, count, dtype=sample.dtype)
    weights.scatter_add_(1, picks, torch.ones_like(picks, dtype=sample.dtype))
    low, high = (
        cosine(weights @ sample / count)
        .quantile(torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=sample.dtype))
        .tolist()
    )
    return Interval(value, min(low, value), max(high, value))
