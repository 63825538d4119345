"""Write randomly initialised models to every place of the zoo, to develop against.

python -m experiments.sandbox.untrained
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from transformers import (
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification,
)

from experiments.sandbox.common import Codec, policy_config, reward_config, save
from nabla.problems.sandbox import MODELS, model_path

KINDS: dict[str, Any] = {
    "policy": Qwen3ForCausalLM,
    "reward": Qwen3ForSequenceClassification,
    "process-reward": Qwen3ForTokenClassification,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--overwrite", action="store_true", help="replace models that exist")
    args = parser.parse_args()
    codec = Codec()
    for name, info in MODELS.items():
        if (model_path(name) / "config.json").exists() and not args.overwrite:
            continue
        torch.manual_seed(0)
        config = policy_config(codec) if info.role == "policy" else reward_config(codec)
        model = KINDS[info.role](config)
        save(model, model_path(name), codec)
        print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
