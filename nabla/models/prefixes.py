"""Keys and values of each problem's last texts, in blocks that are stored once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from jaxtyping import Int
from torch import Tensor

from nabla.models.body import EMPTY, Body, Prefix
from nabla.models.faults import exhausted
from nabla.models.keys import Block, BlockKeys, Group, Keys
from nabla.models.ledger import ByteBudget

#: Tokens per block. A text that departs from another inside a block has that block of its own.
BLOCK = 32


class _Node:
    """A block's place in the tree of texts, behind those that its path holds. Empty where it was dropped."""

    __slots__ = ("block", "children", "holders", "parent", "tokens")

    def __init__(self, parent: _Node | None, tokens: tuple[int, ...]) -> None:
        self.parent, self.tokens = parent, tokens
        self.children: dict[tuple[int, ...], _Node] = {}
        #: Kept texts that lead through here.
        self.holders = 0
        self.block: Block | None = None


class _Tree:
    """The texts of one model."""

    def __init__(self, groups: tuple[Group, ...]) -> None:
        self.root, self.groups = _Node(None, ()), groups
        self.bytes_per_token = sum(group.bytes_per_token for group in groups)

    def path(self, tokens: Sequence[int]) -> list[_Node]:
        """The places of a text's blocks, made where there were none."""
        nodes, node = [], self.root
        for start in range(0, len(tokens), BLOCK):
            part = tuple(tokens[start : start + BLOCK])
            child = node.children.get(part)
            if child is None:
                child = node.children[part] = _Node(node, part)
            nodes.append(child)
            node = child
        return nodes


class _Text:
    """A token sequence that was put, and its blocks."""

    def __init__(self, tokens: list[int], nodes: list[_Node]) -> None:
        self.tokens, self.nodes = tokens, nodes

    def common(self, tokens: list[int]) -> int:
        """Length of the longest common prefix."""
        same, differs = 0, min(len(self.tokens), len(tokens)) + 1
        while differs - same > 1:
            middle = (same + differs) // 2
            if self.tokens[same:middle] == tokens[same:middle]:
                same = middle
            else:
                differs = middle
        return same

    def stored(self, length: int) -> tuple[list[_Node], int]:
        """Blocks of the first ``length`` tokens up to the first that is not there, and how many of these
        tokens they hold."""
        nodes, size = [], 0
        for node in self.nodes:
            if size >= length or node.block is None:
                break
            nodes.append(node)
            size += len(node.tokens)
        return nodes, min(size, length)


#: What was kept for a problem: its texts and their blocks, by model.
Snapshot = dict[Body, tuple[_Tree, list[tuple[_Text, list[Block | None]]]]]


