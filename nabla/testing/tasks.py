"""Laws of tasks: problems, and grading."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nabla.core.errors import ConfigError
from nabla.problems.tasks.base import Problem, Task, tasks
from nabla.testing.laws import MAX_EXAMPLES, Kit, Violation, require, untouched_global_noise
from nabla.testing.optional import st
from nabla.testing.strategies import responses

#: Problems that the laws look at, at the most.
FEW = 5
#: How a gold answer may be written down so that it is found; the braces are its place.
FORMS = ("{}", "\\boxed{{{}}}", "#### {}", "The answer is {}.", "<answer>{}</answer>")


@dataclass(frozen=True, eq=False)
class TaskBench:
    """A task, a few of its problems, and how a right response to one is written (None: in none of the ways
    that are known)."""

    task: Task
    few: tuple[Problem, ...]
    right: Callable[[Problem], str | None]

    @classmethod
    def of(cls, task: Task, right: Callable[[Problem], str | None] | None = None) -> TaskBench:
        for count in range(FEW, 0, -1):
            try:
                found: Any = task.problems(count, seed=0)
            except ConfigError:
                if count == 1:
                    raise
                continue  # it has fewer
            return cls(task, tuple(found), right or (lambda problem: problem.gold))
        raise AssertionError("unreachable")

    @property
    def count(self) -> int:
        return len(self.few)

    def take(self, n: int | None, seed: int | None, offset: int = 0) -> list[Problem]:
        return self.task.problems(n, seed=seed, offset=offset)

    @property
    def graded(self) -> bool:
        return self.task.grades(self.few)


kit: Kit[Task] = Kit(tasks, "a task", "check_task", prepare=TaskBench.of)

_orders = st.one_of(st.none(), st.integers(0, 1000))


def check_task(
    task: object,
    *,
    right: Callable[[Problem], str | None] | None = None,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law of tasks, grading included.

    Args:
        task: an instance, or a class that needs no arguments.
        right: a right response to a problem, for graders of their own; None: the gold answer, as it stands,
            in ``\\boxed{}``, behind ``####``, in "The answer is ..." or between answer tags. Without either
            no right answer is tried, and a warning says so.
        laws: these and the rest as in :func:`nabla.testing.check_estimator`.

    Raises ContractError at the first law that is broken.
    """
    kit.check(
        task,
        laws=laws,
        skip=skip,
        max_examples=max_examples,
        seed=seed,
        prepare=lambda component: TaskBench.of(component, right),
    )
    bench = TaskBench.of(kit.component(task), right)
    if laws is None and bench.graded and all(bench.right(problem) is None for problem in bench.few):
        warnings.warn(
            "No right answer was tried: the problems have no gold answers. Pass check_task a right=, a "
            "function from a problem to a right response; without it a grader that always says no passes.",
            stacklevel=2,
        )


@kit.law(seed=_orders, other=_orders)
def the_same_arguments_give_the_same_problems(on: TaskBench, seed: int | None, other: int | None) -> None:
    """A list depends on ``n``, ``seed`` and ``offset`` alone, whatever was asked before; nothing is drawn
    from global generators."""
    used, fresh = copy.deepcopy(on.task), copy.deepcopy(on.task)
    with untouched_global_noise():
        used.problems(on.count, seed=other)
        found = used.problems(on.count, seed=seed)
    expected = fresh.problems(on.count, seed=seed)
    names, alone = ([p.id for p in problems] for problems in (found, expected))
    require(found == expected, f"{names} after another list, {alone} alone")


