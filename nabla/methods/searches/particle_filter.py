"""Particle filtering over steps (arXiv 2502.01618)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from nabla.core.errors import require_finite, require_one_of, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods
from nabla.methods.steps import Scores, Search, Steps, prune, search, width
from nabla.rewards.base import require_reward
from nabla.rollouts.boundaries.base import Boundary, boundaries

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


@methods.register("particle-filter")
class ParticleFilter(Method):
    """N texts grow a step at a time and are resampled by weight; the best complete one by reward wins.

    - ``prefix`` (as published): the weight of a particle is the odds of its prefix's reward, ``e^{λ V_t}``,
      at every step and for finished particles too. The law of the particles is then π times the product of
      all weights, not ``π e^{λ r}``.
    - ``increment``: ``w_t = e^{λ (V_t - V_{t-1})}`` with V_0 = 0, V of the last step the reward of the whole,
      and 1 for a finished particle. The product of the mean weights is then an unbiased estimate of
      ``E_π e^{λ r}`` (SPEC section 15).

    Resampling is systematic, which is unbiased. With a budget filters with fresh draws follow each other, the
    first with 2, 4, ... particles.

    Args:
        particles: N.
        weight: see above.
        scale: λ, per unit of the reward.
        sampling: how tokens are drawn.
        boundary: where a step ends.
        max_steps: the last one runs to the end of the response.
    """

    def __init__(
        self,
        particles: int = 4,
        weight: Literal["prefix", "increment"] = "prefix",
        scale: float = 1.0,
        sampling: Sampling | dict[str, Any] | None = None,
        boundary: Boundary | str | dict[str, Any] = "newline",
        max_steps: int = 64,
    ) -> None:
        require_positive(particles=particles, max_steps=max_steps)
        require_one_of(weight, ("prefix", "increment"), "Unknown weight", "Weights")
        self.particles, self.weight = particles, weight
        self.scale = require_finite("scale", scale)
        self.sampling, self.boundary = construct(Sampling, sampling), boundaries.build(boundary)
        self.max_steps = max_steps

    def check(self, engine: Engine) -> None:
        require_reward(engine.reward, "A particle filter weighs prefixes by reward")

    async def solve(self, session: Session) -> Solution:
        scores = Scores(session)
        steps = Steps(self.sampling, self.boundary, self.max_steps)

        def start(begun: int) -> Filter:
            return Filter(self, width(session, begun, self.particles), begun, scores, steps)

        chosen = await search(session, scores, start)
        return self.solution(session, chosen, candidates=scores.complete)


class Filter(Search):
    """One filter of a problem.

    Args:
        method: settings.
        size: number of particles.
        number: of filters before it.
        scores, steps: what it scores and writes with.
    """

    def __init__(
        self, method: ParticleFilter, size: int, number: int, scores: Scores, steps: Steps
    ) -> None:
        self.method, self.size, self.number = method, size, number
        self.scores, self.steps = scores, steps
        self.particles: list[Trajectory] = []
        #: V of each particle's prefix.
        self.values: list[float] = []
        #: Logarithm of the product of mean weights.
        self.log_evidence = 0.0
        self.depth = 0

    @property
    def done(self) -> bool:
        return self.depth > 0 and all(self.scores.session.ended(p) for p in self.particles)

    async def advance(self) -> None:
        session = self.scores.session
        if self.depth == 0:
            grown = await self.steps.first(session, self.size)
            before, finished = [0.0] * self.size, [False] * self.size
        else:
            finished = [session.ended(p) for p in self.particles]
            grown = await self.steps.next(session, self.particles, self.depth)
            before = self.values
        # One that has ended is the same response as before: it is not considered again.
        judged = iter(await self.scores.score([t for t, end in zip(grown, finished, strict=True) if not end]))
        scored = [t if end else next(judged) for t, end in zip(grown, finished, strict=True)]
        self.values = [t.reward if t.reward is not None else math.nan for t in scored]
        self.depth += 1
        weights = self._log_weights(before, finished)
        top = float(weights.max())
        self.log_evidence += top + math.log(float((weights - top).exp().mean()))
        kept = systematic((weights - top).exp(), session.generator("resample", self.number, self.depth))
        self.particles = [scored[i] for i in kept]
        prune(session, scored, self.particles)
        self.values = [self.values[i] for i in kept]

    def _log_weights(self, before: list[float], finished: list[bool]) -> Tensor:
        scale = self.method.scale
        if self.method.weight == "prefix":
            rows = [scale * v for v in self.values]
        else:
            pairs = zip(self.values, before, finished, strict=True)
            rows = [0.0 if end else scale * (new - old) for new, old, end in pairs]
        return torch.tensor(rows, dtype=torch.float64)


def systematic(weights: Tensor, generator: torch.Generator) -> list[int]:
    """Indices of as many particles as there are weights: each as often as its share on average, by one draw
    (Kitagawa, 1996)."""
    count = len(weights)
    points = (torch.arange(count) + torch.rand((), generator=generator, dtype=torch.float64)) / count
    ends = (weights / weights.sum()).cumsum(0)
    found: list[int] = torch.searchsorted(ends, points).clamp_max(count - 1).tolist()
    return found
