"""Near misses: wrong responses that differ little from a right one, in unlimited number."""

from __future__ import annotations

import random
import re

from nabla.problems.sandbox import Family
from nabla.problems.sandbox.latin import SIZE, SYMBOLS

_STEP = re.compile(r"([0-9]+)([-+*])([0-9]+)=([0-9]+)")


def near_miss(task: Family, rng: random.Random, prompt: str, right: str) -> str:
    """A wrong response close to `right`, which must be a right response to the prompt."""
    corrupt = _latin if task.name == "latin" else _arithmetic
    for _ in range(100):
        response = corrupt(rng, right)
        if not task.check(prompt, response):
            return response
    return right[:-1]


def scrambled(task: Family, rng: random.Random, prompt: str, right: str) -> str:
    """A wrong response with about every seventh digit replaced, to train comparisons densely."""
    for _ in range(100):
        response = "".join(
            rng.choice(SYMBOLS if task.name == "latin" else "0123456789")
            if symbol.isdigit() and rng.random() < 0.15
            else symbol
            for symbol in right
        )
        if not task.check(prompt, response):
            return response
    return right[:-1]


def _latin(rng: random.Random, right: str) -> str:
    """Change a cell, exchange two cells of a line, or exchange whole lines or symbols."""
    grid = [list(row) for row in right.split("/")]
    kind = rng.choice(["cell", "cell", "row pair", "column pair", "rows", "symbols", "tail"])
    i, j = rng.sample(range(SIZE), 2)
    k = rng.randrange(SIZE)
    if kind == "cell":
        for _ in range(rng.choice([1, 1, 2, 3])):
            grid[rng.randrange(SIZE)][rng.randrange(SIZE)] = rng.choice(SYMBOLS)
    elif kind == "row pair":
        grid[k][i], grid[k][j] = grid[k][j], grid[k][i]
    elif kind == "column pair":
        grid[i][k], grid[j][k] = grid[j][k], grid[i][k]
    elif kind == "rows":
        grid[i], grid[j] = grid[j], grid[i]
    elif kind == "symbols":
        a, b = rng.sample(SYMBOLS, 2)
        start = rng.randrange(SIZE)
        swap = {a: b, b: a}
        grid[start:] = [[swap.get(c, c) for c in row] for row in grid[start:]]
    else:
        start = rng.randrange(2, SIZE)
        for row in grid[start:]:
            rng.shuffle(row)
    return "/".join("".join(row) for row in grid)


def _slip(rng: random.Random, digits: str) -> str:
    """Another number close to this one: a changed digit, a lost carry, or exchanged digits."""
    value = int(digits)
    kind = rng.random()
    if kind < 0.45:
        value += rng.choice([-1, 1]) * rng.choice([1, 1, 2, 10, 10, 20, 100])
        return str(max(value, 0))
    if kind < 0.55 and len(digits) > 1:
        at = rng.randrange(len(digits) - 1)
        return digits[:at] + digits[at + 1] + digits[at] + digits[at + 2 :]
    at = rng.randrange(len(digits))
    return digits[:at] + rng.choice("0123456789") + digits[at + 1 :]


def _apply(left: int, sign: str, number: int) -> int:
    return {"+": left + number, "-": left - number, "*": left * number}[sign]


def _arithmetic(rng: random.Random, right: str) -> str:
    """One slip in one step; afterwards follow the wrong value or return to the right one."""
    chain, answer = right.split("#")
    steps = [list(found) for found in _STEP.findall(chain)]
    kind = rng.choice(["result"] * 5 + ["carry over", "carry over", "operand", "sign", "answer"])
    at = rng.randrange(len(steps))
    follow = rng.random() < 0.75
    if kind == "answer":
        return f"{chain}#{_slip(rng, answer)}"
    left, sign, number, result = steps[at]
    if kind == "result":
        result = _slip(rng, result)
    else:
        if kind == "carry over":
            left = _slip(rng, left)
        elif kind == "operand":
            number = _slip(rng, number)
        else:
            sign = rng.choice("+-")
        if follow or rng.random() < 0.5:
            result = str(max(_apply(int(left), sign, int(number)), 0))
    steps[at] = [left, sign, number, result]
    if follow:
        value = int(result)
        for later in steps[at + 1 :]:
            later[0] = str(value)
            value = max(_apply(value, later[1], int(later[2])), 0)
            later[3] = str(value)
        answer = str(value)
    elif at == len(steps) - 1 and rng.random() < 0.5:
        answer = result
    return ";".join(f"{a}{s}{b}={c}" for a, s, b, c in steps) + f"#{answer}"
