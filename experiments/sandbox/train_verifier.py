"""Train a reward that was never told where a text goes wrong, on a body of its own.

    python -m experiments.sandbox.train_verifier --task latin --target outcome-only --out runs/sandbox
    python -m experiments.sandbox.success_labels --task latin --out runs/sandbox
    python -m experiments.sandbox.train_verifier --task latin --target success --out runs/sandbox

The rewards of `train_reward` hear of the checker's mark at every token, which no reward in the wild does.
Here:

- `outcome-only`: the verdict at the last token and the plain next-token loss of right responses, nothing
  else;
- `success`: at every token how often the policy still succeeded from there (`success_labels`), beside losses
  that need no label (`RewardModel.auxiliary`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as pl
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

from experiments.sandbox import success_labels
from experiments.sandbox.common import POLICY_LAYERS, Codec, seeded, training_task
from experiments.sandbox.negatives import scrambled
from experiments.sandbox.pairs import Judged, Pairs, sample_pool
from experiments.sandbox.success_labels import Labelled
from experiments.sandbox.train_reward import Checkpoints, RewardModel, bce, verdicts
from experiments.sandbox.training import Batch, fit
from nabla.problems.sandbox import TASKS, Arithmetic, Family, model_path

#: Recipes of the shipped weights by target and family. `body` is the shipped model whose lower layers the
#: body starts from; `near`, `scrambled`, `pool`, `lm` and `detach` as in `train_reward`.
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "outcome-only": {
        "latin": {
            "steps": 400,
            "batch": 64,
            "lr": 2e-3,
            "every": 50,
            "body": "latin-policy",
            "pool": 800,
            "near": 0.35,
            "scrambled": 0.2,
            "lm": 0.3,
            "detach": False,
        },
        "arithmetic": {
            "steps": 500,
            "batch": 64,
            "lr": 2e-3,
            "every": 50,
            "body": "arithmetic-policy",
            "pool": 800,
            "near": 0.4,
            "scrambled": 0.5,
            "lm": 1.0,
            "detach": False,
            "easier": ((120, 1), (240, 2)),
        },
    },
    "success": {
        "latin": {
            "steps": 250,
            "batch": 64,
            "lr": 2e-3,
            "every": 50,
            "body": "latin-policy",
            "fresh": 0.25,
            "pool": 800,
            "lm": 0.3,
            "detach": False,
        },
        "arithmetic": {
            "steps": 400,
            "batch": 64,
            "lr": 2e-3,
            "every": 50,
            "body": "arithmetic-process-reward",
            "fresh": 0.5,
            "pool": 800,
            "lm": 1.0,
            "detach": True,
        },
    },
}
#: The shipped policies whose samples are judged.
SAMPLERS = ("policy", "policy-weak", "policy-poor")


class OutcomeOnly(RewardModel):
    """The verdict at the last token, and the policy's own loss; the other heads learn nothing."""

    def loss(self, batch: Batch) -> Tensor:
        out = self(batch["ids"], batch["mask"])
        return self.total({**verdicts(out, batch), "next": self.following(out, batch)})


class Success(RewardModel):
    """At each token the share of right answers among the policy's own continuations."""

    def loss(self, batch: Batch) -> Tensor:
        out = self(batch["ids"], batch["mask"])
        dense = bce(out.process, batch["share"], reduction="none") * batch["weight"]
        return self.total(
            {
                "process": 4 * dense.sum() / batch["weight"].sum(),
                **self.auxiliary(out, batch, batch["answer"][:, 1:] == 1),
                "next": self.following(out, batch),
            }
        )


