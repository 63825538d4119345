"""Algorithm 2, slow and obvious: the yardstick for nabla's gradient, rewards and refinement.

Everything is one dense L×V matrix ``y`` with autograd through whole transformers models; no cache, no
reuse, no rows on demand. Nothing of nabla is used here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot


@dataclass
class DenseLM:
    """A causal language model and a prompt. ``blocked`` ids have probability zero."""

    model: Any
    prompt: Tensor
    usable: int
    blocked: Tensor | None = None

    @property
    def embeddings(self) -> Tensor:
        """Input embeddings of all usable ids ``[V, H]``."""
        return self.model.get_input_embeddings()(torch.arange(self.usable)).detach()

    def _inputs(self, y: Tensor) -> Tensor:
        before = self.model.get_input_embeddings()(self.prompt).detach()
        return torch.cat([before, y @ self.embeddings])[None]

    def mask(self, logits: Tensor) -> Tensor:
        return logits if self.blocked is None else logits.masked_fill(self.blocked, float("-inf"))

    def logits(self, y: Tensor) -> Tensor:
        """Logits that predict each row of y ``[L, V]``."""
        out = self.model(inputs_embeds=self._inputs(y)).logits[0]
        return self.mask(out[len(self.prompt) - 1 : -1, : self.usable])

    def hidden(self, y: Tensor) -> Tensor:
        """Last hidden states that predict each row of y ``[L, H]``."""
        out = self.model.base_model(inputs_embeds=self._inputs(y)).last_hidden_state[0]
        return out[len(self.prompt) - 1 : -1]

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states, as the families used in the tests do it."""
        config = self.model.config
        logits = self.model.get_output_embeddings()(hidden)[..., : self.usable]
        if getattr(config, "logits_scaling", None):
            logits = logits / config.logits_scaling
        if getattr(config, "logit_scale", None):
            logits = logits * config.logit_scale
        if getattr(config, "final_logit_softcapping", None):
            cap = config.final_logit_softcapping
            logits = cap * torch.tanh(logits / cap)
        return self.mask(logits)

    def log_pi(self, y: Tensor) -> Tensor:
        """``log π(. | y_<i, x)``, zero at blocked ids (they never have weight)."""
        log_p = self.logits(y).log_softmax(-1)
        return log_p if self.blocked is None else log_p.masked_fill(self.blocked, 0.0)


@dataclass
class DenseRM:
    """A reward model with the template's ids around the answer.

    Args:
        index: this model's id per language-model id, -1 where it has none.
        eos: the language model's end-of-sequence ids.
        aggregation: None for an outcome model, else of the process model's steps.
        ends: this model's ids that end a step; None: each token is one.
    """

    model: Any
    before: Tensor
    after: Tensor
    index: Tensor
    eos: Sequence[int]
    aggregation: str | None = None
    ends: Sequence[int] | None = None
    label: int = 0
    weight: float = 1.0

    @property
    def embeddings(self) -> Tensor:
        """By language-model id; zero where this model has no such token."""
        rows = self.model.get_input_embeddings()(self.index.clamp_min(0)).detach()
        return rows * (self.index >= 0)[:, None]

    def reward(self, y: Tensor, tokens: Tensor) -> Tensor:
        """Reward of the relaxed answer; ``tokens`` are the hard ones that decide what is read."""
        after, count = self.after, len(tokens)
        if int(tokens[-1]) in self.eos:
            closing = int(self.index[tokens[-1]])
            if closing >= 0 and len(after) and int(after[0]) == closing:
                after = after[1:]
            else:
                count -= 1
        embed = self.model.get_input_embeddings()
        parts = [embed(self.before).detach(), y[:count] @ self.embeddings, embed(after).detach()]
        scores = self.model(inputs_embeds=torch.cat(parts)[None]).logits[0]
        if self.aggregation is None:
            return self.weight * scores[0]
        start = len(self.before)
        if count == 0:  # the score of the question's last token
            return self.weight * scores[start - 1, self.label]
        if self.ends is None:
            steps = list(range(count))
        else:
            steps = [i for i in range(count) if int(self.index[tokens[i]]) in self.ends]
            if not steps or steps[-1] != count - 1:
                steps.append(count - 1)
        values = scores[[start + i for i in steps], self.label]
        how = {"sum": torch.sum, "mean": torch.mean, "min": torch.min, "last": lambda v: v[-1]}
        return self.weight * how[self.aggregation](values)


@dataclass
class Weights:
    """Of the terms of the objective."""

    reward: float = 0.0
    likelihood: float = 0.0
    kl: float = 0.0
    reverse_kl: float = 0.0
    entropy: float = 0.0
    detach_context: bool = False


