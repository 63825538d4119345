"""Graphs of passes that scored or read a text, kept so that its gradient is a backward pass alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Account, Usage
from nabla.core.prompt import Prompt
from nabla.models.body import Body, Chunk
from nabla.models.ledger import ByteBudget
from nabla.rewards.base import RelaxedReward

#: Model's part, problem, prompt and response ids.
Key = tuple[str, str, Prompt, tuple[int, ...]]


class Place:
    """Room in the budget for the graphs of one batch. Called with the bytes of a graph to be built, it says
    whether they may be kept; closed when the budget has taken them back.

    Args:
        budget: shared with the prefixes.
        key: of this place there.
    """

    def __init__(self, budget: ByteBudget, key: Any) -> None:
        self._budget, self._key, self._bytes = budget, key, 0
        self.open = True
        #: Lets go of what is kept here.
        self.empty: Callable[[], None] = lambda: None

    def __call__(self, size: int) -> bool:
        self._bytes += size
        return self.resize(self._bytes)

    def reopen(self) -> bool:
        """Takes the room of a closed place again; whether there is still room for it."""
        self.open = True
        return self.resize(self._bytes)

    def resize(self, size: int) -> bool:
        """Another number of bytes in all; whether there is room for them."""
        if self.open and not self._budget.charge(self._key, size, self._drop):
            self._drop()
        return self.open

    def touch(self) -> None:
        """It was used."""
        self._budget.touch(self._key)

    def close(self) -> None:
        """Lets go of what is kept here."""
        self._budget.release(self._key)
        self._drop()

    def _drop(self) -> None:
        self.open = False
        self.empty()


@dataclass(frozen=True, eq=False)
class FreeText:
    """A response of a problem whose positions from ``start`` on are free.

    Args:
        account: who pays.
        prompt: what it answers.
        tokens: of the response ``[L]``.
        start: first free position.
    """

    account: Account
    prompt: Prompt
    tokens: Int[Tensor, " length"]
    start: int

    def key(self, part: str) -> Key:
        """What it is known by to one of the models."""
        return part, self.account.problem, self.prompt, tuple(self.tokens.tolist())


@dataclass(frozen=True, eq=False)
class KeptStates:
    """States of a text with a graph down to the embeddings of its free part.

    Args:
        leaf: embeddings from ``start`` on ``[n, H]``.
        hidden: states of these tokens ``[n, H]``.
        backward: usage of the backward pass.
        start: first position covered.
    """

    leaf: Float[Tensor, "n hidden"]
    hidden: Float[Tensor, "n hidden"]
    backward: Usage
    start: int


@dataclass(frozen=True)
class LostStates:
    """Of a text whose states have lost their graph to a fault.

    Args:
        backward: usage of the backward pass.
        start: first position covered.
    """

    backward: Usage
    start: int


class KeptReward:
    """The reward of one text, whose slope at its free positions is a backward pass away.

    Args:
        batch: of the forward pass.
        index: row of the batch.
        start: first position covered.
        value: the reward, without its graph.
        usage: of the backward pass of this row alone.
    """

    def __init__(self, batch: KeptBatch, index: int, start: int, value: Tensor, usage: Usage) -> None:
        self.batch, self.index, self.start, self.value, self._usage = batch, index, start, value, usage
        #: The backward pass is on somebody's account.
        self.paid = False

    def pay(self, account: Account) -> None:
        """Counts the row's backward pass; nothing once it is paid."""
        if not self.paid:
            account.add(self._usage)

    def slopes(self, start: int) -> tuple[Float[Tensor, "n _"], ...]:
        """``∂r/∂e`` from a position on, one tensor per channel of the reward."""
        return tuple(slope[start - self.start :] for slope in self.batch.slopes(self.index))


