"""Rows that are formed together, ahead of time or kept: the same numbers as one by one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nabla.core.prompt import Prompt
from nabla.estimators.anchors.base import argmax
from nabla.models import head as heads
from nabla.refinement.dto import DTO
from tests import tiny
from tests.cases import FINISHED, UNFINISHED, RewardSpec, case, close

BOTH = {"reward": 1.0, "likelihood": 0.3}


def sweep(ahead: bool, rows_ahead: int, *, positions: int = 6, **settings_: Any) -> tuple[list[Any], Any]:
    """Refinements of one text's positions in order, and the problem's costs after each."""
    c = case("llama", RewardSpec("llama", permute=1), rows_ahead=rows_ahead)
    dto = DTO(objective=c.objective(**BOTH), learning_rate=0.6, steps=5, **settings_)
    trajectory = c.trajectory(FINISHED)

    async def method(session: Any) -> Any:
        found, costs = [], []
        for position in range(positions):
            later = range(position + 1, len(trajectory)) if ahead else ()
            found.append(await dto.refine(trajectory.commit(position), session, later))
            costs.append(session.cost)
        return found, costs

    return c.run(method)


@pytest.mark.parametrize("parameterization", ["logits", "latents"])
@pytest.mark.parametrize("rows_ahead", [1, 2, 4, 100])
def test_rows_ahead_change_nothing_but_the_cost(rows_ahead: int, parameterization: str) -> None:
    plain, _ = sweep(False, 1, parameterization=parameterization)
    found, _ = sweep(True, rows_ahead, parameterization=parameterization)
    assert any(r.recomputed > 1 for r in plain), "no token flips: other texts' gradients go untested"
    for one, other in zip(plain, found, strict=True):
        close(other.logits, one.logits)
        close(other.reference.logits, one.reference.logits)
        assert other.recomputed == one.recomputed
        assert other.first.gradient_norm == pytest.approx(one.first.gradient_norm, rel=1e-9)


def test_a_position_whose_rows_were_formed_ahead_costs_no_product() -> None:
    c = case("llama", RewardSpec("llama", permute=1), seed=5, rows_ahead=4)
    dto = DTO(objective=c.objective(**BOTH), steps=20)  # gentle: no argmax flips
    trajectory = c.trajectory(FINISHED, 1)

    async def method(session: Any) -> Any:
        flops = []
        for position in range(6):
            later = range(position + 2, len(trajectory))
            await dto.refine(trajectory.commit(position), session, later)
            flops.append(session.cost.total.flops)
        return flops

    flops = c.run(method)
    steps = [b - a for a, b in itertools.pairwise(flops)]
    assert steps[0] > 0  # the text is used again: a block of four
    assert steps[1:4] == [0, 0, 0]
    assert steps[4] > 0  # the sixth position needs a block of its own


def test_blocks_shrink_to_what_a_chunk_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    usable = len(tiny.TOKENS)
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 2 * usable)
    c = case("llama")
    trajectory = c.trajectory(FINISHED)

    async def method(session: Any) -> Any:
        sizes = []
        for position in range(2):
            row = slice(position, position + 1)
            session.reference(trajectory, row, None, range(position + 1, len(trajectory)))
            sizes.append(len(session.rows.block.places))
        return sizes

    assert c.run(method) == [1, 2]


def test_kept_tables_serve_later_rows_of_the_same_text_only() -> None:
    c = case("llama")
    trajectory = c.trajectory(FINISHED)
    other = c.trajectory(UNFINISHED)

    async def method(session: Any) -> Any:
        whole = session.reference(trajectory, slice(0, len(trajectory)), 5)
        before = session.cost.total.flops
        part = session.reference(trajectory.commit(3), slice(3, len(trajectory)), 5)
        assert session.cost.total.flops == before
        foreign = session.reference(other, slice(3, len(other)), 5)
        assert session.cost.total.flops > before
        return whole, part, foreign

    whole, part, foreign = c.run(method)
    assert torch.equal(part.candidates, whole.candidates[3:])
    assert torch.equal(part.logits, whole.logits[3:])
    assert torch.equal(part.chosen, whole.chosen[3:])
    assert foreign.logits.shape[0] == len(other) - 3

    async def alone(session: Any) -> Any:
        return session.reference(other, slice(3, len(other)), 5)

    fresh = c.run(alone)
    close(foreign.logits, fresh.logits)


TEXTS = {"a": (FINISHED, 2), "b": ("33", 0), "c": (UNFINISHED, 5), "d": ("1=" + tiny.END, 1)}
VARIANTS: dict[str, dict[str, Any]] = {
    "hard, all rows": {"rows": "all"},
    "first row": {},
    "without the closed form": {"closed_form": False, "rows": "all"},
    "latents": {"parameterization": "latents", "rows": {"name": "all", "support": 7}},
    "soft": {"estimator": "soft-embedding", "rows": {"name": "all", "support": 7}},
    "noisy": {"estimator": "gumbel-straight-through", "rows": "all"},
    "held noise": {"anchor": "gumbel-posterior", "rows": "all"},
    "values": {"estimator": "score-function", "optimizer": "SGD"},  # Adam would blow up last digits
    "stale": {"estimator": {"name": "stale", "estimator": "soft-embedding", "bound": 0.3}},
    "Langevin": {"langevin": 0.5, "optimizer": "SGD", "rows": "all"},
    "an optimiser that mixes rows": {"optimizer": "Adafactor", "rows": "all"},
    "every elementwise rule": {"optimizer": "Adam", "rows": "all"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_together_is_as_alone(variant: str) -> None:
    """Several problems' rows are one parameter; none may feel the others."""
    prompts = [Prompt.of("1+2=" * (1 + i), id=name) for i, name in enumerate(TEXTS)]

    def run(chosen: list[Prompt]) -> list[Any]:
        c = case("llama", RewardSpec("gpt-neox", permute=1))
        dto = DTO(
            objective=c.objective(**BOTH, kl=0.1), steps=5, learning_rate=0.5, **VARIANTS[variant]
        )

        async def method(session: Any) -> Any:
            text, committed = TEXTS[session.prompt.id]
            trajectory = tiny.trajectory(c.lm, session.prompt, text, committed=committed)
            return await dto.refine(trajectory, session)

        return list(tiny.drive(c.engine, chosen, method))

    together = run(prompts)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = run([prompt])
        close(found.logits, alone.logits)
        close(found.kl, alone.kl)
        assert found.recomputed == alone.recomputed
        assert found.first.gradient_norm == pytest.approx(alone.first.gradient_norm, rel=1e-9)
        assert set(found.first.terms) == set(alone.first.terms)
        for name, report in found.first.terms.items():
            own = alone.first.terms[name]
            assert (report.unit, report.weight) == (own.unit, own.weight)
            assert report.value == pytest.approx(own.value, rel=1e-9, abs=1e-12)
            assert report.gradient_share == pytest.approx(own.gradient_share, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("rows", ["first", "all"])
@pytest.mark.parametrize("estimator", ["straight-through", "straight-through-identity"])
def test_the_closed_form_changes_nothing(estimator: str, rows: str) -> None:
    c = case("llama", RewardSpec("llama", permute=2, missing=("4", "5")))
    found = []
    for closed_form in (True, False):
        dto = DTO(
            estimator, c.objective(**BOTH), rows=rows, steps=12, learning_rate=0.8, closed_form=closed_form
        )

        async def method(session: Any, dto: DTO = dto) -> Any:
            return await dto.refine(c.trajectory(FINISHED, 2), session)

        found.append(c.run(method))
    close(found[0].logits, found[1].logits)
    assert found[0].recomputed == found[1].recomputed
    assert rows == "first" or found[0].recomputed > 1


@given(
    width=st.sampled_from([1, 100, 4095, 4096, 4097, 5000, 8192]),
    rows=st.integers(1, 3),
    values=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_argmax_is_torchs(width: int, rows: int, values: int, seed: int) -> None:
    """Also the first of many equals, and beside -inf."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-values, values, (rows, width), generator=generator).float()
    scores[scores == -values] = float("-inf")
    scores[:, 0] = -values
    assert torch.equal(argmax(scores), scores.argmax(-1))


@pytest.mark.parametrize("arch", ["qwen2", "llama", "gemma3", "mistral", "gpt2", "gpt-neox", "cohere"])
def test_checkpointed_activations_change_nothing(arch: str) -> None:
    found = []
    for checkpoint_activations in (False, True):
        c = case(arch, RewardSpec("qwen3"), checkpoint_activations=checkpoint_activations)
        objective = c.objective(**BOTH)

        async def method(session: Any, c: Any = c, objective: Any = objective) -> Any:
            gradient = await session.gradient(c.trajectory(FINISHED, 2), objective)
            return gradient.terms

        found.append(c.run(method))
    for name, plain in found[0].items():
        assert found[1][name].value == pytest.approx(plain.value, rel=1e-12)
        for one, other in zip(plain.pulls, found[1][name].pulls, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                close(other.vectors, one.vectors, 1e-12)


def test_a_checkpointed_pass_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer numbers are saved for the way back, or the option would be worth nothing."""
    saved = {}
    for checkpoint_activations in (False, True):
        c = case("llama", RewardSpec("llama"), checkpoint_activations=checkpoint_activations)
        sizes: list[int] = []

        def pack(x: Any, sizes: list[int] = sizes) -> Any:
            sizes.append(x.numel())
            return x

        async def method(session: Any, c: Any = c) -> Any:
            return await session.gradient(c.trajectory(FINISHED), c.objective(**BOTH))

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            c.run(method)
        saved[checkpoint_activations] = sum(sizes)
    assert saved[True] < saved[False]


def test_groups_of_bounded_size_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from nabla.refinement import dto as module

    prompts = [Prompt.of("1+2=" * (1 + i), id=name) for i, name in enumerate(TEXTS)]
    found = []
    for limit in (1 << 23, 60, 1):
        monkeypatch.setattr(module, "JOINT_ELEMENTS", limit)
        c = case("llama", RewardSpec("gpt-neox", permute=1))
        dto = DTO(objective=c.objective(**BOTH), steps=5, learning_rate=0.5)

        async def method(session: Any, c: Any = c, dto: DTO = dto) -> Any:
            text, committed = TEXTS[session.prompt.id]
            trajectory = tiny.trajectory(c.lm, session.prompt, text, committed=committed)
            return (await dto.refine(trajectory, session)).logits

        found.append(tiny.drive(c.engine, prompts, method))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            close(two, one)
