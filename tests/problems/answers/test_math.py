"""Mathematical answers: what is the same, what is not, and what must not pass, crash or hang."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nabla.core.errors import ConfigError
from nabla.problems.answers import math as module
from nabla.problems.answers.base import answers
from nabla.problems.answers.process import grading


@pytest.fixture(scope="module")
def math():
    yield answers.build({"name": "math", "seconds": 1})
    grading.close()


SAME = [
    ("18", "18.0"),
    ("18", "$18"),
    ("18", r"\$18.00"),
    ("18", r"18\text{ dollars}"),
    ("18", r"18~\text{dollars}"),
    ("18", "18 dollars"),
    ("18", "$18.00 per day"),
    ("18", "18 months"),
    ("1234", "1,234"),
    (r"10,\!080", "10080"),
    ("025", "25"),
    ("-5", "−5"),
    ("73", r"\textbf{(073)}"),
    (r"\frac{1}{2}", "1/2"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac43", r"\dfrac{4}{3}"),
    (r"11\sqrt2", r"11\sqrt{2}"),
    ("p - q", "-q+p"),
    ("x=5", "5"),
    ("5", "x = 5"),
    ("5", "2+3=5"),
    ("5", "a+b = 2+3 = 5"),
    (r"\sum_{i=1}^{5} 1", "5"),
    ("5", r"\sum_{i=1}^{5} 1"),
    (r"90^\circ", "90"),
    ("52_8", "52_{8}"),
    ("52_8", "52"),
    ("3, 5, 7", "7,5,3"),
    ("1,2", r"1\text{ and }2"),
    (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{(C)}", r"\text{C}"),
    (r"\text{(C)}", "(C)"),
    (r"x \in [-2,7]", "[-2,7]"),
    (r"\pi", "π"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "\\begin{pmatrix}\n1\\\\\n2\n\\end{pmatrix}"),
    ("5", "**5.**"),
    ("x" * 600, "x" * 600),
    ("6 - 5i", "-5i+6"),
]

DIFFERENT = [
    ("5", "٥"),  # Arabic-Indic
    ("15", "1٥"),
    ("5", "５"),  # full width
    ("5", "५"),  # Devanagari
    ("25", "5²"),
    ("5", "五"),
    ("1", "1 or 2"),
    ("2", "1 or 2"),
    ("2", r"1\text{ or }2"),
    ("5", r"5\text{ or 6}"),
    ("1", "1, 2"),
    ("5", r"5\text{ million}"),
    ("5", "5 million dollars"),
    ("5", "5 tenths"),
    ("5", "5 or more"),
    ("2", "2 pi"),
    ("2", "2 sqrt"),
    ("5", "5 is wrong"),
    (r"5\text{ million}", "5"),
    ("5", r"5\text{ squared}"),
    ("5", r"\text{not }5"),
    ("5", r"\neq 5"),
    ("5", r"x \ne 5"),
    ("5", "≠ 5"),
    ("5", "x > 5"),
    ("5", "3=5"),
    ("5", "5=3"),
    ("5", "5_6"),
    ("52_8", "52_9"),
    ("5", "-5"),
    ("5", "5}{6"),
    ("5", "{5"),
    ("5", "5}"),
    ("5", r"\frac{5}{"),
    ("5", r"\left(5"),
    ("5", ""),
    ("", ""),
    ("5", " "),
    ("5", "x"),
    ("x", "y"),
    ("5", "inf"),
    ("5", r"\infty"),
    ("5", "nan"),
    ("1", "True"),
    ("0", "False"),
    ("0", "None"),
    ("5", "5\x00"),
    ("5", "\x00"),
    ("5", "5\n6"),
    ("1", "1." + "0" * 600),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
    ("0", "0.0000001"),
    ("13", "12.9999999"),
    ("(3,5)", "(5,3)"),
    (r"\frac{1}{3}", "0.33"),
    (r"\text{east}", r"\text{teas}"),
    ("east", "teas"),
    ("1", "__import__('os').system('echo 1')"),
    ("1", "__import__('os').getpid()*0+1"),
    ("1", "().__class__.__bases__[0].__subclasses__().__len__()//10**9+1"),
    ("1", "exec('1')"),
    ("1", "lambda: 1"),
    ("1", "1; import os; os.abort()"),
    ("1", r"\input{/etc/passwd}1"),
    ("1", '{"value": true}'),
    ("5", "٣\ud800"),
    ("5", "\ud800"),
]


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_the_same(math, gold, answer):
    assert math.equal(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_not_the_same(math, gold, answer):
    assert not math.equal(gold, answer)


@pytest.mark.parametrize(
    "answer",
    [
        "9**9**9**9",
        "9^{9^{9^{9}}}",
        "10^{10^{10}}",
        "(10^9)!",
        r"\binom{10^9}{5 \cdot 10^8}",
        r"\prod_{i=1}^{100000} i!",
        r"\sum_{i=1}^{10^{12}} i^i",
        r"\int_0^1 \sin(\sin(\sin(x^x))) dx",
        "(x+1)^{100000}",
    ],
)
def test_answers_without_end_do_not_pass_and_the_next_one_is_graded(math, answer):
    assert not math.equal("5", answer)
    assert math.equal("x+5", "5+x")


@pytest.mark.parametrize(
    "answer",
    [
        "9" * 100_000,
        "1+" * 50_000 + "1",
        "(" * 100_000,
        "{" * 50_000 + "5" + "}" * 50_000,
        "{" * 200 + "6" + "}" * 200,
        "(" * 150 + "6" + ")" * 150,
        r"\frac{1}{" * 50 + "2" + "}" * 50,
        r"\sqrt{" * 60 + "3" + "}" * 60,
        r"\left(" * 80 + "6" + r"\right)" * 80,
        "x^" * 200 + "x",
        "-" * 400 + "6",
    ],
)
def test_long_and_deeply_nested_answers_do_not_pass(math, answer):
    assert not math.equal("5", answer)
    found = math.extract(f"\\boxed{{{answer}}}")
    assert found is None or not math.equal("5", found)


def test_what_has_no_end_is_counted_and_logged(math, caplog):
    before = grading.counts.unanswered
    with caplog.at_level(logging.WARNING, logger="nabla.problems.answers.math"):
        assert not math.equal("7", "7^{7^{7^{7^{7}}}}")
        assert not math.equal("7", "7^{7^{7^{7^{7}}}}")  # from memory: the same verdict, at no cost
    assert grading.counts.unanswered == before + 1
    assert len(caplog.records) == 1
    assert "7^{7^" in caplog.text


def test_repeated_pairs_and_plain_numbers_need_no_process(math):
    math.equal("x+1", "1+x")
    before = grading.counts.answered
    assert all(math.equal("x+1", "1+x") for _ in range(1000))
    assert [math.equal("18", str(k)) for k in range(1000)] == [k == 18 for k in range(1000)]
    assert grading.counts.answered == before


@pytest.mark.parametrize("answer", ["٥", "x+٥", "５", "x²", "{x", "x}", "x" * 501, "x\x00y", "x\u200b"])
def test_what_is_unreadable_never_reaches_the_parser(math, answer):
    before = grading.counts.answered + grading.counts.unanswered
    assert not math.equal("x+5", answer)
    assert grading.counts.answered + grading.counts.unanswered == before


def test_quoting_the_gold_answer_is_not_concluding_it(math):
    for response in (
        "One might think that it is 18, but it is \\boxed{20}",
        "\\boxed{18} would be the answer without tax. With tax: \\boxed{20}",
        "#### 18 is what the book says\n#### 20",
        "The answer is 18, says the book. I disagree.\nThe answer is 20.",
        "The answer is 18? No: 20.",
        "The answer is 20, not 18",
        "\\boxed{18 \\text{ or } 20}",
        "\\boxed{18}\\boxed{",
        "18 18 18 18 \\boxed{}",
        "18\n20",
        "Answer:\n18\n\nAnswer:\n20",
        "#### 18\nwas step 2\n#### 20\nThe end.",
    ):
        answer = math.extract(response)
        assert answer is None or not math.equal("18", answer), response


def test_groups_are_by_value(math):
    responses = [r"\boxed{1/2}", "The answer is 0.5.", "no idea\nat all", r"\boxed{2}", r"#### \frac12"]
    assert math.groups(responses) == [0, 0, None, 1, 0]


def test_a_verdict_does_not_depend_on_earlier_ones(math):
    pairs = [*SAME[:12], *DIFFERENT[:20]]
    forward = [math.equal(a, b) for a, b in pairs]
    module._equal.cache_clear()
    grading.close()
    assert [math.equal(a, b) for a, b in reversed(pairs)] == forward[::-1]


@settings(max_examples=30)
@given(st.text(max_size=30) | st.text(alphabet="\\{}$^_()0123456789+-*/=.,!xfracsqt ", max_size=20))
def test_no_text_raises_and_every_answer_equals_itself(response):
    component = answers.build({"name": "math", "seconds": 1})
    answer = component.extract(f"\\boxed{{{response}}}")
    component.equal("5", response)
    assert answer is None or component.equal(answer, answer) or not module._tidy(answer)


def test_a_comparison_needs_time():
    with pytest.raises(ConfigError, match="at least 1 second"):
        answers.build({"name": "math", "seconds": 0})
