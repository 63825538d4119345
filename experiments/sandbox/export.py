"""Turn training checkpoints into the shipped models, with tokenizer and model card.

    python -m experiments.sandbox.export --task latin --out runs/sandbox

The figures in the cards are filled in by `experiments.sandbox.gates`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.sandbox import success_labels, train_policy, train_reward, train_verifier
from experiments.sandbox.cards import card
from experiments.sandbox.common import Codec, policy_config, reward_config, save
from experiments.sandbox.untrained import KINDS
from nabla.problems.sandbox import MODELS, TASKS, ModelInfo, model_path

#: The checkpoint that each shipped model was taken from: run and step.
CHECKPOINTS: dict[str, tuple[str, int]] = {
    "latin-policy": ("latin-policy", 1500),
    "latin-policy-weak": ("latin-policy", 500),
    "latin-policy-poor": ("latin-policy", 200),
    "latin-reward": ("latin-reward", 400),
    "latin-reward-weak": ("latin-reward", 150),
    "latin-reward-poor": ("latin-reward", 50),
    "latin-process-reward": ("latin-reward", 400),
    "arithmetic-policy": ("arithmetic-policy", 250),
    "arithmetic-policy-weak": ("arithmetic-policy", 225),
    "arithmetic-policy-poor": ("arithmetic-policy", 200),
    "arithmetic-reward": ("arithmetic-reward", 1000),
    "arithmetic-reward-weak": ("arithmetic-reward", 300),
    "arithmetic-reward-poor": ("arithmetic-reward", 200),
    "arithmetic-process-reward": ("arithmetic-reward", 1000),
    "latin-outcome-only": ("latin-outcome-only", 300),
    "arithmetic-outcome-only": ("arithmetic-outcome-only", 450),
    "latin-success": ("latin-success", 250),
    "arithmetic-success": ("arithmetic-success", 350),
}


def build(role: str, state: dict[str, Tensor], codec: Codec) -> torch.nn.Module:
    """The transformers model of a role from the state that its training saved."""
    config = policy_config(codec) if role == "policy" else reward_config(codec)
    model: torch.nn.Module = KINDS[role](config)
    if role != "policy":
        head = {"reward": "outcome", "process-reward": "process"}[role]
        names = {"body.": "model.", f"{head}.": "score."}
        state = {
            key.replace(old, new, 1): value
            for key, value in state.items()
            for old, new in names.items()
            if key.startswith(old)
        }
    model.load_state_dict(state)
    return model


def recipe_of(info: ModelInfo) -> dict[str, Any]:
    """How a model was trained."""
    if info.role == "policy":
        return train_policy.RECIPES[info.family]
    if info.target == "marks":
        return train_reward.RECIPES[info.family]
    name = "outcome-only" if info.target == "verdict" else "success"
    return train_verifier.RECIPES[name][info.family]


def labels_of(info: ModelInfo, folder: Path) -> dict[str, float]:
    """Figures of the labels that a reward of successes was trained on; none for the others."""
    if info.target != "success":
        return {}
    rows, flops = success_labels.load(folder)
    return {"texts": len(rows), "label_flops": flops, **success_labels.RECIPES[info.family]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/sandbox"))
    parser.add_argument("--only", nargs="+", default=[], help="these models alone")
    args = parser.parse_args()
    codec = Codec()
    for name, (run, step) in CHECKPOINTS.items():
        info = MODELS[name]
        if info.family != args.task or (args.only and name not in args.only):
            continue
        state = torch.load(args.out / run / f"step_{step:05d}.pt")
        save(build(info.role, state, codec), model_path(name), codec)
        text = card(info, step, recipe_of(info), labels_of(info, args.out / run))
        (model_path(name) / "README.md").write_text(text)
        print(f"{name}: {run}, step {step}")


if __name__ == "__main__":
    main()
