"""An outcome reward: one number for a whole answer, from pairs of right and wrong ones (TRL's RewardTrainer).

    python -m experiments.training.outcome --samples runs/training/samples.jsonl --out runs/training/outcome

Any base serves: `--base gemma3-270m --rank 8` trains one on Gemma's body. What comes of Gemma's weights stays
under Gemma's terms: it goes where --out says, and not into this repository.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.training.running import (
    Ledger,
    go,
    remember,
    settings,
    start,
    training_flops,
    with_adapter,
)
from experiments.training.samples import read, right
from experiments.training.task import solution
from nabla.core.extras import require_extra


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--base", default="smollm2-chain-sum")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--layers", type=int, default=10, help="how many of the last ones have the adapter")
    parser.add_argument("--pairs", type=int, default=2, help="of a problem, at most")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    require_extra("train", purpose="Training")
    recipe = {k: v for k, v in vars(options).items() if k not in ("out", "samples")}
    recipe |= {"problems": len(rows := read(options.samples)), "each": len(rows[0]["samples"])}
    if remember(options.out, {"what": "outcome", **recipe}):
        print(f"{options.out} is finished")
        return
    fit(options)


def fit(options: argparse.Namespace) -> None:
    """Trains one adapter and its head."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    rows = list(pairs(read(options.samples), options.pairs, options.seed))
    random.Random(options.seed).shuffle(rows)
    model, tokenizer = start(
        AutoModelForSequenceClassification, options.base, "outcome reward", num_labels=1
    )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    model = with_adapter(model, options.rank, "SEQ_CLS", options.seed, options.layers)
    trainer = RewardTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        args=RewardConfig(
            **settings(
                options.out,
                learning_rate=options.lr,
                per_device_train_batch_size=options.batch,
                seed=options.seed,
                data_seed=options.seed,
            ),
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
