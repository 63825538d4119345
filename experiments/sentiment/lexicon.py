"""What VADER's lexicon says of a text (Hutto & Gilbert 2014): a metric that no reward model has a part in."""

from __future__ import annotations

from functools import cache
from typing import Any

from nabla.core.extras import require_extra


@cache
def _analyzer() -> Any:
    require_extra("sentiment", purpose="VADER's lexicon")
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def compound(prompt: str, response: str) -> float:
    """-1 to 1: words' valences, summed by VADER's rules and squashed. The prompt does not count.

    Raises ConfigError where the package vaderSentiment is not installed.
    """
    del prompt
    return float(_analyzer().polarity_scores(response)["compound"])
