"""The floor of one gradient: what no exact method can avoid.

One forward and one input-backward pass of both bodies over the response behind cached prefixes, and two
products with the language model's head (logits of the hard tokens' cross-entropy, and its backward)
where the objective has a likelihood. Plain transformers modules and matrix products, nothing of nabla's
batching, bookkeeping or arithmetic between them: not even the softmax.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from nabla.core.costs import Account, CostMeter
from nabla.core.prompt import Prompt
from nabla.models.body import cache_name
from nabla.models.causal_lm import CausalLM
from nabla.rewards.base import Response
from nabla.rewards.transformer import TransformerReward
from nabla.study.benchmark.timing import now, seconds

#: Numbers of logits held at once that are tried, rows with the whole vocabulary or all rows with a tile of
#: it; the fastest is the floor's.
CHUNKS = (1 << 20, 1 << 22, 1 << 23, 1 << 24, 1 << 25)


class Floor:
    """Runs the floor's parts on one text.

    Args:
        lm, reward: the models; token i of a response is token i of the reward's answer.
        prompt, tokens: the text; prefixes are cached here, once.
        start: first free position; what is before it belongs to the prefix.
        likelihood: whether the objective has a likelihood (else no pass of the LM at all).
    """

    def __init__(
        self,
        lm: CausalLM,
        reward: TransformerReward,
        prompt: Prompt,
        tokens: Tensor,
        *,
        start: int = 0,
        likelihood: bool = True,
    ) -> None:
        # The last token predicts nothing; the first free one is predicted by the prefix.
        self.likelihood = likelihood and len(tokens) > start + 1
        self.lm, self.rm = lm.body.module, reward.body.module
        self.weight = lm.head.weight.detach()
        self.score = reward.head.weight.detach()
        layout = reward.layout(Response(prompt, tokens, Account("floor", CostMeter(), "gradient")))
        embed, judge = lm.body.embed, reward.body.embed
        if self.likelihood:
            self.lm_leaf = embed(tokens[start:-1])[None].requires_grad_()
            before = torch.cat([lm.encode(prompt), tokens[:start]])
            self.lm_prefix, last = _prefix(self.lm, embed(before))
            self.first = last[0, -1:]
            self.order, self.chunk = self._fastest(len(tokens) - start)
        self.rm_leaf = judge(layout.answer[start:])[None].requires_grad_()
        self.after = judge(layout.after)[None]
        self.rm_prefix, _ = _prefix(self.rm, judge(torch.cat([layout.before, layout.answer[:start]])))

    def parts(self) -> dict[str, float]:
        """Seconds of each part; their sum is the floor."""
        found: dict[str, float] = {}
        if self.likelihood:
            begin = now()
            hidden = _run(self.lm, self.lm_leaf, self.lm_prefix)
            found["LM forward"] = now() - begin
            states = torch.cat([self.first, hidden[0].detach()])
            products = self._products(states, self.order, self.chunk)
            found |= {"head logits": products[0], "head backward": products[1]}
            begin = now()
            torch.autograd.grad(hidden, self.lm_leaf, torch.ones_like(hidden))
            found["LM backward"] = now() - begin
        begin = now()
        hidden = _run(self.rm, torch.cat([self.rm_leaf, self.after], 1), self.rm_prefix)
        reward = hidden[0, -1] @ self.score[0]
        found["RM forward"] = now() - begin
        begin = now()
        torch.autograd.grad(reward, self.rm_leaf)
        found["RM backward"] = now() - begin
        return found

    @torch.no_grad()
    def _products(self, hidden: Tensor, order: str, chunk: int) -> tuple[float, float]:
        """Seconds of the logits and of the product back, by chunks of rows or tiles of the vocabulary."""
        count, ids = len(hidden), len(self.weight)
        rows = max(1, chunk // ids) if order == "rows" else count
        width = ids if order == "rows" else max(1, chunk // count)
        result = torch.zeros_like(hidden)
        totals = [0.0, 0.0]
        for i in range(0, count, rows):
            for j in range(0, ids, width):
                weight = self.weight[j : j + width]
                begin = now()
                logits = hidden[i : i + rows] @ weight.mT
                between = now()
                result[i : i + rows].addmm_(logits, weight)
                totals[0] += between - begin
                totals[1] += now() - between
        return totals[0], totals[1]

    def _fastest(self, length: int) -> tuple[str, int]:
        hidden = torch.randn(length, self.weight.shape[1]).to(self.weight)
        times = {
            (order, chunk): min(sum(self._products(hidden, order, chunk)) for _ in range(2))
            for order in ("rows", "tiles")
            for chunk in CHUNKS
        }
        return min(times, key=lambda key: times[key])


@torch.no_grad()
def _prefix(module: Any, embedded: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Keys and values of a prefix, layer by layer, and its hidden states."""
    cache = DynamicCache()
    output = module(inputs_embeds=embedded[None], use_cache=True, **{cache_name(module): cache})
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    return layers, output.last_hidden_state


def _run(module: Any, embedded: Tensor, prefix: list[tuple[Tensor, Tensor]]) -> Tensor:
    cache = DynamicCache(ddp_cache_data=prefix)
    with torch.enable_grad():
        output = module(inputs_embeds=embedded, use_cache=True, **{cache_name(module): cache})
    hidden: Tensor = output.last_hidden_state
    return hidden


def gemm_peak(dtype: torch.dtype, device: str) -> float:
    """FLOPs per second of a large square product: the machine's measured peak."""
    size = 8192 if device == "cuda" else 2048
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    for _ in range(2):
        a @ b
    return float(2 * size**3 / min(seconds(lambda: a @ b) for _ in range(5)))
