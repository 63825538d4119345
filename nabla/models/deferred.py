"""A prefix store whose contents do not change while a batch of requests is answered."""

from __future__ import annotations

from typing import Any

from jaxtyping import Int
from torch import Tensor

from nabla.models.body import Body, Prefix
from nabla.models.keys import BlockKeys, Keys, KeyValues, packed
from nabla.models.prefixes import PrefixStore


class DeferredStore(PrefixStore):
    """A store as it is now: what is put meanwhile is kept aside, and found by nobody before :meth:`commit`.

    What a request finds is then what its problem had before, whatever else runs in the same batch, in how
    many parts, and in which order.

    Args:
        inner: the store.
    """

    def __init__(self, inner: PrefixStore) -> None:
        super().__init__(inner.entries, inner.budget)
        self.inner = inner
        self._aside: dict[str, tuple[tuple[Body, Tensor, BlockKeys], ...]] = {}

    def put(self, problem: str, body: Body, tokens: Int[Tensor, " n"], keys: Keys | None) -> None:
        if keys is None or keys.length == 0 or self.entries == 0:
            return
        # A view would keep the caches of all batches of a request alive until the last of them has run.
        own = packed(keys) if isinstance(keys, KeyValues) else keys
        kept = (*self._aside.get(problem, ()), (body, tokens, own))
        mine = [entry for entry in kept if entry[0] is body]
        if len(mine) > self.entries:  # the store would not keep it either
            kept = tuple(entry for entry in kept if entry is not mine[0])
        self._aside[problem] = kept

    def get(self, problem: str, body: Body, tokens: Int[Tensor, " n"]) -> Prefix:
        return self.inner.get(problem, body, tokens)

    def snapshot(self, problem: str) -> Any:
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
        """Stores what was kept aside, in its order. Requests are answered by now: what there is no memory for
        is left out."""
        aside, self._aside = self._aside, {}
        while aside:
            problem = next(iter(aside))
            for body, tokens, keys in aside.pop(problem):
                self.inner.offer(problem, body, tokens, keys)
