"""The dense reference gives what nabla gives: the benchmark compares equal work."""

from __future__ import annotations

from dataclasses import replace
from types import MethodType
from typing import Any

import pytest
import torch

from nabla.engine.reports import Refinement
from nabla.schedulers.cosine import Cosine
from nabla.study.benchmark.bench import drive
from nabla.study.benchmark.dense import dense_problem, load_dense
from nabla.study.benchmark.models import Workbench
from nabla.study.benchmark.settings import SETTINGS, Shape
from nabla.testing.tiny import exact_norm

SHAPE = Shape(vocab=40, hidden=16, layers=2, heads=2, kv_heads=1, head_dim=8, intermediate=24)
SETTING = replace(SETTINGS["small"], lm=SHAPE, rm=SHAPE, prefix=9, response=11, steps=8, dtype="float64")
#: Learning rates with and without flips of an argmax.
CALM, WILD = (0.01, 0.001), (1.5, 0.1)


@pytest.fixture(scope="module")
def bench() -> Workbench:
    """Models that compute in float64 throughout."""
    made = Workbench(SETTING)
    for model in (made.lm.model, made.reward.model):
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.forward = MethodType(exact_norm, module)
    return made


@pytest.mark.parametrize("objective", ["likelihood", "reward"])
@pytest.mark.parametrize("rates", [CALM, WILD], ids=["calm", "wild"])
@pytest.mark.parametrize("rows", ["first", "all"])
def test_refined_logits_agree(
    bench: Workbench, rows: str, rates: tuple[float, float], objective: str
) -> None:
    dense: Any = load_dense()
    dto = bench.dto(
        objective, rows={"name": rows, "support": None}, learning_rate=Cosine(*rates)
    )
    prompt, text = bench.prompt(), bench.text(3)

    async def work(session: Any) -> Refinement:
        (trajectory,) = await session.read([text], bench.sampling)
        return await dto.refine(trajectory, session)  # type: ignore[no-any-return]

    (ours,) = drive(bench.engine(), [prompt], work)
    problem = dense_problem(dense, bench, prompt, text, objective)
    theirs = dense.refine(problem, steps=SETTING.steps, rows=rows, rates=rates)
    count = len(ours.logits)
    assert count == (1 if rows == "first" else len(text))
    assert float((ours.logits - ours.reference.logits).abs().max()) > 1e-3  # something moved
    torch.testing.assert_close(ours.logits, theirs.logits[:count], rtol=0, atol=1e-9)
    assert ours.recomputed == theirs.recomputed
    if rates == CALM and rows == "first":
        assert ours.recomputed == 1
    if rates == WILD and rows == "all":
        assert ours.recomputed > 1


def test_selectors_choose_the_same_positions(bench: Workbench) -> None:
    dense: Any = load_dense()
    prompt, text = bench.prompt(), bench.text(4)

    async def work(session: Any) -> torch.Tensor:
        (trajectory,) = await session.read([text], bench.sampling)
        norms, _ = await session.gradient_norms(trajectory, bench.dto().objective)
        return norms  # type: ignore[no-any-return]

    (norms,) = drive(bench.engine(), [prompt], work)
    problem = dense_problem(dense, bench, prompt, text, "likelihood")
    threshold = float(norms.median()) + 1e-9
    chosen = dense.select(problem, threshold=threshold)
    assert 0 < int(chosen.sum()) < len(text)
    assert torch.equal(chosen, norms > threshold)
