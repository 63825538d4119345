"""Laws of selectors (SPEC Algorithm 3)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.trajectory import States, Trajectory
from nabla.selectors.base import Selector, selectors
from nabla.testing.inputs import SessionStandIn, at_once, make_trajectory, seeded
from nabla.testing.laws import MAX_EXAMPLES, Kit, Violation, require, untouched_global_noise
from nabla.testing.optional import st
from nabla.testing.strategies import seeds, trajectories

kit: Kit[Selector] = Kit(selectors, "a selector", "check_selector")


def check_selector(
    selector: object,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law that a selector declares (``monotone_in``, ``pointwise``, ``needs_gradient``).

    Raises ContractError at the first law that is broken; the arguments are
    :func:`nabla.testing.check_estimator`'s.
    """
    kit.check(selector, laws=laws, skip=skip, max_examples=max_examples, seed=seed)


def _session(trajectory: Trajectory, seed: int, *, norms: bool = True) -> Any:
    """Gradient norms are NaN at committed positions, as the engine gives them."""
    plain = 16 * torch.rand(len(trajectory), generator=seeded(seed))
    plain[: trajectory.committed] = float("nan")
    return SessionStandIn(seed, (plain, 0.7 * plain) if norms else None)


def _select(selector: Selector, trajectory: Trajectory, seed: int, **settings: bool) -> Tensor:
    return at_once(selector.select(trajectory, _session(trajectory, seed, **settings)))


def _free(trajectory: Trajectory) -> Tensor:
    mask = torch.arange(len(trajectory)) >= trajectory.committed
    if trajectory.finished:
        mask[-1] = False
    return mask


@kit.law(trajectory=trajectories(), seed=seeds)
def it_returns_a_mask_and_not_positions(selector: Selector, trajectory: Trajectory, seed: int) -> None:
    """``mask`` gives one boolean per position of the response, committed ones included."""
    found: Any = at_once(selector.mask(trajectory, _session(trajectory, seed)))
    require(isinstance(found, Tensor), f"mask returned {found!r}"[:200] + ", not a tensor")
    require(
        found.dtype == torch.bool,
        f"mask returned {found.tolist()} of {found.dtype}: a boolean per position is wanted, not positions",
    )
    length = len(trajectory)
    require(
        found.shape == (length,), f"mask has shape {tuple(found.shape)} for a response of {length} tokens"
    )


@kit.law(trajectory=trajectories(), seed=seeds)
def final_positions_are_never_chosen(selector: Selector, trajectory: Trajectory, seed: int) -> None:
    """``select`` is never true at a committed position or at the end-of-sequence token (SPEC section 11)."""
    chosen = _select(selector, trajectory, seed)
    wrong = (chosen & ~_free(trajectory)).nonzero()[:, 0].tolist()
    require(
        not wrong,
        f"positions {wrong} are chosen; {trajectory.committed} are committed"
        + (" and the last is the end of the answer" if trajectory.finished else ""),
    )


@kit.law(trajectory=trajectories(), seed=seeds)
def the_generator_decides_everything(selector: Selector, trajectory: Trajectory, seed: int) -> None:
    """Equal views and generators give equal masks; no global noise, no state, views are left as they were."""
    kept = trajectory.entropy.clone(), trajectory.top1.clone()
    with untouched_global_noise():
        first = _select(selector, trajectory, seed)
        _select(selector, make_trajectory([1, 2]), seed + 1)
        second = _select(selector, trajectory, seed)
    require(torch.equal(first, second), "equal views gave different masks")
    same = torch.equal(trajectory.entropy, kept[0]) and torch.equal(trajectory.top1, kept[1])
    require(same, "it changes the trajectory it is given")


@kit.law(trajectory=trajectories())
def it_needs_gradients_as_declared(selector: Selector, trajectory: Trajectory) -> None:
    """Without ``needs_gradient`` it works with no gradient norms; with it, their absence is a ConfigError."""
    try:
        _select(selector, trajectory, 0, norms=False)
    except ConfigError as error:
        if not selector.needs_gradient:
            raise Violation(f"needs_gradient is False, but without norms it fails: {error}") from error
    except Exception as error:
        raise Violation(f"without gradient norms it raised {error!r} instead of a ConfigError") from error
    else:
        require(not selector.needs_gradient, "needs_gradient is True, but it works without norms")


@kit.law(
    applies=lambda s: any(isinstance(getattr(s, name, None), float | int) for name in s.monotone_in),
    trajectory=trajectories(min_length=2),
    seed=seeds,
)
def it_is_monotone_in_its_threshold(selector: Selector, trajectory: Trajectory, seed: int) -> None:
    """A higher threshold never adds positions, or never removes any: masks are nested (SPEC Algorithm 3)."""
    for name in selector.monotone_in:
        value = getattr(selector, name, None)
        if not isinstance(value, float | int):
            continue
        masks = []
        for factor in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0):
            changed = copy.copy(selector)
            setting = factor * value
            # A number of positions stays a whole number.
            setattr(changed, name, round(setting) if isinstance(value, int) else setting)
            masks.append(_select(changed, trajectory, seed))
        pairs = list(pairwise(masks))
        grows = all(not bool((a & ~b).any()) for a, b in pairs)
        shrinks = all(not bool((b & ~a).any()) for a, b in pairs)
        require(
            grows or shrinks,
            f"as {name} grows from 0 to {4 * float(value)}, positions come and go: "
            f"{[m.nonzero()[:, 0].tolist() for m in masks]}",
        )


@kit.law(
    applies=lambda s: s.pointwise, trajectory=trajectories(min_length=2), seed=seeds, at=st.integers(0, 7)
)
def each_position_is_judged_by_its_own_numbers(
    selector: Selector, trajectory: Trajectory, seed: int, at: int
) -> None:
    """Other entropy, probability and gradient at one position leaves the choice at all others as it was.

    A choice among positions (a top k) declares ``pointwise = False``.
    """
    at %= len(trajectory)
    session = _session(trajectory, seed)
    before = at_once(selector.select(trajectory, session))
    for entropy, top1, norm in ((0.0, 1.0, 0.0), (9.0, 0.0, 1e3)):
        changed = []
        values = (trajectory.entropy, trajectory.top1, *session.norms)
        for values_, value in zip(values, (entropy, top1, norm, norm), strict=True):
            moved = values_.clone()
            moved[at] = value
            changed.append(moved)
        text = replace(trajectory, states=States(trajectory.hidden, changed[0], changed[1]))
        after = at_once(selector.select(text, cast(Any, SessionStandIn(seed, (changed[2], changed[3])))))
        others = torch.arange(len(trajectory)) != at
        wrong = ((before != after) & others).nonzero()[:, 0].tolist()
        require(not wrong, f"a change at position {at} changes the choice at {wrong}")
