"""Loading frozen transformers models from a path or hub id, with clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from nabla.core.errors import ConfigError, ModelError

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def as_dtype(dtype: str | torch.dtype, device: str | torch.device | None) -> Any:
    """A torch dtype, or ``"auto"`` (the checkpoint's own) for accelerators; float32 on the CPU, where
    half precision is emulated and hundreds of times slower."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        on_cpu = torch.device(device).type == "cpu" if device else not torch.cuda.is_available()
        return torch.float32 if on_cpu else "auto"
    if dtype not in _DTYPES:
        raise ConfigError("Unknown dtype", got=dtype, fix=f"Use auto, {', '.join(_DTYPES)}.")
    return _DTYPES[dtype]


def load(
    auto: Any,
    path: str,
    *,
    role: str,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    device_map: Any = None,
    adapter: str | None = None,
    **arguments: Any,
) -> tuple[Any, Any]:
    """(model, tokenizer) through ``auto.from_pretrained``; a PEFT adapter is merged, as nothing is
    trained here. Raises ModelError with the reason if anything is missing or broken."""
    from transformers import AutoTokenizer

    folder = Path(path).expanduser()
    if (folder.is_absolute() or path.startswith((".", "~"))) and not folder.is_dir():
        raise ModelError(
            f"The {role} cannot be loaded: there is no such folder",
            got=path,
            fix="Pass a folder saved by save_pretrained, or a hub id such as 'Qwen/Qwen2.5-7B-Instruct'.",
        )
    path = str(folder) if folder.is_dir() else path
    words = path
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        if adapter is not None:
            raise ModelError(f"The {role} is an adapter, and another one is given", got=adapter)
        adapter = path
        path, words, arguments = _base_of(folder, role, arguments)
    revision = {k: v for k, v in arguments.items() if k in ("revision", "trust_remote_code")}
    try:
        tokenizer = AutoTokenizer.from_pretrained(words, **revision)
        model, report = auto.from_pretrained(
            path,
            dtype=as_dtype(dtype, device),
            device_map=device_map,
            output_loading_info=True,
            **arguments,
        )
    except Exception as error:  # transformers raises many kinds; all mean that the path is unusable
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"The {role} cannot be loaded: {reason}",
            got=str(path),
            fix="Pass a folder saved by save_pretrained (config.json, safetensors, tokenizer files) or "
            "a hub id that this machine can reach or has cached.",
        ) from error
    missing = sorted(report["missing_keys"])
    if missing and adapter is None:  # an adapter may bring them; else transformers made up numbers
        value_head = any("v_head" in k or "value_head" in k for k in report["unexpected_keys"])
        raise ModelError(
            f"The {role}'s checkpoint lacks weights: {', '.join(missing[:3])}"
            + (", and has a value head (v_head), which is not supported" if value_head else ""),
            got=str(path),
            fix="Pass a checkpoint of that kind: a reward model has its reward head in it.",
        )
    if adapter is not None:
        model = _adapted(model, adapter, missing, role)
    if device_map is None and device is not None:
        model = model.to(device)
    return model, tokenizer


