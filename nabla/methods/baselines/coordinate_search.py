"""Greedy coordinate search over tokens, guided by the gradient: GCG (arXiv 2307.15043)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ConfigError, require_count, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods
from nabla.methods.pools import better
from nabla.models.causal_lm import require_lm
from nabla.objectives.base import LogitObjective, Objective, objectives, trajectory_terms
from nabla.objectives.reward import RewardObjective
from nabla.rewards.base import require_differentiable
from nabla.schedulers.base import Step

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


@methods.register("coordinate-search")
class CoordinateSearch(Method):
    """Single-token swaps of a rollout, proposed by the objective's gradient and judged by its exact value.

    A step takes the gradient at the current text, keeps the ``top_k`` tokens of the most negative entries at
    each position, evaluates ``batch`` random swaps among them with forward passes, and takes the best if it
    lowers the objective. The length never changes: an end-of-sequence token is neither swapped nor put in,
    nor are other special tokens. The answer is the response of the highest reward among the rollout
    and the texts that a step took (without a reward, the last taken).

    The paper takes a batch's best swap even where the text was better without it. It has 512 swaps of 256
    tokens and 500 steps; the defaults here cost about as much as a dozen rollouts, and under a budget there
    are more rounds.

    Args:
        objective: what swaps lower: trajectory terms (reward, likelihood) at their first weights.
        steps: per round.
        batch: swaps evaluated per step.
        top_k: candidates per position.
        support: candidates are among the language model's likeliest so many; None takes the whole
            vocabulary, as the paper does.
        sampling: of the rollout that a round starts from.
        rounds: restarts; under budgets as many as these allow.
    """

    def __init__(
        self,
        objective: Objective | str | dict[str, Any] = "sum",
        steps: int = 4,
        batch: int = 8,
        top_k: int = 8,
        support: int | None = None,
        sampling: Sampling | dict[str, Any] | None = None,
        rounds: int = 1,
    ) -> None:
        require_positive(steps=steps, batch=batch, top_k=top_k, rounds=rounds)
        if support is not None:
            require_count("support", support, minimum=2, note=" candidates, or None for all")
        self.objective = objectives.build(objective)
        self.terms = trajectory_terms(self.objective)
        logit = [t.name for t in self.objective.terms() if isinstance(t.objective, LogitObjective)]
        if logit or not self.terms:
            raise ConfigError(
                "Coordinate search compares texts, which have no logits of their own",
                got=logit or [t.name for t in self.objective.terms()],
                fix="Use an objective of reward and likelihood terms.",
            )
        self.steps, self.batch, self.top_k, self.support = steps, batch, top_k, support
        self.sampling = construct(Sampling, sampling)
        self.rounds = rounds

    def check(self, engine: Engine) -> None:
        require_lm(engine.lm, "Coordinate search chooses swaps by gradient")
        needed = any(t.objective.needs_reward for t in self.terms)
        if needed:
            require_differentiable(
                engine.reward, "The objective has a reward term", "choose objective='likelihood'"
            )

    async def solve(self, session: Session) -> Solution:
        best: Trajectory | None = None
        rounds = texts = 0
        while session.proceed(rounds < self.rounds):
            (current,) = await session.rollout(self.sampling)
            (current,) = await session.states([current], phase="gradient")  # where it was written elsewhere
            (current,), texts = await self._judge(session, [current]), texts + 1
            best = better(best, current)
            session.report(best)
            if session.spent:  # a step is many passes
                break
            (value,) = await self.evaluate(session, current, [current.tokens])
            for step in range(self.steps):
                if session.spent:
                    break
                noise = session.generator("swap", rounds, step)
                swapped, value = await self.swap(session, current, value, noise)
                if swapped is not current:
                    (current,), texts = await self._judge(session, [swapped]), texts + 1
                    best = better(best, current)
                    session.report(best)
            rounds += 1
        assert best is not None  # the first round always runs
        return self.solution(session, best.commit(len(best)), candidates=texts)

    async def _judge(self, session: Session, texts: list[Trajectory]) -> list[Trajectory]:
        return texts if not session.judged else await session.score(texts)

    async def evaluate(
        self, session: Session, current: Trajectory, texts: Sequence[Int[Tensor, " length"]]
    ) -> list[float]:
        """The objective at texts, by forward passes alone."""
        return self._total(await session.values(current, self.objective, texts), len(texts))

    def _total(self, found: dict[str, list[float]], count: int) -> list[float]:
        weights = {term.name: term.weight(Step()) for term in self.terms}
        return [sum(weights[n] * found[n][i] for n in found) for i in range(count)]

    async def swap(
        self, session: Session, current: Trajectory, value: float, noise: torch.Generator
    ) -> tuple[Trajectory, float]:
        """One step: the best of a batch of swaps with its value, or ``current`` itself if none is better.

        Args:
            current: the text, uncommitted.
            value: of the objective there.
            noise: chooses the swaps.
        """
        free = len(current) - int(current.finished)
        if free == 0:
            return current, value
        reference = session.reference(current, slice(0, free), self.support)
        gradient = await session.gradient(current, self.objective, start=0)
        rows = session.gradient_rows(gradient, gradient.total(self.terms, Step()), reference)
        allowed = self._allowed(session, current.tokens[:free], reference.candidates, reference.logits)
        where, tokens = _draw(rows, allowed, reference.candidates, self.top_k, self.batch, noise)
        if len(where) == 0:
            return current, value
        texts = current.tokens.repeat(len(where), 1)
        texts[torch.arange(len(where)), where] = tokens.to(texts)
        found = await session.values(current, self.objective, list(texts))
        values = self._total(found, len(texts))
        best = min(range(len(values)), key=values.__getitem__)
        session.meter.count("swaps_evaluated", len(values))
        if values[best] >= value:
            return current, value
        session.meter.count("swaps_taken")
        (taken,) = await session.read([texts[best]], self.sampling)
        for term in self.terms:
            if type(term.objective) is RewardObjective:  # the reward is known; no second pass
                taken = taken.with_reward(-found[term.name][best])
        return taken, values[best]

    @staticmethod
    def _allowed(
        session: Session,
        own: Int[Tensor, " n"],
        candidates: Int[Tensor, "n k"] | None,
        logits: Float[Tensor, "n k"],
    ) -> Tensor:
        """Which candidates may be put in ``[n, K]``: no special token, no blocked one, not the same."""
        known = session.vocabulary
        special = torch.tensor(
            sorted({*known.eos_ids, *known.tokenizer.all_special_ids}), device=logits.device
        )
        if candidates is None:
            candidates = torch.arange(logits.shape[-1], device=logits.device).expand(len(own), -1)
        return (
            (logits > float("-inf"))
            & ~torch.isin(candidates, special)
            & (candidates != own.to(candidates).unsqueeze(-1))
        )


def _draw(
    rows: Float[Tensor, "n k"],
    allowed: Tensor,
    candidates: Int[Tensor, "n k"] | None,
    top_k: int,
    batch: int,
    noise: torch.Generator,
) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
    """Random (position, token) pairs among each position's ``top_k`` most promising candidates."""
    gain = (-rows).masked_fill(~allowed, float("-inf")).cpu()
    top = gain.topk(min(top_k, gain.shape[-1]), dim=-1)
    counts = (top.values > float("-inf")).sum(-1)
    open_rows = counts.nonzero()[:, 0]
    if len(open_rows) == 0:
        return open_rows, open_rows
    where = open_rows[torch.randint(len(open_rows), (batch,), generator=noise)]
    column = (torch.rand(batch, generator=noise, dtype=torch.float64) * counts[where]).long()
    index = top.indices[where, column]
    return where, index if candidates is None else candidates.cpu()[where, index]
