"""Acceptance rules: whether a proposal replaces the current response."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from nabla.core.errors import ConfigError, NumericalError
from nabla.core.intact import intact
from nabla.core.registry import Registry
from nabla.core.trajectory import Trajectory


@dataclass(frozen=True)
class Densities:
    """How probable a proposal and its way back were, in nats.

    What stands in both directions alike may be left out: the suffix behind a replaced token, drawn from π
    itself, cancels against the target.

    Args:
        forward: ``log q(y' | y)``.
        backward: ``log q(y | y')``; -inf where there is no way back.
        prior: ``log π(y') - log π(y)``, π being the sampler that rollouts are drawn with.
    """

    forward: float
    backward: float
    prior: float

    @property
    def ratio(self) -> float:
        """``log [π(y') q(y | y') / (π(y) q(y' | y))]`` (Hastings, 1970)."""
        return self.prior + self.backward - self.forward


class Acceptance(ABC):
    """Chooses between two immutable trajectories; settings only."""

    #: Accepts strictly higher rewards alone: never an equal one, never both of two ways.
    strict: ClassVar[bool] = False

    @property
    def needs_reward(self) -> bool:
        """Whether both trajectories must be scored."""
        return True

    @property
    def needs_densities(self) -> bool:
        """Whether the proposal's densities must be given: for rules that sample exactly."""
        return False

    @property
    def tilt(self) -> float | None:
        """λ for which the rule, with proposals drawn from π, leaves ``π e^{λ r}`` invariant (SPEC section 2);
        None for a rule that is no sampler."""
        return None

    @abstractmethod
    def rule(
        self,
        current: Trajectory,
        proposal: Trajectory,
        generator: torch.Generator,
        densities: Densities | None = None,
    ) -> bool:
        """Whether the proposal is accepted; rewards are there and finite if the rule needs them.

        Args:
            current: the response held so far.
            proposal: the one offered.
            generator: for rules that draw.
            densities: of the proposal, there if the rule needs them.
        """

    def accept(
        self,
        current: Trajectory,
        proposal: Trajectory,
        generator: torch.Generator,
        densities: Densities | None = None,
    ) -> bool:
        """Checks rewards and densities, then applies the rule.

        Raises ConfigError for a missing reward, missing densities and an answer that is no bool, and
        NumericalError for a reward that is not finite.
        """
        if self.needs_reward:
            for trajectory in (current, proposal):
                reward_of(trajectory)
        if self.needs_densities and densities is None:
            raise ConfigError(
                "This acceptance rule weighs a proposal by its densities, and there are none",
                got=type(self).__name__,
                fix="Use a method whose proposals have densities, or acceptance 'metropolis'.",
            )
        given = (densities,) if self.needs_densities else ()
        with intact(self, current, proposal):
            answer: object = self.rule(current, proposal, generator, *given)
        if not isinstance(answer, bool):
            raise ConfigError(
                f"{type(self).__name__}.rule must return True or False",
                got=answer,
                fix="Return a bool: any other object would count as yes or no by accident.",
            )
        return answer


    def reason(self, current: Trajectory, proposal: Trajectory) -> str:
        """What decides between two texts, in words: the rule, and their rewards where it looks at them."""
        name = acceptances.name_of(self)
        if not self.needs_reward or current.reward is None or proposal.reward is None:
            return name
        return f"{name}: reward {current.reward:.4g} → {proposal.reward:.4g}"


class Comparison(Acceptance):
    """A rule that looks at both rewards and at nothing else."""

    def rule(
        self,
        current: Trajectory,
        proposal: Trajectory,
        generator: torch.Generator,
        densities: Densities | None = None,
    ) -> bool:
        return self.compare(reward_of(current), reward_of(proposal), generator)

    @abstractmethod
    def compare(self, old: float, new: float, generator: torch.Generator) -> bool:
        """Whether a reward ``new`` replaces ``old``, both finite."""


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
