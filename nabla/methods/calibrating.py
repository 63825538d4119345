"""Texts that a gate asks: sampled and judged before a run, so that no solved problem decides of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.rewards.base import require_reward
from nabla.rollouts.boundaries.base import Boundary
from nabla.screens.sampled import Sampled

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


def sample(
    engine: Engine, prompts: Sequence[Prompt], count: int, sampling: Sampling, boundary: Boundary
) -> tuple[list[Sampled], float]:
    """Judged texts, as many for one prompt as for another, and the FLOPs that they cost.

    They follow from the models, the prompts and the engine's seed alone, and are drawn with other noise than
    the run's own texts. A prompt that fails here is left out; if all fail, raises the last one's error.

    Args:
        engine: one that has no budget, and that nobody listens to.
        prompts: that they answer.
        count: of texts in all; rounded up to a multiple of the prompts.
        sampling: how tokens are drawn.
        boundary: where a step ends.
    """
    each = -(-count // len(prompts))
    found: dict[str, list[Sampled]] = {}
    reward = require_reward(engine.reward, "A gate asks a reward")

    async def solve(session: Session) -> Solution:
        texts = await session.judge(await session.rollout(sampling, n=each))
        rows = []
        for text in texts:
            assert text.reward is not None
            ends = tuple(boundary.split(text.tokens.tolist(), session.vocabulary))
            own = reward.token_log_probs(text.values, text.log_probs.tolist())
            rows.append(Sampled(session.prompt.id, tuple(text.values), tuple(own), ends, text.reward))
        found[session.prompt.id] = rows
        return Solution(session.prompt, "", (), None, True, "gate", session.cost)

    flops = 0.0
    failure: NablaError | None = None
    asked = [replace(prompt, noise=f"{prompt.source} (gate)") for prompt in prompts]
    for _, outcome in engine.run(solve, asked):
        if isinstance(outcome, NablaError):
            failure = outcome
        if outcome.cost is not None:
            flops += outcome.cost.total.flops
    if failure is not None and not found:
        raise failure
    return [text for prompt in prompts for text in found.get(prompt.id, ())], flops
