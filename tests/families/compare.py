"""nabla's numbers against transformers' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nabla.core.costs import Account, CostMeter
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.models.causal_lm import CausalLM
from nabla.models.runner import Runner
from nabla.objectives.weighted_sum import WeightedSum
from nabla.rewards.base import RelaxedResponse, Response
from tests import tiny
from tests.families import made, plain

PROMPTS = tuple(
    Prompt.of(text, id=str(i))
    for i, text in enumerate(("What is 12*7?", "Solve x^2 = 4 for x > 0.", "Say 3 + 4; why?"))
)
#: Of the texts that are given, behind the prompts.
LENGTHS = (16, 9, 22)
#: Ids over which a reward's gradient is compared; a trained tokenizer has fewer.
CANDIDATES = 512
#: Largest deviation of what counts as exact.
TOLERANCE = 1e-9


def off(value: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest number."""
    assert value.shape == expected.shape
    assert bool(torch.isfinite(value).all())
    return float((value - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def opened(tok: Any, prompt: Prompt) -> Tensor:
    """Ids of a conversation up to where its answer begins, as transformers' tokenizer writes them."""
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    return tiny.ids(tok, tok.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def language(model: Any, tok: Any) -> dict[str, float]:
    """Deviations of a language model: written and read texts, gradients, alone and with neighbours."""
    lm = CausalLM(model, tok)
    usable, sampling = lm.head.usable, Sampling(1.0, max_new_tokens=12)
    objective = WeightedSum({"likelihood": 1.0})
    texts = [made.draw(tok, n, seed) for seed, n in enumerate(LENGTHS)]

    def own(prompts: Sequence[Prompt], committed: int) -> list[Any]:
        engine = Engine(lm, None)

        async def method(session: Any) -> Any:
            text = texts[int(session.prompt.id)]
            written = await session.rollout(sampling)
            (read,) = await session.read([text], sampling, committed=committed)
            gradient = await session.gradient(read, objective)
            where = slice(committed, len(text))
            account = Account("test", CostMeter(), "gradient")
            term = gradient.terms["likelihood"]
            rows = engine.workspace.gradients.rows(gradient, term, where, None, account)
            return session.prompt_ids, written[0], read, rows

        return list(tiny.drive(engine, prompts, method))

    found: dict[str, float] = {"written": 0.0, "read": 0.0, "gradient": 0.0, "neighbours": 0.0}

    def note(name: str, value: float) -> None:
        found[name] = max(found[name], value)

    for committed in (0, 4):
        together = own(PROMPTS, committed)
        for i, (prompt, written, read, rows) in enumerate(together):
            assert torch.equal(prompt, opened(tok, PROMPTS[i]))
            for name, t in (("written", written), ("read", read)):
                ids = torch.cat([prompt, t.tokens])
                expected = plain.log_probs(lm.model, ids, usable)[len(prompt) - 1 : -1]
                note(name, off(t.log_probs, expected.gather(-1, t.tokens[:, None])[:, 0]))
            ids = torch.cat([prompt, read.tokens])
            expected = plain.likelihood_rows(lm.model, ids, len(prompt), usable)
            note("gradient", off(rows, expected[committed:]))
            if committed:
                ((_, _, alone, own_rows),) = own(PROMPTS[i : i + 1], committed)
                note("neighbours", off(alone.log_probs, read.log_probs))
                note("neighbours", off(own_rows, rows))
    found["cached"] = float(lm.body.reuse_prefix)
    return found


# -- rewards --------------------------------------------------------------------------------------------

ANSWERS = ("The answer is 84.", "x = 2;\nso x > 0.\n", "Yes,\nthe sum is 3 + 4 = 7;\nI think so.")


def rendered(tok: Any, prompt: Prompt, answer: str) -> Tensor:
    """Ids of the finished conversation, as transformers' tokenizer writes them."""
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    turns.append({"role": "assistant", "content": answer})
    return tiny.ids(tok, tok.apply_chat_template(turns, tokenize=False))


def kept_raw(tok: Any, prompt: Prompt, answer: str) -> Tensor:
    """The same with the answer put where the template writes another one."""
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    turns.append({"role": "assistant", "content": "MARK"})
    return tiny.ids(tok, tok.apply_chat_template(turns, tokenize=False).replace("MARK", answer))


def reward(
    bound: Any, tok: Any, answers: Sequence[str] = ANSWERS, whole: Callable[..., Tensor] = rendered
) -> dict[str, float]:
    """Deviations of a bound reward model: scores, gradients, alone and with neighbours.

    Args:
        bound: an outcome reward, or a process reward of two labels whose aggregation is the sum.
        tok: its tokenizer, and the language model's.
        answers: to :data:`PROMPTS`.
        whole: gives the ids that transformers is asked with.
    """
    model, process = bound.model, bound.reads_whole_response
    found: dict[str, float] = {"score": 0.0, "gradient": 0.0, "neighbours": 0.0}

    def note(name: str, value: float) -> None:
        found[name] = max(found[name], value)

    items = [
        Response(p, tiny.ids(tok, a), Account(p.id, CostMeter(), "reward"))
        for p, a in zip(PROMPTS, answers, strict=True)
    ]
    layouts = [bound.layout(item) for item in items]
    wholes = [whole(tok, p, a) for p, a in zip(PROMPTS, answers, strict=True)]
    usable = bound.table.usable
    chosen = torch.randperm(usable, generator=torch.Generator().manual_seed(0))[:CANDIDATES]
    reads = [bound.steps(x) + len(x.before) if process else None for x in layouts]
    pad = model.config.pad_token_id
    padded = None if pad is None else plain.padded(model, wholes, reads)
    together = [score.value for score in bound.score(items, Runner())]
    slopes_together = slopes(bound, items, chosen)
    for i, (item, ids, layout) in enumerate(zip(items, wholes, layouts, strict=True)):
        assert torch.equal(layout.tokens, ids)
        value = torch.tensor(together[i])
        note("score", off(value, plain.reward(model, ids, reads[i])))
        if padded is not None:
            note("score", off(value, padded[i]))
        (alone,) = bound.score([item], Runner())
        note("neighbours", off(value, torch.tensor(alone.value)))
        (mine,) = slopes(bound, [item], chosen)
        note("neighbours", off(mine, slopes_together[i]))
        rows = plain.reward_rows(model, ids, reads[i], chosen)
        own = [row for row in range(len(mine)) if not (layout.seam and row == 0)]
        places = [int(layout.places[row]) for row in own]
        assert sum(p >= 0 for p in places) >= 2
        dense = [rows[len(layout.before) + p] if p >= 0 else torch.zeros_like(rows[0]) for p in places]
        note("gradient", off(mine[own], torch.stack(dense)))
    found["cached"] = float(bound.body.reuse_prefix)
    return found


def slopes(bound: Any, items: Sequence[Response], candidates: Tensor) -> list[Tensor]:
    """``∂r/∂y`` of each answer over some candidates."""
    every = bound.relaxed([RelaxedResponse(item, 0) for item in items], Runner())
    found = []
    for item, one in zip(items, every, strict=True):
        grads = torch.autograd.grad(one.value, one.leaves, allow_unused=True, retain_graph=True)
        count = len(item.tokens)
        total = torch.zeros(count, len(candidates), dtype=torch.float64)
        for channel, grad in zip(bound.channels(), grads, strict=True):
            if grad is not None:
                total = total + channel.pull(grad).rows(torch.arange(count), candidates.expand(count, -1))
        found.append(total)
    return found
