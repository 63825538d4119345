"""Runs as records: every budget has one, errors are wrong, clocks are apart."""

from __future__ import annotations

import json

from nabla.core.costs import Cost, Usage
from nabla.core.errors import NumericalError
from nabla.core.prompt import Prompt
from nabla.core.solution import Checkpoint, Revision, Solution
from nabla.study.evaluation.lines import prepared, reproducible, responses, rows

LABELS = {"task": "t", "method": "m", "seed": 0, "problem": "p"}
LADDER = [("calls", 5.0), ("calls", 10.0), ("calls", 30.0), ("seconds", 1.0)]
GRADES = {"first": False, "second": True, "other": False}


def checkpoint(calls: int, response: str, reward: float | None) -> Checkpoint:
    usage = Usage(decode_steps=calls, tokens=calls, flops=2.0 * calls, seconds=calls / 10)
    return Checkpoint(usage, (1, 2), response, reward, True)


def solution(**changes) -> Solution:
    values = {
        "prompt": Prompt.of("1+2=", id="p"),
        "response": "second",
        "tokens": (1, 2),
        "reward": 2.0,
        "finished": True,
        "method": "m",
        "cost": Cost(
            {
                "rollout": Usage(decode_steps=20, tokens=30, flops=40.0, seconds=0.1 + 0.2),
                "method": Usage(seconds=0.5),
            },
            {"gradients_reused": 3},
        ),
        "revisions": (
            Revision(1, 5, 6, 1.0, 2.0, True, "first", "second"),
            Revision(0, 5, 7, 2.0, 0.5, False, "second", "other"),
        ),
        "candidates": 3,
        "checkpoints": (checkpoint(8, "first", 1.0), checkpoint(20, "second", 2.0)),
    }
    return Solution(**{**values, **changes})


def test_what_a_method_spent_before_stands_once_beside_a_run():
    given = rows(LABELS, solution(), GRADES, LADDER)
    run, *answers = prepared(given, 7.0)
    assert run == {**given[0], "prepared_flops": 7.0}
    assert answers == given[1:]
    assert prepared(given, 0.0) == given


def test_there_is_a_record_for_every_budget():
    run, *answers = rows(LABELS, solution(), GRADES, LADDER)
    assert [(a["unit"], a["value"]) for a in answers] == LADDER
    assert [a["response"] for a in answers] == [None, "first", "second", "first"]
    assert [a["correct"] for a in answers] == [False, False, True, False]
    assert [a["reward"] for a in answers] == [None, 1.0, 2.0, 1.0]
    assert [a["exhausted"] for a in answers] == [True, True, False, False]
    assert answers[1]["cost"] == {"calls": 8, "tokens": 8, "flops": 16.0, "critical_steps": 8}
    assert answers[0]["cost"] is None
    assert run["kind"] == "run"
    assert run["correct"] is True
    assert run["cost"]["calls"] == 20
    assert run["first"]["calls"] == 8
    assert run["phases"] == {"rollout": run["cost"]}
    assert run["timing"]["phases"] == {"rollout": 0.1 + 0.2, "method": 0.5}


def test_revisions_say_what_the_reward_and_the_checker_said():
    run = rows(LABELS, solution(), GRADES, LADDER)[0]
    assert (run["accepted"], run["rejected"]) == (1, 1)
    assert run["revisions"] == [[1, 1.0, 2.0, True, False, True], [0, 2.0, 0.5, False, True, False]]


def test_an_error_is_wrong_everywhere_and_keeps_its_cost():
    error = NumericalError("The reward is NaN", got=float("nan"))
    error.cost = Cost({"reward": Usage(forward_passes=7)})
    run, *answers = rows(LABELS, error, {}, LADDER)
    assert [(a["unit"], a["value"]) for a in answers] == LADDER
    for row in (run, *answers):
        assert row["correct"] is False
        assert row["response"] is None  # an error's text is no answer
        assert row["error"] == {"class": "NumericalError", "message": "The reward is NaN (got nan)"}
    assert run["cost"]["calls"] == 7
    assert [a["exhausted"] for a in answers] == [True, False, False, False]


def test_an_error_keeps_the_answers_within_budgets_that_were_spent_before_it():
    error = NumericalError("The reward is NaN")
    error.cost = Cost({"reward": Usage(forward_passes=25, seconds=0.5)})
    error.checkpoints = (checkpoint(8, "first", 1.0), checkpoint(20, "second", 2.0))
    assert responses(error) == ["first", "second"]
    run, *answers = rows(LABELS, error, GRADES, [*LADDER, ("calls", 22.0)])
    fine = rows(LABELS, solution(), GRADES, [*LADDER, ("calls", 22.0)])
    assert run["error"]
    assert run["response"] is None
    assert [a["response"] for a in answers] == [None, "first", None, None, "second"]
    # 5 calls: no answer yet; 30 calls and a second: the run was still going on when it failed.
    assert [a["error"] is None for a in answers] == [False, True, False, False, True]
    assert answers[1] == fine[2]
    assert [list(row) for row in (run, *answers)] == [list(row) for row in fine]


def test_runs_and_errors_have_the_same_keys():
    fine, failed = (rows(LABELS, o, GRADES, LADDER) for o in (solution(), NumericalError("x")))
    assert [list(row) for row in fine] == [list(row) for row in failed]


def test_records_round_trip_and_clocks_can_be_dropped():
    found = rows(LABELS, solution(), GRADES, LADDER)
    assert json.loads(json.dumps(found)) == found
    slower = solution(
        cost=Cost({"rollout": Usage(decode_steps=20, tokens=30, flops=40.0, seconds=9.0),
                   "method": Usage(seconds=1.0)}, {"gradients_reused": 3})
    )  # fmt: skip
    again = rows(LABELS, slower, GRADES, LADDER)
    assert found != again
    assert [reproducible(row) for row in found] == [reproducible(row) for row in again]
    assert reproducible(found[-1]) is None


def test_a_method_that_reports_nothing_has_answered_at_its_end():
    answers = rows(LABELS, solution(checkpoints=()), GRADES, LADDER)[1:]
    assert [a["response"] for a in answers] == [None, None, "second", "second"]


def test_every_text_that_is_judged_is_graded():
    assert set(responses(solution())) == set(GRADES)
    assert responses(NumericalError("x")) == []
