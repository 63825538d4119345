"""Tokens of a problem's texts for the page: each once, texts as ranges of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Number = float | None

#: Of a token, what the page knows: piece of text, ``log π``, entropy, largest probability, value.
COLUMNS = ("piece", "log_prob", "entropy", "top1", "value")
#: Of a number, as the page shows them.
DIGITS = 3
_OF_LINE = {"piece": "pieces", "log_prob": "log_probs", "entropy": "entropy", "top1": "top1"}


@dataclass
class Nodes:
    """The tokens of one problem, and its texts."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    #: Number of a text → its tokens, as indices into the columns.
    texts: dict[int, list[int]] = field(default_factory=dict)
    ids: dict[int, list[int]] = field(default_factory=dict)
    rewards: dict[int, Number] = field(default_factory=dict)

    def add(self, line: Mapping[str, Any]) -> None:
        """A ``text`` line. Raises LookupError and TypeError for a damaged one."""
        number, ids = int(line["text"]), list(line["ids"])
        like, shared = line.get("like"), int(line.get("shared", 0))
        if number in self.texts:  # more is known of the same tokens
            for place, node in enumerate(self.texts[number][shared:]):
                for name, key in _OF_LINE.items():
                    if place < len(line[key]) and line[key][place] is not None:
                        self.columns[name][node] = line[key][place]
            return
        head = [] if like is None else self.texts[like][:shared]
        known = [] if like is None else self.ids[like][:shared]
        self.texts[number] = [*head, *self.new({name: line[key] for name, key in _OF_LINE.items()}, len(ids))]
        self.ids[number] = [*known, *ids]

    def new(self, columns: Mapping[str, Sequence[Any]], count: int) -> list[int]:
        """Indices of ``count`` new tokens; what a column lacks is not known."""
        begin = len(self.columns["piece"])
        for name in COLUMNS:
            own = list(columns.get(name) or ())[:count]
            self.columns[name] += own + [None] * (count - len(own))
        return list(range(begin, begin + count))

    def plain(self, text: str) -> int:
        """Number of a text whose tokens are not known: one piece."""
        number = max(self.texts, default=-1) + 1
        self.texts[number], self.ids[number] = self.new({"piece": [text]}, 1), []
        return number

    def judge(self, line: Mapping[str, Any]) -> None:
        """A ``score`` line."""
        number = int(line["text"])
        self.rewards[number] = line["reward"]
        for end, value in zip(line["ends"], line["values"], strict=True):
            self.columns["value"][self.texts[number][end]] = value

    def find(self, ids: Sequence[int]) -> int | None:
        """Number of the text of these ids."""
        wanted = list(ids)
        return next((n for n, own in reversed(self.ids.items()) if own == wanted), None)

    def before(self, text: int, position: int) -> int:
        """The token before a position; -1 at the beginning. It stands for the whole prefix."""
        return self.texts[text][position - 1] if position else -1

    def extends(self, longer: int, shorter: int) -> bool:
        """Whether a text begins with another one."""
        return self.texts[longer][: len(self.texts[shorter])] == self.texts[shorter]

    def packed(self) -> dict[str, Any]:
        """For the page: columns of what is known, each piece once; texts as pairs of (first, count)."""
        known = {n: c for n, c in self.columns.items() if any(x is not None for x in c)}
        words = {word: index for index, word in enumerate(dict.fromkeys(known.pop("piece", ())))}
        columns: dict[str, Any] = {
            "piece": {"words": list(words), "at": [words[piece] for piece in self.columns["piece"]]},
            **{name: _short(column) for name, column in known.items()},
        }
        texts = {number: _ranges(nodes) for number, nodes in self.texts.items()}
        return {"columns": columns, "texts": texts, "rewards": self.rewards}


def _short(column: Sequence[Number]) -> Any:
    """Numbers with the digits that are shown; where fewer than half are known, places and those."""
    numbers = [None if x is None or not math.isfinite(x) else float(f"{x:.{DIGITS}g}") for x in column]
    places = [place for place, x in enumerate(numbers) if x is not None]
    if 2 * len(places) >= len(numbers):
        return numbers
    return {"nodes": places, "values": [numbers[place] for place in places]}


def _ranges(nodes: Sequence[int]) -> list[int]:
    found: list[int] = []
    for node in nodes:
        if found and found[-2] + found[-1] == node:
            found[-1] += 1
        else:
            found += [node, 1]
    return found
