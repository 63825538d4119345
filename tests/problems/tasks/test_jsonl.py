"""The user's own file: fields, grading, and every way in which it can be wrong."""

from __future__ import annotations

import pytest

from nabla.core.errors import ConfigError
from nabla.problems.tasks.base import Problem, Task, TaskChecker, tasks

GOOD = (
    '{"prompt": "1+1", "answer": "2", "id": "a", "kind": "sum"}\n'
    "\n"
    '{"prompt": "2+2", "answer": 4, "id": "b"}\n'
)


def task(tmp_path, content, **arguments):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tasks.build({"name": "jsonl", "path": str(path), **arguments})


def test_a_file_is_read_and_graded(tmp_path):
    made = task(tmp_path, GOOD, id_field="id")
    first, second = made.problems()
    assert made.name == "mine"
    assert (first.id, first.prompt, first.gold, first.metadata) == ("a", "1+1", "2", {"kind": "sum"})
    assert (second.id, second.gold) == ("b", "4")
    assert made.grade(first, "\\boxed{2.0}")
    assert not made.grade(first, "\\boxed{3}")
    pairs = [(first, "\\boxed{2}"), (second, "\\boxed{2}"), (first, "\\boxed{2}"), (first, "")]
    assert made.grade_all(pairs) == [True, False, True, False]


def test_field_names_template_and_answers_are_arguments(tmp_path):
    content = '{"q": "Capital of France?", "a": "Paris"}'
    made = task(
        tmp_path, content, prompt_field="q", answer_field="a", template="Q: {problem}", answers="text"
    )
    (problem,) = made.problems()
    assert (problem.id, problem.prompt) == ("0", "Q: Capital of France?")
    assert made.grade(problem, " Paris\n")
    assert not made.grade(problem, "paris")


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path):
    content = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    assert len(task(tmp_path, content).problems()) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 is not a JSON object"),
        ("3", "line 2 is not a JSON object"),
        ("[" * 100_000, "line 2 is not JSON"),
        (b'{"prompt": "\xff", "answer": "1"}', "line 2 is not JSON"),
        ('{"prompt": "x", "answer": ' + "9" * 5000 + "}", "line 2 is not JSON"),
        ('{"prompt": "x"}', "line 2 has no field 'answer'"),
        ('{"prompt": "x", "answers": "1"}', "Did you mean 'answers'"),
        ('{"answer": "x"}', "line 2 has no field 'prompt'"),
        ('{"prompt": "x", "answer": ""}', "line 2 has no answer"),
        ('{"prompt": "x", "answer": "  "}', "line 2 has no answer"),
        ('{"prompt": "x", "answer": null}', "line 2 has no answer"),
        ('{"prompt": "x", "answer": true}', "line 2 has no answer"),
        ('{"prompt": "x", "answer": NaN}', "line 2 has no answer"),
        ('{"prompt": "x", "answer": [1]}', "line 2 has no answer"),
        ('{"prompt": "", "answer": "1"}', "line 2 has no prompt"),
    ],
    ids=str,
)
def test_a_bad_line_is_named(tmp_path, line, message):
    second = line if isinstance(line, bytes) else line.encode()
    made = task(tmp_path, b'{"prompt": "1", "answer": "1"}\n' + second + b"\n")
    with pytest.raises(ConfigError, match=message) as caught:
        made.problems()
    assert "mine.jsonl" in str(caught.value)


def test_a_large_integer_is_an_answer_as_it_stands(tmp_path):
    """Beyond the range of floats."""
    (problem,) = task(tmp_path, '{"prompt": "x", "answer": 1' + 400 * "0" + "}").problems()
    assert problem.gold == "1" + 400 * "0"


def test_two_problems_of_one_id_are_refused(tmp_path):
    content = '{"prompt": "x", "answer": 1, "id": 7}\n{"prompt": "y", "answer": 1, "id": 7}'
    with pytest.raises(ConfigError, match=r"mine.jsonl, line 1 and mine.jsonl, line 2"):
        task(tmp_path, content, id_field="id").problems()


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path, content):
    with pytest.raises(ConfigError, match="empty"):
        task(tmp_path, content).problems()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        tasks.build({"name": "jsonl", "path": str(tmp_path / "none.jsonl")}).problems()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        tasks.build({"name": "jsonl", "path": str(tmp_path)}).problems()


def numbered(tmp_path, count):
    return task(tmp_path, "".join(f'{{"prompt": "p{i}", "answer": {i}}}\n' for i in range(count)))


def ids(problems):
    return [int(p.id) for p in problems]


def test_a_choice_of_problems_is_reproducible_and_grows(tmp_path):
    made = numbered(tmp_path, 20)
    assert ids(made.problems()) == list(range(20))
    assert ids(made.problems(3, offset=4)) == [4, 5, 6]
    shuffled = ids(made.problems(seed=1))
    assert sorted(shuffled) == list(range(20))
    assert shuffled != list(range(20))
    assert ids(made.problems(5, seed=1)) == shuffled[:5]
    assert ids(made.problems(5, seed=1, offset=5)) == shuffled[5:10]
    assert ids(made.problems(20, seed=2)) != shuffled


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 21}, "mine has 20 problems .*at most 20"),
        ({"n": 5, "offset": 16}, "mine has 20 problems .*at most 4"),
        ({"offset": 20}, "mine has 20 problems"),
        ({"n": 0}, "at least 1"),
        ({"n": -1}, "at least 1"),
        ({"offset": -1}, "not be negative"),
    ],
)
def test_more_than_there_is_cannot_be_had(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        numbered(tmp_path, 20).problems(**arguments)


def test_problems_may_all_do_without_an_answer(tmp_path):
    made = task(tmp_path, '{"prompt": "Write a poem.", "kind": "verse"}\n{"prompt": "And another."}\n')
    first, second = made.problems()
    assert (first.prompt, first.gold, second.gold) == ("Write a poem.", None, None)
    assert first.metadata == {"kind": "verse"}
    assert not made.grades([first, second])
    with pytest.raises(ConfigError, match="right cannot be told from wrong"):
        made.require_grades([first, second])
    with pytest.raises(ConfigError, match="no gold answers"):  # solve and compare, before a model loads
        TaskChecker(made, [first, second])


def test_a_field_of_ones_own_must_be_there(tmp_path):
    made = task(tmp_path, '{"prompt": "1+1", "gold": "2"}\n', answer_field="gould")
    with pytest.raises(ConfigError, match="no field 'gould'"):
        made.problems()


def test_a_grader_of_its_own_needs_no_gold_answers():
    class Short(Task):
        def problems(self, n=None, *, seed=None, offset=0):
            return [Problem("0", "p")]

        def grade(self, problem, response):
            return len(response) < 3

    assert Short().grades([Problem("0", "p")])
    Short().require_grades([Problem("0", "p")])
