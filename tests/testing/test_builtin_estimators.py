"""Every registered estimator keeps the laws of its slot; new ones are covered as they are registered."""

from __future__ import annotations

import pytest

from nabla.estimators.base import estimators
from nabla.estimators.soft import SoftEmbedding
from nabla.estimators.stale import Stale
from nabla.estimators.straight_through import StraightThrough, StraightThroughIdentity
from nabla.testing import check_estimator, laws_of, parametrize_with_checks

ARGUMENTS = {"stale": {"estimator": "gumbel-softmax", "bound": 0.5}}
EVERY = [
    estimators.build({"name": name, **ARGUMENTS.get(name, {})})
    for name in estimators
    if estimators[name].__module__.startswith("nabla.")
]


@parametrize_with_checks([*EVERY, Stale(StraightThrough(0.4), 2.0)])
def test_built_in_estimators(component, check):
    check(component)


@pytest.mark.parametrize(
    ("estimator", "surrogate"),
    [
        (StraightThrough(0.7), lambda z: (z / 0.7).softmax(-1)),
        (SoftEmbedding(0.7), lambda z: (z / 0.7).softmax(-1)),
        (StraightThroughIdentity(), lambda z: z),
    ],
    ids=["softmax", "soft", "identity"],
)
def test_closed_forms_can_be_given(estimator, surrogate):
    check_estimator(estimator, surrogate=surrogate, laws=["backward is the given closed form"])


def test_laws_apply_where_they_are_declared():
    names = {
        e: {law.name for law in laws_of(estimators.build(e))} for e in ("soft-embedding", "straight-through")
    }
    assert "hard rows are exactly one hot" not in names["soft-embedding"]
    assert "hard rows are exactly one hot" in names["straight-through"]
    assert "temperature has its limits" in names["soft-embedding"]
    assert not any("draws follow the softmax" in found for found in names.values())
    identity = {law.name for law in laws_of(StraightThroughIdentity())}
    assert "gradients of a row sum to zero" not in identity
    assert "backward is the declared rule" in identity