class KeptBatch:
    """Rewards of texts that share the graph of one padded batch.

    The graph of a batch cannot be differentiated in part: whoever is first differentiates all rows that
    nobody has let go of. A reward enters every objective as one number, so that a row's slope serves all
    objectives; the graph, which is a thousand times as large, ends there.

    Args:
        rewards: with their graph.
        place: that it has been given.
    """

    def __init__(self, rewards: Sequence[RelaxedReward], place: Place) -> None:
        self.place = place
        self._rewards: dict[int, RelaxedReward] = dict(enumerate(rewards))
        self._slopes: dict[int, tuple[Tensor, ...]] = {}

    def __len__(self) -> int:
        """Rows that somebody may ask for."""
        return len(self._rewards) + len(self._slopes)

    def differentiate(self) -> None:
        """The backward pass, if it has not run. From then on slopes are all that is kept; if it fails, the
        graph is as it was (``retain_graph``: the most memory is taken where the pass begins, either way)."""
        rows = self._rewards
        if not rows:
            return
        leaves = [leaf for reward in rows.values() for leaf in reward.leaves]
        values = [reward.value for reward in rows.values()]
        found = iter(torch.autograd.grad(values, leaves, retain_graph=True, allow_unused=True))
        self._rewards = {}
        for i, reward in rows.items():
            grads = [(leaf, next(found)) for leaf in reward.leaves]
            self._slopes[i] = tuple(torch.zeros_like(x) if g is None else g for x, g in grads)
        size = sum(x.numel() * x.element_size() for slopes in self._slopes.values() for x in slopes)
        self.place.resize(size)

    def slopes(self, index: int) -> tuple[Tensor, ...]:
        """Of one row."""
        self.differentiate()
        return self._slopes[index]

    def let_go(self, index: int) -> None:
        """Nobody will ask for this row."""
        self._rewards.pop(index, None)
        self._slopes.pop(index, None)


