"""Screens: when writing stops, and where a text goes wrong, by the reward's values at its tokens."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from nabla.core.errors import ConfigError
from nabla.core.registry import Registry


class Screen(ABC):
    """Reads the values of a text that is being written; settings only."""

    @property
    def reads_values(self) -> bool:
        """False where a text is never stopped: then an open text need not be judged."""
        return True

    @abstractmethod
    def first_bad(self, values: Sequence[float], held: float | None) -> int | None:
        """Position of the first bad token; None while the text may go on.

        Args:
            values: of all tokens so far, NaN where there is none (SPEC section 14).
            held: reward of the best complete text so far; None without one.
        """

    def stop(self, values: Sequence[float], held: float | None) -> int | None:
        """The same, checked. Raises ConfigError for anything but a position or None."""
        found: object = self.first_bad(values, held)
        if found is not None and not (type(found) is int and 0 <= found < len(values)):
            raise ConfigError(
                f"{type(self).__name__}.first_bad must return a position or None",
                got=found,
                fix=f"Positions are the integers from 0 to {len(values) - 1}.",
            )
        return found


def known(values: Sequence[float]) -> list[tuple[int, float]]:
    """(position, value) wherever there is one."""
    return [(i, value) for i, value in enumerate(values) if not math.isnan(value)]


screens: Registry[Screen] = Registry("screens", lambda: Screen, __package__)
