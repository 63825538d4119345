"""``nabla compare``: problems of any task, and what is missing."""

from __future__ import annotations

import pytest

from nabla.cli import main
from nabla.cli.compare_command import PROBLEMS, _problems
from nabla.core.errors import ConfigError
from nabla.problems.tasks.base import Problem, Task, check_range


class Counted(Task):
    """So many problems as told."""

    def __init__(self, size):
        self.size = size

    def problems(self, n=None, *, seed=None, offset=0):
        check_range(n, offset)
        if offset + (n or 1) > self.size:
            raise ConfigError(f"There are {self.size}")
        found = [Problem(str(i), str(i), str(i)) for i in range(self.size)]
        return found[offset:] if n is None else found[offset : offset + n]


@pytest.mark.parametrize(("size", "wanted", "expected"), [(3, None, 3), (300, None, PROBLEMS), (3, 2, 2)])
def test_all_problems_that_there_are(size, wanted, expected):
    assert len(_problems(Counted(size), wanted, 0)) == expected


def test_more_than_there_are_is_an_error_where_somebody_asked():
    with pytest.raises(ConfigError, match="There are 3"):
        _problems(Counted(3), 4, 0)


def test_a_missing_language_model_is_said_before_the_problems(capsys):
    assert main(["compare", "--task", "{name: jsonl, path: nowhere.jsonl}"]) == 2
    assert "There is no language model for this task" in capsys.readouterr().err
