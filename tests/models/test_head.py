"""Heads and embedding tables against plain log_softmax, autograd and whole matrices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import nabla.models.head as head_module
from nabla.models.head import EmbeddingTable, Head, cross_gram
from nabla.models.precision import work_dtype
from tests import tiny
from tests.cases import close

H, USABLE, ROWS = 6, 17, 20


def config(**values: Any) -> Any:
    made = SimpleNamespace(**values)
    made.get_text_config = lambda: made
    return made


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"logit_scale": 0.7},
    "divided": {"logits_scaling": 3.0},
    "capped": {"final_logit_softcapping": 2.0},
    "scaled and capped": {"logit_scale": 1.4, "final_logit_softcapping": 1.5},
}


def make(
    variant: str = "plain", *, bias: bool = False, blocked: bool = False, dtype: torch.dtype = torch.float64
) -> Head:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = nn.Linear(H, ROWS, bias=bias).to(dtype).requires_grad_(False)
    head = Head(module, config(**VARIANTS[variant]), USABLE)
    if blocked:
        head.block(torch.tensor([3, 11]))
        head.block(torch.tensor([3, 16]))
    return head


def plain(head: Head, variant: str, hidden: Tensor, blocked: bool) -> Tensor:
    """Logits as the formulas say."""
    logits = head.module(hidden)[..., :USABLE]
    settings = VARIANTS[variant]
    logits = logits * settings.get("logit_scale", 1.0) / settings.get("logits_scaling", 1.0)
    if "final_logit_softcapping" in settings:
        cap = settings["final_logit_softcapping"]
        logits = cap * torch.tanh(logits / cap)
    if blocked:
        logits = logits.index_fill(-1, torch.tensor([3, 11, 16]), float("-inf"))
    return logits


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits(variant: str, bias: bool, blocked: bool) -> None:
    head = make(variant, bias=bias, blocked=blocked)
    hidden = torch.randn(5, H, dtype=torch.float64)
    expected = plain(head, variant, hidden, blocked)
    close(head.logits(hidden), expected, 1e-13)
    close(head.logits(hidden[0]), expected[0], 1e-13)
    shared = torch.tensor([2, 3, 16, 0])
    close(head.logits(hidden, shared), expected[:, shared], 1e-13)
    close(head.logits(hidden[0], shared), expected[0, shared], 1e-13)
    each = torch.stack([torch.randperm(USABLE)[:4] for _ in range(5)])
    close(head.logits(hidden, each), expected.gather(-1, each), 1e-13)
    assert head.flops(5) == 2 * 5 * H * USABLE


@pytest.mark.parametrize("chunk", [1, USABLE, 3 * USABLE, 1 << 20])
@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_log_likelihood(
    variant: str, bias: bool, blocked: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(head_module.TILE_ELEMENTS, "cpu", chunk)
    head = make(variant, bias=bias, blocked=blocked)
    draw = torch.Generator().manual_seed(3)
    hidden = torch.randn(7, H, generator=draw, dtype=torch.float64, requires_grad=True)
    tokens = torch.stack([torch.randperm(USABLE, generator=draw)[:4] for _ in range(7)])
    weights = torch.randn(7, 4, generator=draw, dtype=torch.float64)  # not on the simplex: linear in them
    if blocked:
        weights = weights.masked_fill(torch.isin(tokens, torch.tensor([3, 11, 16])), 0.0)
    logits = plain(head, variant, hidden, blocked)
    log_pi = logits.log_softmax(-1).masked_fill(logits.isinf(), 0.0)
    expected = (weights * log_pi.gather(-1, tokens)).sum(-1)
    values, normalisers = head.log_likelihood(hidden, tokens, weights)
    close(values.detach(), expected.detach(), 1e-12)
    close(normalisers, logits.logsumexp(-1).detach(), 1e-12)
    assert not normalisers.requires_grad
    cotangent = torch.randn(7, generator=draw, dtype=torch.float64)
    (grad,) = torch.autograd.grad(values, hidden, cotangent)
    (reference,) = torch.autograd.grad(expected, hidden, cotangent)
    close(grad, reference, 1e-12)


@given(seed=st.integers(0, 1000), rows=st.integers(1, 9), chunk=st.integers(1, 80))
def test_log_likelihood_of_single_tokens_is_cross_entropy(seed: int, rows: int, chunk: int) -> None:
    head = make("plain", bias=True)
    draw = torch.Generator().manual_seed(seed)
    hidden = 3 * torch.randn(rows, H, generator=draw, dtype=torch.float64)
    tokens = torch.randint(USABLE, (rows, 1), generator=draw)
    old = head_module.TILE_ELEMENTS["cpu"]
    try:
        head_module.TILE_ELEMENTS["cpu"] = chunk
        values, _ = head.log_likelihood(hidden, tokens, torch.ones(rows, 1, dtype=torch.float64))
    finally:
        head_module.TILE_ELEMENTS["cpu"] = old
    logits = head.module(hidden)[:, :USABLE]
    close(values, -nn.functional.cross_entropy(logits, tokens[:, 0], reduction="none"), 1e-12)


@pytest.mark.parametrize("chunk", [1, 40, 1 << 20])
@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_partition_is_that_of_all_logits(
    variant: str, bias: bool, blocked: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(head_module.TILE_ELEMENTS, "cpu", chunk)
    head = make(variant, bias=bias, blocked=blocked)
    draw = torch.Generator().manual_seed(5)
    hidden = 4 * torch.randn(6, H, generator=draw, dtype=torch.float64)
    hidden.requires_grad_()
    logits = plain(head, variant, hidden, blocked)
    log_z = logits.logsumexp(-1)
    (slope,) = torch.autograd.grad(log_z.sum(), hidden)
    found = head.partition(hidden.detach(), slope=True, moments=True)
    close(found.log_z, log_z.detach(), 1e-12)
    close(found.slope, slope, 1e-12)
    close(found.top, logits.amax(-1).detach(), 1e-12)
    finite = logits.masked_fill(logits.isinf(), 0.0)
    close(found.mean, (logits.softmax(-1) * finite).sum(-1).detach(), 1e-12)


def test_a_tile_of_blocked_ids_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head_module.TILE_ELEMENTS, "cpu", 4)
    head = make("plain")
    head.block(torch.arange(4, 8))
    hidden = torch.randn(1, H, dtype=torch.float64)
    found = head.partition(hidden, slope=True)
    close(found.log_z, head.logits(hidden).logsumexp(-1), 1e-12)


def test_chunks_cover_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    head = make()
    for chunk, size in ((1, 1), (USABLE * 2 + 1, 2), (1 << 20, 10)):
        monkeypatch.setattr(head_module, "CHUNK_ELEMENTS", chunk)
        parts = head.chunks(10)
        assert [i for part in parts for i in range(10)[part]] == list(range(10))
        assert max(part.stop - part.start for part in parts) == size
    assert head.chunks(0) == []


def test_half_precision_models_give_float32_logits() -> None:
    head = make("capped", dtype=torch.bfloat16)
    hidden = torch.randn(3, H, dtype=torch.bfloat16)
    assert head.logits(hidden).dtype == torch.float32
    assert work_dtype(torch.bfloat16) == work_dtype(torch.float16) == torch.float32
    assert work_dtype(torch.float64) == torch.float64
    values, _ = head.log_likelihood(
        hidden.requires_grad_(), torch.zeros(3, 1, dtype=torch.long), torch.ones(3, 1)
    )
    assert values.dtype == torch.float32
    (grad,) = torch.autograd.grad(values.sum(), hidden)
    assert grad.dtype == torch.bfloat16
    small = hidden.detach().float() * (1 + 1e-4)  # latents: too small a move for bfloat16
    assert not torch.equal(head.logits(small), head.logits(hidden.detach()))


def test_a_matrix_smaller_than_the_tokenizer() -> None:
    assert Head(nn.Linear(H, 9, bias=False), config(), USABLE).usable == 9


# -- embedding tables -------------------------------------------------------------------------------------


def index_of(size: int = ROWS) -> Tensor:
    index = torch.randperm(size, generator=torch.Generator().manual_seed(5))[:USABLE]
    index[[1, 8]] = -1
    return index


class Scaled(nn.Embedding):
    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * 2.5


def table(kind: str, *, mapped: bool, hidden: int = H) -> tuple[EmbeddingTable, Tensor]:
    """A table and its whole matrix by language-model id."""
    with torch.random.fork_rng():
        torch.manual_seed(hidden)
        module = (Scaled if kind == "scaled" else nn.Embedding)(ROWS, hidden).double().requires_grad_(False)
    index = index_of() if mapped else None
    whole = module.weight[:USABLE] if index is None else module.weight[index.clamp_min(0)]
    if index is not None:
        whole = whole * (index >= 0)[:, None]
    return EmbeddingTable(module, USABLE, index), whole * (2.5 if kind == "scaled" else 1.0)


@pytest.mark.parametrize("chunk", [1, 3 * H, 1 << 20])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", ["plain", "scaled"])
def test_embedding_table(kind: str, mapped: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "CHUNK_ELEMENTS", chunk)
    made, matrix = table(kind, mapped=mapped)
    assert made.hidden_size == H
    ids = torch.arange(USABLE)
    close(made.rows(ids), matrix, 1e-14)
    close(made.rows(ids.view(1, -1)), matrix[None], 1e-14)
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(4, H, generator=draw, dtype=torch.float64)
    close(made.products(vectors), vectors @ matrix.T, 1e-13)
    shared = torch.tensor([1, 5, 0])
    close(made.products(vectors, shared), vectors @ matrix[shared].T, 1e-13)
    each = torch.randint(USABLE, (4, 3), generator=draw)
    close(made.products(vectors, each), (vectors @ matrix.T).gather(-1, each), 1e-13)
    weights = torch.randn(4, USABLE, generator=draw, dtype=torch.float64)
    close(made.transposed(weights), weights @ matrix, 1e-13)
    close(made.mix(weights), weights @ matrix, 1e-13)
    close(
        made.mix(weights[:, :3], each),
        torch.stack([w @ matrix[i] for w, i in zip(weights[:, :3], each, strict=True)]),
        1e-13,
    )
    close(made.gram(), matrix.T @ matrix, 1e-13)
    assert made.gram() is made.gram()
    close(made.mean(), matrix.mean(0), 1e-13)
    other, right = table("plain", mapped=not mapped, hidden=4)
    close(cross_gram(made, other), matrix.T @ right, 1e-13)
    assert made.flops(4) == 2 * 4 * USABLE * H
    assert made.flops(4, 3) == 2 * 4 * 3 * H


def test_the_table_of_a_scaled_embedding_is_asked_for() -> None:
    lm = tiny.causal_lm("gemma3")
    ids = torch.arange(lm.head.usable)
    assert torch.equal(lm.table.rows(ids), lm.body.embed(ids))
    assert not torch.allclose(lm.table.rows(ids), lm.body.embedding.weight[ids])


@pytest.mark.parametrize("mapped", [False, True])
def test_tables_are_read_in_pieces(mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapped or scaled table is never copied as a whole (Gemma's is 262,144 × 2,304)."""
    made, matrix = table("scaled", mapped=mapped)
    monkeypatch.setattr(head_module, "CHUNK_ELEMENTS", 2 * H)
    alive, most = [0], [0]
    read = made._read

    class Counted:
        """Counts itself as long as the piece it travels with is alive."""

        def __init__(self) -> None:
            alive[0] += 1
            most[0] = max(most[0], alive[0])

        def __del__(self) -> None:
            alive[0] -= 1

    def counted(ids: Tensor) -> Tensor:
        rows = read(ids)
        rows.companion = Counted()  # type: ignore[attr-defined]
        return rows

    monkeypatch.setattr(made, "_read", counted)
    if mapped:
        monkeypatch.setattr(made, "index", None)
        matrix = made.module(torch.arange(USABLE))
    close(made.products(torch.ones(1, H, dtype=torch.float64)), matrix.sum(-1)[None], 1e-12)
    assert most[0] <= 2
