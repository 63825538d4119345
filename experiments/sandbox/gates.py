"""Measure the shipped models on held-out problems, and fill the figures into their cards.

    python -m experiments.sandbox.gates --task latin

Everything is measured on the files as they are shipped, reloaded in float32.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from experiments.sandbox.cards import fill
from experiments.sandbox.common import RESPONSE_TOKENS, Codec, accuracy, sample
from experiments.sandbox.metrics import auc, calibration_error, first_wrong, pair_accuracy
from nabla.problems.sandbox import MODELS, TASKS, model_path

RESULTS = Path(__file__).with_name("gates.json")
TEMPERATURE = 0.7
PAIR_GATE = {"latin": 0.90, "arithmetic": 0.85}

Responses = list[list[str]]


class Judge:
    """A reward model behind its tokenizer and chat template: a shipped one, or another of its kind from a
    folder."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        folder = folder or model_path(name)
        self.process = MODELS[name].role == "process-reward"
        loaders: dict[bool, Any] = {
            True: AutoModelForTokenClassification,
            False: AutoModelForSequenceClassification,
        }
        kind = loaders[self.process]
        self.model = kind.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def values(self, rows: list[tuple[str, str]], codec: Codec, batch: int = 250) -> list[list[float]]:
        """What the head says at every character of the responses, read where they stand."""
        found: list[list[float]] = []
        for start in range(0, len(rows), batch):
            part = [(codec.prompt(p), codec.response(r)) for p, r in rows[start : start + batch]]
            hidden = self.model.base_model(codec.pad_rows([[*p, *r] for p, r in part])).last_hidden_state
            said = self.model.score(hidden)[..., 0]
            for row, (prompt, response) in zip(said, part, strict=True):
                end = len(prompt) + len(response) - len(codec.tail)
                found.append(row[len(prompt) : end].tolist())
        return found

    @torch.no_grad()
    def __call__(self, rows: list[tuple[str, str]], batch: int = 250) -> list[float]:
        """One score per (prompt, response); for a process reward its minimum over the response."""
        scores: list[float] = []
        for start in range(0, len(rows), batch):
            turns = [
                [{"role": "user", "content": p}, {"role": "assistant", "content": r}]
                for p, r in rows[start : start + batch]
            ]
            encoded = self.tokenizer.apply_chat_template(
                turns, padding=True, return_dict=True, return_tensors="pt"
            )
            logits = self.model(**encoded).logits
            if self.process:
                begins = self.tokenizer.apply_chat_template(
                    [turn[:1] for turn in turns], add_generation_prompt=True, return_dict=True
                )
                mask = encoded["attention_mask"].bool()
                for i, ids in enumerate(begins["input_ids"]):
                    mask[i, : len(ids)] = False
                scores += logits[..., 0].masked_fill(~mask, float("inf")).amin(1).tolist()
            else:
                scores += logits[:, 0].tolist()
        return scores


@torch.no_grad()
def entropies(model: Any, codec: Codec, rows: list[tuple[str, str]]) -> Tensor:
    """Entropy in nats (temperature 1) before every token of the responses, one flat tensor."""
    found = []
    for start in range(0, len(rows), 250):
        part = rows[start : start + 250]
        begin = len(codec.prompt(part[0][0]))
        texts = [codec.prompt(p) + codec.response(r)[:-1] for p, r in part]
        ids = codec.pad_rows(texts)
        law = model(ids).logits[:, begin - 1 : -1].log_softmax(-1)
        values = -(law.exp() * law).sum(-1)
        found.append(values[ids[:, begin:] != codec.pad])
    return torch.cat(found)