def _base_of(folder: Path, role: str, arguments: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Of a folder with an adapter alone: its base model, where its tokenizer is, and what the base is loaded
    with (as many labels as the adapter's own head has)."""
    try:
        base = json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path")
    except ValueError as error:
        raise ModelError(f"The adapter of the {role} cannot be loaded: {error}", got=str(folder)) from error
    if not base:
        raise ModelError(
            f"The {role} is an adapter that does not name its base model",
            got=str(folder),
            fix="Pass the base model as path and this folder as adapter.",
        )
    words = folder if (folder / "tokenizer_config.json").exists() else base
    heads = {k: v for k, v in _adapter_weights(str(folder), role).items() if k.endswith(_HEADS)}
    if heads and "num_labels" not in arguments:
        arguments = {**arguments, "num_labels": int(next(iter(heads.values())).shape[0])}
    return str(base), str(words), arguments


#: How the names of the weights of a classifier's head end.
_HEADS = (".score.weight", ".classifier.weight")


def _adapter_weights(adapter: str, role: str) -> dict[str, torch.Tensor]:
    from peft.utils import load_peft_weights

    try:
        found: dict[str, torch.Tensor] = load_peft_weights(adapter, device="cpu")
    except Exception as error:
        raise _broken_adapter(adapter, role, error) from error
    return found


def _broken_adapter(adapter: str, role: str, error: Exception) -> ModelError:
    fix = "Pass a PEFT folder (adapter_config.json and weights) made for this model."
    if "size mismatch" in str(error) and any(head.removesuffix(".weight") in str(error) for head in _HEADS):
        fix = "Its head has another number of labels than the base was loaded with: load with num_labels=1."
    return ModelError(f"The adapter of the {role} cannot be loaded: {error}", got=adapter, fix=fix)


def _adapted(model: Any, adapter: str, missing: list[str], role: str) -> Any:
    """The model with an adapter merged into it. Raises ModelError where the adapter lacks weights that the
    checkpoint lacks too, and where merging changes what the adapted model gives."""
    from peft import PeftModel

    given = _adapter_weights(adapter, role)
    lacking = [key for key in missing if not any(name.endswith("." + key) for name in given)]
    if lacking:
        raise ModelError(
            f"Neither the {role}'s checkpoint nor its adapter has the weights: {', '.join(lacking[:3])}",
            got=adapter,
            fix="Pass an adapter with its head in it (task_type='SEQ_CLS' or modules_to_save=['score']), or "
            "a base model that has one.",
        )
    try:
        wrapped = PeftModel.from_pretrained(model, adapter).eval()
        inner = wrapped.get_base_model()
        parts = (inner.get_input_embeddings(), inner.get_output_embeddings())
        ends = any(part is not None and not _plain(part) for part in parts)
        probe = torch.arange(8, device=wrapped.device)[None] % int(inner.config.get_text_config().vocab_size)
        with torch.no_grad():
            before = wrapped(input_ids=probe).logits if ends else None
            model = wrapped.merge_and_unload().eval()
            after = model(input_ids=probe).logits if ends else None
    except Exception as error:
        raise _broken_adapter(adapter, role, error) from error
    if before is not None and after is not None:
        # Where input and output embeddings are one matrix, merging into one of them changes the other.
        tolerance = {torch.float64: 1e-6, torch.float32: 1e-3}.get(after.dtype, 5e-2)
        if float((after - before).norm() / before.norm().clamp_min(1e-12)) > tolerance:
            raise ModelError(
                f"The adapter of the {role} changes an embedding or a head that is tied: merged into the "
                "model it gives other numbers than by itself",
                got=adapter,
                fix="Use an adapter of the layers between them, or a base with tie_word_embeddings=False.",
            )
    return model


def _plain(part: Any) -> bool:
    """A layer of the model's own, not one that an adapter put in its place."""
    return not hasattr(part, "base_layer") and not hasattr(part, "modules_to_save")


def unwrap(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper (its adapters stay in place)."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return model
    if getattr(model.active_peft_config, "is_prompt_learning", False):
        raise ModelError(
            "Prompt-learning adapters have no place in a token gradient",
            got=type(model.active_peft_config).__name__,
            fix="Use an adapter that changes weights (LoRA, IA3, ...).",
        )
    inner = model.get_base_model()
    for part in (inner.get_input_embeddings(), inner.get_output_embeddings()):
        if part is not None and type(part) not in (torch.nn.Embedding, torch.nn.Linear):
            base = getattr(part, "base_layer", None)
            if base is not None or hasattr(part, "modules_to_save"):
                raise ModelError(
                    "The adapter changes the embedding or the head",
                    got=type(part).__name__,
                    fix="Merge it first: model.merge_and_unload().",
                )
    return inner


def freeze(model: Any) -> Any:
    """No parameter takes gradients, dropout is off."""
    model.requires_grad_(False)
    return model.eval()
