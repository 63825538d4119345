"""Laws of update rules: which rows of a response are optimised (SPEC section 4)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from nabla.core.trajectory import Trajectory
from nabla.refinement.rows.base import Rows, rows
from nabla.testing.laws import MAX_EXAMPLES, Kit, require, untouched_global_noise
from nabla.testing.strategies import trajectories

kit: Kit[Rows] = Kit(rows, "an update rule", "check_rows")

#: With something left to refine.
_open = trajectories().filter(lambda t: not t.complete)


def check_rows(
    rows: object,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law of update rules.

    Raises ContractError at the first law that is broken; the arguments are
    :func:`nabla.testing.check_estimator`'s.
    """
    kit.check(rows, laws=laws, skip=skip, max_examples=max_examples, seed=seed)


@kit.law(first=_open, last=_open)
def it_keeps_no_state(rule: Rows, first: Trajectory, last: Trajectory) -> None:
    """The rows follow from the response alone; nothing is drawn."""
    used, fresh = copy.deepcopy(rule), copy.deepcopy(rule)
    with untouched_global_noise():
        used.positions(first)
        found = used.positions(last)
    expected = fresh.positions(last)
    require(found == expected, f"{found} after another response, {expected} alone")


@kit.law()
def the_support_is_a_number_or_all(rule: Rows) -> None:
    """``support`` is a number of candidates, at least 2, or None: one candidate alone has no gradient."""
    support: Any = getattr(rule, "support", "missing (call super().__init__)")
    known = support is None or (isinstance(support, int) and not isinstance(support, bool) and support >= 2)
    require(known, f"support is {support}")


@kit.law(trajectory=_open)
def rows_begin_at_the_first_free_position(rule: Rows, trajectory: Trajectory) -> None:
    """``positions`` is a slice without a step, from the first uncommitted position on, not empty and inside
    the response: its first row is the one that a proposal is drawn from."""
    found: Any = rule.positions(trajectory)
    require(isinstance(found, slice), f"positions gave {found!r}, a {type(found).__name__}")
    require(found.step in (None, 1), f"the rows are not contiguous: {found}")
    require(found.start == trajectory.committed, f"{found} of {trajectory.committed} committed tokens")
    require(
        found.stop is not None and trajectory.committed < found.stop <= len(trajectory),
        f"{found} of a response of {len(trajectory)} tokens",
    )
