"""Supervised fine-tuning on written-out sums: the policy, and (from it, longer) the judge.

    python -m experiments.training.sft --steps 120 --out runs/training/policy
    python -m experiments.training.sft --base smollm2-chain-sum --rank 8 --first 100000 \
        --out runs/training/judge
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from experiments.training.running import (
    Ledger,
    finished,
    go,
    options_of,
    settings,
    start,
    training_flops,
    with_adapter,
)
from experiments.training.task import solution, training


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__, 16, 4, "smollm2")
    parser.add_argument("--examples", type=int, default=608)
    parser.add_argument("--steps", type=int, default=None, help="stop behind so many; the schedule stays")
    parser.add_argument("--first", type=int, default=0, help="seed of the first training problem")
    options = parser.parse_args(arguments)
    if not finished("sft", options):
        fit(options)


def fit(options: argparse.Namespace) -> None:
    """Trains one adapter."""
    problems = training(options.examples, options.first)
    supervise(options, [(p.prompt, solution(p.metadata["question"])) for p in problems])


def supervise(options: argparse.Namespace, pairs: Sequence[tuple[str, str]]) -> None:
    """Trains an adapter of a language model on (question, answer); the loss is on the answers alone."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [
        {
            "prompt": [{"role": "user", "content": question}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        for question, answer in pairs
    ]
    model, tokenizer = start(options)
    model = with_adapter(model, options.rank, "CAUSAL_LM", options.seed)
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        args=SFTConfig(**settings(options), completion_only_loss=True, max_length=None),
        callbacks=[Ledger(options.out, training_flops(model), options.steps)],
    )
    go(trainer, options.out, options.steps)


if __name__ == "__main__":
    main()
