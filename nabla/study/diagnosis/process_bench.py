"""Texts whose first wrong step people have marked, in ProcessBench's format (arXiv 2412.06559): one JSON
object a line with ``problem``, ``steps`` (a list of texts) and ``label`` (the first wrong step, from 0; -1:
none)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.text import pieces
from nabla.models.vocabulary import Vocabulary
from nabla.problems.tasks.rows import Row, read_jsonl

#: What stands between two steps.
SEPARATOR = "\n\n"


@dataclass(frozen=True)
class LabelledText:
    """A text with its first wrong step.

    Args:
        id: of the text.
        problem: what it answers.
        steps: of the text.
        label: number of the first wrong one, from 0; -1: none.
    """

    id: str
    problem: str
    steps: tuple[str, ...]
    label: int


def read_labelled(path: str) -> list[LabelledText]:
    """The texts of a file. Raises ConfigError with the line's number."""
    return [_labelled(row, number) for number, row in enumerate(read_jsonl(path))]


def _labelled(row: Row, number: int) -> LabelledText:
    steps, label = row.get(("steps",)), row.get(("label",))
    if not isinstance(steps, list) or not steps or not all(isinstance(s, str) and s.strip() for s in steps):
        raise ConfigError(f"{row.place}: steps is a list of texts", got=steps)
    if isinstance(label, bool) or not isinstance(label, int) or not -1 <= label < len(steps):
        raise ConfigError(
            f"{row.place}: label is the number of the first wrong step from 0, or -1", got=label
        )
    return LabelledText(f"labelled-{number}", row.text(("problem",), "problem"), tuple(steps), label)


def text_ids(vocabulary: Vocabulary, text: LabelledText) -> tuple[Tensor, list[int]]:
    """(ids of the text, its end included ``[L]``, one more than the last token of each step). A separator
    belongs to the step before it: a model may read a step there."""
    tokens = vocabulary.tokenizer(SEPARATOR.join(text.steps), add_special_tokens=False)["input_ids"]
    ids = [*tokens, vocabulary.eos_ids[0]]
    parts = pieces(vocabulary.tokenizer, ids, vocabulary.lead, vocabulary.eos_ids)
    lengths = list(accumulate(map(len, parts)))
    behind = accumulate(len(step) + len(SEPARATOR) for step in text.steps[:-1])
    ends = [next((i + 1 for i, n in enumerate(lengths) if n >= end), len(ids)) for end in behind]
    return torch.tensor(ids), [*ends, len(ids)]


def step_values(values: Sequence[float], ends: Sequence[int], *, least: bool = False) -> tuple[float, ...]:
    """One number per step: the last one that is known in it, or the least; NaN where none is."""
    found = []
    for start, end in zip([0, *ends], ends, strict=False):
        known = [value for value in values[start:end] if not math.isnan(value)]
        found.append((min(known) if least else known[-1]) if known else math.nan)
    return tuple(found)
