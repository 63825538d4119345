"""Keys and values of each problem's last texts."""

from __future__ import annotations

from collections import OrderedDict

from jaxtyping import Int
from torch import Tensor

from nabla.models.body import EMPTY, Body, KeyValues, Prefix


class PrefixStore:
    """Keys and values of the last token sequences of each problem, per model.

    A lookup returns the longest common prefix with anything stored, as a view: tokens that are
    committed are never run again.

    Args:
        entries: sequences kept per problem and model.
    """

    def __init__(self, entries: int = 3) -> None:
        self.entries = entries
        self._store: dict[str, OrderedDict[tuple[Body, int], tuple[Tensor, KeyValues]]] = {}
        self._counter = 0

    def put(self, problem: str, body: Body, tokens: Int[Tensor, " n"], keys: KeyValues | None) -> None:
        """Keeps keys and values of the first ``keys.length`` of ``tokens``."""
        if keys is None or keys.length == 0 or self.entries == 0:
            return
        kept = self._store.setdefault(problem, OrderedDict())
        self._counter += 1
        kept[(body, self._counter)] = (tokens[: keys.length].cpu(), keys)
        mine = [key for key in kept if key[0] is body]
        for key in mine[: -self.entries]:
            del kept[key]

    def get(self, problem: str, body: Body, tokens: Int[Tensor, " n"]) -> Prefix:
        """The longest stored prefix of ``tokens``; empty if none."""
        best, length = None, 0
        for (owner, _), (stored, keys) in self._store.get(problem, {}).items():
            if owner is not body:
                continue
            size = min(len(stored), len(tokens))
            differs = (stored[:size] != tokens[:size]).nonzero()
            common = int(differs[0]) if len(differs) else size
            if common > length:
                best, length = keys, common
        if best is None:
            return EMPTY
        return Prefix(tokens[:length], best.crop(length))

    def release(self, problem: str) -> None:
        """Forgets a problem."""
        self._store.pop(problem, None)
