"""Which method is worth trying: a rule with four questions, and the number that answers each.

The thresholds come from the studies behind SPEC section 14: rewards whose values at tokens tell "a mistake
has been made" at an AUC of .95 let writing stop early with a gain; at .85 and .75 a fixed threshold lost to
revision, and only where to draw again was still told; at .5 (a reward trained on verdicts alone) values tell
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nabla.study.diagnosis.findings import OWN, Findings, Gradient, Predictor
from nabla.study.diagnosis.measures import Estimate


@dataclass(frozen=True)
class Thresholds:
    """What an answer needs.

    Args:
        headroom: share of problems with a right sample, less the share of right samples, below which there is
            nothing to choose.
        choose: AUC of right against wrong texts that the interval's lower end must reach.
        stop: AUC of "a mistake has been made" at which writing may be stopped (the interval's lower end).
        aim: AUC of a swap's success at which values say where to draw again (the interval's lower end).
        proposals: scored proposals that a gradient may cost at the most.
    """

    headroom: float = 0.02
    choose: float = 0.55
    stop: float = 0.9
    aim: float = 0.7
    proposals: float = 3.0


@dataclass(frozen=True)
class Answer:
    """A question, answered by a number.

    Args:
        question: for people.
        yes: the answer.
        because: the numbers that say so, and the threshold.
    """

    question: str
    yes: bool
    because: str


@dataclass(frozen=True)
class Verdict:
    """What is worth trying with a reward.

    Args:
        reward: its name; None without one.
        method: registered name of the method.
        settings: of it, for the command line.
        why: in a line.
        answers: to the questions.
    """

    reward: str | None
    method: str
    settings: str
    why: str
    answers: tuple[Answer, ...]


def verdicts(findings: Findings, rewards: Sequence[str], limits: Thresholds | None = None) -> list[Verdict]:
    """One for each reward, what is worth trying first at the top; without rewards one without."""
    limits = limits or Thresholds()
    if not rewards:
        return [_without(findings, limits)]
    found = [_with(findings, name, limits) for name in rewards]
    order = ("nabla-reasoner", "backtrack", "revision", "best-of-n")

    def rank(verdict: Verdict) -> tuple[float, ...]:
        texts = findings.chooser(str(verdict.reward)).pooled.value if _chosen(findings, verdict) else 0.0
        stops = sum(answer.yes for answer in verdict.answers)
        return (-order.index(verdict.method), stops, texts)

    return sorted(found, key=rank, reverse=True)


def _chosen(findings: Findings, verdict: Verdict) -> bool:
    return any(c.name == verdict.reward for c in findings.choosers)


def _without(findings: Findings, limits: Thresholds) -> Verdict:
    room = _headroom(findings, limits)
    return Verdict(None, "best-of-n", "", "there is no reward: the likeliest of several texts", (room,))


def _with(findings: Findings, name: str, limits: Thresholds) -> Verdict:
    room, choose = _headroom(findings, limits), _chooses(findings, name, limits)
    stop, aim = _stops(findings, name, limits), _aims(findings, name, limits)
    slope = _slopes(findings, name, limits)
    answers = (room, choose, stop, aim, slope)
    if not choose.yes:
        return Verdict(name, "best-of-n", "without --rm", "it does not choose: the likeliest text", answers)
    if slope.yes:
        return Verdict(
            name, "nabla-reasoner", "", "the gradient says more than what is free with it", answers
        )
    if stop.yes:
        return Verdict(name, "backtrack", "", "values tell a mistake as it is made", answers)
    if aim.yes:
        return Verdict(
            name,
            "backtrack",
            "--method.screen never",
            "values tell where to draw again, but not surely enough to stop writing",
            answers,
        )
    # Not pairs: a search that finds more of a weak reward finds less that is right (docs/search.md).
    return Verdict(name, "revision", "", "it chooses, and nothing but the policy says where", answers)


def _headroom(findings: Findings, limits: Thresholds) -> Answer:
    room = findings.any_right.value - findings.accuracy.value
    several, one = findings.any_right.value, findings.accuracy.value
    because = f"{several:.2f} of problems, {one:.2f} of samples are right (≥ {limits.headroom} apart)"
    return Answer("Is there anything to choose from?", room >= limits.headroom, because)


def _chooses(findings: Findings, name: str, limits: Thresholds) -> Answer:
    known = [c for c in findings.choosers if c.name == name]
    own = next((c for c in findings.choosers if c.name == OWN), None)
    question = "Does the reward tell right texts from wrong ones?"
    if not known:
        return Answer(question, False, "not known: all texts are right, or all are wrong")
    texts = known[0].pooled
    beside = "" if own is None else f", own log-probability {own.pooled}"
    return Answer(question, texts.low >= limits.choose, f"AUC {texts} (lower end ≥ {limits.choose}){beside}")


def _stops(findings: Findings, name: str, limits: Thresholds) -> Answer:
    question = "May writing stop at a bad value?"
    locator = findings.locator(name)
    if locator is None or not locator.prefix.known:
        return Answer(question, False, "not known: no values, or first mistakes are not marked")
    return Answer(
        question,
        locator.prefix.low >= limits.stop,
        f"AUC of 'a mistake has been made' {locator.prefix} (lower end ≥ {limits.stop})",
    )


def _aims(findings: Findings, name: str, limits: Thresholds) -> Answer:
    question = "Do values say where to draw again?"
    drop = findings.predictor("value drop", name)
    point = findings.predictor("change point", name)
    told = [p.auc for p in (drop, point) if p is not None]
    if not told:
        return Answer(question, False, "not known: the reward has no values, or no swap succeeded")
    best = max(told, key=lambda found: found.value)
    return Answer(question, best.low >= limits.aim, f"AUC of success {best} (lower end ≥ {limits.aim})")


def _slopes(findings: Findings, name: str, limits: Thresholds) -> Answer:
    question = "Does the gradient say more than what is free?"
    slope = findings.predictor("∇, first-order gain", name)
    price = next((g for g in findings.gradients if g.reward == name), None)
    if slope is None or price is None or slope.margin is None:
        return Answer(question, False, "not known: the reward has no gradient, or no swap succeeded")
    yes = slope.margin.low > 0 and price.proposals <= limits.proposals
    return Answer(question, yes, _beside(slope, slope.margin, price, limits))


def _beside(slope: Predictor, margin: Estimate, price: Gradient, limits: Thresholds) -> str:
    return (
        f"AUC {slope.auc}, {margin.shown('+')} beside {slope.best} "
        f"(lower end > 0), for {price.proposals:.1f} proposals (≤ {limits.proposals:g})"
    )
