"""The dense reference: Algorithm 2 of ∇-Reasoner (arXiv 2603.04948) with gradient caching, plainly.

Every row of the response is a row of a float parameter ``z [L, V]``; relaxed tokens are dense one-hot
rows that enter the models as ``y @ E``; each gradient runs both whole models over prompt and response.
Nothing of nabla is used here. ``tests/benchmark/test_dense.py`` checks that it gives what nabla gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Problem:
    """A prompt, a response and the two models.

    Args:
        lm: a transformers ``*ForCausalLM``, frozen.
        rm: a transformers ``*ForSequenceClassification`` with one label, frozen, over the same ids.
        prompt: ids before the response, as the LM reads them.
        before, after: ids around the response, as the RM reads it.
        tokens: the response ``[L]``.
        reward, likelihood: weights of the objective ``-reward·r(y|x) - likelihood·log π(y|x)``.
    """

    lm: Any
    rm: Any
    prompt: Tensor
    before: Tensor
    after: Tensor
    tokens: Tensor
    reward: float = 1.0
    likelihood: float = 1e-3

    def loss(self, y: Tensor) -> Tensor:
        """The objective at relaxed tokens ``y [L, V]``."""
        total = y.new_zeros(())
        if self.reward:
            total = total - self.reward * self._reward(y)
        if self.likelihood:
            total = total - self.likelihood * (y * self.logits(y).log_softmax(-1)).sum()
        return total

    def logits(self, y: Tensor) -> Tensor:
        """The LM's logits for every position of the response ``[L, V]``, in y's precision."""
        embeddings = self.lm.get_input_embeddings()
        rows = torch.cat([embeddings(self.prompt), y.to(embeddings.weight) @ embeddings.weight])
        output = self.lm(inputs_embeds=rows[None], use_cache=False, logits_to_keep=len(y) + 1)
        return output.logits[0, :-1].to(y)

    def _reward(self, y: Tensor) -> Tensor:
        embeddings = self.rm.get_input_embeddings()
        answer = y.to(embeddings.weight) @ embeddings.weight
        rows = torch.cat([embeddings(self.before), answer, embeddings(self.after)])
        return self.rm(inputs_embeds=rows[None], use_cache=False).logits[0, 0].to(y)


def one_hot(tokens: Tensor, vocabulary: int, dtype: torch.dtype) -> Tensor:
    """Rows ``[L, V]``."""
    rows = torch.zeros(len(tokens), vocabulary, dtype=dtype, device=tokens.device)
    return rows.scatter_(-1, tokens[:, None], 1.0)


def gradient(problem: Problem, tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """``∂L/∂y`` at hard tokens, the whole matrix ``[L, V]``."""
    y = one_hot(tokens, problem.lm.config.vocab_size, dtype).requires_grad_()
    return torch.autograd.grad(problem.loss(y), y)[0]


def cosine(step: int, steps: int, start: float, end: float) -> float:
    """Learning rate at a step of T."""
    share = step / (steps - 1) if steps > 1 else 0.0
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


@dataclass
class Refined:
    """Refined logits ``[L, V]`` and the number of gradients that ran the models."""

    logits: Tensor
    recomputed: int


def refine(
    problem: Problem, *, steps: int = 20, rows: str = "first", rates: tuple[float, float] = (0.01, 0.001)
) -> Refined:
    """Algorithm 2: straight-through with the softmax backward, AdamW, cosine rate, Algorithm 4's cache.

    Args:
        problem: what to refine.
        steps: T.
        rows: ``first`` moves the first row alone (the gradient of the others is dropped), ``all`` every.
        rates: learning rate at the first and the last step.
    """
    dtype = torch.promote_types(problem.lm.dtype, torch.float32)
    vocabulary = problem.lm.config.vocab_size
    with torch.no_grad():
        start = problem.logits(one_hot(problem.tokens, vocabulary, dtype))
        initial = start.argmax(-1)
    z = start.requires_grad_()
    optimiser = torch.optim.AdamW([z], lr=cosine(0, steps, *rates), weight_decay=0.0)
    hard = kept = None
    recomputed = 0
    for step in range(steps):
        # The rollout's own token stands until the argmax leaves its initial value.
        now = z.detach().argmax(-1)
        tokens = torch.where(now == initial, problem.tokens, now)
        if rows == "first":
            tokens[1:] = problem.tokens[1:]
        if hard is None or not torch.equal(tokens, hard):
            hard, kept = tokens, gradient(problem, tokens, dtype)
            recomputed += 1
        soft = z.softmax(-1)
        y = one_hot(tokens, vocabulary, dtype) + soft - soft.detach()
        optimiser.zero_grad()
        (y * kept).sum().backward()
        if rows == "first":
            z.grad[1:] = 0
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, steps, *rates)
        optimiser.step()
    return Refined(z.detach(), recomputed)


def select(problem: Problem, threshold: float = 8.0) -> Tensor:
    """Positions whose gradient norm is above a threshold, from the whole gradient ``[L, V]``."""
    dtype = torch.promote_types(problem.lm.dtype, torch.float32)
    norms: Tensor = gradient(problem, problem.tokens, dtype).norm(dim=-1)
    return norms > threshold