class PrefixStore:
    """Keys and values of the last token sequences of each problem, per model.

    A lookup returns the longest common prefix with anything that this problem has put: tokens that are
    committed are never run again. What is stored are copies, in blocks of :data:`BLOCK` tokens: no batch
    is kept alive. A block is stored once, whoever puts it: texts of a problem share their beginnings, and
    so do problems (a system prompt, examples). A problem finds only what it has put itself, so that what it
    computes does not depend on who runs beside it.

    Where the budget is spent the blocks used least recently are dropped, the end of a text before its
    beginning. Their tokens are run again and counted like all others; a lookup tells them as ``lost``. With
    a budget this small, what a problem computes does depend on its neighbours.

    Args:
        entries: sequences kept per problem and model.
        budget: of bytes, that blocks are charged to; None for no limit.

    Attribute ``used`` is the bytes of all blocks, ``peak`` the most that they were, and ``peak_problems`` how
    many problems there were at that time.
    """

    def __init__(self, entries: int = 3, budget: ByteBudget | None = None) -> None:
        self.entries = entries
        self.budget = ByteBudget() if budget is None else budget
        self.used = self.peak = self.peak_problems = 0
        self._texts: dict[str, dict[Body, deque[_Text]]] = {}
        self._trees: dict[Body, _Tree] = {}

    def put(
        self, problem: str, body: Body, tokens: Int[Tensor, " n"], keys: Keys | None
    ) -> BlockKeys | None:
        """Keeps keys and values of the first ``keys.length`` of ``tokens``: those that are not stored yet are
        copied, so that views of a batch will do. All of them as stored; None if not all are."""
        if keys is None or keys.length == 0 or self.entries == 0:
            return None
        tree = self._trees.get(body)
        if tree is None:
            tree = self._trees[body] = _Tree(keys.groups())
        ids = tokens[: keys.length].tolist()
        text = _Text(ids, tree.path(ids))
        for node in text.nodes:
            node.holders += 1
        texts = self._texts.setdefault(problem, {}).setdefault(body, deque())
        texts.append(text)
        while len(texts) > self.entries:
            self._forget(body, texts.popleft())
        self._fill(tree, text, keys)
        nodes, size = text.stored(keys.length)
        return _rows(nodes, size) if size == keys.length else None

    def offer(
        self, problem: str, body: Body, tokens: Int[Tensor, " n"], keys: Keys | None
    ) -> None:
        """As :meth:`put`, by somebody who has answered already: if memory runs out, the rest of the text is
        left out. Its tokens are run again when they are needed, and a lookup tells them as ``lost``."""
        try:
            self.put(problem, body, tokens, keys)
        except Exception as error:
            if not exhausted(error):
                raise

    def get(self, problem: str, body: Body, tokens: Int[Tensor, " n"]) -> Prefix:
        """The longest stored prefix of ``tokens``; empty if none."""
        known, nodes, length = 0, list[_Node](), 0
        texts = self._texts.get(problem, {}).get(body, ())
        ids = tokens.tolist() if texts else []
        for text in texts:
            common = text.common(ids)
            known = max(known, common)
            if common > length:
                found, size = text.stored(common)
                if size > length:
                    nodes, length = found, size
        if known == 0:
            return EMPTY
        self._touch(nodes)
        return Prefix(tokens[:length], _rows(nodes, length) if nodes else None, known - length)

    def snapshot(self, problem: str) -> Snapshot:
        """What is kept for a problem, for :meth:`restore`; it holds the blocks, so let go of it soon."""
        return {
            body: (self._trees[body], [(text, [node.block for node in text.nodes]) for text in texts])
            for body, texts in self._texts.get(problem, {}).items()
        }

    def restore(self, problem: str, snapshot: Any) -> None:
        """Keeps for a problem what was kept at a snapshot, no more and no less; of what has been forgotten
        since, as much as there is room for."""
        known = {id(text) for _, entries in snapshot.values() for text, _ in entries}
        here: set[int] = set()
        for body, texts in self._texts.pop(problem, {}).items():
            here |= {id(text) for text in texts}
            for text in texts:
                if id(text) not in known:
                    self._forget(body, text)
        for body, (tree, entries) in snapshot.items():
            for text, blocks in entries:
                if id(text) not in here:
                    self._remember(self._trees.setdefault(body, tree), text, blocks)
            self._texts.setdefault(problem, {})[body] = deque(text for text, _ in entries)

    def _remember(self, tree: _Tree, text: _Text, blocks: Sequence[Block | None]) -> None:
        """Puts a text back that has been forgotten."""
        text.nodes = tree.path(text.tokens)
        for node, block in zip(text.nodes, blocks, strict=True):
            node.holders += 1
            size = tree.bytes_per_token * len(node.tokens)
            missing = node.block is None and block is not None
            if missing and self.budget.charge(node, size, partial(self._empty, node, size)):
                node.block = block
                self.used += size

    def release(self, problem: str) -> None:
        """Forgets a problem."""
        for body, texts in self._texts.pop(problem, {}).items():
            for text in texts:
                self._forget(body, text)

    def _fill(self, tree: _Tree, text: _Text, keys: Keys) -> None:
        """Stores the blocks that are not there, from the beginning on and as far as there is room."""
        with self.budget.holding():
            self._touch(text.nodes)
            start, filled = 0, 0
            for node in text.nodes:
                if node.block is None and not self._store(tree, node, keys, start):
                    break
                start, filled = start + len(node.tokens), filled + 1
            self._touch(text.nodes[:filled])
        if self.used > self.peak:
            self.peak, self.peak_problems = self.used, len(self._texts)

    def _store(self, tree: _Tree, node: _Node, keys: Keys, start: int) -> bool:
        size = tree.bytes_per_token * len(node.tokens)
        if not self.budget.charge(node, size, partial(self._empty, node, size)):
            return False
        try:
            node.block = keys.block(tree.groups, start, len(node.tokens))
        except BaseException:
            self.budget.release(node)
            raise
        self.used += size
        return True

    def _touch(self, nodes: Sequence[_Node]) -> None:
        """Beginnings last: what is behind a block is worth nothing without it."""
        for node in reversed(nodes):
            self.budget.touch(node)

    def _empty(self, node: _Node, size: int) -> None:
        node.block = None
        self.used -= size

    def _forget(self, body: Body, text: _Text) -> None:
        tree = self._trees[body]
        for node in reversed(text.nodes):
            node.holders -= 1
            if node.holders == 0:
                if node.block is not None:
                    self._empty(node, tree.bytes_per_token * len(node.tokens))
                    self.budget.release(node)
                assert node.parent is not None
                del node.parent.children[node.tokens]
        if not tree.root.children:  # a model may be moved before the next text
            del self._trees[body]


def _rows(nodes: Sequence[_Node], length: int) -> BlockKeys:
    return BlockKeys(tuple(node.block for node in nodes if node.block is not None), length)
