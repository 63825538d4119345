"""Laws of answers: what a response says, and when two answers are equal."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from nabla.problems.answers.base import Answers, answers
from nabla.testing.laws import MAX_EXAMPLES, Kit, require, untouched_global_noise
from nabla.testing.optional import st
from nabla.testing.strategies import responses

kit: Kit[Answers] = Kit(answers, "an answers component", "check_answers")

_several = st.lists(responses, min_size=1, max_size=5)


def check_answers(
    answers: object,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law of answers.

    Raises ContractError at the first law that is broken; the arguments are
    :func:`nabla.testing.check_estimator`'s.
    """
    kit.check(answers, laws=laws, skip=skip, max_examples=max_examples, seed=seed)


@kit.law(first=_several, last=responses)
def it_keeps_no_state(of: Answers, first: Sequence[str], last: str) -> None:
    """What a response says does not depend on what was read before; nothing is drawn."""
    used, fresh = copy.deepcopy(of), copy.deepcopy(of)
    with untouched_global_noise():
        for text in first:
            answer = used.extract(text)
            if answer is not None:
                used.equal(answer, answer)
        found = used.extract(last)
    expected = fresh.extract(last)
    require(found == expected, f"{found!r} after other responses, {expected!r} alone")


@kit.law(response=responses)
def any_text_has_an_answer_or_none(of: Answers, response: str) -> None:
    """``extract`` gives a text that is not empty, or None, whatever a model may write; it never raises."""
    found: Any = of.extract(response)
    require(found is None or isinstance(found, str), f"extract gave {found!r}, a {type(found).__name__}")
    require(found != "", "extract gave an empty text; say None where there is no answer")


@kit.law(left=responses, right=responses)
def any_two_texts_can_be_compared(of: Answers, left: str, right: str) -> None:
    """``equal`` gives a bool for any two texts; it never raises."""
    found: Any = of.equal(left, right)
    require(isinstance(found, bool), f"equal gave {found!r}, a {type(found).__name__}")


@kit.law(response=responses)
def an_answer_equals_itself(of: Answers, response: str) -> None:
    """What was extracted is equal to the same text."""
    answer = of.extract(response)
    require(answer is None or of.equal(answer, answer), f"{answer!r} is not equal to itself")


@kit.law(texts=_several)
def groups_are_of_equal_answers(of: Answers, texts: Sequence[str]) -> None:
    """``groups`` gives a number per response, None without an answer; an answer joins the first group whose
    first answer it equals, and groups are numbered as they appear (votes are counted by them)."""
    numbers = of.groups(texts)
    require(len(numbers) == len(texts), f"{len(numbers)} numbers for {len(texts)} responses")
    firsts: list[str] = []
    for text, number in zip(texts, numbers, strict=True):
        answer = of.extract(text)
        if answer is None:
            require(number is None, f"{text!r} has no answer and is in group {number}")
            continue
        same = next((n for n, first in enumerate(firsts) if of.equal(first, answer)), len(firsts))
        require(number == same, f"{answer!r} is in group {number}, not in {same}")
        if same == len(firsts):
            firsts.append(answer)
