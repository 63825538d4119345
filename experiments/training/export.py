"""A finished training into the package: the adapter in float16, with its card.

    python -m experiments.training.export runs/training/policy smollm2-chain-sum --measured runs/training/policy.json
    python -m experiments.training.export again smollm2-chain-sum --measured runs/training/policy.json
"""  # noqa: E501 - a command

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from experiments.training.cards import again, card
from nabla.models.zoo import catalogue

PLACE = Path(catalogue.__file__).parent / "adapters"
#: Of PEFT's configuration, what loading reads.
KEPT = (
    "base_model_name_or_path", "bias", "fan_in_fan_out", "init_lora_weights", "lora_alpha", "lora_dropout",
    "layers_to_transform", "modules_to_save", "peft_type", "r", "target_modules", "task_type", "use_dora",
    "use_rslora",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="of a training; 'again': only the figures of its card")
    parser.add_argument("name")
    parser.add_argument("--measured", type=Path, nargs="*", default=[], help="figures of measure.py")
    parser.add_argument("--into", type=Path, default=PLACE)
    options = parser.parse_args(arguments)
    if str(options.run) == "again":
        renew(options.into / options.name, options.measured)
    else:
        export(options.run, options.into / options.name, options.measured)


def renew(folder: Path, measured: list[Path]) -> None:
    """Writes other figures onto the card of an adapter that is there."""
    path = folder / "README.md"
    text = again(path.read_text(encoding="utf-8"), _figures(measured))
    path.write_text(text, encoding="utf-8")


def written(run: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes an adapter in float16, without its card; (recipe, costs) of its training."""
    recipe, costs, config = (
        json.loads((run / name).read_text(encoding="utf-8"))
        for name in ("recipe.json", "costs.json", "adapter/adapter_config.json")
    )
    config["base_model_name_or_path"] = recipe["base"]
    config["target_modules"] = sorted(config["target_modules"])
    weights = load_file(run / "adapter" / "adapter_model.safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in weights.items()}
    save_file(half, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    kept = {key: config[key] for key in KEPT if key in config}
    (folder / "adapter_config.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return recipe, costs


def export(run: Path, folder: Path, measured: list[Path]) -> None:
    """Writes an adapter's folder."""
    recipe, costs = written(run, folder)
    text = card(folder.name, recipe, costs, _figures(measured))
    (folder / "README.md").write_text(text, encoding="utf-8")
    if folder.parent == PLACE:
        catalogue.ADAPTERS[folder.name] = catalogue.Adapter(folder)  # for what follows in this process
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB")


def _figures(paths: list[Path]) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


if __name__ == "__main__":
    main()
