"""Controls: always and never."""

from __future__ import annotations

from typing import ClassVar

import torch

from nabla.acceptance.base import Acceptance, Densities, acceptances
from nabla.core.trajectory import Trajectory


class _Constant(Acceptance):
    """The same answer to every proposal."""

    answer: ClassVar[bool]

    @property
    def needs_reward(self) -> bool:
        return False

    def rule(
        self,
        current: Trajectory,
        proposal: Trajectory,
        generator: torch.Generator,
        densities: Densities | None = None,
    ) -> bool:
        return self.answer


@acceptances.register("always")
class Always(_Constant):
    """Accept every proposal: the control without rejection sampling. Needs no reward."""

    answer = True

    @property
    def tilt(self) -> float:
        return 0.0  # the chain is π itself


@acceptances.register("never")
class Never(_Constant):
    """Accept no proposal: the rollout itself, at the cost of the method. Needs no reward."""

    answer = False
