"""Tiny models, for laws that need some: what an objective meets in a run."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.engine.gradient.computer import GradientComputer
from nabla.engine.gradient.values import GradientTask, TermGradient, TrajectoryGradient
from nabla.models.causal_lm import CausalLM
from nabla.models.runner import Runner
from nabla.objectives.base import Objective, trajectory_terms
from nabla.rewards.base import Reward, SoftTokens
from nabla.schedulers.base import Step
from nabla.testing.inputs import make_logits
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_reward, tiny_trajectory

#: Of every text on the bench.
PROMPT = Prompt.of("ab")


class Bench:
    """Tiny models and gradients through them: what an objective meets in a run."""

    def __init__(self, lm: CausalLM, reward: Reward) -> None:
        self.lm, self.reward = lm, reward.written_by(lm).bind(lm.vocabulary)
        self.runner = Runner()
        self.gradients = GradientComputer(lm, self.reward, self.runner)
        self.prompt_ids = lm.encode(PROMPT)

    def account(self) -> Account:
        return Account("bench", CostMeter(), "gradient")

    def gradient(self, objective: Objective, text: list[int], y: Tensor | None = None) -> TrajectoryGradient:
        """At the hard text, or at relaxed rows ``y`` over the whole vocabulary in its place."""
        trajectory = tiny_trajectory(self.lm, PROMPT, torch.tensor(text))
        soft = None if y is None else SoftTokens(0, None, y)
        task = GradientTask(self.prompt_ids, trajectory, trajectory.tokens, 0, soft, self.account())
        (found,) = self.gradients.compute(trajectory_terms(objective), [task])
        if isinstance(found, NablaError):
            raise found
        return found

    def value(self, objective: Objective, gradient: TrajectoryGradient) -> float:
        return gradient.total(trajectory_terms(objective), Step()).value

    def rows(self, gradient: TrajectoryGradient, part: TermGradient) -> Tensor:
        """``∂L/∂y`` over the vocabulary ``[L, V]``."""
        whole = slice(0, len(gradient.tokens))
        return self.gradients.rows(gradient, part, whole, None, self.account())

    def relaxed(self, text: list[int], seed: int) -> Tensor:
        """Rows of the simplex, well inside it."""
        return make_logits("normal", len(text), self.lm.head.usable, seed, torch.float64, False).softmax(-1)


@cache
def bench() -> Bench:
    """One bench for all objectives: it keeps nothing of them."""
    tokenizer = char_tokenizer("abcd")
    return Bench(tiny_lm(tokenizer), tiny_reward(tokenizer))
