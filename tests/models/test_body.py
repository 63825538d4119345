"""Bodies: padded batches behind prefixes give what each row alone gives, and what transformers gives."""

from __future__ import annotations

import inspect
import shutil
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.models.body import EMPTY, Body, Chunk, KeyValues, Prefix, left_padded
from tests import tiny
from tests.cases import close

V = len(tiny.TOKENS)
ALL = sorted(tiny.ARCHITECTURES)


def tolerance(arch: str) -> float:
    """Gemma 2's attention and Bloom's norms work in float32."""
    return 1e-6 if arch == "gemma2" else 1e-10


def body(arch: str, *, reuse: bool = True, **changes: Any) -> Body:
    model = tiny.lm_model(arch, tiny.tokenizer(), **changes).eval().requires_grad_(False)
    return Body(model.base_model, model.config, reuse_prefix=reuse)


def tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, V, (count,), generator=torch.Generator().manual_seed(seed))


def alone(part: Body, ids: Tensor) -> Tensor:
    """transformers' own run of one unpadded row."""
    with torch.no_grad():
        return part.module(input_ids=ids[None]).last_hidden_state[0]


def prefix(part: Body, ids: Tensor) -> Prefix:
    if len(ids) == 0:
        return EMPTY
    if not part.reuse_prefix:
        return Prefix(ids, None)
    with torch.no_grad():
        (output,) = part.run([Chunk(EMPTY, part.embed(ids))], keep=True)
    return Prefix(ids, output.keys)


#: (prefix, chunk) lengths; longer than the sliding window of 12 in both.
ROWS = ((20, 3), (0, 26), (1, 1), (15, 17), (2, 20))


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("arch", ALL)
def test_padded_rows_equal_single_rows(arch: str, reuse: bool) -> None:
    part = body(arch, reuse=reuse)
    texts = [tokens(a + b, seed) for seed, (a, b) in enumerate(ROWS)]
    chunks = [Chunk(prefix(part, t[:a]), part.embed(t[a:])) for t, (a, _) in zip(texts, ROWS, strict=True)]
    with torch.no_grad():
        for batch in (chunks, chunks[::-1], chunks[:1], chunks[2:4]):
            for chunk, output in zip(batch, part.run(batch), strict=True):
                text, (before, _) = next(
                    (t, r) for t, r, c in zip(texts, ROWS, chunks, strict=True) if c is chunk
                )
                assert output.keys is None
                close(output.hidden, alone(part, text)[before:], tolerance(arch))


@pytest.mark.parametrize("arch", ALL)
def test_kept_keys_continue_a_text(arch: str) -> None:
    part = body(arch)
    texts = [tokens(30, 1), tokens(30, 2), tokens(30, 3)]
    first = [22, 5, 14]
    with torch.no_grad():
        kept = part.run(
            [Chunk(EMPTY, part.embed(t[:n])) for t, n in zip(texts, first, strict=True)], keep=True
        )
        keys = [k.keys for k in kept]
        assert [k.length for k in keys if k is not None] == first
        more = part.run(
            [
                Chunk(Prefix(t[:n], k), part.embed(t[n : n + 4]))
                for t, n, k in zip(texts, first, keys, strict=True)
            ],
            keep=True,
        )
        for text, n, output in zip(texts, first, more, strict=True):
            assert output.keys is not None
            assert output.keys.length == n + 4
            (rest,) = part.run([Chunk(Prefix(text[: n + 4], output.keys), part.embed(text[n + 4 :]))])
            close(rest.hidden, alone(part, text)[n + 4 :], tolerance(arch))
            cut = output.keys.crop(3)
            assert cut.length == 3
            (again,) = part.run([Chunk(Prefix(text[:3], cut), part.embed(text[3:]))])
            close(again.hidden, alone(part, text)[3:], tolerance(arch))


