"""Changes to a base evaluation by dotted path: ``method.dto.steps``, ``engine.batch_size``, ``tasks.*.lm``.

What a problem is and which problems and seeds there are cannot be changed: all points are paired by these.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from nabla.core.errors import ConfigError, nearest
from nabla.launch.config.reader import conform, make, merged, put, require_known
from nabla.launch.config.resolve import resolve
from nabla.launch.config.slots import slots
from nabla.study.evaluation.config import METHOD, OPTIONS, EvaluationConfig, TaskSetup

#: What a path may begin with, and how it goes on.
ROOTS = {
    "method": "method, method.rm (name of the task's reward), or method.ARGUMENT",
    "engine": "engine.ARGUMENT",
    "tasks": "tasks.LABEL.lm (or rewards, lm_arguments, rm_arguments, system); * for every label",
    "shard": "shard",
    "precision": "precision",
    "accelerator": "accelerator",
}
_MODELS = tuple(f.name for f in fields(TaskSetup) if f.name not in ("task", "shared"))


@dataclass(frozen=True)
class PointConfig(EvaluationConfig):
    """An evaluation of one method. Without budgets the method runs by its own rule (so many sweeps, so many
    samples), and only whole runs are recorded."""

    NEEDS = ("tasks", "methods", "seeds")


def is_path(name: str) -> bool:
    """Whether a name begins like a path."""
    return name.partition(".")[0] in ROOTS


def apply(base: EvaluationConfig, overrides: Mapping[str, Any]) -> EvaluationConfig:
    """The base with values put in at dotted paths, shorter paths first.

    Raises ConfigError for an unknown path (the nearest known one is suggested) and for what would
    change the problems.
    """
    tree: dict[str, Any] = {}
    for path in sorted(overrides, key=lambda path: path.count(".")):
        if not is_path(path):
            raise unknown(path)
        put(tree, path.split("."), overrides[path])
    if "method" in tree:
        tree["methods"] = {METHOD: _method(base, tree.pop("method"))}
    if "engine" in tree:
        tree["engine"] = merged(base.engine, _mapping(tree["engine"], "engine"))
    if "tasks" in tree:
        tree["tasks"] = _tasks(base, _mapping(tree["tasks"], "tasks"))
    return replace(base, **tree)


def unknown(path: str) -> ConfigError:
    """For a path that begins with nothing known."""
    root, dot, rest = path.partition(".")
    hint = nearest(root, ROOTS, dot + rest)
    if any(root in inspect.signature(method).parameters for method in slots()["methods"].values()):
        hint = f"Did you mean {f'method.{path}'!r}? "
    return ConfigError(
        f"There is nothing to change at {path!r}", fix=f"{hint}Paths are: {'; '.join(ROOTS.values())}."
    )


def _method(base: EvaluationConfig, change: Any) -> dict[str, Any]:
    """The method's spec: what the base says of it, and what is changed; all else stays open to the tasks."""
    spec = base.spec(METHOD)
    change = {"name": change} if isinstance(change, str) else _mapping(change, METHOD)
    options = {key: spec[key] for key in OPTIONS if key in spec}
    options |= {"rm": change.pop("rm")} if "rm" in change else {}
    resolved = resolve(slots()["methods"], base.over(base.shared, METHOD), change, METHOD)
    return {key: value for key, value in resolved.items() if key in {**spec, **change}} | options


def _tasks(base: EvaluationConfig, change: Mapping[str, Any]) -> dict[str, TaskSetup]:
    require_known(("*", *base.tasks), change, "The base", path="tasks", noun="task")
    found = {}
    for label, setup in base.tasks.items():
        path = f"tasks.{label}"
        own = merged(_mapping(change.get("*", {}), "tasks.*"), _mapping(change.get(label, {}), path))
        require_known(_MODELS, own, "What can change between points of the same problems", path=path)
        found[label] = make(TaskSetup, merged(vars(setup), own), path=path)
    return found


def _mapping(value: Any, path: str) -> dict[str, Any]:
    found: dict[str, Any] = conform(dict[str, Any], value, path)
    return found
