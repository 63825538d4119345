"""Every slot and the module of its registry."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from nabla.core.registry import Registry

#: Slot → module of its ``base.py``, which holds the registry.
SLOTS = {
    "acceptance": "nabla.acceptance.base",
    "anchors": "nabla.estimators.anchors.base",
    "answers": "nabla.problems.answers.base",
    "boundaries": "nabla.rollouts.boundaries.base",
    "callbacks": "nabla.launch.callbacks.base",
    "estimators": "nabla.estimators.base",
    "methods": "nabla.methods.base",
    "moves": "nabla.moves.base",
    "objectives": "nabla.objectives.base",
    "parameterizations": "nabla.refinement.parameterizations.base",
    "proposals": "nabla.proposals.base",
    "rewards": "nabla.rewards.base",
    "rollouts": "nabla.rollouts.base",
    "rows": "nabla.refinement.rows.base",
    "schedulers": "nabla.schedulers.base",
    "screens": "nabla.screens.base",
    "selectors": "nabla.selectors.base",
    "tasks": "nabla.problems.tasks.base",
}


@cache
def slots() -> dict[str, Registry[Any]]:
    """Every slot's registry by name."""
    found: dict[str, Registry[Any]] = {}
    for slot, module in SLOTS.items():
        for value in vars(importlib.import_module(module)).values():
            if isinstance(value, Registry) and value.slot == slot:
                found[slot] = value
    return found
