"""Batched decoding against single rows, full forward passes and transformers' own generate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError, NablaError, NumericalError
from nabla.core.prompt import Prompt
from nabla.core.random import gumbel
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.engine.remote import at_once
from nabla.models.causal_lm import CausalLM
from nabla.models.prefixes import PrefixStore
from nabla.models.runner import Runner
from nabla.proposals.coupled import noise_of
from nabla.rollouts import draws as draws_module
from nabla.rollouts.base import Continuation, Opening, Resources
from nabla.rollouts.draws import Draws
from nabla.rollouts.huggingface import HuggingFaceRollout
from tests import tiny
from tests.cases import close
from tests.tiny import END, PAD, TOKENS, ids, lm_model, tokenizer

V = len(TOKENS)
GREEDY = Sampling(temperature=0, max_new_tokens=24)
PROMPTS = ("1+2=", "1", "sum 1+2+3 = ", "5=5; 1+2+3+4+5; 0", "0")


def opening(
    lm: CausalLM,
    text: str,
    sampling: Sampling,
    key: int = 0,
    given_: str | Tensor = "",
    problem: str | None = None,
) -> Opening:
    return Opening(
        prompt=lm.encode(Prompt.of(text)),
        response=ids(lm.tokenizer, given_) if isinstance(given_, str) else given_,
        sampling=sampling,
        key=key,
        account=Account(problem or f"{text}-{key}", CostMeter(), "rollout"),
    )


def run(
    lm: CausalLM, openings: list[Opening], batch_size: int = 64, runner: Runner | None = None
) -> list[Continuation]:
    rollout = HuggingFaceRollout(batch_size)
    found = at_once(rollout.generate(openings, Resources(lm.vocabulary, runner or Runner(), lm)), rollout)
    assert not any(isinstance(f, NablaError) for f in found)
    return found  # type: ignore[return-value]


def same(one: Continuation, other: Continuation) -> None:
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.finished == other.finished
    close(one.log_probs, other.log_probs, 1e-8)
    for name in ("hidden", "entropy", "top1"):
        close(getattr(one.states, name), getattr(other.states, name), 1e-8)


def generate(lm: CausalLM, prompts: list[Tensor], **arguments: Any) -> list[list[int]]:
    """transformers' own, left-padded; each row up to its end."""
    longest = max(len(p) for p in prompts)
    padded = torch.stack([torch.nn.functional.pad(p, (longest - len(p), 0)) for p in prompts])
    mask = torch.stack([torch.nn.functional.pad(torch.ones_like(p), (longest - len(p), 0)) for p in prompts])
    settings = GenerationConfig(do_sample=False, eos_token_id=list(lm.eos_ids), pad_token_id=0)
    written = lm.model.generate(padded, attention_mask=mask, generation_config=settings, **arguments)[
        :, longest:
    ]
    rows = []
    for row in written.tolist():
        end = next((i + 1 for i, t in enumerate(row) if t in lm.eos_ids), len(row))
        rows.append(row[:end])
    return rows


ARCHS = ["qwen2", "llama", "gpt-neox", "gpt2", "gemma3", "mistral"]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("batch_size", [2, 64])
def test_batched_rows_equal_single_rows(arch: str, batch_size: int) -> None:
    lm = tiny.causal_lm(arch)
    settings = [
        Sampling(temperature=1.5, max_new_tokens=30),
        GREEDY,
        Sampling(temperature=0.7, top_k=5, max_new_tokens=3),
        Sampling(temperature=2.0, top_p=0.8, max_new_tokens=40),
        Sampling(temperature=1.0, max_new_tokens=1),
    ]
    openings = [
        opening(lm, text, sampling, key=7 * i, given_="3;" if i % 2 else "")
        for i, (text, sampling) in enumerate(zip(PROMPTS, settings, strict=True))
        if len("3;" if i % 2 else "") < sampling.max_new_tokens
    ]
    together = run(lm, openings, batch_size)
    assert len({len(r.tokens) for r in together}) > 2
    for item, row in zip(openings, together, strict=True):
        (alone,) = run(lm, [item])
        same(row, alone)