def test_running_does_not_change_the_prefix() -> None:
    part = body("gemma3")
    text = tokens(30)
    kept = prefix(part, text[:20])
    assert kept.keys is not None
    before = [(k.clone(), v.clone()) for k, v in kept.keys.layers]
    with torch.no_grad():
        part.run([Chunk(kept, part.embed(text[20:])), Chunk(EMPTY, part.embed(text))], keep=True)
    for (k, v), (old_k, old_v) in zip(kept.keys.layers, before, strict=True):
        assert torch.equal(k, old_k)
        assert torch.equal(v, old_v)


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("arch", ["qwen2", "gemma3", "gpt2", "gpt-neox"])
def test_gradients_of_padded_rows(arch: str, reuse: bool) -> None:
    part = body(arch, reuse=reuse)
    leaves, total = [], 0.0
    for seed, (before, count) in enumerate(ROWS):
        text = tokens(before + count, seed)
        leaf = part.embed(text[before:]).requires_grad_()
        whole = torch.cat([part.embed(text[:before]), leaf])
        out = part.module(inputs_embeds=whole[None]).last_hidden_state[0, before:]
        total = total + (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum()
        leaves.append(leaf)
    expected = torch.autograd.grad(total, leaves)
    chunks = []
    for seed, (before, count) in enumerate(ROWS):
        text = tokens(before + count, seed)
        chunks.append(Chunk(prefix(part, text[:before]), part.embed(text[before:]).requires_grad_()))
    total = 0.0
    for output in part.run(chunks):
        weight = torch.linspace(-1, 1, output.hidden.numel(), dtype=output.hidden.dtype)
        total = total + (output.hidden * weight.view_as(output.hidden)).sum()
    found = torch.autograd.grad(total, [c.embeddings for c in chunks])
    for value, reference in zip(found, expected, strict=True):
        close(value, reference, 1e-9)


@pytest.mark.parametrize("arch", ["gemma2", "gemma3", "mistral"])
def test_padding_beyond_a_sliding_window_spreads_no_nan(arch: str) -> None:
    """Padding that can see no token at all would be NaN, and 0 · NaN is NaN."""
    part = body(arch)
    long, short = tokens(40, 1), tokens(2, 2)
    with torch.no_grad():
        outputs = part.run([Chunk(EMPTY, part.embed(short)), Chunk(EMPTY, part.embed(long))])
    close(outputs[0].hidden, alone(part, short), tolerance(arch))
    close(outputs[1].hidden, alone(part, long), tolerance(arch))


def test_padding_takes_no_position_beyond_the_context() -> None:
    """A long prefix beside a long chunk: the first row's padding has no position of its own."""
    part = body("gpt2", n_positions=32)
    one, other = tokens(30, 1), tokens(30, 2)
    chunks = [Chunk(prefix(part, one[:28]), part.embed(one[28:])), Chunk(EMPTY, part.embed(other))]
    with torch.no_grad():
        outputs = part.run(chunks)
    close(outputs[0].hidden, alone(part, one)[28:], 1e-10)
    close(outputs[1].hidden, alone(part, other), 1e-10)


@given(
    rows=st.lists(st.tuples(st.integers(0, 25), st.integers(1, 25)), min_size=1, max_size=5),
    arch=st.sampled_from(["gpt2", "llama", "mistral"]),
)
def test_any_batch(rows: list[tuple[int, int]], arch: str) -> None:
    part = BODIES.setdefault(arch, body(arch))
    texts = [tokens(a + b, seed) for seed, (a, b) in enumerate(rows)]
    chunks = [Chunk(prefix(part, t[:a]), part.embed(t[a:])) for t, (a, _) in zip(texts, rows, strict=True)]
    with torch.no_grad():
        outputs = part.run(chunks, keep=True)
        for text, (before, count), output in zip(texts, rows, outputs, strict=True):
            assert output.hidden.shape == (count, 16)
            assert output.keys is not None
            assert output.keys.length == before + count
            close(output.hidden, alone(part, text)[before:], 1e-10)


BODIES: dict[str, Body] = {}


@pytest.mark.parametrize("arch", ["llama", "gemma3", "gpt2", "gpt-neox", "mistral"])
def test_decoding_steps(arch: str) -> None:
    """Two rows of different depths, left-padded in one cache, token by token."""
    from transformers import DynamicCache

    part = body(arch)
    texts = [tokens(30, 1), tokens(30, 2)]
    first = [20, 4]
    keys = [prefix(part, t[:n]).keys for t, n in zip(texts, first, strict=True)]
    cache = DynamicCache(ddp_cache_data=left_padded(keys, max(first)))
    offset = torch.tensor([max(first) - n for n in first])
    with torch.no_grad():
        for step in range(8):
            length = max(first) + step + 1
            mask = (torch.arange(length) >= offset[:, None]).long()
            column = torch.stack([t[n + step] for t, n in zip(texts, first, strict=True)])
            hidden = part.step(column, mask, length - 1 - offset, cache)
            for row, (text, n) in enumerate(zip(texts, first, strict=True)):
                close(hidden[row], alone(part, text[: n + step + 1])[-1], 1e-10)


def test_left_padded() -> None:
    def row(length: int) -> KeyValues:
        return KeyValues(((torch.full((1, length, 2), float(length)), torch.ones(1, length, 3)),))

    ((keys, values),) = left_padded([row(3), None, row(1)], 4)
    assert keys.shape == (3, 1, 4, 2)
    assert values.shape == (3, 1, 4, 3)
    assert keys[:, 0, :, 0].tolist() == [[0, 3, 3, 3], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert values[:, 0, :, 0].tolist() == [[0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_embeddings_are_what_the_model_reads() -> None:
    for arch in ALL:
        part = body(arch)
        ids = tokens(9)
        with torch.no_grad():
            out = part.module(inputs_embeds=part.embed(ids)[None]).last_hidden_state[0]
        close(out, alone(part, ids), 1e-12)
        assert not part.embed(ids).requires_grad
    assert float(body("gemma3").embed(torch.tensor([1])).norm()) > 3  # scaled by sqrt(16)


# -- FLOPs --------------------------------------------------------------------------------------------


def test_flops_by_hand() -> None:
    part = body("qwen2")
    attention = 16 * 16 + 16 + 2 * (16 * 8 + 8) + 16 * 16  # q and its bias, k and v with theirs, o
    layer = attention + 3 * 16 * 24 + 2 * 16  # gate, up, down; two norms
    assert part.parameters == 2 * layer + 16
    assert part.attention_width == 16
    # Three tokens behind five: they attend to 6, 7 and 8 positions.
    scores = sum(2 * (2 * 16 + 2 * 16) * n for n in (6, 7, 8))  # 2 layers: q·k and p·v
    assert part.flops(3, 5) == 2 * part.parameters * 3 + scores
    assert part.backward_flops(3, 5) == 2 * part.parameters * 3 + 2 * scores
    assert part.flops(8, 0) == part.flops(5, 0) + part.flops(3, 5)


def test_computed_tokens() -> None:
    text = tokens(9)
    with_cache, without = body("qwen2"), body("qwen2", reuse=False)
    for part, expected in ((with_cache, (4, 5)), (without, (9, 0))):
        chunk = Chunk(prefix(part, text[:5]), part.embed(text[5:]))
        assert part.computed(chunk) == expected
        assert len(chunk) == 4
        assert len(chunk.prefix) == 5


def test_keys_are_not_kept_where_they_cannot_be_reused() -> None:
    part = body("qwen2", reuse=False)
    with torch.no_grad():
        (output,) = part.run([Chunk(EMPTY, part.embed(tokens(5)))], keep=True)
    assert output.keys is None


def _passes(part: Body) -> list[Tensor]:
    """Hidden states and input gradients of batches of several sizes, and without gradients."""
    found: list[Tensor] = []
    for rows in (ROWS, ROWS[:2], ROWS[1:2]):  # one row is a case of its own to the compiler
        texts = [tokens(a + b, seed) for seed, (a, b) in enumerate(rows)]
        before = [prefix(part, t[:a]) for t, (a, _) in zip(texts, rows, strict=True)]
        leaves = [part.embed(t[a:]).requires_grad_() for t, (a, _) in zip(texts, rows, strict=True)]
        chunks = [Chunk(p, leaf) for p, leaf in zip(before, leaves, strict=True)]
        outputs = part.run(chunks)
        found += [o.hidden.detach() for o in outputs]
        total = sum(o.hidden.sin().sum() for o in outputs)  # a norm's sum of squares would be constant
        found += torch.autograd.grad(total, leaves)
        with torch.no_grad():
            found += [o.hidden for o in part.run(chunks)]
    return found


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's compiler asks for it
def test_compiled_layers_change_nothing_and_compile_once() -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    part = body("qwen3")
    plain = _passes(part)
    part.compile()
    for one, other in zip(_passes(part), plain, strict=True):
        close(one, other, 1e-10)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    for one, other in zip(_passes(part), plain, strict=True):  # every size again
        close(one, other, 1e-10)
    texts = [tokens(n, n) for n in (4, 9, 31)]  # and others
    for text in texts:
        with torch.no_grad():
            (output,) = part.run([Chunk(EMPTY, part.embed(text))])
        close(output.hidden, alone(part, text), 1e-10)
    assert counters["stats"]["unique_graphs"] == graphs
    part.compile(False)
    assert all(torch.equal(one, other) for one, other in zip(_passes(part), plain, strict=True))


@pytest.mark.parametrize("arch", ALL)
def test_only_parts_that_see_one_token_at_a_time_are_compiled(arch: str) -> None:
    part = body(arch)
    part.compile()

    def compiled() -> set[str]:
        return {type(m).__name__ for m in part.module.modules() if m._compiled_call_impl is not None}

    assert not compiled()  # the module may belong to other bodies: only while this one runs
    with part._in_place():
        names = compiled()
    assert names
    assert not any("Attention" in name for name in names)
    assert not compiled()
    part.compile(False)
    with part._in_place():
        assert not compiled()


def test_a_model_without_such_parts_is_refused() -> None:
    part = body("qwen3")
    part.module.layers = torch.nn.ModuleList()
    with pytest.raises(ConfigError, match="compile_layers"):
        part.compile()


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_prefixes_are_kept_under_either_name_of_the_cache(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5.24 calls ``past_key_values`` ``cache``; a model without either runs prefixes anew."""
    module = tiny.causal_lm().body.module

    def named(self: Any, inputs_embeds: Tensor, use_cache: bool = False) -> None: ...

    parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
    signature = inspect.signature(named)
    named.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), parameter]
    )
    monkeypatch.setattr(type(module), "forward", named)
    body = Body(module, module.config)
    assert body.reuse_prefix
    assert body.cache_name == name
