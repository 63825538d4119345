"""Complete a 6x6 Latin square: every row and every column holds each of 1..6 once.

The prompt is one line, six rows joined by "/", with "." for a blank: `1..4../....../...`.
The response is the full square in the same form: `123456/234561/...`. Any valid completion counts.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache

from nabla.core.errors import NablaError
from nabla.problems.sandbox.base import Family

SIZE = 6
SYMBOLS = "123456"
LENGTH = SIZE * SIZE + SIZE - 1

_PROMPT = re.compile(r"[1-6.]{6}(?:/[1-6.]{6}){5}")
_RESPONSE = re.compile(r"[1-6]{6}(?:/[1-6]{6}){5}")


@lru_cache(maxsize=1)
def reduced_squares() -> tuple[tuple[str, ...], ...]:
    """All 9,408 squares whose first row and first column are in order, as tuples of rows."""
    lines = ["".join(p) for p in itertools.permutations(SYMBOLS)]

    def clash(a: str, b: str) -> bool:
        return any(x == y for x, y in zip(a, b, strict=True))

    free = {line for line in lines if not clash(line, SYMBOLS)}
    apart = {a: frozenset(b for b in free if not clash(a, b)) for a in free}
    found: list[tuple[str, ...]] = []

    def extend(rows: tuple[str, ...], left: AbstractSet[str]) -> None:
        if len(rows) == SIZE:
            found.append(rows)
            return
        for line in sorted(left):
            if line[0] == SYMBOLS[len(rows)]:
                extend((*rows, line), left & apart[line])

    extend((SYMBOLS,), free)
    return tuple(found)


def random_square(rng: random.Random) -> list[str]:
    """A uniformly random 6x6 Latin square, as six rows.

    Every square is a reduced one with its six columns and its last five rows permuted, in exactly
    one way, so three uniform choices give a uniform square.
    """
    rows = rng.choice(reduced_squares())
    columns = rng.sample(range(SIZE), SIZE)
    order = [0, *rng.sample(range(1, SIZE), SIZE - 1)]
    return ["".join(rows[i][j] for j in columns) for i in order]


@dataclass(frozen=True)
class LatinSquare(Family):
    """Latin squares with a number of clues drawn uniformly from [min_clues, max_clues]."""

    min_clues: int = 12
    max_clues: int = 18
    name = "latin"

    def __post_init__(self) -> None:
        if not 0 <= self.min_clues <= self.max_clues <= SIZE * SIZE:
            raise NablaError(
                "the range of clues is not within 0..36",
                got=(self.min_clues, self.max_clues),
                fix="use 0 <= min_clues <= max_clues <= 36",
            )

    def sample(self, rng: random.Random) -> tuple[str, str]:
        rows = random_square(rng)
        count = rng.randint(self.min_clues, self.max_clues)
        shown = set(rng.sample(range(SIZE * SIZE), count))
        clues = [
            "".join(c if i * SIZE + j in shown else "." for j, c in enumerate(row))
            for i, row in enumerate(rows)
        ]
        return "/".join(clues), "/".join(rows)

    def matches(self, prompt: str) -> bool:
        return _PROMPT.fullmatch(prompt) is not None

    def progress(self, prompt: str, response: str) -> list[bool]:
        """True while no clue is broken and no symbol repeats in a row or column.

        Clues still to come count as well: a cell that repeats a clue further right or further down
        is wrong at once. A conflict-free prefix need not be completable.
        """
        self._require_match(prompt)
        fine = True
        out: list[bool] = []
        for position, symbol in enumerate(response):
            fine = fine and self._fits(prompt, response, position, symbol)
            out.append(fine)
        return out

    @staticmethod
    def _fits(prompt: str, response: str, position: int, symbol: str) -> bool:
        if position >= LENGTH:
            return False
        row, column = divmod(position, SIZE + 1)
        if column == SIZE:
            return symbol == "/"
        if symbol not in SYMBOLS or prompt[position] not in ("." + symbol):
            return False
        start = row * (SIZE + 1)
        in_row = response[start:position] + prompt[position + 1 : start + SIZE]
        above = response[column : position : SIZE + 1]
        below = prompt[position + SIZE + 1 :: SIZE + 1]
        return symbol not in in_row + above + below

    def check(self, prompt: str, response: str) -> bool:
        self._require_match(prompt)
        if _RESPONSE.fullmatch(response) is None:
            return False
        rows = response.split("/")
        lines = [*rows, *("".join(column) for column in zip(*rows, strict=True))]
        if any(len(set(line)) != SIZE for line in lines):
            return False
        return all(clue in (".", cell) for clue, cell in zip(prompt, response, strict=True))

    def render(self, prompt: str, response: str) -> str:
        """Show the grid: `[3]` is a clue, ` 3 ` a filled cell, ` 3!` a conflict, ` . ` missing."""
        self._require_match(prompt)
        lines: list[str] = []
        for i in range(SIZE):
            cells: list[str] = []
            for j in range(SIZE):
                at = i * (SIZE + 1) + j
                symbol = response[at] if at < len(response) else "."
                symbol = symbol if symbol.isprintable() else "?"
                if symbol == ".":
                    cells.append(f"[{prompt[at]}]" if prompt[at] != "." else " . ")
                elif prompt[at] == symbol:
                    cells.append(f"[{symbol}]")
                else:
                    bad = prompt[at] != "." or self._clashes(response, i, j)
                    cells.append(f" {symbol}{'!' if bad else ' '}")
            lines.append("".join(cells).rstrip())
        lines.append("valid" if self.check(prompt, response) else "not valid")
        return "\n".join(lines)

    @staticmethod
    def _clashes(response: str, row: int, column: int) -> bool:
        symbol = response[row * (SIZE + 1) + column]
        if symbol not in SYMBOLS:
            return True
        own = range(row * (SIZE + 1), row * (SIZE + 1) + SIZE)
        others = [*own, *range(column, LENGTH, SIZE + 1)]
        return sum(response[k : k + 1] == symbol for k in others) > 2
