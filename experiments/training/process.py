"""A process reward: at every token of an answer, whether it is right so far (transformers' own Trainer).

    python -m experiments.training.process --samples runs/training/samples.jsonl --out runs/training/process
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
from experiments.training.samples import read, size
from experiments.training.task import right_pieces, solution
from nabla.core.prompt import Prompt
from nabla.models.vocabulary import Vocabulary


def main(arguments: list[str] | None = None) -> None:
    parser = reward_options(__doc__, 8)
    parser.add_argument("--corruptions", type=int, default=1, help="of the right answer, for each problem")
    parser.add_argument(
        "--behind", type=int, default=None, help="tokens behind the first mistake that count; default: all"
    )
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args(arguments)
    if not finished("process", options, **size(options.samples)):
        fit(options)


def fit(options: argparse.Namespace) -> None:
    """Trains one adapter and its head."""
    from datasets import Dataset
    from transformers import (
        AutoModelForTokenClassification,
        DataCollatorForTokenClassification,
        Trainer,
        TrainingArguments,
    )

    model, tokenizer = start(options, AutoModelForTokenClassification, num_labels=2)
    vocabulary = Vocabulary(tokenizer)
    rows = [
        {**row, "labels": kept(row["labels"], options.behind)}
        for row in examples(read(*options.samples), vocabulary, options.corruptions, options.seed)
    ]
    random.Random(options.seed).shuffle(rows)
    model = with_adapter(model, options.rank, "TOKEN_CLS", options.seed, options.layers)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            **settings(options, num_train_epochs=options.epochs, label_names=["labels"])
        ),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForTokenClassification(tokenizer),
        callbacks=[Ledger(options.out, training_flops(model))],
    )
    go(trainer, options.out)


def examples(
    rows: list[dict[str, Any]], vocabulary: Vocabulary, corruptions: int, seed: int
) -> Iterator[dict[str, list[int]]]:
    """Prompt and answer with a label per token of the answer: 1 as long as it is right, 0 from the first
    mistake on. Beside the samples: right answers in which one digit was changed."""
    for row in rows:
        prompt = vocabulary.encode(Prompt.of(row["prompt"])).tolist()
        for sample in row["samples"]:
            yield example(prompt, sample["tokens"], sample["right"])
        draws = random.Random(f"{seed}:{row['problem']}")
        for _ in range(corruptions):
            ids = [*vocabulary.tokenizer(corrupted(row["question"], draws))["input_ids"]]
            ids.append(vocabulary.eos_ids[0])
            pieces = ["" if t in vocabulary.eos_ids else vocabulary.tokenizer.decode([t]) for t in ids]
            yield example(prompt, ids, right_pieces(row["question"], pieces))


def example(prompt: list[int], tokens: list[int], right: list[bool]) -> dict[str, list[int]]:
    """One row of the trainer's."""
    return {
        "input_ids": [*prompt, *tokens],
        "attention_mask": [1] * (len(prompt) + len(tokens)),
        "labels": [*[-100] * len(prompt), *map(int, right)],
    }


def kept(labels: list[int], behind: int | None) -> list[int]:
    """Labels of which only so many behind the first mistake count. A reward that is read at its least token
    has to know mistakes where they are made; most other wrong tokens only follow from them."""
    if behind is None or 0 not in labels:
        return labels
    end = labels.index(0) + 1 + behind
    return [*labels[:end], *[-100] * (len(labels) - end)]


def corrupted(question: str, draws: random.Random) -> str:
    """The right answer with one digit changed; what follows is as it was."""
    text = solution(question)
    at = draws.choice([i for i, letter in enumerate(text) if letter.isdigit()])
    other = draws.choice([d for d in "0123456789" if d != text[at]])
    return text[:at] + other + text[at + 1 :]


if __name__ == "__main__":
    main()
