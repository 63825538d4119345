"""Pairs of a right and a wrong response to the same training problem, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from experiments.sandbox.common import RESPONSE_TOKENS, Codec, policy_config, sample, seeded
from experiments.sandbox.negatives import near_miss, scrambled
from experiments.sandbox.training import Batch
from nabla.problems.sandbox import Family

TEMPERATURES = (0.5, 0.7, 0.7, 1.0, 1.3)


@dataclass(frozen=True)
class Judged:
    """A problem with right and wrong responses to it."""

    prompt: str
    right: list[str]
    wrong: list[str]


def sample_pool(
    task: Family, codec: Codec, policies: list[dict[str, Tensor]], n: int, seed: int
) -> list[Judged]:
    """`n` training problems with one response per policy and some temperature, and the solution."""
    rng = seeded("pool", task.name, seed)
    problems = [task.draw(rng, "train") for _ in range(n)]
    answers: list[set[str]] = [set() for _ in problems]
    for turn, state in enumerate(policies):
        model = Qwen3ForCausalLM(policy_config(codec))
        model.load_state_dict(state)
        for part, temperature in enumerate(TEMPERATURES):
            chosen = range(part, n, len(TEMPERATURES)) if turn else range(n)
            responses = sample(
                model,
                codec,
                [problems[i].prompt for i in chosen],
                temperature=temperature,
                tokens=RESPONSE_TOKENS[task.name],
                seed=seed * 1000 + turn * 10 + part,
            )
            for i, response in zip(chosen, responses, strict=True):
                answers[i].add(response)
    pool = []
    for problem, found in zip(problems, answers, strict=True):
        marks = {r: task.check(problem.prompt, r) for r in sorted(found)}
        right = [r for r, ok in marks.items() if ok] or [problem.gold]
        wrong = [r for r, ok in marks.items() if not ok and r.isascii() and not r.endswith("~")]
        pool.append(Judged(problem.prompt, right, wrong))
    return pool


class Pairs:
    """Batches of (right, wrong) rows of the same problem, half from the pool, half fresh."""

    def __init__(
        self, task: Family, codec: Codec, pool: list[Judged], recipe: dict[str, Any], seed: int
    ) -> None:
        self.task, self.codec, self.size = task, codec, recipe["batch"]
        self.near, self.scrambled = recipe["near"], recipe["scrambled"]
        self.pool = [judged for judged in pool if judged.wrong]
        self.rng = seeded("pairs", task.name, seed)

    def pair(self) -> tuple[str, str, str]:
        rng = self.rng
        if self.pool and rng.random() >= self.near:
            judged = rng.choice(self.pool)
            return judged.prompt, rng.choice(judged.right), rng.choice(judged.wrong)
        problem = self.task.draw(rng, "train")
        corrupt = scrambled if rng.random() < self.scrambled else near_miss
        wrong = corrupt(self.task, rng, problem.prompt, problem.gold)
        return problem.prompt, problem.gold, wrong

    def __call__(self) -> Batch:
        rows: list[tuple[str, str]] = []
        for _ in range(self.size // 2):
            prompt, right, wrong = self.pair()
            rows += [(prompt, right), (prompt, wrong)]
        return encode(self.task, self.codec, rows)


def encode(task: Family, codec: Codec, rows: list[tuple[str, str]]) -> Batch:
    """Rows of (prompt, response) with their labels, each [batch, length] but `right`.

    `fine`: everything up to this token is right; `weight`: of the process loss (a tenth on the
    prompt, 0 on padding); `next`: the token after this one where it is right, otherwise -100.
    """
    ids, fine, weight, following, right = [], [], [], [], []
    for prompt, response in rows:
        before, after = codec.prompt(prompt), codec.response(response)
        correct = task.check(prompt, response)
        marks = [*task.progress(prompt, response), correct, correct]
        ids.append([*before, *after])
        fine.append([*[1.0] * len(before), *map(float, marks)])
        weight.append([*[0.1] * len(before), *[1.0] * len(marks)])
        targets = [t if ok else -100 for t, ok in zip(after, marks, strict=True)]
        following.append([*[-100] * (len(before) - 1), *targets])
        right.append(float(correct))
    length = max(map(len, ids))
    return {
        "ids": codec.pad_rows(ids),
        "mask": codec.pad_rows([[1] * len(row) for row in ids], 0),
        "fine": codec.pad_rows(fine, 0.0),
        "weight": codec.pad_rows(weight, 0.0),
        "next": codec.pad_rows([[*r, *[-100] * (length - 1 - len(r))] for r in following], -100),
        "right": torch.tensor(right),
    }
