"""A sentiment reward on SmolLM2's body, from VADER's numbers for the language model's own samples.

    python -m experiments.sentiment.train --out runs/sentiment

Draws samples (nabla's engine), labels them with the lexicon, fits an adapter of the last blocks and a head to
the labels by their squared error (transformers' Trainer), measures it on samples of test prompts, and exports
it into ``--into``. The same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from experiments.sentiment.lexicon import compound
from experiments.sentiment.openings import TEST, TRAIN, prompts
from experiments.training.cards import head, spent
from experiments.training.export import PLACE, written
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
from experiments.training.samples import read
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.models.causal_lm import CausalLM

ABOUT = (
    "A reward for positive sentiment of one-sentence answers: it guesses the compound number of VADER's "
    "lexicon,\n-1 to 1"
)
#: Of an answer; the evaluation's is the same.
MOST_TOKENS = 40
#: Samples of a test prompt, on which the reward is measured.
TESTED = 3


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__, 4, 8, "smollm2")
    parser.add_argument("--layers", type=int, default=8, help="how many of the last ones have the adapter")
    parser.add_argument("--subjects", type=int, default=len(TRAIN), help="of the training prompts")
    parser.add_argument("--each", type=int, default=8, help="samples of a training prompt")
    parser.add_argument("--into", type=Path, default=None, help="OUT/reward")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    into = options.into or options.out / "reward"
    del options.into  # where it goes is no setting of the training
    trained, tested = options.out / "train.jsonl", options.out / "test.jsonl"
    lm = None
    for path, asked, each in (
        (trained, prompts(TRAIN[: options.subjects]), options.each),
        (tested, prompts(TEST), TESTED),
    ):
        if not path.exists():
            lm = lm or CausalLM.from_pretrained(options.base, dtype="float32")
            rows = draw(lm, asked, each, options.seed)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    del lm
    if not finished("sentiment", options):
        fit(options, read(trained))
    export(options.out, into, measured(options, read(tested)))


def draw(lm: CausalLM, asked: list[dict[str, str]], each: int, seed: int) -> list[dict[str, Any]]:
    """``each`` answers to every prompt, with the lexicon's number; one row an answer."""
    pools: dict[str, list[str]] = {}

    async def solve(session: Session) -> Solution:
        sampling = Sampling(temperature=1.0, max_new_tokens=MOST_TOKENS)
        found = await session.rollout(sampling, n=each)
        pools[session.prompt.id] = [session.decode(t.tokens) for t in found]
        return Solution(session.prompt, "", (), None, True, "samples", session.cost)

    for _, outcome in Engine(lm, seed=seed, batch_size=128).run(
        solve, [Prompt.of(row["prompt"], id=row["id"]) for row in asked]
    ):
        if not isinstance(outcome, Solution):
            raise outcome
    return [
        {"prompt": row["prompt"], "response": text, "label": compound(row["prompt"], text)}
        for row in asked
        for text in pools[row["id"]]
    ]


def fit(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Trains the adapter and its head."""
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    model, tokenizer = start(
        options, AutoModelForSequenceClassification, num_labels=1, problem_type="regression"
    )
    model = with_adapter(model, options.rank, "SEQ_CLS", options.seed, options.layers)
    random.Random(options.seed).shuffle(rows)
    data = [{"input_ids": read_as(tokenizer, row), "label": row["label"]} for row in rows]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**settings(options, label_names=["labels"])),
        train_dataset=Dataset.from_list(data),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[Ledger(options.out, training_flops(model))],
    )
    go(trainer, options.out)


def read_as(tokenizer: Any, row: dict[str, Any]) -> list[int]:
    """A finished conversation's ids, as the reward reads it later."""
    turns = [
        {"role": "user", "content": row["prompt"]},
        {"role": "assistant", "content": row["response"]},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@torch.no_grad()
def measured(options: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, float]:
    """The reward beside the lexicon on answers to test prompts: over all of them, and among the answers to
    one prompt, where prompts do not help."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    model, tokenizer = start(options, AutoModelForSequenceClassification, num_labels=1)
    model = PeftModel.from_pretrained(model, str(options.out / "adapter")).eval()
    values = [float(model(input_ids=torch.tensor([read_as(tokenizer, row)])).logits[0, 0]) for row in rows]
    labels = [row["label"] for row in rows]
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row["prompt"], []).append(index)
    inside = [
        [of[i] - statistics.mean(of[j] for j in group) for group in groups.values() for i in group]
        for of in (values, labels)
    ]
    return {
        "answers": len(rows),
        "lexicon_mean": statistics.mean(labels),
        "lexicon_sd": statistics.pstdev(labels),
        "reward_mean": statistics.mean(values),
        "correlation": statistics.correlation(values, labels),
        "correlation_within_prompts": statistics.correlation(*inside),
        "rms_error": statistics.mean((v - w) ** 2 for v, w in zip(values, labels, strict=True)) ** 0.5,
    }


def export(run: Path, folder: Path, figures: dict[str, float]) -> None:
    """The adapter in float16, with its card."""
    recipe, costs = written(run, folder)
    read_by = folder.name if folder.parent.resolve() == PLACE.resolve() else "FOLDER"
    (folder / "README.md").write_text(card(folder.name, read_by, recipe, costs, figures), encoding="utf-8")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(json.dumps(figures, indent=1))
    print(f"{folder}: {size / 1e6:.2f} MB, {time.process_time():.0f} CPU s in this process")


def card(
    name: str, read_by: str, recipe: dict[str, Any], costs: dict[str, Any], figures: dict[str, float]
) -> str:
    """The model card."""
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value:.4g} |" for key, value in figures.items())
    chosen = ", ".join(f"{key} {value}" for key, value in recipe.items() if key != "what")
    return f"""{head(name, ABOUT, f"--lm smollm2 --rm {read_by}", recipe, "and a head; float16")}

## Data and recipe

Data: {recipe["each"]} of the language model's own answers at temperature 1 to each of
{5 * recipe["subjects"]} prompts (`experiments/sentiment/openings.py`), labelled with `vaderSentiment`.
The loss is the squared error.

Settings: {chosen}. AdamW, 10 steps of warm-up, cosine decay, one pass, one CPU core.

{spent(costs)}

## Measured

On answers to prompts about other things (`experiments/sentiment/train.py`).

| measure | value |
|---|---|
{rows}
"""


if __name__ == "__main__":
    main()
