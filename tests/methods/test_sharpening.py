"""Sharpening reaches the KL it is given, or says that it cannot."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nabla.core.errors import ConfigError
from nabla.methods.base import methods
from nabla.methods.sources import RowSource, sharpened
from nabla.methods.sweep import Sweep
from nabla.objectives.kl import kl_rows
from tests.running import SAMPLING, assert_anytime, assert_same_alone_and_together, run, tiny_engine

LOGITS = arrays.arrays("float64", st.integers(2, 12), elements=st.floats(-15, 15))


def method(**changes):
    spec = {"dto": {"steps": 3, "learning_rate": 0.5}, "sampling": SAMPLING, "max_rollouts": 4}
    proposal = {"name": "sample", "temperature": 1.5}
    return methods.build({"name": "kl-matched-sharpening", **spec, "proposal": proposal, **changes})


@given(logits=LOGITS, share=st.floats(1e-6, 0.99), blocked=st.booleans())
def test_the_kl_is_matched(logits, share, blocked):
    z = torch.tensor(logits)
    if blocked:
        z = torch.cat([z, torch.tensor([-math.inf], dtype=z.dtype)])
    top = z.max()
    second = z[z < top].max() if bool((z[z > -math.inf] < top).any()) else None
    assume(second is not None and float(top - second) > 1e-3)
    limit = -float(z.softmax(-1)[z == top].sum().log())
    assume(limit > 1e-5)
    found, reached = sharpened(z, share * limit)
    assert reached
    assert float(kl_rows(found[None], z[None])) == pytest.approx(share * limit, abs=1e-6)
    assert float(kl_rows(found[None], z[None])) == pytest.approx(share * limit, rel=1e-4, abs=1e-12)
    assert torch.equal(found == -math.inf, z == -math.inf)
    order = z.argsort(stable=True)
    assert (found[order].diff()[torch.isfinite(found[order].diff())] >= 0).all()  # the ranking stays


@given(logits=LOGITS, excess=st.floats(1e-6, 5))
def test_beyond_the_argmax_there_is_the_argmax(logits, excess):
    z = torch.tensor(logits)
    limit = -float(z.softmax(-1)[z == z.max()].sum().log())
    found, reached = sharpened(z, limit + excess)
    assert not reached
    assert torch.equal(found > -math.inf, z == z.max())


def test_no_kl_no_sharpening():
    z = torch.tensor([1.0, 0.0, -2.0])
    found, reached = sharpened(z, 0.0)
    assert reached
    assert torch.equal(found, z)


def test_each_row_of_a_run_has_the_refined_rows_kl():
    seen = []

    source = method().rows

    class Watched(RowSource):
        async def row(self, session, trajectory, ahead):
            row = await source.row(session, trajectory, ahead)
            refined = await source.dto.refine(trajectory, session)  # deterministic: the same again
            kl = kl_rows(row.logits[None], row.reference.logits[:1])
            seen.append((float(kl), float(refined.kl[0]), bool((row.logits == -math.inf).any())))
            return row

    run(tiny_engine(), Sweep(Watched(), sampling=SAMPLING, max_rollouts=4))
    assert len(seen) > 5
    reached = [(found, target) for found, target, limit in seen if not limit]
    assert reached
    assert max(target for _, target in reached) > 1e-3
    for found, target in reached:
        assert found == pytest.approx(target, abs=1e-6)


def test_limits_are_counted():
    far = method(dto={"steps": 20, "learning_rate": 5.0}, selector="all")
    with_limits = run(tiny_engine(), far)
    assert any(s.cost.counts.get("sharpening_limits", 0) for s in with_limits)


def test_alone_and_together():
    assert_same_alone_and_together(method(rounds=2))


def test_under_a_budget():
    assert_anytime(method(), (60.0, 150.0))


def test_a_missing_reward():
    with pytest.raises(ConfigError, match="differentiable reward"):
        method().check(tiny_engine(reward=False))
