"""Mathematical answers, compared by math-verify in a process of their own."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from nabla.core.errors import ConfigError
from nabla.problems.answers.base import Answers, answers
from nabla.problems.answers.extraction import final_answer, stripped
from nabla.problems.answers.process import Unanswered, grading

logger = logging.getLogger(__name__)

#: Longer answers, in characters, are not parsed: equal only to the same text.
LONGEST = 500

_NUMBER = re.compile(r"([+-]?)\s*((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?)")
_WORDS = re.compile(r"(\\(?:text|textbf|textit|textrm|mbox|mathrm)\s*\{)?\(?([A-Za-z][A-Za-z ]*?)\)?\s*(\})?")
_TEXT = re.compile(r"\\(?:text\w*|mbox|mathrm)\s*\{([^{}]*)\}")
_UNIT = re.compile(r"([-+$0-9.,\\]*[0-9]) ([A-Za-z]{3,}(?: [A-Za-z]+){0,2})")
_FUNCTION = re.compile(r"(?:sqrt|sin|cos|tan|cot|sec|csc|log|exp|theta|alpha|beta|gamma|lambda|phi)\b")
_BOLD = re.compile(r"\\(?:textbf|mathbf|boldsymbol)\s*\{([^{}]*)\}")
_BASE = re.compile(r"[0-9A-Fa-f]_\{?([0-9]+)\}?")
_NOT = re.compile(r"\\(?:neq?|not)(?![a-zA-Z])|≠|!=")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_CHANGING = re.compile(
    r"\b(?:or|and|not|nor|no|to|if|unless|except|than|about|plus|minus|negative|less|more|least|most|times"
    r"|squared|cubed|factorial|percent|hal(?:f|ves)|thirds?|quarters?"
    r"|(?:four|fif|six|seven|eigh|nin|ten|hundred|thousand)ths?|dozen|hundred|thousand|million|billion|trillion)\b"
)


@answers.register("math")
@dataclass(frozen=True)
class MathAnswers(Answers):
    r"""The last ``\boxed{}``, GSM8K's ``####`` or a stated answer; equal if math-verify says so.

    math-verify (https://github.com/huggingface/Math-Verify) runs in a child process with limits on CPU time
    and memory, so nothing that a model writes can hang, crash or exhaust this one. A comparison that
    exceeds them is "not equal", is counted in ``grading.counts`` (:mod:`nabla.problems.answers.process`) and
    logged. On top of math-verify: plain numbers are compared exactly; an answer is unequal to all but the
    same text if it is longer than 500 characters, has unbalanced braces, or has digits other than ASCII's
    0-9 (so Arabic-Indic or full-width digits do not pass); number bases, negations and words such as
    "million" or "or" must agree; in ``a = b`` as an answer to ``c`` all sides without a variable must equal
    c.

    Args:
        seconds: CPU time for one comparison (the kernel counts whole seconds: up to one more).
        last_number: take the last number of a response that states no answer otherwise.
    """

    seconds: int = 3
    last_number: bool = False

    def __post_init__(self) -> None:
        if self.seconds < 1:
            raise ConfigError("A comparison needs at least 1 second", got=self.seconds)

    def extract(self, response: str) -> str | None:
        return final_answer(response, last_number=self.last_number)

    def equal(self, left: str, right: str) -> bool:
        left, right = _tidy(left), _tidy(right)
        if max(len(left), len(right)) > LONGEST:
            return left == right
        return _equal(left, right, self.seconds)


@lru_cache(maxsize=1 << 16)
def _equal(left: str, right: str, seconds: int) -> bool:
    if not (left and right):
        return False
    if left == right:
        return True
    numbers = _number(left), _number(right)
    if None not in numbers:
        return numbers[0] == numbers[1]
    if not (_readable(left) and _readable(right)):
        return False
    words = _words(left), _words(right)
    if None not in words:
        return words[0] == words[1]
    if _qualifiers(left) != _qualifiers(right) or not _bases(right) <= _bases(left):
        return False
    *sides, last = _sides(right)
    if sides and not _sides(left)[1:]:
        constant = [side for side in sides if not re.search("[A-Za-z]", _COMMAND.sub("", side))]
        return all(_equal(left, _tidy(side), seconds) for side in [*constant, last])
    try:
        return grading.ask({"left": left, "right": right}, seconds) is True
    except Unanswered:
        logger.warning("an answer could not be compared within %d s and 2 GiB: %.100r", seconds, right)
        return False


def _tidy(answer: str) -> str:
    """Without what is not mathematics."""
    answer = " ".join(answer.replace("−", "-").replace("\\!", "").replace("~", " ").split())
    answer = stripped(answer)
    bold = _BOLD.fullmatch(answer)
    if bold is not None:
        answer = stripped(bold[1])
    unit = _UNIT.fullmatch(answer)  # "18 dollars": math-verify would multiply d, o, l, ...
    if unit is not None and not _FUNCTION.match(unit[2]):
        answer = f"{unit[1]}\\text{{ {unit[2]}}}"
    return answer


def _number(answer: str) -> Fraction | None:
    """The value of a plain decimal number, dollar sign and thousands separators allowed."""
    found = _NUMBER.fullmatch(answer.replace("\\$", "").lstrip("$").replace("\\,", "").strip())
    if found is None or not found[2]:
        return None
    return Fraction(found[1] + found[2].replace(",", ""))


def _words(answer: str) -> str | None:
    """Text of one or more words, or a choice such as (C) in a text group; None for anything else."""
    found = _WORDS.fullmatch(answer)
    if found is None or (found[1] is None) != (found[3] is None) or (found[1] is None and len(found[2]) < 4):
        return None
    return " ".join(found[2].casefold().split())


def _readable(answer: str) -> bool:
    """Whether an answer is worth parsing at all."""
    if any(c.isdigit() and not c.isascii() for c in answer):
        return False
    depth = 0
    for c in re.sub(r"\\.", "", answer):
        depth += (c == "{") - (c == "}")
        if depth < 0:
            return False
    return depth == 0 and answer.isprintable()


def _qualifiers(answer: str) -> frozenset[str]:
    """What math-verify passes over although it changes the meaning."""
    found = {"not"} if _NOT.search(answer) else set()
    for text in _TEXT.findall(answer):
        text = text.casefold().strip()
        if text not in ("or", "and"):  # math-verify reads these as a set
            found.update(_CHANGING.findall(text))
            if re.search("[0-9]", text) and re.search("[a-z]", text):
                found.add(text)
    return frozenset(found)


def _sides(answer: str) -> list[str]:
    """Split at the equality signs outside braces."""
    sides, depth = [""], 0
    for c in answer:
        depth += (c == "{") - (c == "}")
        if c == "=" and depth == 0 and not sides[-1].endswith(("!", "<", ">")):
            sides.append("")
        else:
            sides[-1] += c
    return sides


def _bases(answer: str) -> frozenset[str]:
    return frozenset(_BASE.findall(answer))
