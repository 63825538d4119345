"""Rewards of another training seed, measured on the texts that the shipped ones are measured on.

    python -m experiments.sandbox.success_labels --task latin --seed 1 --out runs/seed1
    python -m experiments.sandbox.train_verifier --task latin --target success --seed 1 --out runs/seed1
    python -m experiments.sandbox.train_verifier --task latin --target outcome-only --seed 1 --out runs/seed1
    python -m experiments.sandbox.seeds --task latin --out runs/seed1

The checkpoints are those of the shipped models' steps: nothing is chosen again. Each model becomes a
transformers folder under `--out` (`models/NAME`), which `nabla` takes as `--rm`; the figures of both seeds go
to `seeds.json` there, and are printed as a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from experiments.sandbox.common import Codec, save
from experiments.sandbox.export import CHECKPOINTS, build
from experiments.sandbox.gates import measure_reward, policy_figures
from nabla.problems.sandbox import MODELS, TASKS

#: Figures of the table and their heads.
SHOWN = {
    "auc": "AUC over all samples",
    "pair_accuracy": "pairs in order",
    "token_auc": "AUC of first wrong tokens",
    "best_of_n": "best-of-8",
    "calibration_error": "calibration error",
}


def names(task: str) -> list[str]:
    """The rewards of a family that heard of no mark at a token."""
    return [name for name, info in MODELS.items() if info.family == task and info.target != "marks"]


def exported(name: str, out: Path) -> Path:
    """The model of the shipped one's step, as a folder."""
    run, step = CHECKPOINTS[name]
    folder, codec = out / "models" / name, Codec()
    state = torch.load(out / run / f"step_{step:05d}.pt")
    save(build(MODELS[name].role, state, codec), folder, codec)
    return folder


def table(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """A line for each model and seed."""
    lines = [f"| reward | seed | {' | '.join(SHOWN.values())} |", f"|---|---|{'---|' * len(SHOWN)}"]
    for name, seeds in found.items():
        for seed, figures in seeds.items():
            lines.append(f"| {name} | {seed} | {' | '.join(f'{figures[key]:.3f}' for key in SHOWN)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="where the other seed was trained")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--only", nargs="+", default=[], help="these models alone")
    parser.add_argument("--cache", type=Path, default=Path("runs/sandbox/gates"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    prompts = [p.prompt for p in TASKS[args.task].problems("test", args.problems, 0)]
    _, drawn = policy_figures(f"{args.task}-policy", args.problems, args.samples, 0, args.cache)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in args.only or names(args.task):
        folder = exported(name, args.out)
        found[name] = {
            "shipped": measure_reward(name, prompts, drawn),
            args.out.name: measure_reward(name, prompts, drawn, folder),
        }
    file = args.out / "seeds.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | found, indent=2) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
