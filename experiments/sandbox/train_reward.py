"""Train the outcome and the process reward of one family together, on one body.

    python -m experiments.sandbox.train_reward --task latin --out runs/sandbox

The body starts from the layers of a policy trained further than the shipped one and has three more,
each with a job that is supervised on its own, because a tiny model does not find the whole circuit
from the verdict alone:

- where the policy ended, its next-token loss keeps the knowledge of what should come next;
- one layer on, every token has to carry what was expected in its place, and still (there and one
  layer earlier) what it is itself, which a policy otherwise forgets on the way up;
- another layer on, the policy's probability of the token itself has to be known: a comparison of
  the expected with the actual token, within one position;
- the last layer has to remember whether any token was unlikely: the process reward at every token,
  and the outcome reward at the last one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen3Model

from experiments.sandbox.common import (
    POLICY_LAYERS,
    WIDTH,
    Codec,
    reward_config,
    training_task,
)
from experiments.sandbox.metrics import auc, pair_accuracy
from experiments.sandbox.pairs import Judged, Pairs, encode, sample_pool
from experiments.sandbox.training import Batch, Trained, fit
from nabla.problems.sandbox import Family

#: Recipes of the shipped weights. `body` is the policy step that the body starts from, `samplers`
#: the policy steps whose samples are judged, `pool` the problems sampled for, `near` the share of
#: wrong responses made on the fly, `scrambled` the share of those with many changes, `lm` the weight
#: of the next-token loss, `detach` whether the policy's layers learn from that loss alone.
RECIPES: dict[str, dict[str, Any]] = {
    "latin": {
        "steps": 400,
        "batch": 64,
        "lr": 2e-3,
        "every": 50,
        "body": 1500,
        "samplers": (1500, 1000, 500),
        "pool": 2000,
        "near": 0.35,
        "scrambled": 0.2,
        "lm": 0.3,
        "detach": False,
    },
    "arithmetic": {
        "steps": 1000,
        "batch": 64,
        "lr": 2e-3,
        "every": 50,
        "body": 700,
        "samplers": (250, 300, 200),
        "pool": 2000,
        "near": 0.6,
        "scrambled": 0.5,
        "lm": 1.0,
        "detach": True,
    },
}
bce = F.binary_cross_entropy_with_logits


@dataclass(frozen=True)
class Readings:
    """What the heads say, each [batch, length] but the outcome and the logits."""

    outcome: Tensor  # [batch]
    process: Tensor
    slip: Tensor  # log-odds that the policy would have written this token
    expected: Tensor  # [batch, length, vocabulary], of the token at the same position
    actual: list[Tensor]  # [batch, length, vocabulary] each, of the token itself
    known: Tensor  # [batch, length, vocabulary], of the next token


class RewardModel(Trained):
    """One body with an outcome head, a process head and auxiliary heads."""

    def __init__(
        self,
        codec: Codec,
        lr: float,
        steps: int,
        lm: float = 1.0,
        detach: bool = False,
        warmup: int = 50,
    ) -> None:
        super().__init__(lr, steps, warmup)
        self.lm = lm
        self.body = Qwen3Model(reward_config(codec))
        self.lm_norm = nn.RMSNorm(WIDTH, eps=1e-6)
        self.expected = nn.Linear(WIDTH, len(codec.tokenizer))
        self.actual = nn.ModuleList(nn.Linear(WIDTH, len(codec.tokenizer)) for _ in range(2))
        self.slip = nn.Linear(WIDTH, 1)
        self.process = nn.Linear(WIDTH, 1)
        self.outcome = nn.Linear(WIDTH, 1, bias=False)
        self.inner: dict[int, Tensor] = {}
        for index, layer in enumerate(self.body.layers):
            layer.register_forward_hook(self._keep(index + 1))
        if detach:
            self.body.layers[POLICY_LAYERS].register_forward_pre_hook(
                lambda _, inputs: (inputs[0].detach(), *inputs[1:])
            )
        self.parts: dict[str, float] = {}

    def _keep(self, depth: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self.inner[depth] = output[0] if isinstance(output, tuple) else output

        return hook

    def start_from(self, policy: dict[str, Tensor]) -> None:
        """Copy the policy's embeddings and layers; the layers above them stay as they are."""
        body = {
            key.removeprefix("model."): value
            for key, value in policy.items()
            if key.startswith(("model.embed_tokens", "model.layers."))
        }
        self.body.load_state_dict(body, strict=False)
        self.lm_norm.weight.data.copy_(policy["model.norm.weight"])

    def forward(self, ids: Tensor, mask: Tensor) -> Readings:
        """Read all heads; `mask` [batch, length] is 0 on the padding to the right."""
        last = self.body(ids, use_cache=False).last_hidden_state
        ends = mask.sum(1) - 1
        known = self.lm_norm(self.inner[POLICY_LAYERS]) @ self.body.embed_tokens.weight.T
        return Readings(
            outcome=self.outcome(last[torch.arange(len(ids)), ends])[:, 0],
            process=self.process(last)[..., 0],
            slip=self.slip(self.inner[POLICY_LAYERS + 2])[..., 0],
            expected=self.expected(self.inner[POLICY_LAYERS + 1]),
            actual=[
                head(self.inner[POLICY_LAYERS + depth]) for depth, head in enumerate(self.actual)
            ],
            known=known,
        )

    def loss(self, batch: Batch) -> Tensor:
        out = self(batch["ids"], batch["mask"])
        dense = bce(out.process, batch["fine"], reduction="none") * batch["weight"]
        return self.total(
            {
                **verdicts(out, batch),
                "process": 2 * dense.sum() / batch["weight"].sum(),
                **self.auxiliary(out, batch, batch["weight"][:, 1:] == 1),
                "next": self.following(out, batch),
            }
        )

    def auxiliary(self, out: Readings, batch: Batch, response: Tensor) -> dict[str, Tensor]:
        """Losses without any label: what the policy's layers expect against what stands there.

        `response` [batch, length - 1] says which tokens behind the first are the answer's.
        """
        belief = out.known[:, :-1].detach().softmax(-1)
        trust = belief.gather(-1, batch["ids"][:, 1:, None])[..., 0]
        slips = bce(out.slip[:, 1:], trust, reduction="none")
        told = -(belief * out.expected[:, 1:].log_softmax(-1)).sum(-1)
        odd = belief.argmax(-1) != batch["ids"][:, 1:]
        return {
            "slip": 2 * balanced(slips, odd & response, ~odd & response),
            "expected": balanced(told, odd & response, ~odd & response),
            "actual": torch.stack(
                [
                    balanced(
                        F.cross_entropy(said[:, 1:].mT, batch["ids"][:, 1:], reduction="none"),
                        odd & response,
                        ~odd & response,
                    )
                    for said in out.actual
                ]
            ).mean(),
        }

    def following(self, out: Readings, batch: Batch) -> Tensor:
        """The policy's own loss at the layer where the policy ended."""
        known = out.known[:, :-1].flatten(0, 1)
        return self.lm * F.cross_entropy(known, batch["next"].flatten(), ignore_index=-100)

    def total(self, parts: dict[str, Tensor]) -> Tensor:
        """The sum; the parts are kept for the log."""
        self.parts = {name: round(float(value.detach()), 4) for name, value in parts.items()}
        return torch.stack(list(parts.values())).sum()


