"""Compositions of selectors: and, or, not (also written ``&``, ``|``, ``~``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from nabla.errors import ConfigError
from nabla.selectors.base import SelectionView, Selector, selectors


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
