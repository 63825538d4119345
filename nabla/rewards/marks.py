"""Formats of process rewards, and how each marks the steps of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal["classifier", "trl", "qwen-prm", "math-shepherd", "rlhflow"]
#: Formats of causal language models, read at the logits of two tokens.
CAUSAL = ("math-shepherd", "rlhflow")


@dataclass(frozen=True)
class Marks:
    """How a format marks steps.

    Args:
        marker: text behind each step, at whose last token its score is read.
        separators: between two steps of an answer, by default.
        keep: separators stay, behind the marker; otherwise the marker stands in their place.
        parts: each step is tokenised by itself and nothing follows the last one, as TRL's trainer does it.
    """

    marker: str
    separators: tuple[str, ...]
    keep: bool
    parts: bool


MARKS = {
    "trl": Marks("\n", ("\n",), keep=False, parts=True),
    "qwen-prm": Marks("<extra_0>", ("\n\n",), keep=False, parts=False),
    "math-shepherd": Marks(" ки", ("\n",), keep=True, parts=False),
}


#: Of formats without marks: between two steps of an answer, by default.
SEPARATORS = {"rlhflow": ("\n\n",)}
