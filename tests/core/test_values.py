"""Values that are changed by making another one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pytest
import torch

from nabla.core.trajectory import Score
from nabla.core.values import changed


@dataclass(frozen=True)
class Pair:
    left: int
    right: int = 2

    @cached_property
    def total(self) -> int:
        return self.left + self.right


@dataclass(frozen=True)
class Checked:
    left: int

    def __post_init__(self) -> None:
        assert self.left > 0


def test_a_changed_value_is_what_replace_makes_of_it() -> None:
    pair = Pair(1)
    assert pair.total == 3
    new = changed(pair, right=5)
    assert new == replace(pair, right=5)
    assert new.total == 6  # what was worked out for the old one is not taken over
    assert (pair.right, pair.total) == (2, 3)


def test_what_replace_would_refuse_or_check_is_refused() -> None:
    with pytest.raises(TypeError, match="Pair has no field middle"):
        changed(Pair(1), middle=3)
    with pytest.raises(TypeError, match="no plain dataclass"):
        changed(Checked(1), left=-1)


NUMBERS = [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), torch.tensor([0.5]), 0.5]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_score_is_of_pythons_own_numbers(number):
    """With numpy's the acceptance rule was blamed, and solutions could not be stored."""
    score = object.__new__(Score)  # the tests' type checks would refuse what a user's reward may give
    vars(score).update(value=number, steps=[number], ends=[np.int64(3)])
    score.__post_init__()
    assert (score.value, score.steps, score.ends) == (0.5, (0.5,), (3,))
    assert {type(x) for x in (score.value, *score.steps)} == {float}
    assert type(score.ends[0]) is int
