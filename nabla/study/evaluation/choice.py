"""Which methods a figure shows: eight lines can be told apart, twenty-four cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nabla.core.errors import ConfigError, require_one_of
from nabla.launch.figures import LINES
from nabla.methods.base import methods as registry
from nabla.study.evaluation.summary import metric_of

#: Of each kind at most, before the rest is filled up by level.
CONTROLS, BASELINES = 2, 4
#: What the controls are of.
CONTROLLED = "nabla-reasoner"


def choose(summary: Mapping[str, Any], wanted: Sequence[str] | None = None) -> list[str]:
    """Labels in the order of the summary: those that are named, else all if they are few, else the reference,
    the best, the best controls (one of each registered name, with what they are of), the best baselines, and
    the best of the rest.

    Raises ConfigError for a label that the summary does not have.
    """
    known = labels(summary)
    if wanted is not None:
        if not wanted:
            raise ConfigError("No method is named", fix=f"Methods: {', '.join(known)}.")
        for label in wanted:
            require_one_of(label, known, "There are no results of this method", "Methods")
        return [label for label in known if label in wanted]
    if len(known) <= LINES:
        return known
    levels = ranking(summary)
    ordered = sorted(known, key=lambda label: -levels.get(label, float("-inf")))
    picked = dict.fromkeys([*(x for x in (summary.get("reference"),) if x in known), ordered[0]])
    names = summary.get("names", {})
    for kind, most in ((".controls.", CONTROLS), (".baselines.", BASELINES)):
        seen: set[str] = set()
        for label in ordered:
            name = names.get(label, label)
            if len(seen) < most and name not in seen and kind in _home(name):
                seen.add(name)
                picked[label] = None
                if kind == ".controls.":
                    picked |= dict.fromkeys(_controlled(label, names, ordered))
    picked |= dict.fromkeys(ordered)
    return [label for label in known if label in list(picked)[:LINES]]


def _controlled(control: str, names: Mapping[str, str], ordered: Sequence[str]) -> list[str]:
    """∇-Reasoner with the words of the control's label, else the best one: alone a control's line says
    nothing."""
    own = [label for label in ordered if names.get(label, label) == CONTROLLED]
    words = control.removeprefix(names.get(control, control))
    return [label for label in own if words and label.endswith(words)][:1] or own[:1]


def labels(summary: Mapping[str, Any]) -> list[str]:
    """All methods of a summary, in its order."""
    return list(dict.fromkeys(row["method"] for row in (*summary["rows"], *summary.get("runs", ()))))


def ranking(summary: Mapping[str, Any]) -> dict[str, float]:
    """Method → its level at the first unit's largest budget (of whole runs without one), mean over tasks."""
    key = metric_of(summary).key
    found: dict[str, list[float]] = {}
    for row in at_top(summary):
        if row[key] is not None:
            found.setdefault(row["method"], []).append(row[key])
    return {label: sum(own) / len(own) for label, own in found.items()}


def at_top(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Rows of the first unit's largest budget; of whole runs where there is none."""
    rows = summary["rows"]
    if not rows:
        return list(summary.get("runs", ()))
    unit = rows[0]["unit"]
    top = max(row["value"] for row in rows if row["unit"] == unit)
    return [row for row in rows if (row["unit"], row["value"]) == (unit, top)]


def _home(name: str) -> str:
    """Module of a registered method; nothing for a name that is none."""
    return registry[name].__module__ if name in registry else ""