def verdicts(out: Readings, batch: Batch) -> dict[str, Tensor]:
    """Losses of the outcome head: the verdict, and that of two responses to a problem the right one wins."""
    return {
        "outcome": bce(out.outcome, batch["right"] * 0.98 + 0.01),
        "ranked": -F.logsigmoid(out.outcome[0::2] - out.outcome[1::2]).mean(),
    }


def balanced(losses: Tensor, some: Tensor, others: Tensor) -> Tensor:
    """The mean of the mean losses over two sets of positions, however unequal their sizes."""
    return (
        (losses * some).sum() / some.sum().clamp(min=1)
        + (losses * others).sum() / others.sum().clamp(min=1)
    ) / 2


class Checkpoints(pl.Callback):
    """Every `every` steps: save the weights, print the ranking of samples it has not seen."""

    def __init__(self, task: Family, codec: Codec, pool: list[Judged], folder: Path, every: int):
        self.task, self.codec, self.folder, self.every = task, codec, folder, every
        self.pool = pool
        self.losses: list[float] = []
        self.started = time.monotonic()

    def on_train_batch_end(self, _trainer: Any, module: Any, outputs: Any, *_rest: Any) -> None:
        self.losses.append(float(outputs["loss"] if isinstance(outputs, dict) else outputs))
        step = len(self.losses)
        if step % self.every and step != module.steps:
            return
        torch.save(module.state_dict(), self.folder / f"step_{step:05d}.pt")
        row: dict[str, Any] = {"step": step, "seconds": round(time.monotonic() - self.started, 1)}
        row["loss"] = round(sum(self.losses[-self.every :]) / self.every, 4)
        row |= self.measure(module) | module.parts
        print(json.dumps(row), flush=True)
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")

    @torch.no_grad()
    def measure(self, module: RewardModel) -> dict[str, float]:
        outcomes, lowest, marks = [], [], []
        for judged in self.pool:
            rows = [(judged.prompt, r) for r in [*judged.right, *judged.wrong]]
            batch = encode(self.task, self.codec, rows)
            out = module(batch["ids"], batch["mask"])
            outcomes.append(out.outcome.tolist())
            lowest.append(out.process.masked_fill(batch["weight"] < 1, 1e9).amin(1).tolist())
            marks.append((batch["right"] > 0).tolist())
        flat = [ok for row in marks for ok in row]
        return {
            "auc": round(auc([s for row in outcomes for s in row], flat), 4),
            "pairs": round(pair_accuracy(outcomes, marks)[0], 4),
            "process_auc": round(auc([s for row in lowest for s in row], flat), 4),
            "process_pairs": round(pair_accuracy(lowest, marks)[0], 4),
        }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=sorted(RECIPES), required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/sandbox"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, help="rows, two per problem")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--every", type=int, help="steps between checkpoints")
    parser.add_argument("--body", type=int, help="policy step to start from")
    parser.add_argument("--samplers", type=int, nargs="+", help="policy steps to sample from")
    parser.add_argument("--resume", type=Path, help="a reward checkpoint to start from instead")
    parser.add_argument("--pool", type=int, help="problems to sample responses for")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    names = ("steps", "batch", "lr", "every", "body", "samplers", "pool")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    recipe = RECIPES[args.task] | given

    torch.set_num_threads(args.threads)
    pl.seed_everything(args.seed)
    codec, task = Codec(), training_task(args.task)
    policies = args.out / f"{args.task}-policy"
    folder = args.out / f"{args.task}-reward"
    folder.mkdir(parents=True, exist_ok=True)

    def weights(step: int) -> dict[str, Tensor]:
        loaded: dict[str, Tensor] = torch.load(policies / f"step_{step:05d}.pt")
        return loaded

    module = RewardModel(codec, recipe["lr"], recipe["steps"], recipe["lm"], recipe["detach"])
    module.start_from(weights(recipe["body"]))
    if args.resume is not None:
        module.load_state_dict(torch.load(args.resume), strict=False)
    samplers = [weights(step) for step in recipe["samplers"]]
    started = time.monotonic()
    pool = sample_pool(task, codec, samplers, recipe["pool"], args.seed)
    unseen = sample_pool(task, codec, samplers[:1], max(recipe["pool"] // 20, 2), args.seed + 1)
    print(
        f"sampled {sum(len(j.wrong) for j in pool)} wrong responses to {len(pool)} problems "
        f"in {time.monotonic() - started:.0f} s",
        flush=True,
    )
    module.train()
    make = Pairs(task, codec, pool, recipe, args.seed)
    fit(module, make, [Checkpoints(task, codec, unseen, folder, recipe["every"])])


if __name__ == "__main__":
    main()