def measure_policy(name: str, n: int, samples: int, seed: int) -> tuple[dict[str, Any], Responses]:
    """The figures of one policy and its samples, `samples` for each of `n` test problems."""
    family = MODELS[name].family
    task, codec, tokens = TASKS[family], Codec(), RESPONSE_TOKENS[family]
    prompts = [p.prompt for p in task.problems("test", n, seed)]
    model = AutoModelForCausalLM.from_pretrained(model_path(name), dtype=torch.float32)
    greedy = sample(model, codec, prompts, temperature=0, tokens=tokens, seed=seed)
    flat = sample(
        model,
        codec,
        [p for p in prompts for _ in range(samples)],
        temperature=TEMPERATURE,
        tokens=tokens,
        seed=seed + 1,
    )
    drawn = [flat[i : i + samples] for i in range(0, len(flat), samples)]
    closed = [(p, g) for p, g in zip(prompts, greedy, strict=True) if not g.endswith("~")]
    spread = entropies(model, codec, closed)
    marks = [[task.check(p, r) for r in row] for p, row in zip(prompts, drawn, strict=True)]
    figures = {
        "greedy": accuracy(task, prompts, greedy),
        "samples": samples,
        "sample_mean": sum(map(sum, marks)) / len(flat),
        "pass_at_n": sum(map(any, marks)) / n,
        "entropy_mean": float(spread.mean()),
        "entropy_above_0.25": float((spread > 0.25).float().mean()),
    }
    return figures, drawn


def policy_figures(
    name: str, n: int, samples: int, seed: int, cache: Path
) -> tuple[dict[str, Any], Responses]:
    """:func:`measure_policy`, kept in `cache` under a digest of the policy's weights."""
    weights = (model_path(name) / "model.safetensors").read_bytes()
    file = cache / f"{name}-{n}-{samples}-{seed}-{hashlib.sha256(weights).hexdigest()[:12]}.json"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(measure_policy(name, n, samples, seed)))
    figures, drawn = json.loads(file.read_text())
    return figures, drawn


def measure_reward(
    name: str, prompts: list[str], drawn: Responses, folder: Path | None = None
) -> dict[str, Any]:
    """The figures of one reward on the samples of its family's main policy: the shipped one's, or those of
    another of its kind in a folder."""
    task, samples = TASKS[MODELS[name].family], len(drawn[0])
    marks = [[task.check(p, r) for r in row] for p, row in zip(prompts, drawn, strict=True)]
    rows = [(p, r) for p, row in zip(prompts, drawn, strict=True) for r in row]
    judge = Judge(name, folder)
    scores = judge(rows)
    closed = [(p, r) for p, r in rows if not r.endswith("~")]
    values = judge.values(closed, Codec())
    good, bad = first_wrong(values, [task.progress(p, r) for p, r in closed])
    by_problem = [scores[i : i + samples] for i in range(0, len(scores), samples)]
    best = [
        ok[max(range(samples), key=row.__getitem__)]
        for ok, row in zip(marks, by_problem, strict=True)
    ]
    pairs, count = pair_accuracy(by_problem, marks)
    return {
        "pair_accuracy": pairs,
        "pairs": count,
        "auc": auc(scores, [ok for row in marks for ok in row]),
        "best_of_n": sum(best) / len(best),
        "token_auc": auc([*good, *bad], [True] * len(good) + [False] * len(bad)),
        "calibration_error": calibration_error(scores, [ok for row in marks for ok in row]),
    }


def judge_gates(family: str, out: dict[str, Any]) -> dict[str, bool]:
    """Which gates of the family are reached."""
    policy, reward = out[f"{family}-policy"], out[f"{family}-reward"]
    return {
        "greedy within 0.30..0.75": 0.30 <= policy["greedy"] <= 0.75,
        "best-of-8 at least 0.08 above the mean sample": (
            reward["best_of_n"] >= policy["sample_mean"] + 0.08
        ),
        "best-of-8 above greedy": reward["best_of_n"] > policy["greedy"],
        f"pairs in order at least {PAIR_GATE[family]:.2f}": (
            reward["pair_accuracy"] >= PAIR_GATE[family]
        ),
    }


