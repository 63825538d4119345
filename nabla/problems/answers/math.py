"""Mathematical answers, compared by math-verify in a process of their own."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from nabla.core.errors import require_count
from nabla.problems.answers.base import Answers, answers
from nabla.problems.answers.extraction import final_answer
from nabla.problems.answers.inequalities import interval, members, relational
from nabla.problems.answers.notation import (
    Parts,
    choice,
    constant,
    name,
    numeral,
    parts,
    quantity,
    readable,
    sides,
    signs,
    unwrapped,
    words,
)
from nabla.problems.answers.notation import number as _number
from nabla.problems.answers.notation import tidy as _tidy
from nabla.problems.answers.process import Unanswered, grading
from nabla.problems.answers.spoken import place, spoken
from nabla.problems.answers.units import split
from nabla.problems.answers.verifiable import qualifiers, radians, times

logger = logging.getLogger(__name__)

#: Longer answers, in characters, are not parsed: equal only to the same text.
LONGEST = 500

#: Longer lists are left to math-verify as a whole.
MOST_ITEMS = 12

_SPARE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")
_PERCENT = re.compile(
    r"(.*[^\s\\])\s*(?:\\?%|\\(?:text\w*|mbox|mathrm)\s*\{\s*(?:\\?%|per ?cent(?:age)?|pct)\s*\}"
    r"|per ?cent(?:age)?|pct)",
    re.DOTALL,
)
_POWER_OF_TEN = re.compile(r"[-+0-9.,]+[eE][-+]?[0-9]{1,4}")
_SINGLE = re.compile(r"(?:\\text\s*\{)?\s*[Aa]n? ")
_ARGUMENT = re.compile(r"\([^()]*\)")
_EXTENDED = re.compile(r"[\[(∪∩∅]|\\(?:cup|cap|mathbb|infty|begin|emptyset|varnothing|setminus)(?![a-zA-Z])")

#: What is written in words as well; the left is compared as the right.
_SPOKEN = {
    **dict.fromkeys(("all real numbers", "all reals"), r"\mathbb{R}"),
    **dict.fromkeys(("no solution", "no solutions", "empty set"), r"\emptyset"),
    "infinity": r"\infty",
}


@answers.register("math")
@dataclass(frozen=True)
class MathAnswers(Answers):
    r"""The last ``\boxed{}``, GSM8K's ``####`` or a stated answer; equal if math-verify says so.

    math-verify (https://github.com/huggingface/Math-Verify) runs in a child process with limits on CPU time
    and memory, so nothing that a model writes can hang, crash or exhaust this one. A comparison that
    exceeds them is "not equal", is counted in ``grading.counts`` (:mod:`nabla.problems.answers.process`) and
    logged. An answer is unequal to all but the same text if it is longer than 500 characters, has unbalanced
    braces, or has digits other than ASCII's 0-9 (so Arabic-Indic or full-width digits do not pass).

    What math-verify is asked are single values; around it the following is decided here.

    - Numbers are compared exactly, or to 1000 digits: ``\frac{1}{2004!}`` is not ``\frac{1}{2006!}``. A
      decimal number stands for another only as its rounding, to 6 places and 6 digits or more: ``0.333333``
      for ``\frac{1}{3}``, but neither ``0.33`` nor ``0.3333334``.
    - ``2 2/3`` is the mixed number ``2\frac23``; ``1 000``, ``1\,000``, ``1{,}000`` and ``1,000`` are 1000.
    - A percent sign is a unit that may be left out: ``28\%`` is 28, as benchmarks write such answers either
      way, and it is 0.28 and ``\frac{7}{25}``, its value; but 0.28 is not 28.
    - Units (:mod:`nabla.problems.answers.units`) that both write must mean the same, and are converted:
      ``5 cm`` is ``50 mm``, not ``5 m``. One that only one writes is passed over. "million" is a factor.
    - Numerals in a base are texts: ``52_8`` is ``52_{\text{eight}}``, not ``42``. The answer may leave out
      the base, which problems state, unless its digits are all 0 or 1: ``52`` passes for ``52_8``, ``11``
      does not for ``11_2``, since such a numeral is one in every base. ``11_{10}`` is 11.
    - A list is a set of values, whether joined by commas, "and" or "or", with or without their names:
      ``x=3, x=5`` and ``x=3 \text{ or } x=5`` are ``3, 5``, and not 5. Names that both write must agree; if
      only the gold answer has them, the order must.
    - A name is passed over: ``x=5``, ``F_7 = 13``, ``P(A) = 5``; an equation with more to it, as ``x+z=1``,
      is not 1. In ``a = b = c`` all sides without a variable must equal the gold answer.
    - Inequalities are intervals: ``x \le 3`` is ``(-\infty,3]``.
    - Numbers in words are numbers: ``five``, ``two thirds``, and ordinals, ``third`` and ``3rd``. Repeating
      decimals are fractions.
    - Negations and words such as "or more" must agree.

    Args:
        seconds: CPU time for one comparison (the kernel counts whole seconds: up to one more).
        last_number: take the last number of a response that states no answer otherwise.
    """

    seconds: int = 3
    last_number: bool = False

    def __post_init__(self) -> None:
        require_count("seconds", self.seconds, minimum=1, note=" second")

    def extract(self, response: str) -> str | None:
        return final_answer(response, last_number=self.last_number)

    def equal(self, left: str, right: str) -> bool:
        if max(len(left), len(right)) <= 2 * LONGEST:
            left, right = _tidy(left), _tidy(right)
        if max(len(left), len(right)) > LONGEST:
            return left == right
        return _equal(left, right, self.seconds)


@lru_cache(maxsize=1 << 16)
def _equal(left: str, right: str, seconds: int) -> bool:
    try:
        return _same(left, right, seconds)
    except Unanswered:
        logger.warning("an answer could not be compared within %d s and 2 GiB: %.100r", seconds, right)
        return False
    except RecursionError:  # signs and units piled up; nothing that anyone means
        return False


def _same(left: str, right: str, seconds: int) -> bool:
    """Whether two tidy answers are the same. Raises Unanswered."""
    if not (left and right):
        return False
    if left == right:
        return True
    numbers = _number(left), _number(right)
    if None not in numbers:
        return numbers[0] == numbers[1]
    if not (readable(left) and readable(right)):
        return False
    left, right = _said(left), _said(right)
    if left == right:
        return True
    if _SPARE_SPACE.sub("", left) == _SPARE_SPACE.sub("", right):
        return True
    for decide in (_texts, _numerals):
        verdict = decide(left, right)
        if verdict is not None:
            return verdict
    left, right = _solutions(left, right)
    for compare in (_lists, _labels, _percentages, _quantities):
        verdict = compare(left, right, seconds)
        if verdict is not None:
            return verdict
    if qualifiers(left) != qualifiers(right) or numeral(left) or numeral(right):
        return False
    left, right = (
        times(side, 1) if _POWER_OF_TEN.fullmatch(side) else radians(side) for side in (left, right)
    )
    return grading.ask({"left": left, "right": right}, seconds) is True


def _said(side: str) -> str:
    """A side in symbols, if it is in words."""
    phrase = words(side) or ""
    one = phrase and _SINGLE.match(side)
    value = spoken(f"one {phrase}" if one else phrase)  # "a third" is no "the third"
    if value is not None:
        whole = value.denominator == 1
        return str(value) if whole else f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    return _SPOKEN.get(phrase) or place(side) or unwrapped(side)


def _texts(left: str, right: str) -> bool | None:
    """Words against words, and the letter of a multiple choice in a text group against one in none."""
    texts = words(left), words(right)
    if None not in texts:
        return texts[0] == texts[1]
    for text, other in (texts[0], choice(right)), (texts[1], choice(left)):
        if text is not None and len(text) == 1 and other is not None:
            return text == other
    return None


def _numerals(left: str, right: str) -> bool | None:
    """Numerals of which at least one has its base."""
    gold, answer = numeral(left), numeral(right)
    if gold is None and answer is None:
        return None
    if gold is not None and answer is not None:
        return gold == answer
    digits, base = gold or answer or ("", 10)
    plain = re.sub("[ ,]", "", right if answer is None else left).casefold()
    if not re.fullmatch("[0-9a-z.]+", plain):
        return None
    if base == 10:
        return _number(digits) == _number(plain)
    return gold is not None and plain == digits and not set(digits) <= set("01.")


def _solutions(left: str, right: str) -> tuple[str, str]:
    r"""Both as sets, where one or both are written as conditions on a variable."""
    a, b = members(left), members(right)
    if a[0] is None or b[0] is None or a[0] == b[0]:
        left, right = a[1], b[1]
    ways = interval(left), interval(right)
    if ways[0] is not None and ways[1] is not None:
        return (ways[0][1], ways[1][1]) if ways[0][0] == ways[1][0] else (left, right)
    if ways[0] is not None and not relational(right) and _EXTENDED.search(right):
        left = ways[0][1]
    if ways[1] is not None and not relational(left) and _EXTENDED.search(left):
        right = ways[1][1]
    return left, right


def _lists(left: str, right: str, seconds: int) -> bool | None:
    """Lists item by item; None where neither is a list, or where math-verify knows better."""
    gold, answer = _listed(left), _listed(right)
    if gold is None or answer is None:
        return _one_of(left, gold, right, answer, seconds)
    if max(len(gold.items), len(answer.items)) > MOST_ITEMS:
        return None
    if gold.ordered and answer.ordered:
        if (gold.opening, gold.closing) != (answer.opening, answer.closing):
            return None
        return _in_order(gold.items, answer.items, seconds)
    names = [[_label(item)[0] for item in listed.items] for listed in (gold, answer)]
    values = [[_label(item)[1] for item in listed.items] for listed in (gold, answer)]
    named = [None not in found for found in names]
    distinct = [named[k] and len(set(names[k])) == len(names[k]) > 1 for k in (0, 1)]
    if gold.ordered or answer.ordered:
        k = 0 if answer.ordered else 1
        return _in_order(values[0], values[1], seconds) if distinct[k] else None
    if all(named):
        return _by_name([[each or "" for each in found] for found in names], values, seconds)
    if distinct[0] and not any(names[1]):
        return _in_order(values[0], values[1], seconds)
    return _as_sets(gold, answer, seconds)


def _listed(answer: str) -> Parts | None:
    r"""The parts of a list, both values of a ``\pm`` counted; None for anything else."""
    found = parts(answer)
    if found is None:
        both = signs(answer)
        return Parts(both, "", "", False) if len(both) > 1 else None
    if found.ordered:
        return found
    return replace(found, items=tuple(item for written in found.items for item in signs(written)))


def _one_of(left: str, gold: Parts | None, right: str, answer: Parts | None, seconds: int) -> bool | None:
    """A list against what is none."""
    listed, single = (gold, right) if answer is None else (answer, left)
    if listed is None or listed.ordered:
        return None
    value = _label(single)[1]
    if value != single and (_listed(value) is not None or _EXTENDED.search(value)):
        return _lists(left, value, seconds) if answer is None else _lists(value, right, seconds)
    if _EXTENDED.search(single):
        return None
    if len({_label(item)[0] for item in listed.items}) > 1:
        return False
    if answer is None:
        return all(_same(_tidy(item), right, seconds) for item in listed.items)
    return all(_same(left, _tidy(item), seconds) for item in listed.items)


def _in_order(gold: Sequence[str], answer: Sequence[str], seconds: int) -> bool:
    return len(gold) == len(answer) and all(
        _same(_tidy(a), _tidy(b), seconds) for a, b in zip(gold, answer, strict=True)
    )


def _as_sets(gold: Parts, answer: Parts, seconds: int) -> bool:
    """Whether each item has its like in the other list; one of its own, unless "or" joins them."""
    left, right = ([_tidy(item) for item in listed.items] for listed in (gold, answer))
    if gold.alternatives or answer.alternatives:
        equal = [[_same(a, b, seconds) for b in right] for a in left]
        return all(map(any, equal)) and all(map(any, zip(*equal, strict=True)))
    if len(left) != len(right):
        return False
    for a in left:
        like = next((b for b in right if _same(a, b, seconds)), None)
        if like is None:
            return False
        right.remove(like)
    return True


def _by_name(names: Sequence[Sequence[str]], values: Sequence[Sequence[str]], seconds: int) -> bool:
    """Lists of assignments: the same names with the same values, in any order."""
    if any(len(set(found)) == 1 for found in names):  # x = 3, x = 5 as x_1 = 3, x_2 = 5
        names = [[re.sub("_.*", "", each) for each in found] for found in names]
    left, right = (
        [(each, _tidy(value)) for each, value in zip(*pair, strict=True)]
        for pair in zip(names, values, strict=True)
    )
    if len(left) != len(right):
        return False
    for called, a in left:
        like = next((pair for pair in right if pair[0] == called and _same(a, pair[1], seconds)), None)
        if like is None:
            return False
        right.remove(like)
    return True


def _label(item: str) -> tuple[str | None, str]:
    """Name and value of ``x = 3``; no name and the item itself if it is nothing like it."""
    found = [side.strip() for side in sides(item)]
    if len(found) != 2:
        return None, item
    for called, value in (found, found[::-1]):
        if name(called) is not None and value and (called is found[0] or constant(value)):
            return name(called), value
    return None, item


def _labels(left: str, right: str, seconds: int) -> bool | None:
    """Equations, of which one side may be one although the other only has the value."""
    gold, answer = ([side.strip() for side in sides(text)] for text in (left, right))
    gold, answer = (found[1:] if len(found) > 1 and not found[0] else found for found in (gold, answer))
    if len(gold) == len(answer) == 1:
        return (
            None if (gold, answer) == ([left], [right]) else _same(_tidy(gold[0]), _tidy(answer[0]), seconds)
        )
    if any(relational(_ARGUMENT.sub("", text)) for text in (left, right)) or any(
        _bare(text) for text in (left, right)
    ):
        return None
    if len(gold) > 1 and len(answer) > 1:
        called = name(gold[0])
        if called is None or called != name(answer[0]):
            return None
        return _same(_tidy("=".join(gold[1:])), _tidy("=".join(answer[1:])), seconds)
    found = answer if len(gold) == 1 else gold
    if name(found[-1]) is not None and name(found[0]) is None:  # 5 = x
        found = found[::-1]
    *before, last = found
    if len(gold) == 1:
        constants = [side for side in before if constant(side)]
        if not constants and not all(map(quantity, before)):
            return False
        return all(_same(left, _tidy(side), seconds) for side in [*constants, last])
    if not all(constant(side) or name(side) or (quantity(side) and side.isalpha()) for side in before):
        return False
    return _same(_tidy(last), right, seconds)


def _bare(text: str) -> bool:
    found = parts(text)
    return found is not None and not found.opening


def _percentages(left: str, right: str, seconds: int) -> bool | None:
    """A percent sign: a unit, if only one has it, or a hundredth."""
    gold, answer = _percent(left), _percent(right)
    if gold is None and answer is None:
        return None
    if any(value is not None and _percent(value) is not None for value in (gold, answer)):
        return False  # 5%%, and each would be tried in both ways
    if gold is not None and answer is not None:
        return _same(gold, answer, seconds)
    other = right if answer is None else left
    if split(other)[1].named:
        return False
    value = gold or answer or ""
    ways = value, times(value, Fraction(1, 100))
    return any(_same(way, right, seconds) if answer is None else _same(left, way, seconds) for way in ways)


def _percent(answer: str) -> str | None:
    """What stands before a percent sign or word, of "5% of the cost" too; None if there is none."""
    found = _PERCENT.fullmatch(answer) or _PERCENT.fullmatch(split(answer)[0])
    return None if found is None else _tidy(found[1])


def _quantities(left: str, right: str, seconds: int) -> bool | None:
    """Values with units behind them."""
    left, right = radians(left), radians(right)
    variables = re.search("[A-Za-z]", left) is not None
    (value, unit), (other, its) = split(left), split(right, short=not variables)
    if value == left and other == right:
        return None
    if not unit.like(its):
        return False
    both = bool(unit.dimension and its.dimension)
    factors = [u.scale * (u.factor if both else 1) for u in (unit, its)]
    if factors[0] != factors[1]:
        value, other = times(value, factors[0]), times(other, factors[1])
    return _same(_tidy(value), _tidy(other), seconds)
