"""Answers as they stand, and by a pattern; groups of equal answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nabla.core.errors import ConfigError
from nabla.problems.answers.base import Answers, answers

RESPONSES = st.lists(st.text(alphabet="ab \n", max_size=3), max_size=12)


class Parity(Answers):
    """Equal if both are odd or both even: answers that are equal without being the same text."""

    def extract(self, response):
        return response if response.isdecimal() else None

    def equal(self, left, right):
        return int(left) % 2 == int(right) % 2


def test_text_is_the_stripped_response():
    text = answers.build("text")
    assert text.extract(" a b\n") == "a b"
    assert text.extract(" \n") is None
    assert text.equal("a", "a")
    assert not text.equal("a", "A")


@given(RESPONSES)
def test_groups_are_the_equivalence_classes_in_order_of_appearance(responses):
    text = answers.build("text")
    numbers = text.groups(responses)
    assert len(numbers) == len(responses)
    for i, a in enumerate(responses):
        assert (numbers[i] is None) == (a.strip() == "")
        for j, b in enumerate(responses):
            if numbers[i] is not None and numbers[j] is not None:
                assert (numbers[i] == numbers[j]) == (a.strip() == b.strip())
    seen = list(dict.fromkeys(n for n in numbers if n is not None))
    assert seen == list(range(len(seen)))


@given(RESPONSES)
def test_the_interface_groups_as_text_does(responses):
    text = answers.build("text")
    assert Answers.groups(text, responses) == text.groups(responses)


def test_groups_go_by_equality_not_by_text():
    assert Parity().groups(["3", "4", "x", "5", "4", "6"]) == [0, 1, None, 0, 1, 1]


def test_regex_takes_the_last_match():
    regex = answers.build({"name": "regex", "pattern": r"#([0-9]+)"})
    assert regex.extract("#1 then #23.") == "23"
    assert regex.extract("none") is None
    assert regex.groups(["a #1", "b #1", "#2"]) == [0, 0, 1]


def test_regex_groups_by_name_number_and_entire_match():
    pattern = r"(?P<a>x+)(y*)"
    for group, found in ((None, "xx"), (0, "xxyy"), (2, "yy"), ("a", "xx")):
        regex = answers.build({"name": "regex", "pattern": pattern, "group": group})
        assert regex.extract("xxyy") == found
    assert answers.build({"name": "regex", "pattern": "x+"}).extract("axxb") == "xx"


def test_a_group_that_took_no_part_is_no_answer():
    regex = answers.build({"name": "regex", "pattern": r"(a)|b"})
    assert regex.extract("b") is None
    assert regex.extract("a b") == "a"


def test_regex_may_ignore_case():
    regex = answers.build({"name": "regex", "pattern": "answer: (.*)", "ignore_case": True})
    assert regex.extract("ANSWER: Yes") == "Yes"
    assert regex.equal("Yes", "yes")
    assert not answers.build({"name": "regex", "pattern": "x"}).equal("Yes", "yes")


@pytest.mark.parametrize(
    "arguments", [{"pattern": "("}, {"pattern": "a", "group": 1}, {"pattern": "a", "group": "b"}]
)
def test_a_pattern_that_cannot_work_is_refused(arguments):
    with pytest.raises(ConfigError, match="pattern"):
        answers.build({"name": "regex", **arguments})
