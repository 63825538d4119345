"""Values that are changed by making another one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import pytest

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
