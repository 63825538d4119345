"""What one run of a method on a problem becomes on disk: plain rows.

A run is one row of kind ``run`` and one of kind ``answer`` per (unit, value) of the ladder. All that a
clock or a machine decides stands under ``timing``, but that answers under a budget in seconds are decided
by the clock themselves: :func:`reproducible` drops both, and the rest is the same in every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nabla.core.costs import Cost, Usage
from nabla.core.errors import NablaError
from nabla.core.solution import Checkpoint, Revision, Solution, answer_within

#: Parts of a usage that do not depend on the machine.
COUNTED = (
    *("calls", "decode_steps", "forward_passes", "backward_passes"),
    *("tokens", "flops", "critical_steps"),
)
#: What a budget may be in, and the critical path.
BRIEF = ("calls", "tokens", "flops", "critical_steps")


def rows(
    labels: dict[str, Any],
    outcome: Solution | NablaError,
    grades: Mapping[str, bool | None],
    ladder: Sequence[tuple[str, float]],
) -> list[dict[str, Any]]:
    """All rows of a run.

    Args:
        labels: task, method, seed and problem.
        outcome: an error makes the run wrong, and the answers at the budgets that were not spent when it
            happened; an answer that had been handed in within a smaller one is kept.
        grades: response → whether it is right, for all of :func:`responses`; None where nobody knows.
        ladder: (unit, value) of the answers.
    """
    if isinstance(outcome, NablaError):
        return _failed(labels, outcome, grades, ladder)
    checkpoints = outcome.checkpoints or (_last(outcome),)
    answers = [
        {**labels, "kind": "answer", "unit": unit, "value": value, **_answer(
            answer_within(checkpoints, unit, value),
            exhausted=float(getattr(outcome.cost.total, unit)) >= value,
            grades=grades,
        )}
        for unit, value in ladder
    ]  # fmt: skip
    return [_run(labels, outcome, checkpoints[0].usage, grades), *answers]


def responses(outcome: Solution | NablaError) -> list[str]:
    """Every different text of a run that a record says right or wrong of."""
    if isinstance(outcome, NablaError):
        return list(dict.fromkeys(c.response for c in outcome.checkpoints))
    revised = [text for r in outcome.revisions for text in (r.old_response, r.new_response)]
    texts = [*(c.response for c in outcome.checkpoints), *revised, outcome.response]
    return list(dict.fromkeys(texts))


def ungraded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a task that cannot tell right from wrong, which say neither; grades are None there."""
    return [{**row, "correct": None} for row in rows]


def prepared(rows: Sequence[dict[str, Any]], flops: float) -> list[dict[str, Any]]:
    """Rows with what the method spent before the first problem of all, where it did: in no problem's cost."""
    return [{**row, "prepared_flops": flops} if flops and row["kind"] == "run" else row for row in rows]


def scored(rows: Sequence[dict[str, Any]], scores: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Rows with the partial score of each answer, where the task gives one; else as they are."""
    if all(score is None for score in scores.values()):
        return list(rows)
    return [{**row, "score": scores.get(row["response"])} for row in rows]


def reproducible(row: dict[str, Any]) -> dict[str, Any] | None:
    """A row without what the clock decided; None for an answer under a budget in seconds."""
    if row.get("unit") == "seconds":
        return None
    return {key: value for key, value in row.items() if key != "timing"}


def _run(
    labels: dict[str, Any], solution: Solution, first: Usage, grades: Mapping[str, bool | None]
) -> dict[str, Any]:
    return {
        **labels,
        "kind": "run",
        "response": solution.response,
        "length": len(solution.tokens),
        "correct": grades[solution.response],
        "reward": solution.reward,
        "finished": solution.finished,
        "error": None,
        "candidates": solution.candidates,
        "answers": max(len(solution.checkpoints), 1),
        "accepted": sum(r.accepted for r in solution.revisions),
        "rejected": sum(not r.accepted for r in solution.revisions),
        "revisions": [_revision(r, grades) for r in solution.revisions],
        "first": _counted(first),
        **_cost(solution.cost, first.seconds),
    }


def _answer(
    found: Checkpoint | None, *, exhausted: bool, grades: Mapping[str, bool | None]
) -> dict[str, Any]:
    """``exhausted``: the run went on at least until this budget; False where the method ended before."""
    return {
        "response": None if found is None else found.response,
        "correct": found is not None and grades[found.response],
        "reward": None if found is None else found.reward,
        "finished": None if found is None else found.finished,
        "error": None,
        "exhausted": exhausted,
        "cost": None if found is None else {name: getattr(found.usage, name) for name in BRIEF},
        "timing": {
            "seconds": None if found is None else found.usage.seconds,
            "peak_bytes": None if found is None else found.usage.peak_bytes,
        },
    }


def _failed(
    labels: dict[str, Any],
    error: NablaError,
    grades: Mapping[str, bool | None],
    ladder: Sequence[tuple[str, float]],
) -> list[dict[str, Any]]:
    what = {"class": type(error).__name__, "message": str(error)}
    empty = {"response": None, "correct": False, "reward": None, "finished": None, "error": what}
    cost = error.cost or Cost()
    run = {
        **labels,
        "kind": "run",
        "response": None, "length": 0, "correct": False, "reward": None, "finished": None,
        "error": what,
        "candidates": 0, "answers": 0, "accepted": 0, "rejected": 0, "revisions": [], "first": None,
        **_cost(cost, None),
    }
    answers = []
    for unit, value in ladder:
        exhausted = float(getattr(cost.total, unit)) >= value
        kept = answer_within(error.checkpoints, unit, value) if exhausted else None
        if kept is not None:  # with this budget the run had ended before the error
            found = _answer(kept, exhausted=True, grades=grades)
        else:
            timing = {"seconds": None, "peak_bytes": None}
            found = {**empty, "exhausted": exhausted, "cost": None, "timing": timing}
        answers.append({**labels, "kind": "answer", "unit": unit, "value": value, **found})
    return [run, *answers]


def _revision(revision: Revision, grades: Mapping[str, bool | None]) -> list[Any]:
    """[position, old reward, new reward, accepted, old right, new right]."""
    return [
        revision.position,
        revision.old_reward,
        revision.new_reward,
        revision.accepted,
        grades[revision.old_response],
        grades[revision.new_response],
    ]


def _counted(usage: Usage) -> dict[str, Any]:
    return {name: getattr(usage, name) for name in COUNTED}


def _cost(cost: Cost, first_seconds: float | None) -> dict[str, Any]:
    total = cost.total
    repeated = {"repeated": _counted(cost.repeated)} if cost.repeated.calls else {}
    return {
        "cost": _counted(total),
        "phases": {phase: _counted(usage) for phase, usage in cost.phases.items() if usage.calls},
        "counts": dict(cost.counts),
        **repeated,
        "timing": {
            "seconds": total.seconds,
            "first_seconds": first_seconds,
            "peak_bytes": total.peak_bytes,
            "phases": {phase: usage.seconds for phase, usage in cost.phases.items()},
        },
    }


def _last(solution: Solution) -> Checkpoint:
    """For a method that reports nothing on the way: its answer exists at its full cost."""
    return Checkpoint(
        solution.cost.total, solution.tokens, solution.response, solution.reward, solution.finished
    )
