"""The reward term."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.objectives.base import TrajectoryObjective, TrajectoryView, objectives


@objectives.register("reward")
class RewardObjective(TrajectoryObjective):
    """``-r(y|x)`` (arXiv 2603.04948, Eq. 2); with a process reward its aggregate over the steps."""

    unit = "reward logits"
    needs_reward = True
    additive = True

    def value(self, view: TrajectoryView) -> Float[Tensor, ""]:
        if view.reward is None:
            raise ConfigError(
                "The reward objective needs a reward model",
                fix="Pass a differentiable reward (rm=...), or use the likelihood objective alone.",
            )
        return -view.reward