def measure(
    family: str,
    n: int,
    samples: int,
    seed: int,
    cache: Path,
    before: dict[str, Any] | None = None,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """All figures of a family, every model's under its own name.

    What a policy wrote is kept in `cache` and reused. With `only` these models are measured, and the main
    policy; the others keep the figures that they have in `before`.
    """
    prompts = [p.prompt for p in TASKS[family].problems("test", n, seed)]
    out: dict[str, Any] = {**(before or {}), "problems": n, "seed": seed}
    drawn: dict[str, Responses] = {}
    for name, info in MODELS.items():
        if info.family != family or (only and name not in (*only, f"{family}-policy")):
            continue
        if info.role == "policy":
            count = samples if info.quality == "full" else 2
            out[name], drawn[name] = policy_figures(name, n, count, seed, cache)
        else:
            out[name] = measure_reward(name, prompts, drawn[f"{family}-policy"])
        print(name, json.dumps(out[name]), flush=True)
    out["gates"] = judge_gates(family, out)
    return out


_LABELS = {
    "greedy": "greedy accuracy",
    "sample_mean": f"mean accuracy of samples at temperature {TEMPERATURE}",
    "samples": "samples per problem",
    "pass_at_n": "at least one of these samples right",
    "entropy_mean": "mean entropy per response position, nats",
    "entropy_above_0.25": "share of positions above 0.25 nats",
    "pair_accuracy": "pairs (right, wrong) of the same problem in order",
    "pairs": "number of such pairs",
    "auc": "AUC over all samples",
    "best_of_n": "accuracy of best-of-8 by this reward",
    "token_auc": "AUC of values: tokens before the first wrong one against first wrong tokens",
    "calibration_error": "expected calibration error of the score as log-odds of a right answer",
}


def table(family: str, name: str, results: dict[str, Any]) -> str:
    """The figures of one model as Markdown."""
    head = f"{results['problems']} test problems (seed {results['seed']})"
    if MODELS[name].role != "policy":
        policy = results[f"{family}-policy"]
        head += (
            f", {policy['samples']} samples each from `{family}-policy` at temperature "
            f"{TEMPERATURE} (mean accuracy {policy['sample_mean']:.3f}, greedy "
            f"{policy['greedy']:.3f})"
        )
    if MODELS[name].role == "process-reward":
        head += "; a response's score is the minimum over its tokens"
    lines = [f"{head}.", "", "| measure | value |", "|---|---|"]
    for key, label in _LABELS.items():
        if key in results[name]:
            value = results[name][key]
            shown = str(value) if isinstance(value, int) else f"{value:.3f}"
            lines.append(f"| {label} | {shown} |")
    main = MODELS[name].target == "marks" and MODELS[name].role != "process-reward"
    if MODELS[name].quality == "full" and main:
        lines += ["", "| gate of the family | reached |", "|---|---|"]
        lines += [f"| {gate} | {'yes' if ok else 'no'} |" for gate, ok in results["gates"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("runs/sandbox/gates"))
    parser.add_argument("--only", nargs="+", default=[], help="measure these models alone")
    parser.add_argument("--refill", action="store_true", help="only fill gates.json into the cards")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    def known() -> dict[str, Any]:
        return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}  # type: ignore[no-any-return]

    before = known().get(args.task, {})
    if args.refill:
        results = before
    else:
        given = args.problems, args.samples, args.seed, args.cache
        results = measure(args.task, *given, before if args.only else None, args.only)
    print(json.dumps(results["gates"], indent=2))
    RESULTS.write_text(json.dumps(known() | {args.task: results}, indent=2, sort_keys=True) + "\n")
    for name, info in MODELS.items():
        readme = model_path(name) / "README.md"
        if info.family == args.task and readme.exists():
            readme.write_text(fill(readme.read_text(), table(args.task, name, results)))


if __name__ == "__main__":
    main()
