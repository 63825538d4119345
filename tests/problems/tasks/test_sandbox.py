"""The sandbox's families as tasks."""

from __future__ import annotations

import pytest

from nabla.core.errors import ConfigError, NablaError
from nabla.launch.config.resolve import resolve
from nabla.problems.sandbox import Arithmetic, LatinSquare
from nabla.problems.tasks.base import tasks


def sandbox(**arguments):
    return tasks.build({"name": "sandbox", **arguments})


@pytest.mark.parametrize(
    ("arguments", "family"),
    [
        ({}, LatinSquare()),
        ({"family": "latin", "min_clues": 20, "max_clues": 24}, LatinSquare(20, 24)),
        ({"family": "arithmetic", "terms": 5}, Arithmetic(terms=5)),
    ],
)
def test_problems_are_the_familys_own(arguments, family):
    task = sandbox(**arguments)
    expected = family.problems("test", 6, 3)
    found = task.problems(4, seed=3, offset=2)
    assert [(p.id, p.prompt, p.gold) for p in found] == [(p.id, p.prompt, p.gold) for p in expected[2:]]
    assert task.name == family.name
    assert task.grade_all([(p, p.gold) for p in found]) == [True] * 4
    assert task.grade_all([(p, p.gold[:-1]) for p in found]) == [False] * 4
    assert task.problems(2) == task.problems(2, seed=0)


def test_any_valid_square_is_right():
    task = sandbox(min_clues=1, max_clues=1)
    (problem,) = task.problems(1)
    old, new = [symbol for symbol in "123456" if symbol not in problem.prompt][:2]
    swapped = problem.gold.translate(str.maketrans(old + new, new + old))  # another square with that clue
    assert swapped != problem.gold
    assert task.grade(problem, swapped)
    assert not task.grade(problem, "nonsense")


def test_splits_are_disjoint():
    test, train = sandbox(split="test").problems(40), sandbox(split="train").problems(40)
    assert not {p.prompt for p in test} & {p.prompt for p in train}


def test_votes_in_arithmetic_go_by_the_result():
    task = sandbox(family="arithmetic", terms=1)
    assert task.answers.groups(["1#12", "2#12", "3#13", "none"]) == [0, 0, 1, None]


def test_the_resolved_configuration_builds_the_same_task():
    spec = resolve(tasks, {"name": "sandbox", "family": "arithmetic", "terms": 2})
    assert spec["max_factor"] == 99
    assert tasks.build(spec).problems(3) == sandbox(family="arithmetic", terms=2).problems(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "chess"}, "latin or arithmetic"),
        ({"family": "latin", "terms": 2}, "min_clues, max_clues"),
        ({"family": "arithmetic", "min_clues": 2}, "terms, max_factor"),
        ({"split": "validation"}, "test or train"),
        ({"min_clues": 40}, "0 <= min_clues"),
        ({"terms": 9, "family": "arithmetic"}, "1 <= terms"),
    ],
)
def test_settings_that_cannot_work(arguments, message):
    with pytest.raises(NablaError, match=message):
        sandbox(**arguments)


def test_the_number_of_problems_must_be_given():
    with pytest.raises(ConfigError, match="Say how many"):
        sandbox().problems()


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(ConfigError, match="Did you mean 'math500'"):
        tasks.build("math50")
