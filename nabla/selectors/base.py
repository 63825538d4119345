"""Selectors: which positions are worth refining (SPEC Algorithm 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.intact import intact
from nabla.core.registry import Registry
from nabla.core.trajectory import Trajectory

if TYPE_CHECKING:
    from nabla.engine.session import Session


class Selector(ABC):
    """Chooses positions of a response; settings only."""

    #: Settings (attributes) whose growth only ever adds positions, or only ever removes them.
    monotone_in: ClassVar[tuple[str, ...]] = ("threshold",)
    #: Each position is judged by its own numbers alone; False for a choice among positions (a top k).
    pointwise: ClassVar[bool] = True

    @property
    def needs_gradient(self) -> bool:
        """Whether it awaits ``session.gradient_norms``: the method must have an objective then."""
        return False

    @abstractmethod
    async def mask(self, trajectory: Trajectory, session: Session) -> Bool[Tensor, " length"]:
        """True where a position should be refined; committed and end ones are removed later.

        Args:
            trajectory: the current response. What the language model knows of it is in ``states`` (None
                where it was written elsewhere: ``await session.states([trajectory])``), what the reward says
                of it in ``score``.
            session: of the problem: gradient norms, scores and states on request, and generators. Draw from
                ``session.generator("select", session.written)``.
        """

    async def select(self, trajectory: Trajectory, session: Session) -> Bool[Tensor, " length"]:
        """The mask, never true at a committed position or at an end-of-sequence token.

        Raises ConfigError if ``mask`` returns anything but a boolean per position or writes into the
        response, or if gradient norms are needed and cannot be had.
        """
        length = len(trajectory)
        with intact(self, trajectory):
            mask: Any = await self.mask(trajectory, session)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (length,):
            raise ConfigError(
                f"{type(self).__name__}.mask must return a boolean tensor of shape [{length}]",
                got=mask,
                fix="Return a mask, not positions.",
            )
        free = torch.arange(length, device=mask.device) >= trajectory.committed
        if trajectory.finished:
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


class _Apart:
    """The session with generators of its own, so that two random parts do not draw the same."""

    def __init__(self, session: Session, number: int) -> None:
        self._session, self._number = session, number

    def generator(self, *labels: object) -> torch.Generator:
        return self._session.generator(*labels, "part", self._number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class _Combined(Selector):
    def __init__(self, parts: Sequence[Selector | str | dict[str, Any]]) -> None:
        if not isinstance(parts, list | tuple) or not parts:
            raise ConfigError("A composition needs a list of at least one selector", got=parts)
        self.parts = [selectors.build(part) for part in parts]

    @property
    def needs_gradient(self) -> bool:
        return any(part.needs_gradient for part in self.parts)

    async def _masks(self, trajectory: Trajectory, session: Session) -> list[Bool[Tensor, " length"]]:
        found = []
        for number, part in enumerate(self.parts):
            own: Any = session if number == 0 else _Apart(session, number)
            found.append(await part.select(trajectory, own))
        return found


@selectors.register("and")
class And(_Combined):
    """Positions that all selectors choose."""

    async def mask(self, trajectory: Trajectory, session: Session) -> Bool[Tensor, " length"]:
        return reduce(torch.logical_and, await self._masks(trajectory, session))


@selectors.register("or")
class Or(_Combined):
    """Positions that any selector chooses."""

    async def mask(self, trajectory: Trajectory, session: Session) -> Bool[Tensor, " length"]:
        return reduce(torch.logical_or, await self._masks(trajectory, session))


@selectors.register("not")
class Not(Selector):
    """Positions that a selector does not choose."""

    def __init__(self, selector: Selector | str | dict[str, Any]) -> None:
        self.selector = selectors.build(selector)

    @property
    def needs_gradient(self) -> bool:
        return self.selector.needs_gradient

    async def mask(self, trajectory: Trajectory, session: Session) -> Bool[Tensor, " length"]:
        return ~await self.selector.select(trajectory, session)
