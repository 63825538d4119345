"""Loading frozen transformers models from a path or hub id, with clear errors."""

from __future__ import annotations

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
    revision = {k: v for k, v in arguments.items() if k in ("revision", "trust_remote_code")}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **revision)
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
        raise ModelError(
            f"The {role}'s checkpoint lacks weights: {', '.join(missing[:3])}",
            got=str(path),
            fix="Pass a checkpoint of that kind: a reward model has its reward head in it.",
        )
    if adapter is not None:
        from peft import PeftModel

        try:
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        except Exception as error:
            raise ModelError(
                f"The adapter of the {role} cannot be loaded: {error}",
                got=adapter,
                fix="Pass a PEFT folder (adapter_config.json and weights) made for this model.",
            ) from error
    if device_map is None and device is not None:
        model = model.to(device)
    return model, tokenizer


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
