"""Where the final answer of a response is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nabla.problems.answers.extraction import final_answer, stripped

CASES = {
    r"Thus \boxed{42}.": "42",
    r"\boxed{1} is wrong, so \boxed{2}": "2",
    r"\boxed{\frac{1}{2}}": r"\frac{1}{2}",
    r"\boxed{\{1, 2\}}": r"\{1, 2\}",
    r"\fbox{7}": "7",
    r"so it is $\boxed 7$": "7",
    r"\boxed\pi": r"\pi",
    r"the answer is 3, so \boxed{}": None,
    r"first \boxed{3}, then \boxed{4": None,
    r"\boxed": None,
    r"\boxedness": r"\boxedness",
    "2 + 2 = 4\n#### 4": "4",
    "#### 3\n#### 1,234\n": "1,234",
    "####": None,
    "#### Step 1\nwe add\n#### Step 2\nThe answer is 20 cups.": "20 cups",
    "#### 1,000\n\nQuestion: another": "1,000",
    "so\n#### Paris\n": "Paris",
    "Answer:\n20": "20",
    "**Final Answer:**\n\n$20$": "20",
    r"#### 5 and then \boxed{6}": "6",
    "Step 1 gives 3.\nThe final answer is $20$. I hope it is correct.": "20",
    "Work 1.\nAnswer: 20": "20",
    "Work 1.\n**Answer:** 20": "20",
    "Work 1.\n**Answer**: 20": "20",
    "Work 1.\nThe answer is **20**.": "20",
    "Work 1.\nThe answer is: 3.5.": "3.5",
    "Work 1.\nThe answer is $\\$36$.": r"\$36",
    "Work 1.\nThe answer is \\(x^2\\).": "x^2",
    "Work 1.\nThe answer is 20, not 18. Done": "20, not 18",
    "The answer is $18$ at first sight, but with tax it is $20$.": None,
    "One might think the answer is 18. That is wrong, it is 20.": None,
    "I do not know the answer.\nIt could be 18.": None,
    "Long thoughts.\nThen 18 again.": None,
    "18": "18",
    " $18$ ": "18",
    "x" * 201: None,
    "": None,
    "  \n ": None,
}


@pytest.mark.parametrize("response", CASES)
def test_the_conclusion_is_found(response):
    assert final_answer(response) == CASES[response]


def test_the_last_number_is_taken_only_on_request():
    response = "Thoughts.\nShe makes 9 * 2 = $1,018.50 every day"
    assert final_answer(response) is None
    assert final_answer(response, last_number=True) == "$1,018.50"
    assert final_answer(r"it is 5, \boxed{}", last_number=True) is None


PIECES = [r"\boxed{", "{", "answer is ", "answer: $", "####", " ", "$", r"\(", "1,", "*", ". ", "**. "]


@pytest.mark.parametrize("piece", PIECES)
def test_long_responses_are_read_in_linear_time(piece):
    # 200,000 repetitions take minutes if anything is quadratic; pytest's own time limit is the test.
    final_answer(piece * 200_000, last_number=True)


@given(st.text() | st.text(alphabet="\\boxed{}$#()[] answer:is1.2*`\n", max_size=60))
def test_extraction_never_fails_and_finds_a_part_of_the_response(response):
    answer = final_answer(response)
    assert answer is None or (answer and answer in response and stripped(answer) == answer)
