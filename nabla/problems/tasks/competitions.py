"""Competitions of the Mathematical Association of America: AIME 2024 and 2025, AMC 12 2023."""

from __future__ import annotations

from nabla.problems.tasks.base import tasks
from nabla.problems.tasks.listed import Benchmark


@tasks.register("aime24")
class AIME24(Benchmark):
    """AIME I and II of 2024: 30 problems with integer answers from 0 to 999."""

    source = ("HuggingFaceH4/aime_2024", None, "train")


@tasks.register("aime25")
class AIME25(Benchmark):
    """AIME I and II of 2025: 30 problems with integer answers from 0 to 999."""

    source = ("math-ai/aime25", None, "test")


@tasks.register("amc23")
class AMC23(Benchmark):
    """AMC 12 of 2023: 40 problems, rewritten to have a number for an answer."""

    source = ("math-ai/amc23", None, "test")
