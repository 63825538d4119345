from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from nabla.core.costs import Cost, Usage
from nabla.core.errors import ConfigError, PromptError
from nabla.core.prompt import Prompt
from nabla.core.solution import Revision, Solution
from nabla.launch.config.presets import SANDBOX_RUNS
from nabla.launch.records import correct, effect, first_response, record
from nabla.problems.sandbox import TASKS
from nabla.study.evaluation.compare import (
    DEFAULT_METHODS,
    comparison_table,
    evaluate,
    row,
    summarise,
    variants,
)

ARITHMETIC = TASKS["arithmetic"]
PROBLEMS = ARITHMETIC.problems("test", 3, 0)


def solution(number: int, response: str, *revisions: Revision, reward: float | None = None) -> Solution:
    return Solution(
        prompt=Prompt.of(PROBLEMS[number].prompt, id=PROBLEMS[number].id),
        response=response,
        tokens=(1, 2),
        reward=reward,
        finished=True,
        method="m",
        cost=Cost({"rollout": Usage(decode_steps=10, tokens=20, flops=3e6, seconds=0.5)}),
        revisions=revisions,
    )


def revision(old: str, new: str, accepted: bool) -> Revision:
    return Revision(0, 1, 2, 0.0, 1.0, accepted, old, new)


RIGHT = [p.gold for p in PROBLEMS]
SOLUTIONS = (
    solution(0, RIGHT[0], revision("nonsense", RIGHT[0], True), reward=2.0),
    solution(1, "nonsense", revision(RIGHT[1], "nonsense", True), revision("nonsense", RIGHT[1], False)),
)


@pytest.fixture
def summary() -> dict[str, Any]:
    outcomes = {**{s.prompt.id: s for s in SOLUTIONS}, PROBLEMS[2].id: PromptError("broken")}
    return summarise("m", ARITHMETIC, outcomes)


def test_failures_stay_in_the_denominator(summary):
    assert (summary["right"], summary["problems"]) == (1, 3)


def test_effects_of_accepted_proposals_are_by_the_checker(summary):
    names = ("wrong_to_right", "right_to_wrong", "wrong_to_wrong", "right_to_right")
    assert [summary[name] for name in names] == [1, 1, 0, 0]
    assert (summary["accepted"], summary["proposals"]) == (2, 3)


def test_means_and_sums(summary):
    assert summary["mean_reward"] == 2.0  # of the one that was scored
    assert summary["cost"]["total"]["tokens"] == 40
    assert (summary["failed"], summary["right"]) == (1, 1)
    assert (summary["wrong_to_right"], summary["right_to_wrong"]) == (1, 1)
    assert summary["interval"][0] < summary["accuracy"] < summary["interval"][1]


def test_what_failed_was_paid_for():
    """A failure after half a run costs what it cost; of one before it began nothing is known."""
    late = PromptError("broken")
    late.cost = Cost({"rollout": Usage(decode_steps=70, tokens=140, flops=3e6, seconds=0.5)})
    outcomes = {**{s.prompt.id: s for s in SOLUTIONS}, PROBLEMS[2].id: late, "early": PromptError("x")}
    found = summarise("m", ARITHMETIC, outcomes)
    assert (found["problems"], found["failed"], found["costed"]) == (4, 2, 3)
    assert found["cost"]["total"]["tokens"] == 180
    assert row(found)[4:6] == ("30.0", "60")


def test_a_table_row_has_costs_per_problem_and_dashes_for_what_does_not_apply(summary):
    cells = row(summary)
    assert cells[0] == "m (1 failed)"
    assert cells[1] == "33.3 %"
    assert cells[4:6] == ("10.0", "20")
    plain = row(summarise("greedy", ARITHMETIC, {PROBLEMS[0].id: solution(0, "x")}))
    assert plain[3] == "-"
    assert plain[-3:] == ("-", "-", "-")
    out = io.StringIO()
    Console(file=out, width=110).print(comparison_table([summary]))
    assert "arithmetic: 3 held-out problems" in out.getvalue()


def test_records_carry_verdict_and_answer():
    first = SOLUTIONS[0]
    found = record(first, ARITHMETIC)
    assert (found["task"], found["correct"]) == ("arithmetic", True)
    assert "correct" not in record(first)
    assert first_response(first) == "nonsense"
    assert correct(first, ARITHMETIC)
    assert effect(first.revisions[0], first, ARITHMETIC) == (False, True)


def test_methods_share_the_settings_they_have_in_common():
    plans = variants(SANDBOX_RUNS["latin"], DEFAULT_METHODS)
    assert list(plans) == ["greedy", "best-of-n n=8", "nabla-reasoner max_rollouts=8"]
    sampling = [plan.method["sampling"] for plan in plans.values() if "sampling" in plan.method]
    assert sampling[0] == sampling[1]
    twice = variants(SANDBOX_RUNS["latin"], ["greedy", "greedy"])
    assert list(twice) == ["greedy", "greedy (2)"]
    spec = {"name": "nabla-reasoner", "proposal": {"name": "sample", "temperature": 1.0}}
    assert list(variants(SANDBOX_RUNS["latin"], [spec])) == [
        "nabla-reasoner proposal=sample proposal.temperature=1.0"
    ]


def test_an_unknown_method_is_an_error_before_anything_runs():
    with pytest.raises(ConfigError, match="best-of-n"):
        variants(SANDBOX_RUNS["latin"], [{"name": "best-of-m"}])


def test_one_method_on_two_squares(latin_lm, latin_rm):
    task = TASKS["latin"]
    plans = variants(SANDBOX_RUNS["latin"], [{"name": "best-of-n", "n": 2}])
    ((label, config),) = plans.items()
    outcomes = evaluate(config, task.problems("test", 2, 0), latin_lm, latin_rm)
    found = summarise(label, task, outcomes)
    assert found["problems"] - found["failed"] == len(outcomes) == 2
    assert found["mean_reward"] is not None
    assert found["cost"]["total"]["calls"] > 0
