from __future__ import annotations

import io

import pytest
from rich.console import Console

from nabla.core.costs import Cost, Usage
from nabla.core.errors import ConfigError, PromptError
from nabla.core.prompt import Prompt
from nabla.core.solution import Revision, Solution
from nabla.launch.config.presets import SANDBOX_RUNS
from nabla.launch.records import correct, effect, first_response, record
from nabla.problems.sandbox import TASKS
from nabla.study.evaluation.compare import DEFAULT_METHODS, Outcome, evaluate, variants
from nabla.study.evaluation.table import comparison_table, row

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


@pytest.fixture
def outcome() -> Outcome:
    right = [p.solution for p in PROBLEMS]
    solutions = (
        solution(0, right[0], revision("nonsense", right[0], True), reward=2.0),
        solution(1, "nonsense", revision(right[1], "nonsense", True), revision("nonsense", right[1], False)),
    )
    return Outcome("m", ARITHMETIC, 3, solutions, {PROBLEMS[2].id: PromptError("broken")})


def test_failures_stay_in_the_denominator(outcome):
    assert (outcome.accuracy.successes, outcome.accuracy.total) == (1, 3)


def test_effects_of_accepted_proposals_are_by_the_checker(outcome):
    assert outcome.effects == {(False, True): 1, (True, False): 1, (False, False): 0, (True, True): 0}
    assert (outcome.acceptance.successes, outcome.acceptance.total) == (2, 3)


def test_means_and_sums(outcome):
    assert outcome.mean_reward == 2.0  # of the one that was scored
    assert outcome.cost.total.tokens == 40
    found = outcome.to_dict()
    assert (found["failed"], found["right"], found["wrong_to_right"], found["right_to_wrong"]) == (1, 1, 1, 1)
    assert found["interval"][0] < found["accuracy"] < found["interval"][1]


def test_a_table_row_has_costs_per_problem_and_dashes_for_what_does_not_apply(outcome):
    cells = row(outcome)
    assert cells[0] == "m (1 failed)"
    assert cells[1] == "33.3 %"
    assert cells[4:6] == ("10.0", "20")
    plain = row(Outcome("greedy", ARITHMETIC, 1, (solution(0, "x"),), {}))
    assert plain[3] == "-"
    assert plain[-3:] == ("-", "-", "-")
    out = io.StringIO()
    Console(file=out, width=110).print(comparison_table([outcome]))
    assert "arithmetic: 3 held-out problems" in out.getvalue()


def test_records_carry_verdict_and_answer(outcome):
    first = outcome.solutions[0]
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
    found = evaluate(label, config, task, task.problems("test", 2, 0), latin_lm, latin_rm)
    assert found.problems == len(found.solutions) == 2
    assert found.mean_reward is not None
    assert found.cost.total.calls > 0