class VerdictPairs(Pairs):
    """Pairs without the marks at tokens: the next-token loss is that of right responses alone."""

    def __init__(
        self, task: Family, codec: Codec, pool: list[Judged], recipe: dict[str, Any], seed: int
    ) -> None:
        super().__init__(task, codec, pool, recipe, seed)
        self.hard, self.samples, self.made = task, self.pool, 0
        self.easier: Sequence[tuple[int, int]] = recipe.get("easier", ())

    def __call__(self) -> Batch:
        terms = next((terms for until, terms in self.easier if self.made < until), None)
        self.made += 1
        self.task = self.hard if terms is None else Arithmetic(terms)
        self.pool = self.samples if terms is None else []
        rows: list[tuple[str, str]] = []
        for _ in range(self.size // 2):
            prompt, right, wrong = self.pair()
            rows += [(prompt, right), (prompt, wrong)]
        return encode_verdicts(self.task, self.codec, rows)


def encode_verdicts(task: Family, codec: Codec, rows: Sequence[tuple[str, str]]) -> Batch:
    """Rows of (prompt, response): `ids`, `mask` and `next` [batch, length], `right` [batch]."""
    ids, following, right = [], [], []
    for prompt, response in rows:
        before, after = codec.prompt(prompt), codec.response(response)
        correct = task.check(prompt, response)
        ids.append([*before, *after])
        following.append(_following(before, after, correct))
        right.append(float(correct))
    return {**_padded(codec, ids, following), "right": torch.tensor(right)}


def encode_labels(
    codec: Codec, rows: Sequence[Labelled], others: Sequence[tuple[str, str, bool]] = ()
) -> Batch:
    """Labelled texts, each [batch, length]: `ids`, `mask`, `next`; `share` of right answers behind each token
    with its `weight` (0 where there is no label), and which tokens are the `answer`'s. The `others` are
    (prompt, response, verdict) without labels at tokens."""
    ids, following, share, weight, answer = [], [], [], [], []
    for row in rows:
        before, after = codec.prompt(row.prompt), list(row.tokens)
        if after[-1] == codec.end:  # the template's line break, behind which nothing changes any more
            after.append(codec.tail[1])
        unknown = len(before) - 1 + row.start
        known = [*row.labels, *[row.labels[-1]] * (len(after) - len(row.tokens))]
        ids.append([*before, *after])
        following.append(_following(before, after, row.labels[-1] == 1))
        share.append([*[0.0] * unknown, *known])
        weight.append([*[0.0] * unknown, *[1.0] * len(known)])
        answer.append([*[0.0] * len(before), *[1.0] * len(after)])
    for prompt, response, right in others:
        before, after = codec.prompt(prompt), codec.response(response)
        ids.append([*before, *after])
        following.append(_following(before, after, right))
        share.append([0.0] * len(ids[-1]))
        weight.append([0.0] * len(ids[-1]))
        answer.append([*[0.0] * len(before), *[1.0] * len(after)])
    return {
        **_padded(codec, ids, following),
        "share": codec.pad_rows(share, 0.0),
        "weight": codec.pad_rows(weight, 0.0),
        "answer": codec.pad_rows(answer, 0.0),
    }


def _following(before: Sequence[int], after: Sequence[int], right: bool) -> list[int]:
    """The token after each one of a right answer; -100 elsewhere."""
    return [*[-100] * (len(before) - 1), *(after if right else [-100] * len(after))]


def _padded(codec: Codec, ids: list[list[int]], following: list[list[int]]) -> Batch:
    length = max(map(len, ids))
    rest = [[*r, *[-100] * (length - 1 - len(r))] for r in following]
    return {
        "ids": codec.pad_rows(ids),
        "mask": codec.pad_rows([[1] * len(row) for row in ids], 0),
        "next": codec.pad_rows(rest, -100),
    }


class LabelBatches:
    """Batches of labelled texts, each text once before any comes again; a share of each batch are right
    responses and others with many digits replaced, to train comparisons densely by losses without a label."""

    def __init__(
        self, task: Family, codec: Codec, rows: Sequence[Labelled], recipe: dict[str, Any], seed: int
    ) -> None:
        self.task, self.codec, self.rows = task, codec, rows
        self.fresh = int(recipe["batch"] * recipe["fresh"])
        self.size = recipe["batch"] - self.fresh
        self.rng = seeded("labels", seed)
        self.order: list[int] = []

    def __call__(self) -> Batch:
        if len(self.order) < self.size:
            self.order = list(range(len(self.rows)))
            self.rng.shuffle(self.order)
        chosen, self.order = self.order[: self.size], self.order[self.size :]
        others = []
        for number in range(self.fresh):
            problem = self.task.draw(self.rng, "train")
            gold, right = str(problem.gold), number % 4 == 0
            text = gold if right else scrambled(self.task, self.rng, problem.prompt, gold)
            others.append((problem.prompt, text, right))
        return encode_labels(self.codec, [self.rows[i] for i in chosen], others)


def weights(name: str) -> dict[str, Tensor]:
    """State of a shipped policy."""
    state: dict[str, Tensor] = AutoModelForCausalLM.from_pretrained(model_path(name)).state_dict()
    return state


def lower_layers(name: str, family: str) -> dict[str, Tensor]:
    """Embeddings and as many layers as a policy has of a shipped model, with the policy's norm: the layers of
    a reward that was trained with `detach` are those of a policy trained on, which no label has reached."""
    body = AutoModel.from_pretrained(model_path(name)).state_dict()
    kept = {
        f"model.{key}": value
        for key, value in body.items()
        if key.startswith("embed_tokens")
        or (key.startswith("layers.") and int(key.split(".")[1]) < POLICY_LAYERS)
    }
    return kept | {"model.norm.weight": weights(f"{family}-policy")["model.norm.weight"]}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--target", choices=sorted(RECIPES), required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/sandbox"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, help="rows; of outcome-only two per problem")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--every", type=int, help="steps between checkpoints")
    parser.add_argument("--pool", type=int, help="problems to sample responses for")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    names = ("steps", "batch", "lr", "every", "pool")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    recipe = RECIPES[args.target][args.task] | given

    torch.set_num_threads(args.threads)
    pl.seed_everything(args.seed)
    codec, task = Codec(), training_task(args.task)
    folder = args.out / f"{args.task}-{args.target}"
    kind = OutcomeOnly if args.target == "outcome-only" else Success
    module = kind(codec, recipe["lr"], recipe["steps"], recipe["lm"], recipe["detach"])
    module.start_from(lower_layers(recipe["body"], args.task))
    samplers = [weights(f"{args.task}-{role}") for role in SAMPLERS]
    started = time.monotonic()
    make: Any
    if args.target == "success":
        rows, _ = success_labels.load(folder)
        make = LabelBatches(task, codec, rows, recipe, args.seed)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        pool = sample_pool(task, codec, samplers, recipe["pool"], args.seed)
        make = VerdictPairs(task, codec, pool, recipe, args.seed)
    unseen = sample_pool(TASKS[args.task], codec, samplers[:1], max(recipe["pool"] // 20, 2), args.seed + 1)
    print(json.dumps({"prepared_in_seconds": round(time.monotonic() - started)}), flush=True)
    module.train()
    fit(module, make, [Checkpoints(task, codec, unseen, folder, recipe["every"])])


if __name__ == "__main__":
    main()