@pytest.mark.parametrize("arch", [*ARCHS, "gemma2"])
def test_greedy_equals_generate(arch: str) -> None:
    lm = tiny.causal_lm(arch)
    openings = [opening(lm, text, GREEDY) for text in PROMPTS]
    if arch == "gemma2":  # in float64 transformers' eager attention makes NaN of left padding
        expected = [generate(lm, [o.prompt], max_new_tokens=24)[0] for o in openings]
    else:
        expected = generate(lm, [o.prompt for o in openings], max_new_tokens=24)
    found = run(lm, openings)
    assert [row.tokens.tolist() for row in found] == expected
    for row in found:
        assert row.finished == (int(row.tokens[-1]) in lm.eos_ids)


class GumbelProcessor(LogitsProcessor):
    """Makes a batched ``model.generate(do_sample=False)`` a sample with the rows' own Gumbel fields."""

    def __init__(self, keys: Tensor, prompt_length: int, sampling: Sampling) -> None:
        self.keys, self.prompt_length, self.sampling = keys, prompt_length, sampling

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.sampling.temperature == 0:
            return scores
        position = torch.full_like(self.keys, input_ids.shape[1] - self.prompt_length)
        noise = gumbel(self.keys, position, torch.arange(scores.shape[-1])).to(scores.dtype)
        return self.sampling.filter(scores) + noise


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, max_new_tokens=20),
        Sampling(temperature=0.5, top_k=4, max_new_tokens=20),
        Sampling(temperature=1.7, top_p=0.6, max_new_tokens=20),
        Sampling(temperature=0, max_new_tokens=20),
    ],
    ids=str,
)
@pytest.mark.parametrize("arch", ["qwen2", "gemma3"])
def test_generate_with_the_gumbel_processor_samples_the_same(arch: str, sampling: Sampling) -> None:
    lm = tiny.causal_lm(arch)
    keys = torch.tensor([3, 2**62, 12345, 0, 99])
    openings = [opening(lm, text, sampling, key=int(k)) for text, k in zip(PROMPTS, keys, strict=True)]
    longest = max(len(o.prompt) for o in openings)
    processor = LogitsProcessorList([GumbelProcessor(keys, longest, sampling)])
    expected = generate(lm, [o.prompt for o in openings], max_new_tokens=20, logits_processor=processor)
    assert [row.tokens.tolist() for row in run(lm, openings)] == expected


@pytest.mark.parametrize("arch", [*ARCHS, "granite"])
def test_what_is_noted_while_decoding(arch: str) -> None:
    """Log-probabilities at temperature 1, entropies, top-1 and states: those of one full forward pass."""
    lm = tiny.causal_lm(arch, padded=4)
    lm.head.block(torch.tensor([TOKENS.index("4")]))
    prompts = [Prompt.of(text) for text in PROMPTS]
    sampling = Sampling(temperature=0.6, top_k=9, max_new_tokens=25)
    for prompt, row in zip(prompts, run(lm, [opening(lm, t, sampling, key=5) for t in PROMPTS]), strict=True):
        expected = tiny.trajectory(lm, prompt, row.tokens)
        close(row.states.hidden, expected.hidden)
        close(row.log_probs, expected.log_probs)
        close(row.states.entropy, expected.entropy)
        close(row.states.top1, expected.top1)
        assert len(row.tokens) == len(row.log_probs) == len(row.states.entropy) == len(row.states.top1)


def test_temperature_zero_is_argmax_and_not_one() -> None:
    lm = tiny.causal_lm("llama")
    zero = [run(lm, [opening(lm, "1+2=", GREEDY, key=k)])[0].tokens.tolist() for k in range(4)]
    assert all(row == zero[0] for row in zero)
    one = Sampling(temperature=1.0, max_new_tokens=24)
    sampled = [run(lm, [opening(lm, "1+2=", one, key=k)])[0].tokens.tolist() for k in range(8)]
    assert len({tuple(row) for row in sampled}) > 4
    (row,) = run(lm, [opening(lm, "1+2=", GREEDY)])
    with torch.no_grad():
        full = torch.cat([lm.encode(Prompt.of("1+2=")), row.tokens])
        logits = lm.model(full[None]).logits[0, -len(row.tokens) - 1 : -1]
    assert row.tokens.tolist() == logits.argmax(-1).tolist()


