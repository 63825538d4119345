"""Supervised fine-tuning on a task of words: legs of animals, each kind on a line with the running total.

python -m experiments.training.words --steps 100 --out runs/training/words
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cache
from typing import Any

from experiments.training.running import finished, options_of
from experiments.training.sft import supervise
from nabla.core.extras import require_extra
from nabla.problems.tasks.base import Problem
from nabla.problems.tasks.reasoning_gym import ReasoningGym

#: Arguments of the task ``reasoning-gym``.
TASK: dict[str, Any] = {
    "dataset": "leg_counting",
    "size": 1000,
    "arguments": {"min_animals": 3, "max_animals": 4, "min_instances": 1, "max_instances": 9},
    "template": "{problem}",
    "answers": {"name": "regex", "pattern": "total (-?[0-9]+)\\s*$"},  # the last running total
}


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__, 16, 4, "smollm2")
    parser.add_argument("--examples", type=int, default=480)
    parser.add_argument("--steps", type=int, default=None, help="stop behind so many; the schedule stays")
    options = parser.parse_args(arguments)
    if not finished("words", options):
        fit(options)


def build(split: str, **changes: Any) -> ReasoningGym:
    """The task, with changes to its arguments."""
    return ReasoningGym(**{**TASK, "split": split, **changes})


def training(n: int) -> list[Problem]:
    """``n`` training problems, none of which asks what a test problem asks."""
    tested = {p.prompt for p in build("test").problems()}
    return [p for p in build("train", size=2 * n).problems() if p.prompt not in tested][:n]


@cache
def legs() -> Mapping[str, int]:
    """Of one animal, by its name. Raises ConfigError where reasoning-gym is not installed."""
    require_extra("gym", purpose="Worked solutions of leg_counting")
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    return dict(ANIMALS)


def solution(animals: Mapping[str, int]) -> str:
    """The worked solution: ``tiger: 4*4=16, total 30``, a line per animal."""
    lines, total = [], 0
    for animal, count in animals.items():
        each = legs()[animal]
        total += count * each
        lines.append(f"{animal}: {count}*{each}={count * each}, total {total}")
    return "\n".join(lines)


def fit(options: argparse.Namespace) -> None:
    """Trains one adapter."""
    supervise(options, [(p.prompt, solution(p.metadata["animals"])) for p in training(options.examples)])


if __name__ == "__main__":
    main()
