"""A solved problem as plain data for the page: from a trace, from a row of solutions, from a Solution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nabla.core.files import reading
from nabla.core.solution import Solution
from nabla.launch.trace.texts import number
from nabla.launch.view.lines import Traced
from nabla.launch.view.steps import Steps
from nabla.launch.view.texts import Nodes

Problem = dict[str, Any]


def of_trace(traced: Traced, row: Mapping[str, Any] | None = None) -> Problem:
    """From the lines of a trace.

    Args:
        traced: the problem.
        row: of the run's solutions, which may know the answer and a verdict.

    Raises ConfigError for damaged lines.
    """
    what = f"The trace of problem {traced.about['problem']!r}"
    with reading(what, fix="Solve again with --trace."):
        return _of_trace(traced, row or {})


def _of_trace(traced: Traced, row: Mapping[str, Any]) -> Problem:
    about, nodes = traced.about, Nodes()
    steps, end = Steps(nodes), dict[str, Any]()
    for line in traced.lines:
        if line["event"] in ("solution", "exception"):
            end = line
        else:
            steps.take(line)
    final = nodes.find(end["ids"]) if "ids" in end else None
    if final is None and "response" in end:
        final = nodes.plain(end["response"])
    cost = end.get("cost", {})
    return {
        "id": about["problem"],
        "method": about.get("method", ""),
        "prompt": _text(about["prompt"]),
        **({"system": about["system"]} if "system" in about else {}),
        **_verdict(row),
        **{name: end[name] for name in ("response", "reward", "finished", "error") if name in end},
        "final": final,
        "revised": end.get("revised_positions", []),
        "steps": steps.steps,
        "refined": steps.refined,
        "norms": steps.norms,
        "phases": cost.get("phases", {}),
        "counts": cost.get("counts", {}),
        "total": cost.get("total", {}),
        **nodes.packed(),
    }


def of_row(row: Mapping[str, Any], details: Mapping[str, Any] | None = None) -> Problem:
    """From a solution as ``solutions.jsonl`` has it: its proposals, without what only a trace knows.

    Args:
        row: ``Solution.to_dict()``, with a verdict where there is one.
        details: of the answer's tokens, where they are known: columns of
            :data:`~nabla.launch.view.texts.COLUMNS`.

    Raises ConfigError for a row that is none.
    """
    with reading("A row of the solutions", fix="Solve again."):
        return _of_row(row, details)


def _of_row(row: Mapping[str, Any], details: Mapping[str, Any] | None) -> Problem:
    nodes = Nodes()
    steps = [_revision(nodes, revision) for revision in row["revisions"]]
    if details:
        final = max(nodes.texts, default=-1) + 1
        nodes.texts[final] = nodes.new(details, len(details["piece"]))
        nodes.ids[final] = list(row["tokens"])
    else:
        final = nodes.plain(_text(row["response"]))
    nodes.rewards[final] = row["reward"]
    cost = row["cost"]
    return {
        "id": row["id"],
        "method": row["method"],
        "prompt": _text(row["prompt"]),
        **_verdict(row),
        **{name: row[name] for name in ("response", "reward", "finished")},
        "final": final,
        "revised": row["revised_positions"] if details else [],
        "steps": steps,
        "refined": {},
        "norms": {},
        **{name: cost[name] for name in ("phases", "counts", "total")},
        **nodes.packed(),
    }


def of_solution(solution: Solution) -> Problem:
    """From a solution in memory, with what is known of its tokens."""
    details = solution.details
    if details is None or not solution.tokens:
        return of_row(solution.to_dict())
    columns = {
        "piece": details.pieces,
        "log_prob": [number(x) for x in details.log_probs],
        "entropy": [number(x) for x in details.entropy],
        "value": [number(x) for x in details.values],
    }
    return of_row(solution.to_dict(), columns if details.pieces else None)


def _revision(nodes: Nodes, revision: Mapping[str, Any]) -> dict[str, Any]:
    before, after = nodes.plain(revision["old_response"]), nodes.plain(revision["new_response"])
    nodes.rewards |= {before: revision["old_reward"], after: revision["new_reward"]}
    return {
        "kind": "proposal",
        "position": revision["position"],
        "text": before,
        "proposed": after,
        "spent": None,
        "old": revision["old_token"],
        "new": revision["new_token"],
        "reward": revision["old_reward"],
        "proposed_reward": revision["new_reward"],
        "outcome": "accepted" if revision["accepted"] else "rejected",
        "whole": True,
    }


def _verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("correct", "answer", "task") if name in row}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
