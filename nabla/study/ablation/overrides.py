"""Changes to a base evaluation by dotted path: ``method.dto.steps``, ``engine.batch_size``, ``tasks.*.lm``.

What a problem is and which problems and seeds there are cannot be changed: all points are paired by these.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from nabla.core.errors import ConfigError
from nabla.launch.config.reader import conform, make, merged, nearest, put
from nabla.launch.config.resolve import resolve
from nabla.launch.config.slots import slots
from nabla.study.evaluation.config import METHOD, EvaluationConfig, TaskSetup

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
        if not is_path(path):
            raise unknown(path)
        put(tree, path.split("."), overrides[path])
    if "method" in tree:
        tree["methods"] = {METHOD: _method(base, tree.pop("method"))}
    if "engine" in tree:
        tree["engine"] = merged(base.engine, _mapping(tree, "engine"))
    if "tasks" in tree:
        tree["tasks"] = _tasks(base, _mapping(tree, "tasks"))
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
    registry, spec = slots()["methods"], base.methods[METHOD]
    given = {"name": spec} if isinstance(spec, str) else spec
    change = {"name": change} if isinstance(change, str) else _mapping({"method": change}, "method")
    options = {key: given[key] for key in ("rm", "tasks") if key in given}
    options |= {"rm": change["rm"]} if "rm" in change else {}
    known = inspect.signature(registry[given["name"]]).parameters
    given = {key: value for key, value in given.items() if key not in options}
    change = {key: value for key, value in change.items() if key != "rm"}
    given = {**{key: value for key, value in base.shared.items() if key in known}, **given}
    resolved = resolve(registry, given, change, path=METHOD)
    return {**{k: v for k, v in resolved.items() if k in given or k in change}, **options}


def _tasks(base: EvaluationConfig, change: Mapping[str, Any]) -> dict[str, TaskSetup]:
    for label in change:
        if label != "*" and label not in base.tasks:
            fix = f"{nearest(label, base.tasks)}Tasks: {', '.join(base.tasks)}; * is every one."
            raise ConfigError(f"There is nothing to change at 'tasks.{label}'", fix=fix)
    found = {}
    for label, setup in base.tasks.items():
        own = merged(*(_mapping(change, key, "tasks.") for key in ("*", label)))
        for key in own:
            if key not in _MODELS:
                raise ConfigError(
                    f"Not to be changed at 'tasks.{label}': all points are of the same problems",
                    got=key,
                    fix=f"{nearest(key, _MODELS)}What can be changed: {', '.join(_MODELS)}.",
                )
        found[label] = make(TaskSetup, merged(vars(setup), own), path=f"tasks.{label}")
    return found


def _mapping(tree: Mapping[str, Any], key: str, above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = conform(dict[str, Any], tree.get(key, {}), above + key)
    return found
