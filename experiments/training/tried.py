"""Which data sets of words a policy has a chance at: pass@1 and pass@8 of its samples.

    python -m experiments.training.tried --out runs/tried.jsonl

Every trial of ``TRIALS`` draws 8 answers at temperature 1 to test problems, after solved training problems
(``shots``), and has them graded by the data set's own verifier. Intervals are Wilson's for as many trials as
there are problems: for pass@1, a mean of shares of eight, that is too wide. Goes on where it was broken off.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.training import words
from experiments.training.measure import at_least_one
from experiments.training.samples import read
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.models.causal_lm import CausalLM
from nabla.problems.tasks.base import Problem
from nabla.problems.tasks.reasoning_gym import ReasoningGym
from nabla.study.evaluation.statistics import wilson

EACH = 8


def worked(problem: Problem) -> str:
    """The written solution of a problem of gsm_symbolic."""
    return str(problem.metadata["answer_cot"])


def plain(problem: Problem) -> str:
    """The answer alone."""
    return str(problem.gold)


@dataclass(frozen=True)
class Trial:
    """One way to ask.

    Args:
        dataset: of reasoning-gym.
        shots: solved training problems in front.
        tokens: of an answer, at most.
        solution: of a training problem.
        pattern: finds the answer in a response.
        arguments: of the data set.
        lm: the policy.
    """

    dataset: str
    shots: int
    tokens: int
    solution: Callable[[Problem], str] = plain
    pattern: str = r"^\s*(.+?)\s*(?:\n|$)"  # the first line
    arguments: dict[str, Any] = field(default_factory=dict)
    lm: str = "smollm2"

    @property
    def label(self) -> str:
        """For the file and the table."""
        how = ", worked" if self.solution is not plain else ""
        return f"{self.lm}, {self.dataset}{how}, {self.shots} shots"


#: The last number of a written solution.
LAST_NUMBER = r"(?s)(-?[0-9][0-9,]*)[^0-9]*$"
#: Of leg_counting, as in the benchmark.
ANIMALS = {"min_animals": 3, "max_animals": 4, "min_instances": 1, "max_instances": 9}
TRIALS = (
    Trial("leg_counting", 2, 12, arguments={"min_animals": 2, "max_animals": 3, "max_instances": 5}),
    Trial("word_sorting", 2, 40, arguments={"min_words": 3, "max_words": 4}),
    Trial("sentence_reordering", 2, 40, arguments={"min_words_in_sentence": 4, "max_words_in_sentence": 8}),
    Trial("family_relationships", 2, 12),
    Trial("letter_counting", 2, 8, arguments={"min_words": 5, "max_words": 8}),
    Trial("spell_backward", 2, 12, arguments={"min_word_len": 3, "max_word_len": 5}),
    Trial("leg_counting", 2, 80, words.written, r"\A(?s:.*?)total (-?[0-9]+)\s*?(?:\n\n|\Z)", ANIMALS),
    Trial("gsm_symbolic", 0, 120, worked, LAST_NUMBER),
    Trial("gsm_symbolic", 2, 120, worked, r"\A(?s:.*?)####\s*(-?[0-9,]+)"),
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = {row["label"] for row in read(options.out)} if options.out.exists() else set()
    models: dict[str, CausalLM] = {}
    for trial in TRIALS:
        if trial.label in done:
            continue
        if trial.lm not in models:
            models[trial.lm] = CausalLM.from_pretrained(trial.lm, dtype=options.dtype)
        found = tried(models[trial.lm], trial, options.problems)
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"label": trial.label, **found}) + "\n")
        print(trial.label, {k: v for k, v in found.items() if k != "examples"}, flush=True)


def tried(lm: CausalLM, trial: Trial, count: int) -> dict[str, Any]:
    """pass@1 and pass@8 of one trial, tokens of an answer, and three answers to look at."""
    began = time.process_time()
    common: dict[str, Any] = {"dataset": trial.dataset, "arguments": trial.arguments, "template": "{problem}"}
    task = ReasoningGym(**common, answers={"name": "regex", "pattern": trial.pattern}, size=count)
    shots = ReasoningGym(**common, size=max(trial.shots, 1), split="train").problems()[: trial.shots]
    front = "".join(f"{p.prompt.strip()}\n{trial.solution(p)}\n\n" for p in shots)
    problems, pools = task.problems(), dict[str, list[tuple[str, int]]]()

    async def solve(session: Session) -> Solution:
        sampling = Sampling(temperature=1.0, max_new_tokens=trial.tokens)
        found = await session.rollout(sampling, n=EACH)
        pools[session.prompt.id] = [(session.decode(t.tokens), len(t.tokens)) for t in found]
        return Solution(session.prompt, "", (), None, True, "samples", session.cost)

    prompts = [Prompt.of(front + p.prompt.strip(), id=p.id) for p in problems]
    for _, outcome in Engine(lm, seed=0, batch_size=64).run(solve, prompts):
        if not isinstance(outcome, Solution):
            raise outcome
    right = [sum(task.grade(p, text) for text, _ in pools[p.id]) for p in problems]
    lengths = [n for pool in pools.values() for _, n in pool]
    passed = {f"pass@{k}": sum(at_least_one(EACH, n, k) for n in right) for k in (1, EACH)}
    return {
        "problems": count,
        **{name: total / count for name, total in passed.items()},
        **{f"{name} 95 %": [round(x, 3) for x in wilson(total, count)] for name, total in passed.items()},
        "tokens": sum(lengths) / len(lengths),
        "cpu_seconds": round(time.process_time() - began, 1),
        "examples": [pools[problems[0].id][i][0] for i in range(3)],
    }


if __name__ == "__main__":
    main()
