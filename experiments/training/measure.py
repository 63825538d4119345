"""What a policy and its verifiers are worth, on test problems, read as nabla reads them.

    python -m experiments.training.samples --split test --first 0 --problems 100 --each 8 --out runs/training/test.jsonl
    python -m experiments.training.measure policy --policy smollm2-chain-sum --problems 200
    python -m experiments.training.measure verifier --samples runs/training/test.jsonl \
        --rm '{name: process, path: smollm2-chain-sum-process, step_separators: []}'
"""  # noqa: E501 - a command

from __future__ import annotations

import argparse
import json
import math
import time
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import yaml

from experiments.sandbox.metrics import auc, pair_accuracy
from experiments.training.samples import TASKS, read, right
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Score, Trajectory
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.launch.config.run import ready, with_paths
from nabla.models.causal_lm import CausalLM
from nabla.rewards.loading import load_reward

#: Of a calibration table.
BINS = 10


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("policy", "verifier"))
    parser.add_argument("--task", choices=TASKS, default="chain_sum")
    parser.add_argument("--policy", default="smollm2-chain-sum")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--samples", type=Path, default=None)
    parser.add_argument("--rm", default=None, help="as --rm of nabla; null: the policy's own likelihood")
    parser.add_argument("--out", type=Path, default=None, help="where the figures go, as JSON")
    options = parser.parse_args(arguments)
    began = time.process_time()
    found = policy(options) if options.what == "policy" else verifier(options)
    found["cpu_seconds"] = round(time.process_time() - began, 1)
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


def policy(options: argparse.Namespace) -> dict[str, Any]:
    """Greedy accuracy; of a pool of samples, if there is one, pass@k."""
    lm = CausalLM.from_pretrained(options.policy, dtype="float32")
    asked = TASKS[options.task]
    task = asked.build("test")
    problems = task.problems(options.problems)
    by_id = {p.id: p for p in problems}

    async def solve(session: Session) -> Solution:
        (text,) = await session.rollout(Sampling(temperature=0.0, max_new_tokens=asked.MOST_TOKENS))
        answer = session.decode(text.tokens)
        return Solution(session.prompt, answer, (), None, text.finished, "greedy", session.cost)

    good = 0
    lengths: list[float] = []
    prompts = [Prompt.of(p.prompt, id=p.id) for p in problems]
    for prompt, outcome in Engine(lm, batch_size=128).run(solve, prompts):
        if not isinstance(outcome, Solution):
            raise outcome
        good += task.grade(by_id[prompt.id], outcome.response)
        lengths.append(outcome.cost.total.tokens)
    found: dict[str, Any] = {"problems": len(problems), "greedy": good / len(problems)}
    if options.samples is not None:
        rows = read(options.samples)
        each = len(rows[0]["samples"])
        counts = [sum(right(s) for s in row["samples"]) for row in rows]
        for k in (k for k in (1, 2, 4, 8) if k <= each):
            found[f"pass@{k}"] = sum(at_least_one(each, c, k) for c in counts) / len(rows)
        known = {p.prompt: p for p in task.problems()}
        if not all(row["prompt"] in known for row in rows):
            raise SystemExit(f"{options.samples}: not of test problems; draw with samples --split test")
        passed = [sum(task.grade(known[row["prompt"]], s["text"]) for s in row["samples"]) for row in rows]
        for k in sorted({1, each}):  # a right answer may stand behind a wrong line
            share = sum(at_least_one(each, c, k) for c in passed) / len(rows)
            found[f"pass@{k} by the data set's verifier"] = share
        lengths = [len(s["tokens"]) for row in rows for s in row["samples"]]
        found |= {"pool": f"{len(rows)} x {each}", "mean_tokens": sum(lengths) / len(lengths)}
    return found


def at_least_one(n: int, right_ones: int, k: int) -> float:
    """Probability that one of k of n samples is right."""
    return 1.0 - math.comb(n - right_ones, k) / math.comb(n, k)


