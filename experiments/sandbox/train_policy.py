"""Train the policy of one family and keep checkpoints along the way.

python -m experiments.sandbox.train_policy --task latin --out runs/sandbox
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen3ForCausalLM

from experiments.sandbox.common import (
    RESPONSE_TOKENS,
    Codec,
    accuracy,
    policy_config,
    sample,
    seeded,
    training_task,
)
from experiments.sandbox.training import Batch, Trained, fit
from nabla.problems.sandbox import TASKS

#: Recipes of the shipped weights: steps, batch size, learning rate, steps between checkpoints.
RECIPES: dict[str, dict[str, Any]] = {
    "latin": {"steps": 1500, "batch": 96, "lr": 3e-3, "every": 100},
    "arithmetic": {"steps": 1000, "batch": 128, "lr": 3e-3, "every": 25},
}


class Policy(Trained):
    """Next-token cross-entropy over the response and its end of turn, in nats per token."""

    def __init__(self, codec: Codec, lr: float, steps: int, warmup: int = 50) -> None:
        super().__init__(lr, steps, warmup)
        self.model = Qwen3ForCausalLM(policy_config(codec))

    def loss(self, batch: Batch) -> Tensor:
        targets = batch["targets"]
        hidden = self.model.model(batch["ids"], use_cache=False).last_hidden_state
        logits = self.model.lm_head(hidden[:, -targets.shape[1] :])
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


class Batches:
    """Fresh training problems: inputs [batch, length], targets of the response part."""

    def __init__(self, task: str, codec: Codec, size: int, seed: int) -> None:
        self.task, self.codec, self.size = training_task(task), codec, size
        self.rng = seeded("policy", task, seed)

    def __call__(self) -> Batch:
        inputs, targets = [], []
        for _ in range(self.size):
            problem = self.task.draw(self.rng, "train")
            prompt = self.codec.prompt(problem.prompt)
            response = self.codec.response(problem.gold)[:-1]
            inputs.append([*prompt, *response[:-1]])
            targets.append(response)
        return {
            "ids": self.codec.pad_rows(inputs),
            "targets": self.codec.pad_rows(targets, -100),
        }


class Checkpoints(pl.Callback):
    """Every `every` steps: save the weights, print loss and accuracy on unseen problems."""

    def __init__(self, task: str, codec: Codec, folder: Path, every: int, n: int) -> None:
        self.codec, self.folder, self.every = codec, folder, every
        self.task = TASKS[task]
        self.tokens = RESPONSE_TOKENS[task]
        self.prompts = [p.prompt for p in self.task.problems("train", n, seed=12345)]
        self.losses: list[float] = []
        self.started = time.monotonic()

    def on_train_batch_end(self, _trainer: Any, module: Any, outputs: Any, *_rest: Any) -> None:
        self.losses.append(float(outputs["loss"] if isinstance(outputs, dict) else outputs))
        step = len(self.losses)
        if step % self.every and step != module.steps:
            return
        torch.save(module.model.state_dict(), self.folder / f"step_{step:05d}.pt")
        row = {"step": step, "seconds": round(time.monotonic() - self.started, 1)}
        row["loss"] = round(sum(self.losses[-self.every :]) / self.every, 4)
        for name, temperature in (("greedy", 0.0), ("sampled", 0.7)):
            responses = sample(
                module.model,
                self.codec,
                self.prompts,
                temperature=temperature,
                tokens=self.tokens,
                seed=step,
            )
            row[name] = round(accuracy(self.task, self.prompts, responses), 4)
        module.train()
        print(json.dumps(row), flush=True)
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=sorted(RECIPES), required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/sandbox"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--every", type=int, help="steps between checkpoints")
    parser.add_argument("--eval-problems", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    given = {name: getattr(args, name) for name in ("steps", "batch", "lr", "every")}
    recipe = RECIPES[args.task] | {k: v for k, v in given.items() if v is not None}

    torch.set_num_threads(args.threads)
    pl.seed_everything(args.seed)
    codec = Codec()
    folder = args.out / f"{args.task}-policy"
    folder.mkdir(parents=True, exist_ok=True)
    module = Policy(codec, recipe["lr"], recipe["steps"])
    module.train()
    checkpoints = Checkpoints(args.task, codec, folder, recipe["every"], args.eval_problems)
    fit(module, Batches(args.task, codec, recipe["batch"], args.seed), [checkpoints])


if __name__ == "__main__":
    main()
