"""Selectors: which positions are worth refining (SPEC Algorithm 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.registry import Registry
from nabla.core.trajectory import Trajectory


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
        from nabla.selectors.base import And

        return And([self, other])

    def __or__(self, other: Selector) -> Selector:
        from nabla.selectors.base import Or

        return Or([self, other])

    def __invert__(self) -> Selector:
        from nabla.selectors.base import Not

        return Not(self)


selectors: Registry[Selector] = Registry("selectors", lambda: Selector, __package__)


class _Combined(Selector):
    def __init__(self, parts: Sequence[Selector | str | dict[str, Any]]) -> None:
        if not isinstance(parts, list | tuple) or not parts:
            raise ConfigError("A composition needs a list of at least one selector", got=parts)
        self.parts = [selectors.build(part) for part in parts]

    @property
    def needs_gradient(self) -> bool:
        return any(part.needs_gradient for part in self.parts)

    def _masks(self, view: SelectionView) -> list[Bool[Tensor, " length"]]:
        return [part.select(view) for part in self.parts]


@selectors.register("and")
class And(_Combined):
    """Positions that all selectors choose."""

    def mask(self, view: SelectionView) -> Bool[Tensor, " length"]:
        return reduce(torch.logical_and, self._masks(view))


@selectors.register("or")
class Or(_Combined):
    """Positions that any selector chooses."""

    def mask(self, view: SelectionView) -> Bool[Tensor, " length"]:
        return reduce(torch.logical_or, self._masks(view))


@selectors.register("not")
class Not(Selector):
    """Positions that a selector does not choose."""

    def __init__(self, selector: Selector | str | dict[str, Any]) -> None:
        self.selector = selectors.build(selector)

    @property
    def needs_gradient(self) -> bool:
        return self.selector.needs_gradient

    def mask(self, view: SelectionView) -> Bool[Tensor, " length"]:
        return ~self.selector.select(view)