def verifier(options: argparse.Namespace) -> dict[str, Any]:
    """AUC of right against wrong answers and of the first wrong token, and calibration of what it says of
    tokens; of the policy's own likelihood without ``--rm``."""
    rows = read(options.samples)
    spec = None if options.rm in (None, "null") else yaml.safe_load(options.rm)
    if spec is None:
        scores = [[own(sample) for sample in row["samples"]] for row in rows]
    else:
        scores = judged(rows, options.policy, spec)
    verdicts = [[right(sample) for sample in row["samples"]] for row in rows]
    values = [[score.value for score in own_] for own_ in scores]
    within, count = pair_accuracy(values, verdicts)
    flat = list(chain.from_iterable(verdicts))
    found: dict[str, Any] = {
        "problems": len(rows), "answers": len(flat), "right": sum(flat) / len(flat),
        "outcome_auc": auc(list(chain.from_iterable(values)), flat), "pairs_in_order": within, "pairs": count,
    }  # fmt: skip
    tokens = [
        pair
        for row, own_ in zip(rows, scores, strict=True)
        for sample, score in zip(row["samples"], own_, strict=True)
        for pair in told(sample, score)
    ]
    if tokens:
        found["tokens"] = len(tokens)
        found["first_wrong_auc"] = auc([v for v, _ in tokens], [ok for _, ok in tokens])
        found |= calibration(tokens)
    return found


def own(sample: dict[str, Any]) -> Score:
    """The policy's own likelihood of an answer, as a score: the least log-odds of its tokens."""
    from nabla.rewards.likelihood import log_odds

    steps = log_odds(torch.tensor(sample["log_probs"], dtype=torch.float64)).tolist()
    return Score(min(steps), tuple(steps), tuple(range(len(steps))))


def judged(rows: list[dict[str, Any]], policy: str, spec: Any) -> list[list[Score]]:
    """Scores of all samples by a reward."""
    lm = CausalLM.from_pretrained(policy, dtype="float32")
    reward = load_reward(with_paths(spec, ready), dtype="float32")
    pools: dict[str, list[Score]] = {}
    samples = {row["problem"]: row["samples"] for row in rows}

    async def solve(session: Session) -> Solution:
        texts = []
        for sample in samples[session.prompt.id]:
            ids, log_probs = torch.tensor(sample["tokens"]), torch.tensor(sample["log_probs"])
            texts.append(Trajectory(session.prompt, ids, sample["finished"], log_probs, Sampling(),
                                    committed=len(ids)))  # fmt: skip
        scored = await session.score(texts)
        pools[session.prompt.id] = [t.score for t in scored]
        return Solution(session.prompt, "", (), None, True, "scores", session.cost)

    prompts = [Prompt.of(row["prompt"], id=row["problem"]) for row in rows]
    for _, outcome in Engine(lm, reward, batch_size=64).run(solve, prompts):
        if not isinstance(outcome, Solution):
            raise outcome
    return [pools[row["problem"]] for row in rows]


def told(sample: dict[str, Any], score: Score) -> list[tuple[float, bool]]:
    """(log-odds, right) of the tokens up to the first wrong one; nothing of a reward of whole answers."""
    if len(score.steps) != len(sample["tokens"]):
        return []
    found = []
    for value, good in zip(score.steps, sample["right"], strict=True):
        found.append((value, good))
        if not good:
            break
    return found


def calibration(tokens: list[tuple[float, bool]]) -> dict[str, Any]:
    """Bins of the probability that a token is right: [from, tokens, mean said, share that was right]; and the
    mean distance of the last two (ECE)."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for value, good in tokens:
        said = 1 / (1 + math.exp(-max(min(value, 60.0), -60.0)))
        bins[min(int(said * BINS), BINS - 1)].append((said, good))
    table = [
        [i / BINS, len(b), sum(p for p, _ in b) / len(b), sum(g for _, g in b) / len(b)]
        for i, b in enumerate(bins)
        if b
    ]
    ece = sum(count * abs(said - share) for _, count, said, share in table) / len(tokens)
    return {"ece": ece, "bins": [[f, n, round(s, 4), round(r, 4)] for f, n, s, r in table]}


if __name__ == "__main__":
    main()
