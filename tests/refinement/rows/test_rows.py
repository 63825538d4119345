"""Which rows are optimised."""

from __future__ import annotations

import pytest
from hypothesis import given

from nabla.core.errors import ConfigError
from nabla.refinement.rows.base import rows
from nabla.refinement.rows.every import AllRows
from nabla.refinement.rows.first import FirstRow
from tests.strategies import make_trajectory, trajectories


@pytest.mark.parametrize("rule", [rows.build(name) for name in rows], ids=rows.name_of)
@given(trajectory=trajectories())
def test_contiguous_rows_from_the_first_uncommitted_one(rule, trajectory):
    if not trajectory.complete:
        found = range(len(trajectory))[rule.positions(trajectory)]
        assert found.start == trajectory.committed
        assert found.step == 1
        assert len(found) >= 1


def test_first_and_all():
    trajectory = make_trajectory([1, 2, 3, 4], committed=1)
    assert FirstRow().positions(trajectory) == slice(1, 2)
    assert AllRows().positions(trajectory) == slice(1, 4)
    assert (FirstRow().support, AllRows().support, AllRows(support=None).support) == (None, 64, None)


@pytest.mark.parametrize("support", [1, 0, -3])
def test_a_support_has_two_candidates(support):
    with pytest.raises(ConfigError, match="at least 2"):
        AllRows(support=support)