@kit.law()
def problems_can_be_told_apart(on: TaskBench) -> None:
    """``problems(n)`` gives n Problems with a text each and ids that differ: results are kept by id."""
    found: Any = on.take(on.count, 0)
    strange = [p for p in found if not isinstance(p, Problem)]
    require(not strange, f"problems gave {strange[:1]!r}, which is no nabla.problems.problem.Problem")
    require(len(found) == on.count, f"{len(found)} problems instead of {on.count}")
    for problem in found:
        require(isinstance(problem.id, str) and problem.id, f"the id {problem.id!r} is no name")
        require(isinstance(problem.prompt, str) and problem.prompt.strip(), f"problem {problem.id} is empty")
        gold: Any = problem.gold
        require(gold is None or isinstance(gold, str), f"gold answer {gold!r} of {problem.id} is no text")
    twice = {p.id for p in found if sum(p.id == q.id for q in found) > 1}
    require(not twice, f"several problems have the id {sorted(twice)[:1]}")


@kit.law(seed=_orders, n=st.integers(1, FEW), offset=st.integers(0, FEW - 1))
def a_longer_list_contains_a_shorter_one(on: TaskBench, seed: int | None, n: int, offset: int) -> None:
    """``problems(n, offset=k)`` are those from k to k + n of the seed's order: a run can be made longer."""
    offset %= on.count
    n = min(n, on.count - offset)
    found, whole = on.take(n, seed, offset), on.take(on.count, seed)
    expected = whole[offset : offset + n]
    require(
        found == expected,
        f"{[p.id for p in found]} instead of {[p.id for p in expected]}, from {[p.id for p in whole]}",
    )


@kit.law()
def a_range_that_cannot_be_is_an_error(on: TaskBench) -> None:
    """``n`` below 1 and a negative ``offset`` are a ConfigError (``check_range``)."""
    for arguments in ({"n": 0}, {"n": -1}, {"n": 1, "offset": -1}):
        try:
            on.task.problems(**arguments)  # type: ignore[arg-type]
        except ConfigError:
            continue
        except Exception as error:
            raise Violation(f"{arguments}: {error!r} instead of a ConfigError") from error
        raise Violation(f"problems with {arguments} is no error")


@kit.law(number=st.integers(0, FEW - 1), response=responses)
def every_response_is_right_or_wrong(on: TaskBench, number: int, response: str) -> None:
    """``grade`` gives a bool for any text, the same each time; where the task cannot tell right from wrong
    (``grades``) it is a ConfigError."""
    problem = on.few[number % on.count]
    if not on.graded:
        try:
            on.task.grade(problem, response)
        except ConfigError:
            return
        raise Violation("grades says that right cannot be told from wrong, but grade tells it")
    with untouched_global_noise():
        first: Any = on.task.grade(problem, response)
        second = on.task.grade(problem, response)
    require(isinstance(first, bool), f"grade gave {first!r}, a {type(first).__name__}")
    require(first == second, f"the same response was graded {first} and then {second}")


@kit.law(number=st.integers(0, FEW - 1))
def a_right_answer_is_right_and_nothing_is_wrong(on: TaskBench, number: int) -> None:
    """The gold answer (or what ``right`` gives) is graded right, an empty response wrong."""
    problem = on.few[number % on.count]
    if not on.graded:
        return
    require(not on.task.grade(problem, ""), f"an empty response to {problem.id} is right")
    answer = on.right(problem)
    if answer is not None:
        verdicts = [on.task.grade(problem, form.format(answer)) for form in FORMS]
        require(any(verdicts), f"{answer!r} is graded wrong for {problem.id}, in every form")


@kit.law(texts=st.lists(responses, min_size=1, max_size=4))
def many_are_graded_as_one(on: TaskBench, texts: Sequence[str]) -> None:
    """``grade_all`` says of each (problem, response) what ``grade`` says, in their order."""
    if not on.graded:
        return
    pairs = [(on.few[i % on.count], text) for i, text in enumerate([*texts, *texts])]
    pairs += [(problem, on.right(problem) or "") for problem in on.few]
    found = on.task.grade_all(pairs)
    expected = [on.task.grade(*pair) for pair in pairs]
    require(list(found) == expected, f"{list(found)} together, {expected} one by one")
