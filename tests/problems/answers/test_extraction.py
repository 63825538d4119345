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
    # Several boxes that are one answer, and those that are not.
    r"\boxed{1}, \boxed{2} and \boxed{3}": "1,2,3",
    r"$\boxed{3}$, $\boxed{5}$": "3,5",
    r"\(\boxed{1}\), \(\boxed{2}\), and \(\boxed{3}\)": "1,2,3",
    r"$x = \boxed{3}\text{ and }\boxed{5}$": "3,5",
    r"$\boxed{1\frac14},$ or $\boxed{\frac{5}{4}}$ inches": r"1\frac14 \text{ or } \frac{5}{4}",
    r"\boxed{7}, \boxed{7}": "7",
    r"\boxed{1}\quad\boxed{2}": "2",
    r"(a) \boxed{1} (b) \boxed{2}": "2",
    r"\boxed{4}, \boxed{1} is wrong, so \boxed{2}, \boxed{3}": "2,3",
    r"\boxed{1}, \boxed{2": None,
    # An empty box states nothing: the last that has something in it decides.
    r"\boxed{5} wait, \boxed{}": "5",
    r"\boxed{5}, \boxed{ }": "5",
    r"\boxed{}": None,
    # Only what is said outside the thoughts counts.
    r"<think>so \boxed{5}? no.</think> The final answer is 7.": "7",
    r"so \boxed{5}? no.</think> The final answer is 7.": "7",
    r"<think>\boxed{5}</think>": None,
    r"<think>\boxed{5}": None,
    "The answer is 5. <think>or is it \\boxed{6}": "5",
    r"<think>a</think> \boxed{1} <think>again \boxed{2}</think> \boxed{3}": "3",
    r"<think>a</think> \boxed{1} <think>again \boxed{2}": "1",
    r"<thinking>\boxed{1}</thinking>\boxed{2}": "2",
    r"<thought>\boxed{1}</thought>\boxed{2}": "2",
    r"<reasoning>\boxed{1}</reasoning>\boxed{2}": "2",
    r"<Think>\boxed{1}</THINK>\boxed{2}": "2",
    r"◁think▷\boxed{1}◁/think▷\boxed{2}": "2",
    r"[THINK]\boxed{1}[/THINK]2": "2",
    r"<|begin_of_thought|>\boxed{1}<|end_of_thought|>\boxed{2}": "2",
    r"<|channel|>analysis<|message|>\boxed{1}<|end|><|start|>a<|channel|>final<|message|>\boxed{2}": "2",
    r"analysisMaybe \boxed{1}assistantfinal42": "42",
    r"<|channel|>analysis<|message|>\boxed{1}<|end|><|start|>assistant<|channel|>final<|message|>42": "42",
    r"<|channel|>final<|message|>42<|end|><|start|>assistant<|channel|>analysis<|message|>\boxed{1}": "42",
    r"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{1}<|call|>": None,
    "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant<|channel|>final <|constrain|>JSON"
    "<|message|>42<|return|>": "42",
    r"<|channel|>analysis<|message|>\boxed{1}": None,
    r"<|channel|>analysis<|message|>\boxed{1}<|end|><|start|>assistant": None,
    "<think>x</think>\n<answer>7</answer>": "7",
    "<think>x</think>\n<answer>\nIt is \\boxed{7}\n</answer>\n": "7",
    "I think 5, thinking of <b>.\nThe answer is 4.": "4",
    # The exact text, space around included.
    "\n\n  18 \n\n": "18",
    "so\n#### Paris\n\n\n": "Paris",
    " \n The answer is 5.\n\n ": "5",
}


@pytest.mark.parametrize("response", CASES)
def test_the_conclusion_is_found(response):
    assert final_answer(response) == CASES[response]


def test_the_last_number_is_taken_only_on_request():
    response = "Thoughts.\nShe makes 9 * 2 = $1,018.50 every day"
    assert final_answer(response) is None
    assert final_answer(response, last_number=True) == "$1,018.50"
    assert final_answer(r"it is 5, \boxed{}", last_number=True) is None


@pytest.mark.parametrize(
    ("end", "number"),
    [
        ("The total is 18, so she has enough.", "18"),
        ("He has $1,234,567, in all.", "$1,234,567"),
        ("They are 1,2,30.", "30"),
        ("So x is −3.", "−3"),
        ("So x = -0.5", "-0.5"),
        ("It is 10-3", "3"),
        ("On pages 5–7, he says.", "7"),
        ("It was half, .5, of it.", ".5"),
    ],
)
def test_the_last_number_is_one_number(end, number):
    assert final_answer("Thoughts.\n" + end, last_number=True) == number


PIECES = [
    r"\boxed{",
    r"\boxed{}",
    r"\boxed{1}, ",
    r"\boxed{\boxed{1}} or ",
    "<|channel|>analysis",
    "<|channel|>final<|constrain|>",
    "<|end|>",
    "<think>",
    "</think>",
    "<answer>",
    "{",
    "answer is ",
    "answer: $",
    "####",
    " ",
    "$",
    r"\(",
    "1,",
    "*",
    ". ",
    "**. ",
]


@pytest.mark.parametrize("piece", PIECES)
def test_long_responses_are_read_in_linear_time(piece):
    # 200,000 repetitions take minutes if anything is quadratic; pytest's own time limit is the test.
    final_answer(piece * 200_000, last_number=True)


@given(st.text() | st.text(alphabet="\\boxed{}$#()[] answer:is1.2*`\n", max_size=60))
def test_extraction_never_fails_and_finds_a_part_of_the_response(response):
    answer = final_answer(response)
    assert answer is None or (answer and answer in response and stripped(answer) == answer)
