"""What the trainings share: options, model, adapter, settings, going on after a kill, what it has cost."""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from nabla.core.extras import require_extra
from nabla.models.architecture import count_parameters
from nabla.models.loading import cast, load

#: Linear layers of a Llama's block.
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
COSTS = "costs.json"


def options_of(about: str | None, rank: int, batch: int, base: str) -> argparse.ArgumentParser:
    """The options that every training has.

    Args:
        about: what the command does.
        rank, batch, base: defaults.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default=base, help="a name that `nabla models` lists, or a folder")
    parser.add_argument("--rank", type=int, default=rank)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="frozen weights'")
    return parser


def reward_options(about: str | None, batch: int) -> argparse.ArgumentParser:
    """Those of a reward that learns from samples."""
    parser = options_of(about, 8, batch, "smollm2-chain-sum")
    parser.add_argument("--samples", type=Path, nargs="+", required=True, help="files of samples.py")
    parser.add_argument("--layers", type=int, default=10, help="how many of the last ones have the adapter")
    return parser


def finished(what: str, options: argparse.Namespace, **more: Any) -> bool:
    """Opens a training's folder; True, and said, if the same training is finished there already. The folder
    may go on with frozen weights of another kind.

    Args:
        what: is trained.
        options: of the command line.
        more: of what it learns from.
    """
    require_extra("train", purpose="Training")
    recipe = {k: v for k, v in vars(options).items() if k not in ("out", "dtype", "samples")}
    done = remember(options.out, {"what": what, **recipe, **more})
    if done:
        print(f"{options.out} is finished")
    return done


def start(options: argparse.Namespace, auto: Any = None, **arguments: Any) -> tuple[Any, Any]:
    """(model, tokenizer) of ``--base``, a language model: adapters merged in float32, then in ``--dtype``.

    Args:
        options: of the command line.
        auto: class of transformers for a model with another head, which is made here; None: the language
            model as it is.
        arguments: of the configuration (``num_labels``).
    """
    from transformers import AutoModelForCausalLM

    model, tokenizer = load(AutoModelForCausalLM, options.base, role="language model", dtype="float32")
    if auto is not None:
        config, body = copy.deepcopy(model.config), model.base_model
        config.update(arguments)
        torch.manual_seed(options.seed)
        model = auto.from_config(config, dtype=torch.float32)
        setattr(model, model.base_model_prefix, body)
    if options.dtype == "bfloat16":
        cast(model, torch.bfloat16)
    model.config.use_cache = False
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def with_adapter(model: Any, rank: int, kind: str, seed: int, layers: int | None = None) -> Any:
    """The model with a fresh LoRA on all linear layers, in float32, and its head where it has one of its own.

    Args:
        model: frozen from here on.
        rank: of the adapter; its scale is twice that.
        kind: of PEFT's task types.
        seed: of its first weights.
        layers: so many of the model's last ones have the adapter; None: all. No gradient goes below them.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    head = ["score"] if kind != "CAUSAL_LM" else None
    depth = int(model.config.num_hidden_layers)
    chosen = None if layers is None else list(range(depth - layers, depth))
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=LAYERS, task_type=kind,
        modules_to_save=head, layers_to_transform=chosen,
    )  # fmt: skip
    made = get_peft_model(model, config)
    if head is not None:  # what is trained is in float32, whatever reaches it
        made.get_base_model().score.register_forward_pre_hook(lambda _, given: (given[0].float(),))
    for parameter in made.parameters():
        if parameter.requires_grad:  # small steps would be lost in bfloat16
            parameter.data = parameter.data.float()
    return made


def settings(options: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Of a trainer on one CPU core: seeds fixed, a checkpoint now and then, nothing sent anywhere."""
    return {
        "output_dir": str(options.out / "checkpoints"),
        "use_cpu": True,
        "bf16": False,
        "learning_rate": options.lr,
        "per_device_train_batch_size": options.batch,
        "seed": options.seed,
        "data_seed": options.seed,
        "num_train_epochs": 1,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 10,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "logging_steps": 10,
        "save_steps": 20,
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "include_num_input_tokens_seen": "all",
        "gradient_checkpointing": False,
        **more,
    }


class Ledger(TrainerCallback):
    """Keeps what a training has cost, over all its parts.

    Args:
        folder: of the run.
        flops: of one token, forward and backward.
        stop: the step behind which training stops; None: where its data end.
    """

    def __init__(self, folder: Path, flops: float, stop: int | None = None) -> None:
        self.path, self.flops, self.stop = folder / COSTS, flops, stop
        self.before: dict[str, Any] = {"cpu_seconds": 0.0, "seconds": 0.0}
        self.begin = (0.0, 0.0)
        self.dtypes: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step and self.path.exists():
            self.before = json.loads(self.path.read_text(encoding="utf-8"))
        frozen = {str(p.dtype) for p in kwargs["model"].parameters() if not p.requires_grad}
        names = {name.removeprefix("torch.") for name in frozen}
        self.dtypes = sorted({*self.before.get("frozen_weights", []), *names})
        self.begin = (time.process_time(), time.perf_counter())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.stop is not None and state.global_step >= self.stop:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._write(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._write(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs:
            shown = {k: round(float(v), 4) for k, v in logs.items() if k in ("loss", "mean_token_accuracy")}
            print(f"step {state.global_step}/{state.max_steps} {shown} {self._cpu():.0f} CPU s", flush=True)

    def _cpu(self) -> float:
        return self.before["cpu_seconds"] + time.process_time() - self.begin[0]

    def _write(self, state: Any) -> None:
        tokens = int(state.num_input_tokens_seen)
        found = {
            "steps": int(state.global_step),
            "tokens": tokens,
            "flops": self.flops * tokens,
            "cpu_seconds": round(self._cpu(), 1),
            "seconds": round(self.before["seconds"] + time.perf_counter() - self.begin[1], 1),
            "threads": torch.get_num_threads(),
            "frozen_weights": self.dtypes,
        }
        self.path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def training_flops(model: Any) -> float:
    """Of one token: a forward pass and a backward pass through frozen matrices cost the same each, so 4 per
    weight (2 in layers below the adapter's); weights that are trained cost 2 more."""
    inner = model.get_base_model()
    chosen = next(iter(model.peft_config.values())).layers_to_transform
    depth = int(inner.config.num_hidden_layers)
    reached = (depth if chosen is None else len(chosen)) / depth
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    _, body = count_parameters(inner.base_model, inner.config)
    output = inner.get_output_embeddings()
    head = 0 if output is None else output.weight.numel()
    return (2.0 + 2.0 * reached) * body + 4.0 * head + 2.0 * trained


def go(trainer: Any, folder: Path, stop: int | None = None) -> None:
    """Trains, from the last checkpoint where there is one, and saves the adapter into ``folder/adapter``; see
    :class:`Ledger` for ``stop``."""
    checkpoints = list((folder / "checkpoints").glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=bool(checkpoints))
    if trainer.state.global_step < min(trainer.state.max_steps, stop or trainer.state.max_steps):
        raise SystemExit(f"{folder} was broken off: the same command goes on")
    trainer.model.save_pretrained(str(folder / "adapter"))


def remember(folder: Path, recipe: dict[str, Any]) -> bool:
    """Writes a run's settings down; True if the same run is finished already. Raises SystemExit for a folder
    of other settings."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.json"
    text = json.dumps(recipe, indent=1, sort_keys=True) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{folder} holds a training with other settings: choose another --out")
    path.write_text(text, encoding="utf-8")
    return (folder / "adapter" / "adapter_model.safetensors").exists()
