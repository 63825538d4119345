"""Multi-step arithmetic with every step written out, from left to right.

The prompt is `28*6+68-71+94`, the response `28*6=168;168+68=236;236-71=165;165+94=259#259`: a
product, then sums and differences of two-digit numbers, then the result after "#".
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from nabla.core.errors import NablaError
from nabla.problems.sandbox.base import Family

_PROMPT = re.compile(r"([1-9][0-9])\*([2-9])((?:[+-][1-9][0-9]){1,6})")
_LINE = re.compile(r"#[^;#]*;?|[^;#]+;?|;")
_TERM = re.compile(r"([+-])([0-9]{2})")


@dataclass(frozen=True)
class Arithmetic(Family):
    """`terms` two-digit numbers are added or subtracted; no intermediate value is negative."""

    terms: int = 3
    max_factor: int = 99
    name = "arithmetic"

    def __post_init__(self) -> None:
        if not 1 <= self.terms <= 6:
            raise NablaError("terms is out of range", got=self.terms, fix="use 1 <= terms <= 6")
        if not 10 <= self.max_factor <= 99:
            raise NablaError(
                "max_factor is out of range", got=self.max_factor, fix="use 10 <= max_factor <= 99"
            )

    def sample(self, rng: random.Random) -> tuple[str, str]:
        left, right = rng.randint(10, self.max_factor), rng.randint(2, 9)
        value = left * right
        prompt = f"{left}*{right}"
        for _ in range(self.terms):
            number = rng.randint(10, 99)
            sign = rng.choice("+-") if value >= number else "+"
            value = value + number if sign == "+" else value - number
            prompt += f"{sign}{number}"
        return prompt, self.solve(prompt)

    def solve(self, prompt: str) -> str:
        """The one right response to a prompt."""
        found = _PROMPT.fullmatch(prompt)
        if found is None:
            self._require_match(prompt)
            raise AssertionError("unreachable")
        left, right, rest = found.groups()
        value = int(left) * int(right)
        steps = [f"{left}*{right}={value}"]
        for sign, digits in _TERM.findall(rest):
            after = value + int(digits) if sign == "+" else value - int(digits)
            steps.append(f"{value}{sign}{digits}={after}")
            value = after
        return f"{';'.join(steps)}#{value}"

    def matches(self, prompt: str) -> bool:
        return _PROMPT.fullmatch(prompt) is not None

    def progress(self, prompt: str, response: str) -> list[bool]:
        solution = self.solve(prompt)
        return [solution.startswith(response[: i + 1]) for i in range(len(response))]

    def check(self, prompt: str, response: str) -> bool:
        return response == self.solve(prompt)

    def render(self, prompt: str, response: str) -> str:
        """Show the steps on lines of their own, with a caret under the first wrong character."""
        solution = self.solve(prompt)
        marks = self.progress(prompt, response)
        lines = [f"{prompt} ="]
        for piece in _LINE.finditer(response):
            shown = "".join(c if c.isprintable() else "?" for c in piece[0])
            lines.append(f"  {shown}")
            wrong = [i for i in range(*piece.span()) if not marks[i]]
            if wrong and all(marks[: wrong[0]]):
                lines.append("  " + " " * (wrong[0] - piece.start()) + "^")
        if response == solution:
            verdict = "right"
        elif all(marks):
            verdict = "incomplete"
        else:
            verdict = f"wrong (the right response is {solution})"
        return "\n".join([*lines, verdict])
