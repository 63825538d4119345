"""A task that grades by a rule of its own: no gold answers."""

from __future__ import annotations

import random
import re

from nabla.problems.tasks.base import Problem, Task, check_range


class Multiples(Task):
    """Write any number with a given divisor: many answers are right."""

    def problems(self, n: int | None = None, *, seed: int | None = None, offset: int = 0) -> list[Problem]:
        check_range(n, offset)
        draws = random.Random(f"multiples:{seed or 0}")
        found = [draws.randint(2, 99) for _ in range(offset + (n or 100))]
        return [
            Problem(f"multiples-{i}-{d}", f"{d}+0", metadata={"divisor": d})
            for i, d in enumerate(found)
        ][offset:]

    def grade(self, problem: Problem, response: str) -> bool:
        numbers = re.findall(r"[0-9]{1,9}", response)
        return bool(numbers) and int(numbers[-1]) % problem.metadata["divisor"] == 0
