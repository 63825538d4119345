"""nabla's numbers against transformers' own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nabla.core.costs import Account, CostMeter
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.models.causal_lm import CausalLM
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary
from nabla.objectives.weighted_sum import WeightedSum
from nabla.rewards.base import RelaxedResponse, Response
from nabla.rewards.outcome import OutcomeReward
from nabla.rewards.process import ProcessReward
from tests import tiny
from tests.families import made, plain

PROMPTS = tuple(
    Prompt.of(text, id=str(i))
    for i, text in enumerate(("What is 12*7?", "Solve x^2 = 4 for x > 0.", "Say 3 + 4; why?"))
)
LENGTHS = (16, 9, 22)


def off(value: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest number."""
    assert value.shape == expected.shape
    assert bool(torch.isfinite(value).all())
    return float((value - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


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
            rows = engine.workspace.gradients.rows(gradient, gradient.terms["likelihood"], where, None, account)
            return session.prompt_ids, written[0], read, rows

        return list(tiny.drive(engine, prompts, method))

    found: dict[str, float] = {"written": 0.0, "read": 0.0, "gradient": 0.0, "neighbours": 0.0}

    def note(name: str, value: float) -> None:
        found[name] = max(found[name], value)

    for committed in (0, 4):
        together = own(PROMPTS, committed)
        for i, (prompt, written, read, rows) in enumerate(together):
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
    turns = [*({"role": m.role, "content": m.content} for m in prompt.messages)]
    turns.append({"role": "assistant", "content": answer})
    return tiny.ids(tok, tok.apply_chat_template(turns, tokenize=False))


def reward(model: Any, tok: Any, *, process: bool) -> dict[str, float]:
    """Deviations of a reward model: scores, gradients, alone and with neighbours."""
    made_of: Any = ProcessReward if process else OutcomeReward
    settings = {"aggregation": "sum", "step_separators": ["\n"]} if process else {}
    bound = made_of(model, tok, **settings).bind(Vocabulary(tok))
    wholes = [rendered(tok, p, a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    items = [
        Response(p, tiny.ids(tok, a), Account(p.id, CostMeter(), "reward"))
        for p, a in zip(PROMPTS, ANSWERS, strict=True)
    ]
    layouts = [bound.layout(item) for item in items]
    found: dict[str, float] = {"score": 0.0, "gradient": 0.0, "neighbours": 0.0}

    def note(name: str, value: float) -> None:
        found[name] = max(found[name], value)

    reads = [bound.steps(x) + len(x.before) if process else None for x in layouts]
    expected = [plain.reward(model, ids, at) for ids, at in zip(wholes, reads, strict=True)]
    padded = plain.padded(model, wholes, reads)
    together = [score.value for score in bound.score(items, Runner())]
    alone = [bound.score([item], Runner())[0].value for item in items]
    for i, (item, ids, layout) in enumerate(zip(items, wholes, layouts, strict=True)):
        assert torch.equal(layout.tokens, ids)
        note("score", off(torch.tensor(together[i]), expected[i]))
        note("score", off(torch.tensor(together[i]), padded[i]))
        note("neighbours", off(torch.tensor(together[i]), torch.tensor(alone[i])))
        rows = plain.reward_rows(model, ids, reads[i], bound.table.usable)
        mine = slopes(bound, [item])[0]
        shared = slopes(bound, items)[i]
        note("neighbours", off(mine, shared))
        own = [row for row in range(len(mine)) if not (layout.seam and row == 0)]
        places = [int(layout.places[row]) for row in own]
        dense = [rows[len(layout.before) + p] if p >= 0 else torch.zeros_like(rows[0]) for p in places]
        note("gradient", off(mine[own], torch.stack(dense)))
    found["cached"] = float(bound.body.reuse_prefix)
    return found


def slopes(bound: Any, items: Sequence[Response]) -> list[Tensor]:
    """``∂r/∂y`` of each answer over all usable ids."""
    every = bound.relaxed([RelaxedResponse(item, 0) for item in items], Runner())
    found = []
    for item, one in zip(items, every, strict=True):
        grads = torch.autograd.grad(one.value, one.leaves, allow_unused=True, retain_graph=True)
        total = torch.zeros(len(item.tokens), bound.table.usable, dtype=torch.float64)
        for channel, grad in zip(bound.channels(), grads, strict=True):
            if grad is not None:
                total = total + channel.pull(grad).rows(torch.arange(len(item.tokens)), None)
        found.append(total)
    return found
