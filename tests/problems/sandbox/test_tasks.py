"""Generators and exact checkers of the sandbox tasks."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nabla.core.errors import NablaError
from nabla.problems.sandbox import TASKS, Arithmetic, Family, LatinSquare, Problem, split_of, task_for
from nabla.problems.sandbox.latin import LENGTH, SIZE, SYMBOLS, random_square, reduced_squares

SUM = "28*6+68-71+94"
SUM_SOLUTION = "28*6=168;168+68=236;236-71=165;165+94=259#259"
CLUES = "1..4../....../...1../....../....../......"
SQUARE = "123456/234561/345612/456123/561234/612345"

tasks = pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
seeds = st.integers(0, 10_000)


def one(task: Family, seed: int) -> Problem:
    return task.problems("train", 1, seed)[0]


@tasks
def test_problems_are_right_distinct_and_reproducible(task: Family) -> None:
    for split in ("train", "test"):
        problems = task.problems(split, 60, seed=3)
        assert len({p.prompt for p in problems}) == len({p.id for p in problems}) == 60
        assert problems == task.problems(split, 60, seed=3)
        assert problems != task.problems(split, 60, seed=4)
        for p in problems:
            assert p.metadata["family"] == task.name
            assert task.matches(p.prompt)
            assert task_for(p.prompt).name == task.name
            assert split_of(task.name, p.prompt) == split
            assert task.check(p.prompt, p.gold)
            assert all(task.progress(p.prompt, p.gold))
            assert task.render(p.prompt, p.gold).count("\n") >= 3


@tasks
def test_splits_are_disjoint(task: Family) -> None:
    train = {p.prompt for p in task.problems("train", 300, seed=0)}
    test = {p.prompt for p in task.problems("test", 300, seed=0)}
    assert not train & test


@tasks
def test_users_errors(task: Family) -> None:
    with pytest.raises(Exception, match="split"):  # or by the type checker, where it is on
        task.problems("dev", 1, 0)  # type: ignore[arg-type]
    with pytest.raises(NablaError, match="negative"):
        task.problems("test", -1, 0)
    assert task.problems("test", 0, 0) == []
    with pytest.raises(NablaError, match="at most 1,000,000"):  # at once, not when the memory is full
        task.problems("test", 10**12, 0)
    for method in (task.check, task.progress, task.render):
        with pytest.raises(NablaError, match="not a prompt"):
            method("hello", "1")
    with pytest.raises(NablaError, match="recognises"):
        task_for("hello")


@tasks
@settings(max_examples=60, deadline=None)
@given(seed=seeds, response=st.text(max_size=60))
def test_any_text_is_graded_and_rendered(task: Family, seed: int, response: str) -> None:
    problem = one(task, seed)
    assert task.check(problem.prompt, response) == (response == problem.gold)
    marks = task.progress(problem.prompt, response)
    assert len(marks) == len(response)
    assert marks == sorted(marks, reverse=True)
    assert isinstance(task.render(problem.prompt, response), str)


@tasks
@settings(max_examples=60, deadline=None)
@given(seed=seeds, data=st.data())
def test_one_changed_character_is_noticed(task: Family, seed: int, data: st.DataObject) -> None:
    problem = one(task, seed)
    at = data.draw(st.integers(0, len(problem.gold) - 1))
    other = data.draw(st.sampled_from([c for c in "0123456789/;#." if c != problem.gold[at]]))
    wrong = problem.gold[:at] + other + problem.gold[at + 1 :]
    assert not task.check(problem.prompt, wrong)
    assert not task.progress(problem.prompt, wrong)[-1]
    assert all(task.progress(problem.prompt, wrong)[:at]) or task.name == "latin"
    assert "valid" not in task.render(problem.prompt, wrong).split("not valid")[0]


@tasks
@pytest.mark.parametrize(
    "attack",
    [
        "__import__('os').abort()",
        "lambda: 0",
        "{0.__class__}",
        "%s%n",
        "9" * 5000,
        "1" * 36 + "/" * 5,
        "\x00\x1b[2J",
        "①②③④⑤⑥/" * 6,
        "",
        "\n",
    ],
)
def test_malicious_responses_are_wrong(task: Family, attack: str) -> None:
    problem = one(task, 0)
    for response in (attack, problem.gold + attack, attack + problem.gold):
        if response != problem.gold:
            assert not task.check(problem.prompt, response)
        assert "\x1b" not in task.render(problem.prompt, response)


@pytest.mark.parametrize("suffix", [" ", "\n", "/", "#", "0", "<|im_end|>"])
def test_nothing_may_follow(suffix: str) -> None:
    assert not TASKS["latin"].check(CLUES, SQUARE + suffix)
    assert not TASKS["arithmetic"].check(SUM, SUM_SOLUTION + suffix)
    assert not TASKS["latin"].matches(CLUES + suffix)


@pytest.mark.parametrize(
    "prompt", ["٢٨*6+68", "28*6+68\n", "28*6", "8*6+68", "28*6+068", "28*1+68"]
)
def test_what_is_no_arithmetic_prompt(prompt: str) -> None:
    assert not TASKS["arithmetic"].matches(prompt)


def test_latin_rules() -> None:
    latin = TASKS["latin"]
    assert latin.check("/".join(["......"] * 6), SQUARE)
    assert latin.check("123456/" + "/".join(["......"] * 5), SQUARE)
    assert not latin.check("2...../" + "/".join(["......"] * 5), SQUARE)
    rows = "/".join([SYMBOLS] * 6)
    assert not latin.check("/".join(["......"] * 6), rows)
    assert not latin.check("/".join(["......"] * 6), SQUARE.replace("/", "\n"))


def test_latin_progress_sees_clues_to_come() -> None:
    latin = TASKS["latin"]
    blank = "/".join(["......"] * 5)
    assert latin.progress("...4../" + blank, "4") == [False]
    assert latin.progress("....../4...../" + "/".join(["......"] * 4), "4") == [False]
    assert latin.progress("....../" + blank, "12345612") == [True] * 6 + [False] * 2


def test_latin_render_marks_clues_and_conflicts() -> None:
    text = TASKS["latin"].render("1...../" + "/".join(["......"] * 5), "123455/23")
    assert text.splitlines()[0] == "[1] 2  3  4  5! 5!"
    assert text.splitlines()[1].startswith(" 2  3  .")
    assert text.splitlines()[-1] == "not valid"


def test_latin_squares_are_complete() -> None:
    assert len(reduced_squares()) == 9408
    rows = random_square(random.Random(1))
    for line in (*rows, *("".join(c) for c in zip(*rows, strict=True))):
        assert sorted(line) == list(SYMBOLS)


@settings(max_examples=20, deadline=None)
@given(low=st.integers(4, 20), extra=st.integers(0, 10), seed=seeds)
def test_latin_clue_range(low: int, extra: int, seed: int) -> None:
    problem = one(LatinSquare(low, low + extra), seed)
    assert len(problem.prompt) == len(problem.gold) == LENGTH
    clues = SIZE * SIZE - problem.prompt.count(".")
    assert low <= clues <= low + extra


@pytest.mark.parametrize("bounds", [(-1, 5), (9, 8), (0, 37)])
def test_latin_clue_range_is_validated(bounds: tuple[int, int]) -> None:
    with pytest.raises(NablaError, match="clues"):
        LatinSquare(*bounds)


def test_too_few_problems_is_an_error() -> None:
    with pytest.raises(NablaError, match="too few"):
        Arithmetic(terms=1, max_factor=10).problems("test", 300, 0)


def test_arithmetic_example() -> None:
    task = Arithmetic()
    assert task.solve(SUM) == SUM_SOLUTION
    assert task.check(SUM, SUM_SOLUTION)
    assert not task.check(SUM, "28*6=168;168+68=236;236-71=165;165+94=260#260")
    assert not task.check(SUM, "28*6=168#259")
    assert not task.check(SUM, "#259")


def test_arithmetic_render_points_at_the_first_error() -> None:
    lines = Arithmetic().render("12*3+10", "12*3=37;37+10=47#47").splitlines()
    assert lines[1:3] == ["  12*3=37;", "        ^"]
    assert "12*3=36" in lines[-1]
    assert Arithmetic().render("12*3+10", "12*3").endswith("incomplete")


@settings(max_examples=30, deadline=None)
@given(terms=st.integers(1, 6), seed=seeds)
def test_arithmetic_values_are_never_negative(terms: int, seed: int) -> None:
    problem = one(Arithmetic(terms=terms), seed)
    assert problem.prompt.count("+") + problem.prompt.count("-") == terms
    assert "=-" not in problem.gold


@pytest.mark.parametrize("arguments", [{"terms": 0}, {"terms": 7}, {"max_factor": 9}])
def test_arithmetic_arguments_are_validated(arguments: dict[str, int]) -> None:
    with pytest.raises(NablaError, match="out of range"):
        Arithmetic(**arguments)
