"""Acceptance rules: whether a proposal replaces the current response."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from nabla.core.errors import ConfigError, NumericalError
from nabla.core.registry import Registry
from nabla.core.trajectory import Trajectory


class Acceptance(ABC):
    """Chooses between two immutable trajectories; settings only."""

    #: Accepts strictly higher rewards alone: never an equal one, never both of two ways.
    strict: ClassVar[bool] = False

    @property
    def needs_reward(self) -> bool:
        """Whether both trajectories must be scored."""
        return True

    @property
    def tilt(self) -> float | None:
        """λ for which the rule, with proposals drawn from π, leaves ``π e^{λ r}`` invariant (SPEC section 2);
        None for a rule that is no sampler."""
        return None

    @abstractmethod
    def rule(self, current: Trajectory, proposal: Trajectory, generator: torch.Generator) -> bool:
        """Whether the proposal is accepted; rewards are there and finite if the rule needs them.

        Args:
            current: the response held so far.
            proposal: the one offered.
            generator: for rules that draw.
        """

    def accept(self, current: Trajectory, proposal: Trajectory, generator: torch.Generator) -> bool:
        """Checks the rewards, then applies the rule.

        Raises ConfigError for a missing reward and NumericalError for one that is not finite.
        """
        if self.needs_reward:
            for trajectory in (current, proposal):
                reward_of(trajectory)
        return bool(self.rule(current, proposal, generator))


acceptances: Registry[Acceptance] = Registry("acceptance", lambda: Acceptance, __package__)


def reward_of(trajectory: Trajectory) -> float:
    """The trajectory's reward, in the reward model's logit unit.

    Raises ConfigError if there is none and NumericalError if it is NaN or infinite.
    """
    reward = trajectory.reward
    if reward is None:
        raise ConfigError(
            "This acceptance rule compares rewards, and there is none",
            fix="Pass a reward model (rm=...) or a Python reward, or choose acceptance 'always'.",
        )
    if not math.isfinite(reward):
        raise NumericalError(
            "The reward is not finite",
            got=reward,
            fix="Check the reward model's weights and its dtype.",
        )
    return reward
