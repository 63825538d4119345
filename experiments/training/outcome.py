"""An outcome reward: one number for a whole answer, from pairs of right and wrong ones (TRL's RewardTrainer).

    python -m experiments.training.outcome --samples runs/training/samples.jsonl --out runs/training/outcome

Any base serves: `--base gemma3-270m --rank 8` trains one on Gemma's body. What comes of Gemma's weights stays
under Gemma's terms: it goes where --out says, and not into this repository.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from typing import Any

from experiments.training.running import (
    Ledger,
    finished,
    go,
    reward_options,
    settings,
    start,
    training_flops,
    with_adapter,
)
from experiments.training.samples import read, right, size
from experiments.training.task import solution


def main(arguments: list[str] | None = None) -> None:
    parser = reward_options(__doc__, 4)
    parser.add_argument("--pairs", type=int, default=2, help="of a problem, at most")
    options = parser.parse_args(arguments)
    if not finished("outcome", options, **size(options.samples)):
        fit(options)


def fit(options: argparse.Namespace) -> None:
    """Trains one adapter and its head."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    rows = list(pairs(read(*options.samples), options.pairs, options.seed))
    random.Random(options.seed).shuffle(rows)
    model, tokenizer = start(options, AutoModelForSequenceClassification, num_labels=1)
    model = with_adapter(model, options.rank, "SEQ_CLS", options.seed, options.layers)
    trainer = RewardTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        args=RewardConfig(
            **settings(options),
            max_length=None,
        ),
        callbacks=[Ledger(options.out, training_flops(model))],
    )
    go(trainer, options.out)


def pairs(rows: list[dict[str, Any]], most: int, seed: int) -> Iterator[dict[str, Any]]:
    """Conversations that end in a right answer and in a wrong one of the same problem. Where no sample was
    right, the written solution stands in."""
    for row in rows:
        good = [s["text"] for s in row["samples"] if right(s)] or [solution(row["question"])]
        bad = sorted({s["text"] for s in row["samples"] if not right(s) and s["finished"]})
        random.Random(f"{seed}:{row['problem']}").shuffle(bad)
        for text in bad[:most]:
            yield {
                "prompt": [{"role": "user", "content": row["prompt"]}],
                "chosen": [{"role": "assistant", "content": good[0]}],
                "rejected": [{"role": "assistant", "content": text}],
            }


if __name__ == "__main__":
    main()
