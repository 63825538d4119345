"""Step boundaries: where one step of a response ends and the next begins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nabla.core.registry import Registry

if TYPE_CHECKING:
    from nabla.models.causal_lm import CausalLM


class Boundary(ABC):
    """Cuts a response into steps; settings only."""

    @abstractmethod
    def closed(self, tokens: Sequence[int], lm: CausalLM) -> bool:
        """Whether a step that consists of ``tokens`` (all since the last boundary, at least one) ends with
        the last of them.

        Asked once per written token of every row, so it must be cheap. An end-of-sequence token or the
        length limit ends a step anyway and is not asked about.
        """

    def split(self, tokens: Sequence[int], lm: CausalLM) -> list[int]:
        """Ends (exclusive) of all steps of a response, ascending; the last step may be open."""
        ends: list[int] = []
        begin = 0
        for end in range(1, len(tokens) + 1):
            if end == len(tokens) or self.closed(tokens[begin:end], lm):
                ends.append(end)
                begin = end
        return ends


boundaries: Registry[Boundary] = Registry("boundaries", lambda: Boundary, __package__)
