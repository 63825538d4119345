"""Laws of screens (SPEC section 14)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nabla.core.change_point import ChangePoint
from nabla.core.errors import ConfigError
from nabla.screens.base import Screen, screens
from nabla.screens.sampled import Sampled
from nabla.testing.laws import MAX_EXAMPLES, Kit, Violation, require, untouched_global_noise
from nabla.testing.optional import st

kit: Kit[Screen] = Kit(screens, "a screen", "check_screen")

_numbers = st.integers(-48, 48).map(lambda n: n / 8)
_held = st.one_of(st.none(), _numbers)


def check_screen(
    screen: object,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law that a screen declares (``reads_values``, ``lasting``).

    Raises ContractError at the first law that is broken; the arguments are
    :func:`nabla.testing.check_estimator`'s.
    """
    kit.check(screen, laws=laws, skip=skip, max_examples=max_examples, seed=seed)


@st.composite
def _rows(draw: Callable[..., Any], *, valued: bool = True) -> list[tuple[float, float]]:
    """(value, log-probability) of each token of a text; NaN where there is none."""
    value = st.one_of(_numbers, st.just(math.nan)) if valued else st.just(math.nan)
    log_prob = st.one_of(st.integers(0, 64).map(lambda n: -n / 8), st.just(math.nan))
    rows: list[tuple[float, float]] = draw(st.lists(st.tuples(value, log_prob), max_size=9))
    return rows


def _stop(screen: Screen, rows: Sequence[tuple[float, float]], held: float | None) -> int | None:
    found: Any = screen.read([v for v, _ in rows], held, [p for _, p in rows])
    return found  # type: ignore[no-any-return]


@kit.law(rows=_rows(), held=_held)
def it_finds_a_token_that_has_a_value(
    screen: Screen, rows: list[tuple[float, float]], held: float | None
) -> None:
    """A screen returns None or the position of a token that is there and has a value (SPEC section 14)."""
    found = _stop(screen, rows, held)
    if found is None:
        return
    require(type(found) is int and 0 <= found < len(rows), f"it found {found!r} in a text of {len(rows)}")
    require(not math.isnan(rows[found][0]), f"the reward says nothing of token {found}, which it calls bad")


@kit.law(rows=_rows(valued=False), held=_held)
def nothing_is_bad_where_the_reward_is_silent(
    screen: Screen, rows: list[tuple[float, float]], held: float | None
) -> None:
    """A text without values goes on, and so does an empty one."""
    found = _stop(screen, rows, held)
    require(found is None, f"it stops a text without values at {found}")


@kit.law(rows=_rows(), held=_held)
def the_text_decides_everything(
    screen: Screen, rows: list[tuple[float, float]], held: float | None
) -> None:
    """Equal values give equal answers, whatever was read in between; no global noise."""
    with untouched_global_noise():
        first = _stop(screen, rows, held)
        _stop(screen, [(-6.0, -1.0), *rows], held)
        second = _stop(screen, rows, held)
    require(first == second, f"equal texts were stopped at {first} and at {second}")


@kit.law(rows=_rows(), held=_held, applies=lambda screen: screen.lasting)
def what_was_bad_stays_bad(screen: Screen, rows: list[tuple[float, float]], held: float | None) -> None:
    """With ``lasting`` a bad token that was found in a part of a text is found again in all of it: it was
    found by what had been written then."""
    before: int | None = None
    for end in range(len(rows) + 1):
        found = _stop(screen, rows[:end], held)
        require(
            before is None or found == before,
            f"token {before} was bad in the first {end - 1} tokens; in the first {end} it is {found}",
        )
        before = found


@kit.law(rows=_rows(), held=_held, applies=lambda screen: not screen.reads_values)
def without_values_it_never_stops(
    screen: Screen, rows: list[tuple[float, float]], held: float | None
) -> None:
    """Without ``reads_values`` open texts are not judged at all, so none is stopped."""
    found = _stop(screen, rows, held)
    require(found is None, f"reads_values is False, but it stops at {found}")


@kit.law(rows=_rows())
def a_text_without_a_bad_token_reaches_furthest(screen: Screen, rows: list[tuple[float, float]]) -> None:
    """``reach`` is a number, and a bad token makes it no larger."""
    values, own = [v for v, _ in rows], [p for _, p in rows]
    best = screen.reach(values, own, None)
    require(not math.isnan(best), "the reach of a text is NaN")
    for bad in range(len(rows)):
        found = screen.reach(values, own, bad)
        require(found <= best, f"with token {bad} bad it reaches {found}, without any {best}")


@kit.law(rows=_rows(), held=_held)
def fitting_leaves_it_as_it_is(screen: Screen, rows: list[tuple[float, float]], held: float | None) -> None:
    """``fitted`` gives a screen, of the same promises, and changes nothing in this one."""
    before = _stop(screen, rows, held)
    try:
        found: Any = screen.fitted(_SAMPLED, ChangePoint(centre=1.0, scale=2.0, hazard=0.1, surprise=0.5))
    except ConfigError as error:
        raise Violation(f"it cannot be fitted: {error}") from error
    require(isinstance(found, Screen), f"fitted returned {found!r}"[:200])
    require(found.lasting == screen.lasting, "the fitted screen declares something else")
    require(_stop(screen, rows, held) == before, "fitting has changed the screen itself")


_SAMPLED = [
    Sampled(f"p{i // 2}", (2.0 - i, 1.0, -1.0 * i), (-0.1, -float(i), -0.5), (1, 2, 3), 1.0 - i)
    for i in range(6)
]
