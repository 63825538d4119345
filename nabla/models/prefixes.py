"""Keys and values of each problem's last texts."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

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

    def snapshot(self, problem: str) -> object:
        """What is kept for a problem, for :meth:`restore`."""
        kept = self._store.get(problem)
        return None if kept is None else kept.copy()

    def restore(self, problem: str, snapshot: Any) -> None:
        """Keeps for a problem what was kept at a snapshot, no more and no less."""
        if snapshot is None:
            self._store.pop(problem, None)
        else:
            self._store[problem] = snapshot.copy()

    def release(self, problem: str) -> None:
        """Forgets a problem."""
        self._store.pop(problem, None)


class DeferredStore(PrefixStore):
    """A store as it is now: what is put meanwhile is kept aside, and found by nobody before :meth:`commit`.

    What a request finds is then what its problem had before, whatever else runs in the same batch, in how
    many parts, and in which order.

    Args:
        inner: the store.
    """

    def __init__(self, inner: PrefixStore) -> None:
        super().__init__(inner.entries)
        self.inner = inner
        self._aside: dict[str, tuple[tuple[Body, Tensor, KeyValues], ...]] = {}

    def put(self, problem: str, body: Body, tokens: Int[Tensor, " n"], keys: KeyValues | None) -> None:
        if keys is None or keys.length == 0 or self.entries == 0:
            return
        kept = (*self._aside.get(problem, ()), (body, tokens, keys))
        mine = [entry for entry in kept if entry[0] is body]
        if len(mine) > self.entries:  # the store would not keep it either
            kept = tuple(entry for entry in kept if entry is not mine[0])
        self._aside[problem] = kept

    def get(self, problem: str, body: Body, tokens: Int[Tensor, " n"]) -> Prefix:
        return self.inner.get(problem, body, tokens)

    def snapshot(self, problem: str) -> object:
        return self._aside.get(problem)

    def restore(self, problem: str, snapshot: Any) -> None:
        if snapshot is None:
            self._aside.pop(problem, None)
        else:
            self._aside[problem] = snapshot

    def release(self, problem: str) -> None:
        self._aside.pop(problem, None)
        self.inner.release(problem)

    def commit(self) -> None:
        """Stores what was kept aside, in its order."""
        for problem, entries in self._aside.items():
            for body, tokens, keys in entries:
                self.inner.put(problem, body, tokens, keys)
        self._aside = {}
