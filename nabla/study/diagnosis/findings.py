"""What follows from the texts and the judgements: how well each signal tells what it would be used for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from nabla.core.costs import Usage
from nabla.moves.values import ByChangePoint
from nabla.study.diagnosis.judgements import Judged
from nabla.study.diagnosis.measures import (
    F1,
    Bin,
    Estimate,
    agreement,
    auc,
    average,
    average_of_all,
    calibration,
    difference,
    pooled,
)
from nabla.study.diagnosis.texts import Drawn, Swap

#: Name of what the language model's own probabilities say.
OWN = "own log-probability"
#: The first token within so much of a text's smallest value is taken for its first wrong one.
SLACK = 1.0


@dataclass(frozen=True)
class Chooser:
    """How well something tells right texts from wrong ones.

    Args:
        name: of it.
        pooled: AUC over the texts of all problems.
        within: mean over the problems of the AUC among a problem's own texts, which is what choosing needs.
        error: expected calibration error where it is read as log-odds; None where it is not.
        bins: of the calibration.
    """

    name: str
    pooled: Estimate
    within: Estimate
    error: float | None = None
    bins: tuple[Bin, ...] = ()


@dataclass(frozen=True)
class Locator:
    """How well something tells where the first mistake is, in the wrong texts.

    Args:
        name: of it.
        prefix: AUC of "a mistake has been made" over the tokens of all texts; unknown for what says nothing
            of a prefix.
        first: mean over the texts of the AUC of the first wrong token against those before it.
        hit: share of texts whose first wrong token is found by the rule "the first within 1 of the minimum"
            (of the log-probability: the minimum).
        f1: on a file of labelled texts.
    """

    name: str
    prefix: Estimate
    first: Estimate
    hit: Estimate
    f1: F1 | None = None


@dataclass(frozen=True)
class Predictor:
    """How well something tells which swaps succeed.

    Args:
        name: of it.
        reward: that says it; None: the language model.
        auc: of success after writing on, within a response, averaged over the responses.
        margin: of a gradient: its AUC less that of the best of what costs no further pass (the language
            model's numbers and the reward's values), on the same responses.
        best: which that is.
    """

    name: str
    reward: str | None
    auc: Estimate
    margin: Estimate | None = None
    best: str | None = None


@dataclass(frozen=True)
class Gradient:
    """What a gradient costs, and how well first order agrees with exact values.

    Args:
        reward: whose.
        flops: of one gradient.
        proposal_flops: of one text, written behind its swap and scored.
        proposals: scored proposals that one gradient costs, in FLOPs.
        seconds: the same in seconds on this machine.
        change: mean rank correlation over the responses of first-order gains with the exact changes that
            they approximate (the swap alone, all other tokens as they were).
        prefix: the same with the exact value of the text up to the new token.
    """

    reward: str
    flops: float
    proposal_flops: float
    proposals: float
    seconds: float
    change: Estimate
    prefix: Estimate


@dataclass(frozen=True)
class Findings:
    """Everything that was measured.

    Args:
        problems: asked.
        accuracy: share of right samples.
        any_right: share of problems with a right sample.
        success: share of swaps after which the text comes out right.
        choosers, locators, predictors, gradients: one for each signal.
    """

    problems: int
    accuracy: Estimate
    any_right: Estimate
    success: Estimate
    choosers: tuple[Chooser, ...]
    locators: tuple[Locator, ...]
    predictors: tuple[Predictor, ...]
    gradients: tuple[Gradient, ...]

    def chooser(self, name: str) -> Chooser:
        """By name."""
        return next(c for c in self.choosers if c.name == name)

    def locator(self, name: str) -> Locator | None:
        """By name; None where the first mistakes are not known."""
        return next((found for found in self.locators if found.name == name), None)

    def predictor(self, name: str, reward: str | None) -> Predictor | None:
        """By name and reward; None where the reward does not say that."""
        return next((p for p in self.predictors if (p.name, p.reward) == (name, reward)), None)


#: Values at the tokens of a text, and its first wrong token.
Marked = tuple[Sequence[float], int | None]


def find(
    drawn: Mapping[str, Drawn],
    judged: Mapping[str, Mapping[str, Judged]],
    first_wrong: Callable[[str, int], int | None] | None,
    probability: Mapping[str, bool],
    f1: Mapping[str, F1 | None],
) -> Findings:
    """The findings.

    Args:
        drawn: problem → its texts.
        judged: reward → problem → what it says of them.
        first_wrong: of (problem, sample) the first wrong token, None for a text without one; None where that
            is not known.
        probability: reward → whether it is read as log-odds of being right.
        f1: signal → its score on a file of labelled texts.
    """
    likelihoods = {key: [s.trajectory.log_likelihood for s in d.samples] for key, d in drawn.items()}
    choosers = [_chooser(OWN, drawn, likelihoods, False)]
    log_probs = {key: [s.trajectory.log_probs.tolist() for s in d.samples] for key, d in drawn.items()}
    locators = [_locator(OWN, log_probs, first_wrong, f1.get(OWN), of_prefix=False)]
    predictors, gradients = _policy(drawn), []
    for name, rows in judged.items():
        choosers.append(_chooser(name, drawn, {k: r.rewards for k, r in rows.items()}, probability[name]))
        values = {key: row.values for key, row in rows.items()}
        locators.append(_locator(name, values, first_wrong, f1.get(name), of_prefix=True))
        predictors += _of_reward(name, drawn, rows)
        gradients += _gradient(name, drawn, rows)
    known = [x for x in locators if x.first.known or x.prefix.known or x.f1 is not None]
    return Findings(
        len(drawn),
        average({k: sum(s.right for s in d.samples) / len(d.samples) for k, d in drawn.items()}),
        average({k: float(any(s.right for s in d.samples)) for k, d in drawn.items()}),
        average({k: _rate([e for s in d.swaps for e in s.ends]) for k, d in drawn.items()}),
        tuple(c for c in choosers if c.pooled.known),
        tuple(known),
        tuple(p for p in _plain(predictors) if p.auc.known),
        tuple(gradients),
    )


def _rate(ends: Sequence[bool]) -> float:
    return sum(ends) / len(ends) if ends else math.nan


# -- right against wrong texts -----------------------------------------------------------------------


def _chooser(
    name: str, drawn: Mapping[str, Drawn], scores: Mapping[str, Sequence[float]], probability: bool
) -> Chooser:
    items = [
        (score, sample.right, key)
        for key, row in scores.items()
        for score, sample in zip(row, drawn[key].samples, strict=True)
    ]
    values, right, problems = ([i[0] for i in items], [i[1] for i in items], [i[2] for i in items])
    within = {key: auc(row, [s.right for s in drawn[key].samples]) for key, row in scores.items()}
    error, bins = calibration(values, right) if probability else (None, [])
    return Chooser(name, pooled(values, right, problems), average(within), error, tuple(bins))


# -- where the first mistake is ----------------------------------------------------------------------


def _locator(
    name: str,
    values: Mapping[str, Sequence[Sequence[float]]],
    first_wrong: Callable[[str, int], int | None] | None,
    f1: F1 | None,
    *,
    of_prefix: bool,
) -> Locator:
    texts: dict[str, list[Marked]] = {}
    if first_wrong is not None:
        for key, rows in values.items():
            texts[key] = [(row, first_wrong(key, i)) for i, row in enumerate(rows)]
    tokens = [
        (-value, bad is not None and place >= bad, key)
        for key, rows in texts.items()
        for row, bad in rows
        for place, value in enumerate(row)
        if of_prefix
    ]
    scores, made, problems = ([t[0] for t in tokens], [t[1] for t in tokens], [t[2] for t in tokens])
    first = {key: [_first(*text) for text in rows] for key, rows in texts.items()}
    hit = {key: [_hit(*text, SLACK if of_prefix else 0.0) for text in rows] for key, rows in texts.items()}
    prefix = pooled(scores, made, problems)
    return Locator(name, prefix, average_of_all(first), average_of_all(hit), f1)


def _first(values: Sequence[float], bad: int | None) -> float:
    """AUC of the first wrong token against those before it."""
    if bad is None or math.isnan(values[bad]):
        return math.nan
    before = [-value for value in values[:bad] if not math.isnan(value)]
    return auc([*before, -values[bad]], [*[False] * len(before), True])


def _hit(values: Sequence[float], bad: int | None, slack: float) -> float:
    """Whether the first token within ``slack`` of the minimum is the first wrong one."""
    known = [value for value in values if not math.isnan(value)]
    if bad is None or not known:
        return math.nan
    limit = min(known) + slack
    return float(next(i for i, value in enumerate(values) if value <= limit) == bad)


# -- which swaps succeed -----------------------------------------------------------------------------

#: Name, reward, and response → AUC.
Measured = tuple[str, str | None, dict[str, float]]


def _within(drawn: Mapping[str, Drawn], scores: Callable[[str, Drawn], Sequence[float]]) -> dict[str, float]:
    """Response → AUC of a score of its swaps; every text behind a swap counts."""
    found = {}
    for key, d in drawn.items():
        if d.swaps:
            row = scores(key, d)
            ends = [(score, end) for score, swap in zip(row, d.swaps, strict=True) for end in swap.ends]
            found[key] = auc([score for score, _ in ends], [end for _, end in ends])
    return found


def _policy(drawn: Mapping[str, Drawn]) -> list[Measured]:
    """What the language model says by itself."""
    signs: dict[str, Callable[[Swap], float]] = {
        "position (early)": lambda swap: -swap.position,
        "surprise, -log π of the own token": lambda swap: -swap.log_own,
        "log π of the new token": lambda swap: swap.log_new,
        "entropy": lambda swap: swap.entropy,
    }
    return [
        (name, None, _within(drawn, lambda _, d, sign=sign: [sign(s) for s in d.swaps]))  # type: ignore[misc]
        for name, sign in signs.items()
    ]


def _of_reward(name: str, drawn: Mapping[str, Drawn], rows: Mapping[str, Judged]) -> list[Measured]:
    """What a reward says; the gradient last."""

    def positions(key: str, d: Drawn, weigh: Callable[[Sequence[float]], Sequence[float]]) -> list[float]:
        assert d.wrong is not None
        weights = weigh(rows[key].values[d.wrong])
        return [weights[swap.position] for swap in d.swaps]

    point = ByChangePoint()
    return [
        ("value drop", name, _within(drawn, lambda key, d: positions(key, d, drops))),
        ("change point", name, _within(drawn, lambda key, d: positions(key, d, _weights(point)))),
        ("exact value of the prefix", name, _within(drawn, lambda key, _: rows[key].prefixes)),
        ("∇, first-order gain", name, _within(drawn, lambda key, _: rows[key].gains)),
    ]


def _weights(point: ByChangePoint) -> Callable[[Sequence[float]], Sequence[float]]:
    def weigh(values: Sequence[float]) -> Sequence[float]:
        unknown = all(math.isnan(value) for value in values)
        return [math.nan] * len(values) if unknown else point.positions(list(values))

    return weigh


def drops(values: Sequence[float]) -> list[float]:
    """How far the value falls at each token: the last one before it (even odds before the first) less its
    own, or the next one where it has none."""
    before, last = [], 0.0
    for value in values:
        before.append(last)
        last = last if math.isnan(value) else value
    after, following = [], math.nan
    for value in reversed(values):
        following = following if math.isnan(value) else value
        after.append(following)
    return [old - new for old, new in zip(before, reversed(after), strict=True)]


def _plain(measured: Sequence[Measured]) -> list[Predictor]:
    """With intervals; a gradient beside the best of what is free with it."""
    found = []
    for name, reward, rows in measured:
        margin = best = None
        if name.startswith("∇"):
            free = [m for m in measured if m[1] in (None, reward) and not m[0].startswith(("∇", "exact"))]
            known = [m for m in free if average(m[2]).known]
            top = max(known, key=lambda m: average(m[2]).value, default=None)
            if top is not None:
                margin, best = difference(rows, top[2]), top[0]
        found.append(Predictor(name, reward, average(rows), margin, best))
    return found


# -- the price of a gradient -------------------------------------------------------------------------


def _gradient(name: str, drawn: Mapping[str, Drawn], rows: Mapping[str, Judged]) -> list[Gradient]:
    asked = [key for key, row in rows.items() if row.gradient.calls]
    if not asked:
        return []
    texts = sum(len(drawn[key].written) for key in asked)
    proposal = sum((drawn[key].writing + rows[key].scoring for key in asked), Usage())
    gradient = sum((rows[key].gradient for key in asked), Usage())
    flops, each = gradient.flops / len(asked), proposal.flops / texts
    return [
        Gradient(
            name,
            flops,
            each,
            flops / each if each else math.nan,
            (gradient.seconds / len(asked)) / (proposal.seconds / texts) if proposal.seconds else math.nan,
            average({key: agreement(rows[key].gains, rows[key].changes) for key in asked}),
            average({key: agreement(rows[key].gains, rows[key].prefixes) for key in asked}),
        )
    ]


def plain(value: Any) -> Any:
    """JSON-ready: dataclasses as mappings, NaN as None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value
