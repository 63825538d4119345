"""The curves of the shipped schedules; the laws of every schedule are checked in tests/testing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nabla.core.errors import ComponentError, ConfigError, require_finite
from nabla.estimators.base import estimators
from nabla.objectives.base import objectives
from nabla.refinement.descent import Descent
from nabla.schedulers.base import Constant, Schedule, Step, as_schedule, schedulers
from nabla.schedulers.cosine import Cosine
from nabla.schedulers.linear import Linear

finite = st.floats(-1e300, 1e300)
usual = st.floats(-1e3, 1e3)
shipped = st.one_of(
    st.builds(Constant, finite),
    st.builds(Linear, finite, finite),
    st.builds(Cosine, finite, finite, st.integers(0, 30)),
)
steps = st.integers(1, 60).flatmap(lambda total: st.builds(Step, st.integers(0, total - 1), st.just(total)))


@given(shipped, steps)
def test_values_are_numbers_within_the_bounds(schedule, step):
    low, high = schedule.bounds
    slack = 1e-12 * max(abs(low), abs(high))
    value = schedule(step)
    assert isinstance(value, float)
    assert math.isfinite(value)
    assert low - slack <= value <= high + slack


@given(finite, finite, st.integers(2, 60))
def test_end_points_are_exact(start, end, total):
    for schedule in (Linear(start, end), Cosine(start, end)):
        assert schedule(Step(0, total)) == start
        assert schedule(Step(total - 1, total)) == end


@given(finite, finite)
def test_a_run_of_one_step_is_the_first(start, end):
    assert Linear(start, end)(Step(0, 1)) == Cosine(start, end)(Step(0, 1)) == start
    assert Linear(start, end)(Step()) == start


@given(usual, usual, st.integers(2, 40))
def test_monotone_between_the_ends(start, end, total):
    for schedule in (Linear(start, end), Cosine(start, end)):
        values = [schedule(Step(i, total)) for i in range(total)]
        ordered = sorted(values, reverse=start > end)
        assert values == pytest.approx(ordered, abs=1e-9)


def test_curves():
    assert [Linear(1.0, 0.0)(Step(i, 5)) for i in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert Cosine(1.0, 0.0)(Step(5, 11)) == pytest.approx(0.5)
    assert Cosine(1.0, 0.0)(Step(1, 4)) == pytest.approx((1 + math.cos(math.pi / 3)) / 2)
    assert Constant(0.3)(Step(7, 9)) == 0.3


def test_the_papers_learning_rate():
    values = [Cosine()(Step(i, 20)) for i in range(20)]
    assert (values[0], values[-1]) == (0.01, 0.001)


@given(st.floats(1e-6, 10), st.integers(1, 10), st.integers(1, 20))
def test_warm_up_rises_linearly_and_then_the_cosine_starts(start, warmup, rest):
    schedule, total = Cosine(start, 0.0, warmup), warmup + rest
    values = [schedule(Step(i, total)) for i in range(total)]
    assert values[:warmup] == pytest.approx([start * (i + 1) / (warmup + 1) for i in range(warmup)])
    assert values[warmup:] == [Cosine(start, 0.0)(Step(i, rest)) for i in range(rest)]
    assert min(values[:warmup]) > 0


def test_a_warm_up_longer_than_the_run():
    assert [Cosine(1.0, 0.0, warmup=3)(Step(i, 2)) for i in range(2)] == [0.25, 0.5]


@given(st.integers(0, 50), st.integers(1, 50))
def test_progress(index, total):
    assert 0 <= Step(index, total).progress <= 1


# -- settings --------------------------------------------------------------------------------------


def test_a_number_a_name_and_a_spec_are_schedules():
    assert as_schedule(3).value == 3.0
    assert as_schedule(0.5).value == 0.5
    assert as_schedule("cosine").start == 0.01
    assert as_schedule({"name": "linear", "start": 1.0, "end": 0.0}).bounds == (0.0, 1.0)
    schedule = Linear(0.0, 1.0)
    assert as_schedule(schedule) is schedule


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), -float("inf")])
def test_a_schedule_is_a_finite_number(value):
    with pytest.raises(ConfigError):
        as_schedule(value)


@pytest.mark.parametrize(
    "make",
    [
        lambda bad: Constant(bad),
        lambda bad: Linear(bad, 1.0),
        lambda bad: Linear(1.0, bad),
        lambda bad: Cosine(bad, 1.0),
        lambda bad: Cosine(1.0, bad),
    ],
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_settings_are_finite(make, bad):
    with pytest.raises(ConfigError, match="must be finite"):
        make(bad)


def test_warm_up_is_a_number_of_steps():
    with pytest.raises(ConfigError, match="warmup"):
        Cosine(warmup=-1)


def test_require_finite():
    assert require_finite("x", 3) == 3.0
    with pytest.raises(ConfigError, match="x must be a number"):
        require_finite("x", "wide")
    with pytest.raises(ConfigError, match="x must be a number"):
        require_finite("x", None)
    with pytest.raises(ConfigError, match=r"x must be at least 0\.0"):
        require_finite("x", -1e-9, minimum=0.0)


def test_the_shipped_schedules_are_registered():
    assert {"constant", "linear", "cosine"} <= set(schedulers)


class Custom(Schedule):
    """What a stranger may write."""

    def __init__(self, value, bounds):
        self.value, self.range = value, bounds

    def __call__(self, step):
        return self.value(step) if callable(self.value) else self.value

    @property
    def bounds(self):
        return self.range


@pytest.mark.parametrize(
    ("value", "bounds", "said"),
    [
        (2.0, (0.0, 1.0), "the value of Custom at step 0 of 1 is outside its bounds, 0 to 1"),
        (lambda step: 0.0 if step.index < 7 else -1.0, (0.0, 1.0), "at step 7 of 8 is outside"),
        (math.nan, (0.0, 1.0), "at step 0 of 1 must be finite"),
        ("0.5", (0.0, 1.0), "at step 0 of 1 must be a number"),
        (0.5, (1.0, 0.0), "the lower bound of Custom is above the upper one"),
        (0.5, (math.nan, 1.0), "the lower bound of Custom must be finite"),
        (0.5, (0.0, None), "the upper bound of Custom must be a number"),
        (0.5, 1.0, "the bounds of Custom are no pair of numbers"),
    ],
)
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("langevin", lambda schedule: Descent("SGD", langevin=schedule)),
        ("learning_rate", lambda schedule: Descent("SGD", learning_rate=schedule)),
        ("temperature", lambda schedule: estimators.build("soft-embedding", temperature=schedule)),
        ("weight of reward", lambda schedule: objectives.build("sum", weights={"reward": schedule})),
    ],
)
def test_a_schedule_that_contradicts_its_own_bounds_is_refused(value, bounds, said, name, build):
    with pytest.raises(ConfigError, match=f"{name}: .*{said}"):
        build(Custom(value, bounds))


def test_a_schedule_that_fails_is_named():
    with pytest.raises(ComponentError, match=r"Custom \(langevin\) at step 0 of 1 failed with ZeroDivision"):
        as_schedule(Custom(lambda step: 1 / step.index, (0.0, 1.0)), "langevin")


def test_a_learning_rate_falls_to_zero_at_the_least():
    with pytest.raises(ConfigError, match="learning_rate must be >= 0 at every step"):
        Descent("SGD", learning_rate=Linear(0.1, -0.1))
