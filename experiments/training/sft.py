"""Supervised fine-tuning on written-out sums: the policy, and (from it, longer) the judge.

    python -m experiments.training.sft --steps 120 --out runs/training/policy
    python -m experiments.training.sft --base smollm2-chain-sum --rank 8 --first 100000 \
        --out runs/training/judge
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.training.running import (
    Ledger,
    go,
    remember,
    settings,
    start,
    training_flops,
    with_adapter,
)
from experiments.training.task import solution, training
from nabla.core.extras import require_extra


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default="smollm2", help="a name that `nabla models` lists, or a folder")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--examples", type=int, default=608)
    parser.add_argument("--steps", type=int, default=None, help="stop behind so many; the schedule stays")
    parser.add_argument("--first", type=int, default=0, help="seed of the first training problem")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="frozen weights'")
    options = parser.parse_args(arguments)
    require_extra("train", purpose="Training")
    recipe = {k: v for k, v in vars(options).items() if k not in ("out", "dtype")}
    if remember(options.out, {"what": "sft", **recipe}):
        print(f"{options.out} is finished")
        return
    fit(options)


def fit(options: argparse.Namespace) -> None:
    """Trains one adapter."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    problems = training(options.examples, options.first)
    rows = [
        {
            "prompt": [{"role": "user", "content": p.prompt}],
            "completion": [{"role": "assistant", "content": solution(p.metadata["question"])}],
        }
        for p in problems
    ]
    model, tokenizer = start(AutoModelForCausalLM, options.base, "language model", options.dtype)
    model = with_adapter(model, options.rank, "CAUSAL_LM", options.seed)
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        args=SFTConfig(
            **settings(
                options.out,
                learning_rate=options.lr,
                per_device_train_batch_size=options.batch,
                seed=options.seed,
                data_seed=options.seed,
            ),
            completion_only_loss=True,
            max_length=None,
        ),
        callbacks=[Ledger(options.out, training_flops(model), options.steps)],
    )
    go(trainer, options.out, options.steps)


if __name__ == "__main__":
    main()
