"""The values that flow through a run: prompt → trajectory → solution. All are immutable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling

if TYPE_CHECKING:
    pass








@dataclass(frozen=True, eq=False)
class Trajectory:
    """A response to a prompt, with what its rollout already knows. Immutable: accepting a proposal
    is choosing another trajectory.

    Args:
        prompt: the problem.
        tokens: ids of the response in the LM's vocabulary, end-of-sequence token included ``[L]``.
        finished: whether the last token is an end-of-sequence token.
        hidden: last hidden states, before the head, that predict each token ``[L, H]``.
        log_probs: ``log π(y_i | y_<i, x)`` at temperature 1, nats ``[L]``.
        entropy: entropy of ``π(. | y_<i, x)``, nats ``[L]``.
        top1: largest probability of ``π(. | y_<i, x)`` ``[L]``.
        noise_keys: key of the Gumbel field each token was drawn with ``[L]``.
        sampling: how the tokens were drawn.
        committed: number of leading tokens that are final.
        reward: the reward model's value, in its own logit unit; None until scored.
    """

    prompt: Prompt
    tokens: Int[Tensor, " length"]
    finished: bool
    hidden: Float[Tensor, "length hidden"]
    log_probs: Float[Tensor, " length"]
    entropy: Float[Tensor, " length"]
    top1: Float[Tensor, " length"]
    noise_keys: Int[Tensor, " length"]
    sampling: Sampling
    committed: int = 0
    reward: float | None = None

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def complete(self) -> bool:
        """Every token is committed."""
        return self.committed >= len(self)

    @property
    def log_likelihood(self) -> float:
        """``log π(y | x)`` of the whole response, nats."""
        return float(self.log_probs.double().sum())

    def commit(self, count: int = 1) -> Trajectory:
        """The same text with ``count`` more tokens final."""
        return replace(self, committed=min(self.committed + count, len(self)))

    def with_reward(self, reward: float) -> Trajectory:
        """The same text with its reward."""
        return replace(self, reward=reward)

    def noise(self, position: int, tokens: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The Gumbel noise with which the token at ``position`` was drawn."""
        from nabla.core.random import gumbel

        where = torch.tensor([position])
        return gumbel(self.noise_keys[position : position + 1].cpu(), where, tokens.cpu())[0]




