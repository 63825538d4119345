"""Texts that are sampled and judged before a run, without labels: what screens are fitted to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampled:
    """A complete text as the models see it.

    Args:
        prompt: id of the problem that it answers.
        values: of the reward at its tokens, NaN where there is none.
        log_probs: of the tokens, nats, as the reward sees them
            (:meth:`nabla.rewards.base.Reward.token_log_probs`).
        ends: of its steps, exclusive, ascending; the last one is the text's length.
        reward: of the text.
    """

    prompt: str
    values: tuple[float, ...]
    log_probs: tuple[float, ...]
    ends: tuple[int, ...]
    reward: float


#: Share of the texts that must have either verdict for the sign to count as one.
_RARE = 0.05


def verdicts(texts: Sequence[Sampled]) -> list[bool]:
    """What the reward says of each text: right where its log-odds are above 0. Where nearly all texts would
    have the same verdict (a mean, a likelihood: its zero means nothing), right is above the median."""
    signs = [text.reward > 0 for text in texts]
    if _RARE * len(texts) <= sum(signs) <= (1 - _RARE) * len(texts):
        return signs
    middle = statistics.median_low(text.reward for text in texts)
    return [text.reward > middle for text in texts]


def chosen(texts: Sequence[Sampled]) -> list[Sampled]:
    """Of each prompt the text with the highest reward, the first among equals, where the reward calls that
    right: what best-of-n would answer with good reason, and what a screen must not stop."""
    best: dict[str, tuple[Sampled, bool]] = {}
    for text, right in zip(texts, verdicts(texts), strict=True):
        if text.prompt not in best or text.reward > best[text.prompt][0].reward:
            best[text.prompt] = text, right
    return [text for text, right in best.values() if right]


def variance_within(texts: Sequence[Sampled]) -> float:
    """Share of the verdicts' variance that lies between the texts of a prompt: about 1 where prompts do not
    differ (sampling may take it above), 0 where each prompt's texts have one verdict. Both variances are
    unbiased; prompts of one text say nothing. 0 without any variance."""
    right = [float(good) for good in verdicts(texts)]
    groups: dict[str, list[float]] = {}
    for text, good in zip(texts, right, strict=True):
        groups.setdefault(text.prompt, []).append(good)
    several = [group for group in groups.values() if len(group) > 1]
    if not several or len(set(right)) < 2:
        return 0.0
    return statistics.fmean(statistics.variance(group) for group in several) / statistics.variance(right)


def quantile(numbers: Sequence[float], share: float) -> float:
    """The largest of the numbers that has at most a share of them below it."""
    return sorted(numbers)[int(share * len(numbers))]
