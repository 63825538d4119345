"""Selectors: which positions are worth refining (SPEC Algorithm 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nabla.errors import ConfigError
from nabla.registry import Registry
from nabla.types import Trajectory


@dataclass(frozen=True, eq=False)
class SelectionView:
    """What a selector may look at.

    Args:
        trajectory: the current response.
        gradient_norms: ``||∂L/∂y_i||_2`` per position ``[L]``, NaN at committed ones; None unless
            the selector says that it needs them.
        centred_gradient_norms: the same without the component along the constant vector.
        generator: for selectors that draw.
    """

    trajectory: Trajectory
    gradient_norms: Float[Tensor, " length"] | None
    centred_gradient_norms: Float[Tensor, " length"] | None
    generator: torch.Generator


class Selector(ABC):
    """Chooses positions of a response; settings only."""

    #: Settings (attributes) whose growth only ever adds positions, or only ever removes them.
    monotone_in: ClassVar[tuple[str, ...]] = ("threshold",)
    #: Each position is judged by its own numbers alone; False for a choice among positions (a top k).
    pointwise: ClassVar[bool] = True

    @property
    def needs_gradient(self) -> bool:
        """Whether ``gradient_norms`` must be given."""
        return False

    @abstractmethod
    def mask(self, view: SelectionView) -> Bool[Tensor, " length"]:
        """True where a position should be refined; committed and end ones are removed later."""

    def select(self, view: SelectionView) -> Bool[Tensor, " length"]:
        """The mask, never true at a committed position or at an end-of-sequence token.

        Raises ConfigError if ``mask`` returns anything but a boolean per position, or if gradient
        norms are needed and missing.
        """
        length = len(view.trajectory)
        if self.needs_gradient and view.gradient_norms is None:
            raise ConfigError(f"{type(self).__name__} needs gradient norms")
        mask = self.mask(view)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (length,):
            raise ConfigError(
                f"{type(self).__name__}.mask must return a boolean tensor of shape [{length}]",
                got=mask,
                fix="Return a mask, not positions.",
            )
        free = torch.arange(length, device=mask.device) >= view.trajectory.committed
        if view.trajectory.finished:
            free[-1] = False
        return mask & free

    def __and__(self, other: Selector) -> Selector:
        from nabla.selectors.compose import And

        return And([self, other])

    def __or__(self, other: Selector) -> Selector:
        from nabla.selectors.compose import Or

        return Or([self, other])

    def __invert__(self) -> Selector:
        from nabla.selectors.compose import Not

        return Not(self)


selectors: Registry[Selector] = Registry("selectors", lambda: Selector)