class Graphs:
    """Graphs of texts that a method may ask the gradients of; what there is no room for is not kept, and its
    gradient takes the passes that it takes without.

    Args:
        budget: of bytes, shared with the prefixes: the least recently used give way.
        on: False keeps nothing.
    """

    def __init__(self, budget: ByteBudget, on: bool = True) -> None:
        self.budget, self.on = budget, on
        self._kept: dict[Key, tuple[KeptReward | KeptStates, Place]] = {}
        #: What a fault has cost: whoever needs it has its pass run again (:mod:`nabla.engine.gradient.again`)
        self._lost: dict[Key, KeptReward | LostStates] = {}
        self._numbers = count()

    def place(self) -> Place:
        """Room for the graphs of a batch that is about to run."""
        return Place(self.budget, ("graph", next(self._numbers)))

    def keep_rewards(
        self, texts: Sequence[FreeText], rewards: Sequence[RelaxedReward], place: Place
    ) -> None:
        """Keeps the graph of a batch, row by row."""
        batch = self._batch(texts, rewards, place)
        for i, (text, reward) in enumerate(zip(texts, rewards, strict=True)):
            usage = sum((backward_usage(*run) for run in reward.passes), Usage())
            kept = KeptReward(batch, i, text.start, reward.value.detach(), usage)
            self._put(text.key("reward"), kept, place)
            text.account.meter.count("graphs_kept")

    def remade_rewards(
        self, texts: Sequence[FreeText], lost: Sequence[KeptReward], rewards: Sequence[RelaxedReward]
    ) -> None:
        """Gives lost rewards the graph of another pass. It is differentiated now: no room is taken for it,
        but for its slopes."""
        place = self.place()
        batch = self._batch(texts, rewards, place)
        for i, (text, kept) in enumerate(zip(texts, lost, strict=True)):
            kept.batch, kept.index = batch, i
            self._put(text.key("reward"), kept, place)

    def _batch(
        self, texts: Sequence[FreeText], rewards: Sequence[RelaxedReward], place: Place
    ) -> KeptBatch:
        keys = [text.key("reward") for text in texts]
        place.empty = lambda: self._lose(keys, place)
        # Chunks would keep prefixes alive that the budget takes for dropped.
        return KeptBatch([replace(reward, passes=()) for reward in rewards], place)

    def keep_states(self, text: FreeText, states: KeptStates, place: Place) -> None:
        """Keeps the graph of a text that the language model has read."""
        self._put_states(text.key("states"), states, place)
        text.account.meter.count("graphs_kept")

    def remade_states(self, text: FreeText, states: KeptStates) -> None:
        """Keeps the graph of another pass in the place of a lost one. It is differentiated now: no room is
        taken for it."""
        self._put_states(text.key("states"), states, self.place())

    def lost_reward(self, text: FreeText) -> KeptReward | None:
        """The reward of a text whose graph, from its first free position on, a fault has cost."""
        lost = self._lost.get(text.key("reward")) if self._lost else None
        return lost if isinstance(lost, KeptReward) and lost.start <= text.start else None

    def lost_states(self, text: FreeText) -> LostStates | None:
        """As :meth:`lost_reward`, of the language model's states."""
        lost = self._lost.get(text.key("states")) if self._lost else None
        return lost if isinstance(lost, LostStates) and lost.start <= text.start else None

    def reward(self, text: FreeText) -> KeptReward | None:
        """The reward of a text, if its graph is kept from its first free position on."""
        kept, _ = self._kept.get(text.key("reward"), (None, None)) if self._kept else (None, None)
        if not isinstance(kept, KeptReward) or kept.start > text.start:
            return None
        kept.batch.place.touch()
        text.account.meter.count("graphs_used")
        return kept

    def states(self, text: FreeText) -> KeptStates | None:
        """The states of a text, if their graph is kept from its first free position on. It can be
        differentiated once: whoever does that calls :meth:`spend`."""
        kept, place = self._kept.get(text.key("states"), (None, None))
        if not isinstance(kept, KeptStates) or kept.start > text.start or place is None:
            return None
        place.touch()
        text.account.meter.count("graphs_used")
        return kept

    def spend(self, text: FreeText) -> None:
        """The graph of a text's states has been differentiated: it serves nobody any more. One whose request
        has failed is there for the next try."""
        self._forget(text.key("states"))

    def checkpoint(self, problems: Collection[str]) -> Callable[[], None]:
        """Takes note of whose backward passes are not counted yet, and of states that are not spent; the
        function that is returned says so again, where counts are taken back because a request has failed
        behind such a pass."""
        mine = {key: entry for key, entry in self._kept.items() if key[1] in problems}
        lost = [kept for key, kept in self._lost.items() if key[1] in problems]
        unpaid = [
            kept
            for kept in (*(kept for kept, _ in mine.values()), *lost)
            if isinstance(kept, KeptReward) and not kept.paid
        ]
        states = {key: entry for key, entry in mine.items() if isinstance(entry[0], KeptStates)}

        def restore() -> None:
            for kept in unpaid:
                kept.paid = False
            for key, (held, place) in states.items():
                if key not in self._kept and place.reopen():
                    self._put_states(key, held, place)

        return restore

    def drop(self, problem: str, but: Sequence[tuple[Prompt, Tensor]] = ()) -> None:
        """Lets go of the graphs of a problem's texts, all but some."""
        if not self._kept and not self._lost:
            return
        kept = {(prompt, tuple(tokens.tolist())) for prompt, tokens in but}
        for key in [key for key in (*self._kept, *self._lost) if key[1] == problem and key[2:] not in kept]:
            self._forget(key)

    def clear(self) -> None:
        """Lets go of all graphs, since the device is full: what is kept for later must not sink what is asked
        for now. What is asked for after all is computed again, on nobody's account."""
        for key, (kept, _) in list(self._kept.items()):
            self._forget(key)
            lost = kept if isinstance(kept, KeptReward) else LostStates(kept.backward, kept.start)
            self._lost[key] = lost

    @contextmanager
    def resting(self) -> Iterator[None]:
        """No pass of the block keeps its graph."""
        on, self.on = self.on, False
        try:
            yield
        finally:
            self.on = on

    def _put(self, key: Key, kept: KeptReward | KeptStates, place: Place) -> None:
        self._forget(key)
        self._kept[key] = kept, place

    def _put_states(self, key: Key, states: Any, place: Place) -> None:
        place.empty = lambda: self._lose([key], place)
        self._put(key, states, place)

    def _forget(self, key: Key) -> None:
        self._lost.pop(key, None)
        kept, place = self._kept.pop(key, (None, None))
        if place is None:
            return
        if isinstance(kept, KeptReward):
            kept.batch.let_go(kept.index)
            if len(kept.batch):
                return
        place.close()

    def _lose(self, keys: Sequence[Key], place: Place) -> None:
        """The budget has taken a place back."""
        for key in keys:
            if key in self._kept and self._kept[key][1] is place:
                del self._kept[key]


def groups(lengths: Sequence[int], enough: float) -> Iterator[list[int]]:
    """Rows that share a graph, the longest first: until they have ``enough`` tokens, which is what a pass
    costs beside its tokens. A long row has a graph of its own, and its backward pass waits for nobody."""
    rows: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        rows.append(i)
        if sum(lengths[row] for row in rows) >= enough:
            yield rows
            rows = []
    if rows:
        yield rows


def backward_usage(body: Body, chunk: Chunk) -> Usage:
    """Of one input-only backward pass of a chunk."""
    tokens, context = body.computed(chunk)
    return Usage(backward_passes=1, tokens=tokens, flops=body.backward_flops(tokens, context))
