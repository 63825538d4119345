"""What theory says must come out, each with the figures that say whether it did.

Expectations of hard estimators are also formed without sampling, by enumeration of the texts their forward
pass can give: those figures have no interval, only rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from scipy import stats
from torch import Tensor

from nabla.core.random import generator as make_generator
from nabla.estimators.anchors.base import Anchor, AnchorPoint
from nabla.estimators.base import Estimator
from nabla.study.laboratory.measure import LEVEL, Interval, mean_interval, measure
from nabla.study.laboratory.problems import Problem, all_texts, exponential, linear, normal_logits, quadratic
from nabla.study.laboratory.study import Row, Study, at_temperature, softmax_norms

#: Relative error that counts as rounding, in float64.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Verdict:
    """A claim, what was measured, and whether the measurement agrees.

    Args:
        claim: with the sense in which it is meant.
        measured: figures with their intervals.
        holds: the claim agrees with the figures.
    """

    claim: str
    measured: str
    holds: bool


class _Stand(Anchor):
    """Stands at the given token, whatever the scores."""

    def index(self, scores: Tensor, reference_scores: Tensor, chosen: Tensor) -> Tensor:  # noqa: ARG002
        return chosen


def expectation(estimator: Estimator, problem: Problem, seed: int = 0) -> Tensor:
    """The mean estimate of a hard estimator over ``y ~ softmax(z)``, every text enumerated ``[L, K]``.

    Exact where the backward rule is a function of the forward text.
    """
    length, width = problem.logits.shape
    texts = all_texts(length, width)
    leaf = problem.logits.expand(len(texts), -1, -1).clone().requires_grad_()
    anchor = AnchorPoint(_Stand(), leaf.detach(), texts)
    source = make_generator("laboratory", "expectation", seed)
    rows = estimator(leaf, generator=source, anchor=anchor)
    loss = estimator.loss(leaf, rows, problem.slopes)
    (gradients,) = torch.autograd.grad(loss, leaf)
    p = problem.logits.log_softmax(-1)[torch.arange(length), texts].sum(-1).exp()
    return (p[:, None, None] * gradients).sum(0)


def relative_error(found: Tensor, exact: Tensor) -> float:
    """``||found - exact|| / ||exact||``."""
    return float((found - exact).norm() / exact.norm())


def _bias(name: str, problem: Problem) -> float:
    """Relative bias at temperature 1, by enumeration."""
    return relative_error(expectation(at_temperature(name, 1.0), problem), problem.exact())


def verdicts(study: Study) -> list[Verdict]:
    """Every known truth whose estimators were measured."""
    checks: list[tuple[Sequence[str], Callable[[Study], list[Verdict]]]] = [
        (["soft-embedding"], _soft),
        (["straight-through"], _straight_through),
        (["reinmax", "decoupled-straight-through"], _reinmax),
        (["rao-gumbel", "gumbel-straight-through"], _rao),
        (["score-function"], _score),
        (["straight-through", "straight-through-identity"], _identity),
        ([], _ends),
    ]
    known = set(study.estimators)
    return [verdict for needs, check in checks if known.issuperset(needs) for verdict in check(study)]


def _worst(rows: Sequence[Row]) -> float:
    return max(row.result.bias.value for row in rows)


def _soft(study: Study) -> list[Verdict]:
    rows = study.select(estimator="soft-embedding", family="linear", temperature=1.0)
    value = _worst(rows)
    errors = []
    for tau in (0.5, 2.0):
        problem = study.problems["linear", study.settings.length]
        leaf = problem.logits.clone().requires_grad_()
        relaxed = at_temperature("soft-embedding", tau)(leaf, generator=torch.Generator())
        (gradient,) = torch.autograd.grad(relaxed, leaf, problem.relaxed(relaxed.detach()))
        errors.append(relative_error(gradient, problem.exact(tau)))
    return [
        Verdict(
            "soft-embedding, linear f, τ=1: exact (E f(y) = f(E y) for f linear in each row)",
            f"largest relative bias {value:.1e} in {len(rows)} cells (deterministic: no interval)",
            value < ROUNDING,
        ),
        Verdict(
            "soft-embedding, linear f, τ≠1: exact for the law softmax(z/τ), not for softmax(z)",
            f"relative bias for softmax(z/τ) {max(errors):.1e} (deterministic)",
            max(errors) < ROUNDING,
        ),
    ]


def _straight_through(study: Study) -> list[Verdict]:
    rows = study.select(estimator="straight-through", family="linear", temperature=1.0)
    value = _worst(rows)
    curved = study.select(estimator="straight-through", family="quadratic", temperature=1.0)
    errors = mean_interval(torch.tensor([r.result.bias.value for r in curved], dtype=torch.float64))
    return [
        Verdict(
            "straight-through (softmax), linear f, τ=1: exact, as ∂f/∂y is the same at every text",
            f"largest relative bias {value:.1e} in {len(rows)} cells (deterministic: no interval)",
            value < ROUNDING,
        ),
        Verdict(
            "straight-through (softmax), quadratic f: biased, it sees the slope at the argmax alone",
            f"relative bias {errors} on average over {len(curved)} cells",
            errors.low > 0,
        ),
    ]


#: A cell that seems biased is drawn again, with this many times the draws.
AGAIN = 50


def _unbiased(study: Study, rows: Sequence[Row]) -> tuple[str, bool]:
    """Text and verdict of a test of many cells: no coordinate is off after a correction for their number.

    Tokens that a few draws in a thousand take make a skewed mean, of which the normal approximation is too
    sure. A cell that the test rejects is therefore drawn again, independently and with ``AGAIN`` times the
    draws, where the approximation is better and a bias would stand out more.
    """
    covered = sum(row.result.unbiased for row in rows)
    share = stats.binomtest(covered, len(rows)).proportion_ci(LEVEL, "exact")
    suspects = [row for row in rows if row.result.p_value * len(rows) < 1 - LEVEL]
    values = [row.result.p_value for row in rows if row not in suspects]
    for row in suspects:
        problem = study.problems[row.family, row.length].tempered(row.entropy)
        estimator = at_temperature(row.estimator, row.temperature)
        source = make_generator("laboratory", study.seed, "again", row.family, row.temperature)
        values.append(measure(estimator, problem, AGAIN * row.result.draws, source).p_value)
    corrected = min(1.0, min(values) * len(rows))
    largest = max(row.result.bias.high for row in rows)
    text = (
        f"95 % balls hold 0 in {covered} of {len(rows)} cells [{share.low:.2f}, {share.high:.2f}]; "
        f"smallest p {corrected:.2g} (Bonferroni; {len(suspects)} cells drawn again with {AGAIN} times the "
        f"draws); upper end of the relative bias at most {largest:.2g}"
    )
    return text, corrected > 1 - LEVEL


def _reinmax(study: Study) -> list[Verdict]:
    names = ("reinmax", "decoupled-straight-through")
    exact, orders = dict.fromkeys(names, 0.0), {name: list[float]() for name in names}
    for trial in range(8):
        source = make_generator("laboratory", study.seed, "truths", trial)
        for make in (linear, quadratic):
            problem = make(normal_logits(2, 4, source), source)
            for name in names:
                exact[name] = max(exact[name], _bias(name, problem))
        z, state = normal_logits(2, 4, source), source.get_state()
        for name in names:
            errors = []
            for size in (0.02, 0.01):
                source.set_state(state)
                errors.append(_bias(name, exponential(z, source, size)))
            orders[name].append(math.log2(errors[0] / errors[1]))
    order = {name: mean_interval(torch.tensor(found, dtype=torch.float64)) for name, found in orders.items()}
    rows = [
        row
        for family in ("linear", "quadratic")
        for row in study.select(estimator="reinmax", family=family, temperature=1.0)
    ]
    text, holds = _unbiased(study, rows)
    found = [
        Verdict(
            "reinmax, τ=1: exact for f quadratic in each row (Heun's trapezium rule integrates a linear "
            "slope exactly), expectation enumerated",
            f"relative bias at most {exact['reinmax']:.1e} on 8 linear and 8 quadratic f; sampled "
            f"straight-through {exact['decoupled-straight-through']:.2f}",
            exact["reinmax"] < ROUNDING < exact["decoupled-straight-through"],
        ),
        Verdict("reinmax, τ=1, linear and quadratic f: unbiased, by sampling", text, holds),
        Verdict(
            "reinmax: error of second order, straight-through of first, in the size ε of f's curvature "
            "(f = exp(ε a·y)/ε, expectation enumerated)",
            f"observed order of the relative bias {order['reinmax']}, sampled straight-through "
            f"{order['decoupled-straight-through']} (8 f, ε = 0.02 and 0.01)",
            abs(order["reinmax"].value - 2) < 0.1 > abs(order["decoupled-straight-through"].value - 1),
        ),
    ]
    for family in study.families:
        if not family.endswith("reward"):
            continue
        mine, other = (
            study.select(estimator=name, family=family, temperature=1.0)
            for name in ("reinmax", "decoupled-straight-through")
        )
        gaps = torch.tensor(
            [a.result.bias.value - b.result.bias.value for a, b in zip(mine, other, strict=True)],
            dtype=torch.float64,
        )
        gap = mean_interval(gaps)
        found.append(
            Verdict(
                f"reinmax, {family} (not quadratic), τ=1: smaller bias than sampled straight-through",
                f"difference of relative biases {gap} over {len(mine)} cells",
                gap.high < 0,
            )
        )
    return found


def _rao(study: Study) -> list[Verdict]:
    pairs = [
        (row, other)
        for row in study.select(estimator="rao-gumbel")
        for other in study.select(
            estimator="gumbel-straight-through",
            family=row.family,
            length=row.length,
            temperature=row.temperature,
        )
        if other.entropy == row.entropy
    ]
    larger = sum(a.result.variance.low > b.result.variance.high for a, b in pairs)
    smaller = sum(a.result.variance.high < b.result.variance.low for a, b in pairs)
    ratio = torch.tensor(
        [a.result.variance.value / max(b.result.variance.value, 1e-300) for a, b in pairs],
        dtype=torch.float64,
    )
    return [
        Verdict(
            "rao-gumbel: never a larger variance than gumbel-straight-through at the same τ",
            f"smaller in {smaller} of {len(pairs)} cells, larger in {larger} (95 % intervals apart); ratio "
            f"{mean_interval(ratio)} on average",
            larger == 0,
        )
    ]


def _score(study: Study) -> list[Verdict]:
    rows = study.select(estimator="score-function")
    text, holds = _unbiased(study, rows)
    return [
        Verdict("score-function: unbiased for every f, entropy and length", text, holds),
        _largest(study, rows, per_text=False),
        _largest(study, rows, per_text=True),
    ]


def _largest(study: Study, rows: Sequence[Row], *, per_text: bool) -> Verdict:
    """Whether the variance is the largest, as it is or multiplied by the texts that an estimate costs."""
    largest, at_one, beaten = 0, 0, dict[str, int]()
    for row in rows:
        mine = _variance(row, per_text)
        same = study.select(family=row.family, length=row.length, temperature=row.temperature)
        others = [
            other for other in same if other.entropy == row.entropy and other.estimator != row.estimator
        ]
        first = all(mine.low > _variance(other, per_text).high for other in others)
        largest += first
        at_one += first and row.temperature == 1.0
        for other in others:
            if _variance(other, per_text).low > mine.high:
                key = f"{other.estimator} at τ={row.temperature:g}"
                beaten[key] = beaten.get(key, 0) + 1
    share = stats.binomtest(largest, len(rows)).proportion_ci(LEVEL, "exact")
    count = sum(row.temperature == 1.0 for row in rows)
    worst = sorted(beaten.items(), key=lambda item: -item[1])[:5]
    exceptions = "; ".join(f"{name} in {number}" for name, number in worst)
    sense = (
        "at equal numbers of texts (variance × texts)"
        if per_text
        else f"per estimate ({rows[0].result.evaluations} texts)"
    )
    return Verdict(
        f"score-function: the largest variance {sense}",
        f"strictly the largest in {largest} of {len(rows)} cells [{share.low:.2f}, {share.high:.2f}], "
        f"{at_one} of {count} at τ=1; strictly larger: {exceptions or 'none'}",
        largest == len(rows),
    )


def _variance(row: Row, per_text: bool) -> Interval:
    return row.result.variance / (1 / row.result.evaluations) if per_text else row.result.variance


def _identity(study: Study) -> list[Verdict]:
    errors = []
    for problem in study.problems.values():
        leaf = problem.logits.clone().requires_grad_()
        found: list[Tensor] = []
        for name in ("straight-through-identity", "straight-through"):
            relaxed = at_temperature(name, 1.0)(leaf, generator=torch.Generator())
            slope = problem.derivative(relaxed.detach()[None], hard=True)[0]
            found += torch.autograd.grad(relaxed, leaf, slope)
        p = leaf.detach().softmax(-1)
        product = p * (found[0] - (p * found[0]).sum(-1, keepdim=True))
        errors.append(relative_error(product, found[1]))
    rows = study.select(estimator="straight-through-identity", family="linear", temperature=1.0)
    raw = [row.result.bias.value for row in rows]
    return [
        Verdict(
            "straight-through-identity: wrong by the softmax Jacobian, diag(p) - pp^T, and by that alone",
            f"Jacobian × identity estimate = softmax estimate to {max(errors):.1e} on {len(errors)} problems "
            f"(deterministic); without it the relative bias for linear f is {min(raw):.2g} to {max(raw):.3g} "
            f"in {len(rows)} cells",
            max(errors) < ROUNDING and min(raw) > 0.1,
        )
    ]


#: Vocabulary sizes and entropies (shares of log K) of the Eq. 25 curves.
WIDTHS = (2, 8, 64, 512)
SHARES = (0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.99, 0.999)


def _ends(study: Study) -> list[Verdict]:
    curves: dict[int, list[Interval]] = {}
    for width, _, norm in softmax_norms(WIDTHS, SHARES, 40, study.seed):
        curves.setdefault(width, []).append(norm)
    peaks = {width: max(found, key=lambda i: i.value) for width, found in curves.items()}
    confident = {w: curves[w][0] / peaks[w].value for w in WIDTHS}
    uniform = {w: curves[w][-1] / peaks[w].value for w in WIDTHS}
    scaled = {w: curves[w][-1] / (1 / w) for w in WIDTHS}
    return [
        Verdict(
            "Eq. 25, confident end: the gradient of the softmax rule dies as the entropy goes to 0",
            f"norm at 0.001 log K relative to its peak: {_by_width(confident)}",
            all(i.high < 0.1 for i in confident.values()),
        ),
        Verdict(
            "Eq. 25, near-uniform end: the norm tends to ||∂L/∂y||/K; it dies for large vocabularies alone, "
            "and for K=2 it is the peak",
            f"K × norm at 0.999 log K: {_by_width(scaled)}; relative to the peak: {_by_width(uniform)}",
            all(abs(i.value - 1) < 0.2 for i in scaled.values())
            and all(uniform[a].low > uniform[b].high for a, b in pairwise(WIDTHS)),
        ),
    ]


def _by_width(found: dict[int, Interval]) -> str:
    return ", ".join(f"K={width} {interval}" for width, interval in found.items())
