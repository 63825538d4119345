"""Contracts that users run on their own components, and what tests need: strategies and tiny models.

In the manner of scikit-learn's ``check_estimator``::

    from nabla.testing import check_estimator
    check_estimator(MyEstimator())              # raises ContractError: component, law, shrunk example

or under pytest, one test per law::

    @parametrize_with_checks([MyEstimator(), MySelector()])
    def test_contract(component, check):
        check(component)

    class TestMine(EstimatorContract):
        make = MyEstimator

The checks need hypothesis (``pip install 'nabla-reasoner[testing]'``); the tiny models do not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nabla.testing.errors import ContractError

if TYPE_CHECKING:
    from nabla.testing.acceptance import check_acceptance
    from nabla.testing.anchors import check_anchor
    from nabla.testing.answers import check_answers
    from nabla.testing.boundaries import check_boundary
    from nabla.testing.callbacks import check_callback
    from nabla.testing.contracts import (
        AcceptanceContract,
        AnchorContract,
        AnswersContract,
        BoundaryContract,
        CallbackContract,
        EstimatorContract,
        MethodContract,
        MoveContract,
        ObjectiveContract,
        ParameterizationContract,
        ProposalContract,
        RewardContract,
        RolloutContract,
        RowsContract,
        ScheduleContract,
        ScreenContract,
        SelectorContract,
        TaskContract,
        laws_of,
        parametrize_with_checks,
        replay,
    )
    from nabla.testing.estimators import check_estimator
    from nabla.testing.methods import check_method
    from nabla.testing.moves import check_move
    from nabla.testing.objectives import check_objective
    from nabla.testing.parameterizations import check_parameterization
    from nabla.testing.proposals import check_proposal
    from nabla.testing.rewards import check_reward
    from nabla.testing.rollouts import check_rollout
    from nabla.testing.rows import check_rows
    from nabla.testing.schedules import check_schedule
    from nabla.testing.screens import check_screen
    from nabla.testing.selectors import check_selector
    from nabla.testing.tasks import check_task
    from nabla.testing.tiny import TinyLM, TinyProcessReward, TinyReward, char_tokenizer

_HOMES = {
    "acceptance": ("check_acceptance",),
    "anchors": ("check_anchor",),
    "answers": ("check_answers",),
    "boundaries": ("check_boundary",),
    "callbacks": ("check_callback",),
    "contracts": (
        "AcceptanceContract",
        "AnchorContract",
        "AnswersContract",
        "BoundaryContract",
        "CallbackContract",
        "EstimatorContract",
        "MethodContract",
        "MoveContract",
        "ObjectiveContract",
        "ParameterizationContract",
        "ProposalContract",
        "RewardContract",
        "RolloutContract",
        "RowsContract",
        "ScheduleContract",
        "ScreenContract",
        "SelectorContract",
        "TaskContract",
        "laws_of",
        "parametrize_with_checks",
        "replay",
    ),
    "estimators": ("check_estimator",),
    "methods": ("check_method",),
    "moves": ("check_move",),
    "objectives": ("check_objective",),
    "parameterizations": ("check_parameterization",),
    "proposals": ("check_proposal",),
    "rewards": ("check_reward",),
    "rollouts": ("check_rollout",),
    "rows": ("check_rows",),
    "schedules": ("check_schedule",),
    "screens": ("check_screen",),
    "selectors": ("check_selector",),
    "tasks": ("check_task",),
    "tiny": ("TinyLM", "TinyProcessReward", "TinyReward", "char_tokenizer"),
}

__all__ = [
    "AcceptanceContract",
    "AnchorContract",
    "AnswersContract",
    "BoundaryContract",
    "CallbackContract",
    "ContractError",
    "EstimatorContract",
    "MethodContract",
    "MoveContract",
    "ObjectiveContract",
    "ParameterizationContract",
    "ProposalContract",
    "RewardContract",
    "RolloutContract",
    "RowsContract",
    "ScheduleContract",
    "ScreenContract",
    "SelectorContract",
    "TaskContract",
    "TinyLM",
    "TinyProcessReward",
    "TinyReward",
    "char_tokenizer",
    "check_acceptance",
    "check_anchor",
    "check_answers",
    "check_boundary",
    "check_callback",
    "check_estimator",
    "check_method",
    "check_move",
    "check_objective",
    "check_parameterization",
    "check_proposal",
    "check_reward",
    "check_rollout",
    "check_rows",
    "check_schedule",
    "check_screen",
    "check_selector",
    "check_task",
    "laws_of",
    "parametrize_with_checks",
    "replay",
]


def __getattr__(name: str) -> Any:
    """Imports what is asked for: the tiny models come without hypothesis, the strategies without models."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"nabla.testing.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
