"""MATH-500 (arXiv 2305.20050, from MATH, arXiv 2103.03874)."""

from __future__ import annotations

from nabla.problems.tasks.base import tasks
from nabla.problems.tasks.listed import Benchmark


@tasks.register("math500")
class MATH500(Benchmark):
    """500 competition problems with LaTeX answers, in seven subjects and five levels."""

    source = ("HuggingFaceH4/MATH-500", None, "test")
    id_fields = ("unique_id",)
    prompt_fields = ("problem",)