def test_sampling_follows_the_distribution() -> None:
    """The first token of 4000 keys against the model's own probabilities (χ² with a known tail)."""
    from scipy.stats import chisquare

    lm = tiny.causal_lm("llama", initializer_range=0.2)
    count = 4000
    (start,) = run(lm, [opening(lm, "1+2=", Sampling(temperature=1.0, max_new_tokens=1))])
    logits = lm.head.logits(start.states.hidden[0])
    for sampling in (
        Sampling(temperature=1.0),
        Sampling(temperature=0.6, top_k=6),
        Sampling(temperature=1.3, top_p=0.7),
    ):
        draws = Draws([sampling] * count, torch.arange(count), torch.zeros(count).long(), V)
        chosen = draws.draw(logits.expand(count, -1), 0)
        p = sampling.filter(logits).softmax(-1)
        kept = p > 0
        found = torch.bincount(chosen, minlength=V)
        assert int(found[~kept].sum()) == 0
        assert chisquare(found[kept].double(), count * p[kept]).pvalue > 1e-4


def test_draw_uses_each_rows_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many steps' noise is formed at once, and whichever rows are dropped in between."""
    settings = [GREEDY, Sampling(temperature=1.0), Sampling(temperature=0.5, top_k=2)] * 2
    keys, positions = torch.arange(6), torch.tensor([0, 4, 9, 1, 4, 2])
    logits = torch.randn(9, 6, V, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for ahead in (1, 4 * 6 * V, 1 << 16):
        monkeypatch.setattr(draws_module, "NOISE_ELEMENTS", ahead)
        draws, live = Draws(settings, keys, positions, V), list(range(6))
        for step, kept in enumerate([None, None, [5, 1, 2, 0], None, None, None, [1, 2], None, None]):
            if kept is not None:
                draws.select(kept)
                live = [live[row] for row in kept]
            chosen = draws.draw(logits[step, live], step)
            for found, row in zip(chosen.tolist(), live, strict=True):
                own = logits[step, row]
                noise = gumbel(keys[row : row + 1], positions[row : row + 1] + step, torch.arange(V))[0]
                scores = own / (settings[row].temperature or 1.0)
                if settings[row].top_k:
                    scores = scores.masked_fill(scores < scores.topk(2).values[-1], float("-inf"))
                greedy = settings[row].temperature == 0
                assert found == int(own.argmax() if greedy else (scores + noise).argmax())


# -- limits and ends ----------------------------------------------------------------------------------


def test_blocked_ids_are_never_written() -> None:
    lm = tiny.causal_lm("llama", initializer_range=0.05)  # nearly uniform
    blocked = [TOKENS.index(t) for t in (" ", "1", "s", END)]
    lm.head.block(torch.tensor(blocked))
    sampling = Sampling(temperature=3.0, max_new_tokens=40)
    rows = run(lm, [opening(lm, "1+2=", sampling, key=k) for k in range(12)])
    written = torch.cat([r.tokens for r in rows])
    assert len(written) == 12 * 40
    assert not torch.isin(written, torch.tensor(blocked)).any()
    assert len(set(written.tolist())) == V - len(blocked)
    assert all(torch.isfinite(r.states.entropy).all() for r in rows)


def test_padding_of_the_matrix_is_never_written() -> None:
    lm = tiny.causal_lm("llama", padded=40, initializer_range=0.05)
    rows = run(
        lm, [opening(lm, "1+2=", Sampling(temperature=3.0, max_new_tokens=30), key=k) for k in range(9)]
    )
    assert int(torch.cat([r.tokens for r in rows]).max()) < V


def test_each_of_several_ends_ends_a_row() -> None:
    lm = tiny.causal_lm("llama", eos=(END, PAD, "="), initializer_range=0.05)
    assert set(lm.eos_ids) == {2, 0, TOKENS.index("=")}
    sampling = Sampling(temperature=2.0, max_new_tokens=60)
    rows = run(lm, [opening(lm, "1+2", sampling, key=k) for k in range(40)])
    ends = set()
    for row in rows:
        inside = row.tokens[:-1].tolist()
        assert not set(inside) & set(lm.eos_ids)
        assert row.finished == (int(row.tokens[-1]) in lm.eos_ids)
        assert row.finished or len(row.tokens) == 60
        ends.add(int(row.tokens[-1]))
    assert ends >= set(lm.eos_ids)


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("given_", ["", "3", "3;1+"])
def test_the_limit_counts_the_whole_response(limit: int, given_: str) -> None:
    lm = tiny.causal_lm("llama")
    lm.head.block(torch.tensor(lm.eos_ids))
    if len(given_) >= limit:
        return
    (row,) = run(lm, [opening(lm, "1+2=", Sampling(temperature=1.0, max_new_tokens=limit), given_=given_)])
    assert len(row.tokens) == limit - len(given_)
    assert not row.finished


def test_the_context_limits_too() -> None:
    lm = tiny.causal_lm("llama", max_position_embeddings=40)
    lm.head.block(torch.tensor(lm.eos_ids))
    rows = run(lm, [opening(lm, t, Sampling(temperature=1.0, max_new_tokens=30)) for t in ("1", "1+2+3")])
    assert [len(r.tokens) for r in rows] == [40 - 20, 40 - 24]


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        HuggingFaceRollout(0)


# -- errors, caches, cost -------------------------------------------------------------------------------


@pytest.mark.parametrize("reuse_prefix", [True, False])
def test_nan_is_the_error_of_its_row_alone(reuse_prefix: bool) -> None:
    tok = tokenizer()
    lm = CausalLM(lm_model("llama", tok), tok, reuse_prefix=reuse_prefix)
    sampling = Sampling(temperature=0, max_new_tokens=5)
    (expected,) = run(lm, [opening(lm, "1+2=", sampling)])
    assert TOKENS.index("5") not in expected.tokens.tolist()
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[TOKENS.index("5")] = float("nan")
    openings = [opening(lm, "5", sampling), opening(lm, "1+2=", sampling), opening(lm, "15", sampling)]
    rollout = HuggingFaceRollout()
    found = at_once(rollout.generate(openings, Resources(lm.vocabulary, Runner(), lm)), rollout)
    assert isinstance(found[0], NumericalError)
    assert isinstance(found[2], NumericalError)
    assert "at token 0" in str(found[0])
    assert isinstance(found[1], Continuation)
    assert found[1].tokens.tolist() == expected.tokens.tolist()


@pytest.mark.parametrize("arch", ARCHS)
def test_without_a_cache_the_same_is_written(arch: str) -> None:
    model, tok = lm_model(arch, tokenizer()), tokenizer()
    with_cache, without = CausalLM(model, tok), CausalLM(model, tok, reuse_prefix=False)
    settings = [Sampling(temperature=1.2, max_new_tokens=n) for n in (9, 20, 3, 14, 1)]
    rows = []
    for lm in (with_cache, without):
        openings = [
            opening(lm, t, s, key=i, given_="3" if s.max_new_tokens > 1 else "")
            for i, (t, s) in enumerate(zip(PROMPTS, settings, strict=True))
        ]
        rows.append(run(lm, openings))
    for one, other in zip(*rows, strict=True):
        same(one, other)


def test_a_model_that_has_no_such_cache() -> None:
    """LFM2's convolutions keep no keys and values: decoding runs the whole text."""
    from tests.models.test_causal_lm import family

    lm = CausalLM(family("Lfm2").double(), tokenizer())
    assert not lm.body.reuse_prefix
    openings = [opening(lm, text, GREEDY) for text in PROMPTS]
    expected = [generate(lm, [o.prompt], max_new_tokens=24)[0] for o in openings]
    assert [r.tokens.tolist() for r in run(lm, openings)] == expected


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
@pytest.mark.parametrize("entries", [0, 3])
def test_stored_prefixes_change_nothing(arch: str, entries: int) -> None:
    """A continuation of what a rollout wrote itself, from any position, with and without its cache."""
    lm = tiny.causal_lm(arch)
    runner = Runner(store=PrefixStore(entries))
    sampling = Sampling(temperature=1.0, max_new_tokens=30)
    (row,) = run(lm, [opening(lm, "1+2=", sampling, key=1, problem="p")], runner=runner)
    for length in range(0, len(row.tokens) - 1, 5):
        begun = row.tokens[:length]
        changed = torch.cat([begun, torch.tensor([TOKENS.index("0")])])
        item = opening(lm, "1+2=", sampling, key=2, given_=changed, problem="p")
        (stored,) = run(lm, [item], runner=runner)
        (fresh,) = run(lm, [item])
        same(stored, fresh)
        item = opening(lm, "1+2=", sampling, key=1, given_=begun, problem="p")
        (again,) = run(lm, [item], runner=runner)
        close(again.states.hidden, row.states.hidden[length:], 1e-8)  # the same field: the same text
        assert again.tokens.tolist() == row.tokens[length:].tolist()


def test_costs_are_each_rows_own() -> None:
    lm = tiny.causal_lm("llama")
    openings = [
        opening(lm, t, Sampling(temperature=1.0, max_new_tokens=12), key=i) for i, t in enumerate(PROMPTS)
    ]
    rows = run(lm, openings)
    for item, row in zip(openings, rows, strict=True):
        usage = item.account.meter.snapshot().phases["rollout"]
        length = len(row.tokens)
        assert usage.forward_passes == 1
        assert usage.backward_passes == 0
        assert usage.decode_steps == length - 1  # the prefill's last state gives the first token
        assert usage.tokens == len(item.prompt) + length - 1
        flops = lm.body.flops(len(item.prompt) + length - 1, 0) + lm.head.flops(length)
        assert usage.flops == pytest.approx(flops)
        assert usage.seconds > 0


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    temperature=st.sampled_from([0.0, 0.7, 2.0]),
    seed=st.integers(0, 1000),
)
def test_any_batch(lengths: list[int], temperature: float, seed: int) -> None:
    lm = tiny.causal_lm("gpt2")
    openings = [
        opening(lm, "1+" * (1 + i % 4), Sampling(temperature=temperature, max_new_tokens=n), key=seed + i)
        for i, n in enumerate(lengths)
    ]
    rows = run(lm, openings)
    for row, limit in zip(rows, lengths, strict=True):
        assert 1 <= len(row.tokens) <= limit
        assert row.finished or len(row.tokens) == limit
    pick = seed % len(lengths)
    same(rows[pick], run(lm, [openings[pick]])[0])


