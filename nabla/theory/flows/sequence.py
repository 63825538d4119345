"""Algorithm 1 on an enumerated sequence space, as exact transition matrices and as a sampled chain.

At position i of response y, DTO refines row i and a token v is drawn from ``q_i(·|y)``; if v differs from
y_i, the rest is rolled out from π and the proposal y' is accepted or not. So

``Q_i(y → y') = q_i(y'_i | y) · π(y'_{>i} | y_{<i}, y'_i)``.

**Which acceptance is right.** For a target ``p ∝ π e^{λr}`` Metropolis and Hastings' ratio is
``p(y') Q_i(y' → y) / (p(y) Q_i(y → y'))``. The rollouts cancel against π, and what is left is

``exp(λ (r' - r)) · [π_i(y'_i) q_i(y_i | y')] / [π_i(y_i) q_i(y'_i | y)]``, π_i = π(·|y_{<i}, x).

Without refinement, at temperature 1, ``q_i = π_i``: the second factor is 1 and the plain rule
``exp(λ (r' - r))`` is exact. With DTO it is not 1, and the reverse draw needs DTO's row at y', one gradient
more. :func:`correction` is its logarithm. Each position's kernel then leaves p invariant, and so does
a sweep over all positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nabla.acceptance.base import Acceptance
from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.session import Session
from nabla.refinement.dto import DTO
from nabla.theory.arrays import Array
from nabla.theory.problems.text import SequenceSpace, ask_all


@dataclass(frozen=True, eq=False)
class Proposals:
    """Token proposals for every response and position, and what the correction needs.

    Args:
        q: ``log q_i(v|y)`` ``[S, length, V]``; NaN beyond a response's end.
        pi: ``log π(v|y_<i)`` ``[S, length, V]``.
    """

    q: Float[Tensor, "states length vocab"]
    pi: Float[Tensor, "states length vocab"]


def prior_proposals(space: SequenceSpace) -> Proposals:
    """Rows of π itself: an unrefined proposal at temperature 1."""
    shape = (len(space), space.length, space.vocabulary)
    pi = torch.full(shape, float("nan"), dtype=torch.float64)
    with torch.no_grad():
        for state, tokens in enumerate(space.responses):
            pi[state, : len(tokens)] = space.log_rows(space.one_hot(tokens))
    return Proposals(pi.clone(), pi)


def refined_proposals(space: SequenceSpace, dto: DTO, sampling: Sampling) -> Proposals:
    """Rows that nabla's own DTO returns, through the engine, under ``sampling``'s temperature and filters.

    Raises ConfigError for stochastic refinement, whose proposal law is not a row.
    """
    if dto.estimator.stochastic or dto.descent.langevin.bounds[1] > 0:
        raise ConfigError("The proposal law is known for deterministic refinement only")
    found = prior_proposals(space)

    async def rows(session: Session) -> None:
        state = int(session.prompt.id)
        trajectory = space.trajectory(space.responses[state])
        for position in range(len(trajectory)):
            refinement = await dto.refine(trajectory.commit(position), session)
            logits = refinement.logits[0].double()
            found.q[state, position] = sampling.filter(logits).log_softmax(-1)

    ask_all(space.engine(), [Prompt(str(i), space.prompt.messages) for i in range(len(space))], rows)
    return found


def correction(
    proposals: Proposals, old: int, new: int, position: int, old_token: int, new_token: int
) -> float:
    """``log [π_i(y'_i) q_i(y_i|y')] - log [π_i(y_i) q_i(y'_i|y)]``, nats; -inf if the way back is closed."""
    pi = proposals.pi[old, position]
    forward, backward = proposals.q[old, position, new_token], proposals.q[new, position, old_token]
    return float(pi[new_token] - pi[old_token] + backward - forward)


Rule = Callable[[int, int, int, float], float]


def metropolis_rule(space: SequenceSpace) -> Rule:
    """Acceptance probability ``min(1, exp(λ(r' - r) + correction))``; arguments: y, y', i, correction."""
    r = space.reward
    return lambda old, new, _, extra: min(1.0, float(torch.exp(space.weight * (r[new] - r[old]) + extra)))


def strict_rule(space: SequenceSpace) -> Rule:
    """The paper's: 1 if the reward is strictly higher."""
    r = space.reward
    return lambda old, new, _, __: float(r[new] > r[old])


def always_rule(_: SequenceSpace) -> Rule:
    """No rejection at all."""
    return lambda *_: 1.0


class Kernels:
    """Exact transition matrices of one sweep.

    Args:
        space: all responses.
        proposals: of tokens.
        rule: acceptance probability.
        corrected: pass the proposal correction to the rule (else 0).
        keep_end: never revise an end-of-sequence token, as nabla's selectors do. Such a token can be proposed
            but not taken back: no rule of rewards and corrections makes that sweep reversible, only one that
            never accepts it (:class:`~nabla.acceptance.metropolis.MetropolisHastings` in production).
    """

    def __init__(
        self,
        space: SequenceSpace,
        proposals: Proposals,
        rule: Rule,
        *,
        corrected: bool,
        keep_end: bool = False,
    ) -> None:
        self.space, self.proposals, self.keep_end = space, proposals, keep_end
        self.matrices = [self._matrix(i, rule, corrected) for i in range(space.length)]

    def _matrix(self, position: int, rule: Rule, corrected: bool) -> Array:
        space = self.space
        size = len(space)
        weights = space.log_pi.exp().numpy()
        texts = [tuple(y.tolist()) for y in space.responses]
        mass: dict[tuple[int, ...], float] = {}
        groups: dict[tuple[int, ...], list[int]] = {}
        for state, text in enumerate(texts):
            if len(text) > position:
                head = text[: position + 1]
                mass[head] = mass.get(head, 0.0) + weights[state]
                groups.setdefault(text[:position], []).append(state)
        matrix = np.zeros((size, size))
        q = self.proposals.q.exp().numpy()
        for members in groups.values():
            for old in members:
                for new in members:
                    a, b = texts[old][position], texts[new][position]
                    if a == b or (self.keep_end and a == space.eos) or q[old, position, b] == 0:
                        continue
                    extra = correction(self.proposals, old, new, position, a, b) if corrected else 0.0
                    tail = weights[new] / mass[texts[new][: position + 1]]
                    matrix[old, new] = q[old, position, b] * tail * rule(old, new, position, extra)
        matrix[np.arange(size), np.arange(size)] = 1 - matrix.sum(1)
        return matrix

    def sweep(self, law: Array, count: int = 1) -> Array:
        """The law after sweeps over all positions, from the first to the last ``[S]``."""
        for _ in range(count):
            for matrix in self.matrices:
                law = law @ matrix
        return law

    def imbalance(self) -> float:
        """Largest ``|p(y) P_i(y, y') - p(y') P_i(y', y)|`` for the target p: 0 where it is reversible."""
        p = self.space.target.numpy()
        flows = [p[:, None] * matrix for matrix in self.matrices]
        return max(float(np.abs(f - f.T).max()) for f in flows)


def simulate(
    space: SequenceSpace,
    proposals: Proposals,
    acceptance: Acceptance,
    *,
    corrected: bool,
    chains: int,
    sweeps: int,
    generator: torch.Generator,
) -> tuple[Array, float]:
    """Independent chains from π with nabla's own acceptance classes: counts per response ``[S]`` and the
    acceptance rate.

    The correction enters through the proposal's reward, ``r' + correction / λ``, so that the rule itself
    is used as it is.
    """
    bare = [
        space.trajectory(y).with_reward(float(r)) for y, r in zip(space.responses, space.reward, strict=True)
    ]
    texts = [tuple(y.tolist()) for y in space.responses]
    members: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
    for count in range(1, space.length + 1):
        for head in {t[:count] for t in texts if len(t) >= count}:
            states = torch.tensor([i for i, t in enumerate(texts) if t[:count] == head])
            members[head] = states, space.log_pi[states].exp()
    at = torch.multinomial(space.log_pi.exp(), chains, replacement=True, generator=generator).tolist()
    offered = accepted = 0
    table = proposals.q.exp()
    for _ in range(sweeps):
        for position in range(space.length):
            live = [k for k, state in enumerate(at) if len(texts[state]) > position]
            rows = table[[at[k] for k in live], position]
            tokens = torch.multinomial(rows, 1, generator=generator)[:, 0].tolist()
            for k, token in zip(live, tokens, strict=True):
                old = at[k]
                if token == texts[old][position]:
                    continue
                states, weights = members[(*texts[old][:position], token)]
                pick = torch.multinomial(weights, 1, generator=generator) if len(states) > 1 else 0
                new = int(states[pick])
                proposal = bare[new]
                if corrected:
                    extra = correction(proposals, old, new, position, texts[old][position], token)
                    proposal = proposal.with_reward(float(space.reward[new]) + extra / space.weight)
                offered += 1
                if acceptance.accept(bare[old], proposal, generator):
                    at[k] = new
                    accepted += 1
    return np.bincount(at, minlength=len(space)).astype(np.float64), accepted / max(offered, 1)