@dataclass
class Dense:
    """A prompt, its models and an objective."""

    lm: DenseLM
    rms: list[DenseRM] = field(default_factory=list)
    weights: Weights = field(default_factory=Weights)

    def one_hot(self, tokens: Tensor) -> Tensor:
        return one_hot(tokens, self.lm.usable).to(self.lm.embeddings.dtype)

    def log_likelihoods(self, y: Tensor) -> Tensor:
        """``y_i^T log π(. | y_<i)`` per row; contexts held fixed if the objective says so."""
        context = y.detach() if self.weights.detach_context else y
        return (y * self.lm.log_pi(context)).sum(-1)

    def reward(self, y: Tensor, tokens: Tensor) -> Tensor:
        return sum((rm.reward(y, tokens) for rm in self.rms), y.new_zeros(()))

    def term_gradients(self, tokens: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """``∂(-r)/∂y`` and ``∂(-log π)/∂y``, unweighted, as whole matrices ``[L, V]``."""
        y = (self.one_hot(tokens) if y is None else y).detach().requires_grad_()
        found = {"likelihood": torch.autograd.grad(-self.log_likelihoods(y).sum(), y)[0]}
        if self.rms:
            value = -self.reward(y, tokens)
            found["reward"] = torch.autograd.grad(value, y)[0] if value.requires_grad else torch.zeros_like(y)
        return found

    def loss(self, y: Tensor, tokens: Tensor, logits: Tensor, reference: Tensor) -> Tensor:
        """The objective at relaxed tokens and at the refined rows' logits."""
        w = self.weights
        total = y.new_zeros(())
        if w.likelihood:
            total = total - w.likelihood * self.log_likelihoods(y).sum()
        if w.reward:
            total = total - w.reward * self.reward(y, tokens)
        for z, z0 in zip(logits, reference, strict=True):
            keep = z0 > float("-inf")
            log_p, log_q = z[keep].log_softmax(-1), z0[keep].log_softmax(-1)
            total = total + w.kl * (log_p.exp() * (log_p - log_q)).sum()
            total = total + w.reverse_kl * (log_q.exp() * (log_q - log_p)).sum()
            total = total + w.entropy * (log_p.exp() * log_p).sum()
        return total


def gumbel(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise: minus the logarithm of standard exponentials."""
    return -torch.empty(tuple(shape), dtype=torch.float64).exponential_(generator=generator).log()


def cosine(start: float, end: float) -> Callable[[int, int], float]:
    """Learning rate at a step of T."""

    def at(step: int, total: int) -> float:
        share = step / (total - 1) if total > 1 else 0.0
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    return at


@dataclass
class Refined:
    """What the reference refinement did."""

    reference: Tensor
    candidates: Tensor
    logits: Tensor
    texts: list[tuple[int, ...]]
    relaxed: list[Tensor]


def refine(
    problem: Dense,
    tokens: Tensor,
    *,
    committed: int,
    rows: str,
    estimator: str,
    anchor: str,
    parameterization: str,
    steps: int,
    learning_rate: Callable[[int, int], float],
    generator: torch.Generator,
    support: int | None = None,
    temperature: float = 1.0,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    langevin: float = 0.0,
) -> Refined:
    """Algorithm 2 on the rows from ``committed`` on (``rows="all"``) or on that row alone."""
    y0 = problem.one_hot(tokens)
    first, last = committed, (committed + 1 if rows == "first" else len(tokens))
    with torch.no_grad():
        full = problem.lm.logits(y0)[first:last]
        hidden = problem.lm.hidden(y0)[first:last]
    count = last - first
    own = tokens[first:last]
    if support is None or support >= problem.lm.usable:
        candidates = torch.arange(problem.lm.usable).expand(count, -1)
    else:
        candidates = full.topk(support, dim=-1).indices
        for row in range(count):
            if int(own[row]) not in candidates[row].tolist():
                candidates[row, -1] = own[row]
    reference = full.gather(-1, candidates)
    chosen = [candidates[row].tolist().index(int(own[row])) for row in range(count)]

    start = hidden if parameterization == "latents" else reference.masked_fill(reference.isinf(), 0.0)
    parameter = start.clone().requires_grad_()
    engine = optimizer([parameter], lr=learning_rate(0, steps))
    texts, history = [], []

    def current() -> Tensor:
        if parameterization == "latents":
            return problem.lm.head(parameter).gather(-1, candidates)
        return parameter.masked_fill(reference.isinf(), float("-inf"))

    for step in range(steps):
        z = current()
        noise = gumbel(z.shape, generator) if "gumbel" in estimator else torch.zeros_like(z)
        noisy = (z + noise).detach()
        index = []
        for row in range(count):
            now = int(noisy[row].argmax())
            then = int((reference + noise)[row].argmax())
            index.append(chosen[row] if anchor == "rollout" and now == then else now)
        hard = one_hot(torch.tensor(index), z.shape[-1]).to(z)
        soft = ((z + noise) / temperature).softmax(-1)
        if estimator in ("straight-through", "gumbel-straight-through"):
            relaxed = hard + (soft - soft.detach())  # exactly one-hot
        elif estimator == "straight-through-identity":
            finite = z.masked_fill(z.isinf(), 0.0)
            relaxed = hard + (finite - finite.detach())
        else:
            relaxed = soft
        wide = torch.zeros(count, problem.lm.usable, dtype=z.dtype).scatter(-1, candidates, relaxed)
        y = torch.cat([y0[:first], wide, y0[last:]])
        text = tokens.clone()
        if estimator in ("straight-through", "straight-through-identity", "gumbel-straight-through"):
            text[first:last] = candidates.gather(-1, torch.tensor(index)[:, None])[:, 0]
        texts.append(tuple(text.tolist()))
        history.append(relaxed.detach())
        engine.zero_grad()
        problem.loss(y, text, z, reference).backward()
        for group in engine.param_groups:
            group["lr"] = learning_rate(step, steps)
        engine.step()
        if langevin > 0:
            draws = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            with torch.no_grad():
                parameter += math.sqrt(2 * learning_rate(step, steps) * langevin) * draws
    with torch.no_grad():
        return Refined(reference, candidates, current().clone(), texts, history)
