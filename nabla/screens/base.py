"""Screens: when writing stops, and where a text goes wrong, by the reward's values at its tokens."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from nabla.core.change_point import ChangePoint
from nabla.core.errors import ConfigError
from nabla.core.registry import Registry
from nabla.screens.sampled import Sampled


class Screen(ABC):
    """Reads the values of a text that is being written; settings only."""

    #: What was found bad in a text stays where it is, however the text goes on.
    lasting: bool = True

    @property
    def reads_values(self) -> bool:
        """False where a text is never stopped: then an open text need not be judged."""
        return True

    @abstractmethod
    def first_bad(self, values: Sequence[float], held: float | None) -> int | None:
        """Position of the first bad token, one that has a value; None while the text may go on.

        Args:
            values: of all tokens so far, NaN where there is none (SPEC section 14).
            held: reward of the best complete text so far; None without one.
        """

    def read(self, values: Sequence[float], held: float | None, log_probs: Sequence[float]) -> Any:
        """The same (``int | None``, which :meth:`stop` checks), with log-probabilities of the tokens, nats,
        NaN where nobody knows: the language model's, or the judge's where the reward is a likelihood. A
        screen that takes them as evidence overrides this; the others see the values alone."""
        return self.first_bad(values, held)

    def stop(
        self, values: Sequence[float], held: float | None, log_probs: Sequence[float] = ()
    ) -> int | None:
        """The same, checked. Raises ConfigError for anything but a position or None."""
        found: object = self.read(values, held, log_probs)
        if found is not None and not (type(found) is int and 0 <= found < len(values)):
            raise ConfigError(
                f"{type(self).__name__}.first_bad must return a position or None",
                got=found,
                fix=f"Positions are the integers from 0 to {len(values) - 1}.",
            )
        return found

    def reach(self, values: Sequence[float], log_probs: Sequence[float], bad: int | None) -> float:
        """How far a text is good, in tokens: what a changed text must exceed to take an older one's place.

        By default up to the first bad token ``bad``; infinity where none is.
        """
        return math.inf if bad is None else bad

    def fitted(self, texts: Sequence[Sampled], point: ChangePoint) -> Screen:
        """This screen with what it takes from texts that were sampled before a run; itself by default.

        Args:
            texts: judged, of several prompts.
            point: the change point that fits them best.
        """
        return self


def known(values: Sequence[float]) -> list[tuple[int, float]]:
    """(position, value) wherever there is one."""
    return [(i, value) for i, value in enumerate(values) if not math.isnan(value)]


screens: Registry[Screen] = Registry("screens", lambda: Screen, __package__)
