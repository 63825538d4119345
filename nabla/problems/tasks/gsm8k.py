"""GSM8K (arXiv 2110.14168)."""

from __future__ import annotations

from nabla.core.errors import ConfigError
from nabla.problems.tasks.base import tasks
from nabla.problems.tasks.listed import Benchmark
from nabla.problems.tasks.rows import Row


@tasks.register("gsm8k")
class GSM8K(Benchmark):
    """Grade-school word problems; 1,319 in the test split. The gold answer is what follows ``####``."""

    source = ("openai/gsm8k", "main", "test")
    id_fields = ("id", "idx")
    prompt_fields = ("question",)

    def gold(self, row: Row) -> str:
        solution, mark, answer = row.text(("answer",), "answer").rpartition("####")
        answer = answer.replace(",", "").strip()
        if not (mark and answer):
            raise ConfigError(
                f"{row.place} has no answer after '####'", got=solution, fix="GSM8K's answers end so."
            )
        return answer
