"""Changes to a base evaluation by dotted path: ``method.dto.steps``, ``engine.batch_size``, ``tasks.*.lm``.

What a problem is and which problems and seeds there are cannot be changed: all points are paired by these.
"""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from nabla.core.errors import ConfigError
from nabla.launch.config.resolve import resolve
from nabla.launch.config.slots import slots
from nabla.study.evaluation.config import EvaluationConfig, TaskSetup

#: Label of the one method of a point.
METHOD = "method"
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

    def __post_init__(self) -> None:
        if self.budgets:
            super().__post_init__()
        else:  # everything else is checked as ever
            EvaluationConfig(**{**vars(self), "budgets": {"calls": [1.0]}})


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
        keys = path.split(".")
        if keys[0] not in ROOTS:
            raise unknown(path)
        _put(tree, keys, copy.deepcopy(overrides[path]))
    changes: dict[str, Any] = {
        name: tree[name] for name in ("shard", "precision", "accelerator") if name in tree
    }
    if "method" in tree:
        changes["methods"] = {METHOD: _method(base, tree["method"])}
    if "engine" in tree:
        changes["engine"] = merged(base.engine, _mapping("engine", tree["engine"]))
    if "tasks" in tree:
        changes["tasks"] = _tasks(base, _mapping("tasks", tree["tasks"]))
    return replace(base, **changes)


def unknown(path: str) -> ConfigError:
    """For a path that begins with nothing known."""
    root, dot, rest = path.partition(".")
    near = difflib.get_close_matches(root, ROOTS, n=1)
    hint = f"Did you mean {near[0] + dot + rest!r}? " if near else ""
    if any(root in inspect.signature(method).parameters for method in slots()["methods"].values()):
        hint = f"Did you mean {f'method.{path}'!r}? "
    return ConfigError(
        f"There is nothing to change at {path!r}", fix=f"{hint}Paths are: {'; '.join(ROOTS.values())}."
    )


def _method(base: EvaluationConfig, change: Any) -> dict[str, Any]:
    """The method's spec: what the base says of it, and what is changed; all else stays open to the tasks."""
    spec = base.methods[METHOD]
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    options = {key: given.pop(key) for key in ("rm", "tasks") if key in given}
    change = {"name": change} if isinstance(change, str) else dict(_mapping("method", change))
    if "rm" in change:
        options["rm"] = change.pop("rm")
    registry = slots()["methods"]
    name = change.get("name", given["name"])
    known = inspect.signature(registry[given["name"]]).parameters
    given = {**{key: value for key, value in base.shared.items() if key in known}, **given}
    resolved = resolve(registry, given, change)
    kept = {key: value for key, value in resolved.items() if key in given or key in change}
    return {**kept, "name": name, **options}


def _tasks(base: EvaluationConfig, change: Mapping[str, Any]) -> dict[str, TaskSetup]:
    for label in change:
        if label != "*" and label not in base.tasks:
            near = difflib.get_close_matches(label, base.tasks, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"There is nothing to change at 'tasks.{label}'",
                fix=f"{hint}Tasks: {', '.join(base.tasks)}; * is every one.",
            )
    found = {}
    for label, setup in base.tasks.items():
        own = merged(
            _mapping("tasks.*", change.get("*", {})), _mapping(f"tasks.{label}", change.get(label, {}))
        )
        for key in own:
            if key not in _MODELS:
                near = difflib.get_close_matches(key, _MODELS, n=1)
                hint = f"Did you mean {near[0]!r}? " if near and key != "task" else ""
                raise ConfigError(
                    f"Not to be changed at 'tasks.{label}': all points are of the same problems",
                    got=key,
                    fix=f"{hint}What can be changed: {', '.join(_MODELS)}.",
                )
        found[label] = TaskSetup(**merged(vars(setup), own))
    return found


def _put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        below = tree.get(key)
        if isinstance(below, str):  # a name, then an argument of it
            below = {"name": below}
        tree[key] = tree = below if isinstance(below, dict) else {}
    tree[keys[-1]] = value


def _mapping(path: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"What is put at {path!r} is a mapping, or goes to a longer path", got=value)
    return value


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, the new over the old."""
    found = dict(old)
    for key, value in new.items():
        both = isinstance(found.get(key), Mapping) and isinstance(value, Mapping)
        found[key] = merged(found[key], value) if both else value
    return found
