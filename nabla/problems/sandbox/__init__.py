"""Tiny real models and exact tasks, for trying methods on a laptop in seconds."""

from __future__ import annotations

from nabla.core.errors import NablaError
from nabla.problems.problem import Problem
from nabla.problems.sandbox.arithmetic import Arithmetic
from nabla.problems.sandbox.base import Family, Split, split_of
from nabla.problems.sandbox.latin import LatinSquare
from nabla.problems.sandbox.tokenizer import build_tokenizer
from nabla.problems.sandbox.zoo import MODELS, ModelInfo, model_path

__all__ = [
    "MODELS",
    "TASKS",
    "Arithmetic",
    "Family",
    "LatinSquare",
    "ModelInfo",
    "Problem",
    "Split",
    "build_tokenizer",
    "model_path",
    "split_of",
    "task_for",
]

#: The task families at their default difficulty, by name.
TASKS: dict[str, Family] = {family.name: family for family in (LatinSquare(), Arithmetic())}


def task_for(prompt: str) -> Family:
    """The task whose family the prompt belongs to; a `NablaError` if there is none."""
    for task in TASKS.values():
        if task.matches(prompt):
            return task
    raise NablaError(
        "no sandbox task recognises this prompt",
        got=prompt,
        fix='prompts look like "28*6+68-71+94" or "1..4../....../.2..../....../.....6/......"',
    )