def test_trajectories_of_a_session() -> None:
    """Rollouts and branches through the engine: every field as one full forward pass has it."""
    lm = tiny.causal_lm("gemma3")
    prompt = Prompt.of("1+2=", id="x", system="use +")
    sampling = Sampling(temperature=1.0, max_new_tokens=14)

    async def method(session: Any) -> Any:
        first, second = await session.rollout(sampling, 2)
        tokens = [TOKENS.index("3"), lm.eos_ids[0], int(first.tokens[2])]
        branches = await session.fork(first.commit(2), [(2, token) for token in tokens])
        return first, second, branches

    first, second, branches = tiny.drive(Engine(lm), prompt, method)
    assert first.tokens.tolist() != second.tokens.tolist()
    assert branches[1].finished
    assert len(branches[1]) == 3
    assert [int(b.tokens[2]) for b in branches[:2]] == [TOKENS.index("3"), lm.eos_ids[0]]
    for trajectory in (first, second, *branches):
        expected = tiny.trajectory(lm, prompt, trajectory.tokens)
        assert trajectory.finished == expected.finished
        close(trajectory.hidden, expected.hidden)
        close(trajectory.log_probs, expected.log_probs)
        close(trajectory.entropy, expected.entropy)
        close(trajectory.top1, expected.top1)
    for trajectory in (first, second):  # the noise of each token gives the token back
        for position in range(len(trajectory)):
            logits = lm.head.logits(trajectory.hidden[position])
            noise = noise_of(trajectory, position, torch.arange(V)).to(logits)
            assert int(sampling.draw(logits, noise)) == int(trajectory.tokens[position])
