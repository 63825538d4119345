"""Power sampling: Metropolis-Hastings on a power of the language model itself (arXiv 2510.14901)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from nabla.acceptance.base import Densities
from nabla.acceptance.metropolis import drawn
from nabla.core.errors import ConfigError, require_finite, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.edits import cut
from nabla.methods.base import Method, methods, tell
from nabla.models.causal_lm import require_lm
from nabla.rollouts.boundaries.length import Length

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


@methods.register("power-sampling")
class PowerSampling(Method):
    """A Markov chain on ``π(y)^α``, block by block and without a reward, π being the language model at
    temperature 1.

    A text of k blocks at most is changed ``steps`` times, then a block is written behind it, until it ends.
    A step draws a position i uniformly, the end token's too, and everything from i on anew, from the
    sampler q; the new text y' is accepted with probability
    ``min(1, (π(y') / π(y))^α · q(y_≥i) |y| / (q(y'_≥i) |y'|))``: the target, the sampler of the suffixes and
    the uniform position, whose probability is one over the length (SPEC section 15). With a budget the chain
    goes on over whole texts. The answer is the chain's last complete text, which is its sample; the first one
    is written to its end at once, so that an answer is held, and its first block begins the chain.

    Args:
        alpha: α >= 1.
        steps: of the chain in each block.
        blocks: number of blocks that ``max_new_tokens`` makes.
        sampling: q; the paper's has temperature 1/α. With top-k or top-p the target has its support alone.
    """

    def __init__(
        self,
        alpha: float = 4.0,
        steps: int = 10,
        blocks: int = 16,
        sampling: Sampling | dict[str, Any] | None = None,
    ) -> None:
        require_positive(steps=steps, blocks=blocks)
        self.alpha = require_finite("alpha", alpha, minimum=1.0)
        self.steps, self.blocks = steps, blocks
        self.sampling = construct(Sampling, sampling)
        if self.sampling.temperature == 0:
            raise ConfigError(
                "A chain cannot propose from a sampler of temperature 0",
                fix="Set sampling.temperature, e.g. to 1/alpha.",
            )

    @property
    def keeps_best(self) -> bool:
        return False  # the chain's sample

    def check(self, engine: Engine) -> None:
        require_lm(engine.lm, "Power sampling weighs texts by the language model's probabilities")

    async def solve(self, session: Session) -> Solution:
        block = math.ceil(self.sampling.max_new_tokens / self.blocks)
        (held,) = await session.rollout(self.sampling)
        session.report(held)
        limit, taken, texts = block, 0, 1
        current = cut(held, min(limit, len(held)))
        while session.proceed(taken < self.steps or not session.ended(current)):
            if taken >= self.steps and session.ended(current):
                limit = self.sampling.max_new_tokens
            elif taken >= self.steps:
                limit, taken = limit + block, 0
                (current,) = await session.extend([current], until=Length(limit - len(current)))
            current = await self.step(session, current, limit, texts)
            taken, texts = taken + 1, texts + 1
            if session.ended(current):
                held = current
                session.report(held)
        return self.solution(session, held.commit(len(held)), candidates=texts)

    async def step(self, session: Session, current: Trajectory, limit: int, number: int) -> Trajectory:
        """One step of the chain over texts of at most ``limit`` tokens."""
        generator = session.generator("power-sampling", number)
        position = int(torch.randint(len(current), (), generator=generator))
        (proposal,) = await session.extend([cut(current, position)], until=Length(limit - position))
        session.events.on_proposal(session.prompt, current, position, int(proposal.tokens[position]))
        current, proposal = await session.states([current, proposal])
        gain = _sum(proposal.log_probs[position:]) - _sum(current.log_probs[position:])
        densities = Densities(
            self._log_suffix(session, proposal, position) - math.log(len(current)),
            self._log_suffix(session, current, position) - math.log(len(proposal)),
            self.alpha * gain,
        )
        accepted = drawn(densities.ratio, generator)
        tell(session, current, proposal, position, accepted)
        return proposal if accepted else current

    def _log_suffix(self, session: Session, text: Trajectory, position: int) -> float:
        """``log q`` of what stands from a position on."""
        rows = session.reference(text, slice(position, len(text)))
        log_q = self.sampling.filter(rows.logits).log_softmax(-1)
        return _sum(log_q.gather(-1, rows.chosen.unsqueeze(-1)))


def _sum(log_probs: torch.Tensor) -> float:
    return float(log_probs.double().sum())
