"""Numbers of a diagnosis against closed forms and against scikit-free counting."""

from __future__ import annotations

import math
import random

import pytest

from nabla.study.diagnosis.findings import _locator, drops
from nabla.study.diagnosis.measures import (
    Labelled,
    agreement,
    auc,
    average,
    average_of_all,
    calibration,
    difference,
    f1,
    pooled,
)

NAN = math.nan


def test_an_auc_is_the_share_of_pairs_in_order_ties_half():
    draw = random.Random(0)
    scores = [draw.randint(0, 5) for _ in range(40)]
    right = [draw.random() < 0.4 for _ in range(40)]
    pairs = [
        (a, b)
        for a, p in zip(scores, right, strict=True)
        for b, q in zip(scores, right, strict=True)
        if p and not q
    ]
    expected = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)
    assert auc(scores, right) == pytest.approx(expected)
    problems = [str(i // 4) for i in range(40)]
    found = pooled(scores, right, problems)
    assert found.value == pytest.approx(expected)
    assert found.low < expected < found.high
    assert found.count == 10


@pytest.mark.parametrize(
    ("scores", "right"), [([1.0, 2.0], [True, True]), ([1.0, NAN], [True, False]), ([], [])]
)
def test_what_cannot_be_compared_is_not_known(scores, right):
    assert math.isnan(auc(scores, right))
    assert not pooled(scores[:0], right[:0], []).known


def test_intervals_cover_whole_problems():
    """Copies of an item within a problem make nothing more certain."""
    draw = random.Random(1)
    items = [(draw.gauss(0.8 * (i % 2), 1), i % 2 == 1, str(i // 2)) for i in range(60)]
    once = pooled(*map(list, zip(*items, strict=True)))
    often = pooled(*map(list, zip(*(item for item in items for _ in range(5)), strict=True)))
    assert often.value == pytest.approx(once.value)
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_copies_of_a_text_make_the_place_of_its_mistake_no_surer():
    draw = random.Random(1)
    texts = {str(i): [draw.gauss(0.0, 1.0) for _ in range(6)] for i in range(12)}
    found = [
        _locator("r", {key: [row] * copies for key, row in texts.items()}, lambda *_: 4, None, of_prefix=True)
        for copies in (1, 4)
    ]
    assert found[0].first.low < found[0].first.high
    assert found[0] == found[1]


def test_a_mean_over_several_numbers_of_each_problem():
    found = average_of_all({"a": [1.0, 2.0, NAN], "b": [6.0], "c": [NAN], "d": []})
    assert (found.value, found.count) == (3.0, 2)
    assert (found.low, found.high) == (1.5, 6.0)
    assert not average_of_all({"a": [NAN], "b": []}).known


def test_one_problem_has_no_interval():
    """It would be a point, as if the number were certain."""
    alone = (average({"a": 0.8, "b": NAN}), pooled([1.0, 2.0, 0.0], [True, True, False], ["a"] * 3))
    for found in (*alone, difference({"a": 0.8}, {"a": 0.3})):
        assert found.known
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert found.count == 1
    assert str(alone[0]) == "0.80 (one problem)"
    assert difference({"a": 0.8}, {"a": 0.3}).shown("+") == "+0.50 (one problem)"


def test_a_bootstrap_interval_holds_the_truth_about_as_often_as_it_says():
    draw = random.Random(2)
    inside = 0
    for _ in range(200):
        found = average({str(i): draw.gauss(3.0, 1.0) for i in range(40)})
        inside += found.low <= 3.0 <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_differences_are_of_what_both_know():
    found = difference({"a": 1.0, "b": 3.0, "c": NAN}, {"a": 0.5, "b": 1.0, "c": 7.0, "d": 1.0})
    assert found.value == pytest.approx(1.25)
    assert found.count == 2
    assert not average({"a": NAN}).known


def test_ranks_agree_or_not():
    assert agreement([1, 2, 3, NAN], [10, 20, 30, 1]) == pytest.approx(1.0)
    assert agreement([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert math.isnan(agreement([1, 1, 1], [1, 2, 3]))
    assert math.isnan(agreement([1, 2], [1, 2]))


def test_calibration_by_hand():
    """Two bins: 0.25 said and a half right, 0.75 said and all right."""
    log_odds = [math.log(1 / 3)] * 4 + [math.log(3)] * 2
    error, bins = calibration(log_odds, [True, True, False, False, True, True])
    assert [(b.count, round(b.said, 6), b.right) for b in bins] == [(4, 0.25, 0.5), (2, 0.75, 1.0)]
    assert error == pytest.approx((4 * 0.25 + 2 * 0.25) / 6)
    assert calibration([1e9, -1e9], [True, False])[0] == pytest.approx(0.0)


def test_a_perfect_process_reward_has_an_f1_of_one_and_a_blind_one_has_not():
    sound = [Labelled((1.0, 1.0, -1.0), 2), Labelled((1.0, 1.0), -1), Labelled((-1.0, 1.0), 0)] * 4
    found = f1(sound)
    assert found is not None
    assert (found.value, found.wrong, found.right) == (1.0, 1.0, 1.0)
    draw = random.Random(3)
    blind = [
        Labelled(tuple(draw.random() for _ in range(4)), draw.choice([-1, 0, 1, 2, 3])) for _ in range(200)
    ]
    assert f1(blind).value < 0.6
    assert f1(sound[:1]) is None


def test_the_threshold_of_a_half_has_not_seen_that_half():
    """Each half is perfect at a threshold of its own; judged by the other's, none is."""
    first = [Labelled((0.5, -0.5), 1), Labelled((0.5, 0.5), -1)]
    second = [Labelled((-2.0, -4.0), 1), Labelled((-2.0, -2.0), -1)]
    mixed = [row for pair in zip(first * 4, second * 4, strict=True) for row in pair]
    found = f1(mixed)
    assert found is not None
    assert found.value < 0.5


def test_a_drop_is_from_the_last_known_value_to_the_next():
    assert drops([2.0, 1.0, -1.0]) == [-2.0, 1.0, 2.0]
    assert drops([NAN, 1.0, NAN, -1.0]) == [-1.0, -1.0, 2.0, 2.0]
    assert math.isnan(drops([1.0, NAN])[1])
