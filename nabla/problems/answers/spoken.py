"""Numbers in words: cardinals, ordinals and fractions, of a whole answer."""

from __future__ import annotations

import re
from fractions import Fraction

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SMALL = {word: i for i, word in enumerate(_ONES)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}
_IRREGULAR = {
    "first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12,
    **{f"{word[:-1]}ieth": 10 * i for i, word in enumerate(_TENS, 2)},
}
_ORDINAL = {f"{word}th": i for word, i in _SMALL.items() if i < 20} | _IRREGULAR
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4} | {
    each: i for word, i in _ORDINAL.items() if i > 2 for each in (word, f"{word}s")
}
_SUFFIXED = re.compile(
    r"([0-9]+)\s*(?:\^\s*)?\{?\s*(?:\\(?:text\w*|mbox|mathrm)\s*\{\s*)?(?:st|nd|rd|th)\s*\}?\s*\}?"
)


def spoken(phrase: str) -> Fraction | None:
    """The number that a phrase in lower case says: "one million", "twenty first", "two thirds"; None if it
    says something else. An ordinal is the number of its place."""
    tokens = phrase.split()
    sign = 1
    if tokens[:1] in (["negative"], ["minus"]):
        sign, tokens = -1, tokens[1:]
    if not tokens:
        return None
    last = tokens[-1]
    if len(tokens) > 1 and last in _PARTS and (above := _cardinal(tokens[:-1])) is not None:
        return sign * Fraction(above, _PARTS[last])
    if last in _ORDINAL:
        front = _cardinal(tokens[:-1]) if tokens[:-1] else 0
        if front is None or front % 10 or front % 100 == 10:
            return None
        return sign * Fraction(front + _ORDINAL[last])
    value = _cardinal(tokens)
    return None if value is None else sign * Fraction(value)


def place(answer: str) -> str | None:
    r"""The number of ``21st`` and ``21^{\text{st}}``; None for anything else."""
    found = _SUFFIXED.fullmatch(answer)
    return found[1] if found is not None and answer.count("{") == answer.count("}") else None


def _cardinal(tokens: list[str]) -> int | None:
    total, group, last = 0, 0, 10**15
    room = 100  # what the next small word must stay below: 10 after "twenty", and nothing fits after "five"
    for i, token in enumerate(tokens):
        if token == "and" and 0 < i < len(tokens) - 1 and tokens[i - 1] in ("hundred", *_LARGE):
            continue
        if token in _SMALL and _SMALL[token] < room:
            small = _SMALL[token]
            if small == 0 and len(tokens) > 1:
                return None
            group += small
            room = 10 if small >= 20 else 0
        elif token == "hundred" and 0 < group < 100:
            group, room = 100 * group, 100
        elif token in _LARGE and group and _LARGE[token] < last:
            last = _LARGE[token]
            total, group, room = total + group * last, 0, 100
        else:
            return None
    return total + group if tokens else None
