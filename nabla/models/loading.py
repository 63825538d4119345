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


#: Arguments of ``from_pretrained`` that say where files are: the tokenizer's are there too.
WHERE = (
    "revision", "trust_remote_code", "subfolder", "token", "cache_dir", "local_files_only", "gguf_file",
    "force_download", "proxies",
)  # fmt: skip


def load(
    auto: Any,
    path: str,
    *,
    role: str,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    device_map: Any = None,
    adapter: str | None = None,
    tokenizer: Any = None,
    **arguments: Any,
) -> tuple[Any, Any]:
    """(model, tokenizer) through ``auto.from_pretrained``; a PEFT adapter is merged, as nothing is
    trained here.

    Args:
        auto: class of transformers.
        path: folder or hub id; a ``.gguf`` file is read as ``gguf_file`` of its folder.
        role: of the model, for messages.
        dtype: see :func:`as_dtype`.
        device, device_map: where to.
        adapter: PEFT folder or hub id. A tokenizer or chat template that was saved with it counts.
        tokenizer: another one than the model's: a folder, a hub id or an object.
        arguments: of ``from_pretrained``. Those that say where files are (revision, subfolder, token,
            cache_dir, local_files_only, gguf_file, ...) reach the tokenizer too. Remote code is run only
            with ``trust_remote_code=True``; nobody is asked.

    Raises ModelError with the reason if anything is missing or broken.
    """
    folder = Path(path).expanduser()
    if folder.suffix == ".gguf" and folder.is_file() and "gguf_file" not in arguments:
        arguments["gguf_file"], folder = folder.name, folder.parent
    elif (folder.is_absolute() or path.startswith((".", "~"))) and not folder.is_dir():
        raise ModelError(
            f"The {role} cannot be loaded: there is no such folder",
            got=path,
            fix="Pass a folder saved by save_pretrained, a .gguf file, or a hub id such as "
            "'Qwen/Qwen2.5-7B-Instruct'.",
        )
    path = str(folder) if folder.is_dir() else path
    arguments.setdefault("trust_remote_code", False)  # None would ask on the terminal
    where = {k: v for k, v in arguments.items() if k in WHERE}
    try:
        tokens = _load_tokenizer(path, tokenizer, where)
        model, report = auto.from_pretrained(
            path,
            dtype=as_dtype(dtype, device),
            device_map=device_map,
            output_loading_info=True,
            **arguments,
        )
    except Exception as error:  # transformers raises many kinds; all mean that the path is unusable
        raise ModelError(
            f"The {role} cannot be loaded: {reason(error)}",
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
            if tokenizer is None:
                tokens = _adapters_tokenizer(adapter, tokens)
            _require_rows(model, tokens, adapter)
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        except Exception as error:
            raise ModelError(
                f"The adapter of the {role} cannot be loaded: {reason(error)}",
                got=adapter,
                fix="Pass a PEFT folder (adapter_config.json and weights) made for this model.",
            ) from error
    if device_map is None and device is not None:
        move(model, torch.device(device), role=role)
    return model, tokens


def _load_tokenizer(path: str, tokenizer: Any, where: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    if tokenizer is None:
        return AutoTokenizer.from_pretrained(path, **where)
    if not isinstance(tokenizer, str | Path):
        return tokenizer
    # Of another repository: its revisions and folders are not the model's.
    shared = {k: v for k, v in where.items() if k not in ("revision", "subfolder", "gguf_file")}
    return AutoTokenizer.from_pretrained(str(tokenizer), **shared)


def _adapters_tokenizer(adapter: str, base: Any) -> Any:
    """The tokenizer saved with an adapter: trainers write it, with the template that was trained."""
    from transformers import AutoTokenizer

    if not Path(adapter).is_dir():
        return base
    if (Path(adapter) / "tokenizer.json").is_file() or (Path(adapter) / "tokenizer.model").is_file():
        return AutoTokenizer.from_pretrained(adapter, trust_remote_code=False)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        file = Path(adapter) / name
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            template = json.loads(text).get("chat_template") if file.suffix == ".json" else text
            if template:
                base.chat_template = template
                break
    return base


def _require_rows(model: Any, tokenizer: Any, adapter: str) -> None:
    rows = int(next(model.get_input_embeddings().parameters()).shape[0])
    if len(tokenizer) > rows:
        raise ModelError(
            f"The adapter's tokenizer has {len(tokenizer)} tokens, the model's embedding {rows} rows",
            got=adapter,
            fix="Merge the adapter into a model with its embedding resized, or name the model's own "
            "tokenizer (tokenizer=...).",
        )


def reason(error: BaseException, limit: int = 1500) -> str:
    """All that an error says, and what caused it where that says more."""
    lines: list[str] = []
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        text = " ".join(str(cause).split()) or repr(cause)
        if not any(text in line for line in lines):
            lines.append(text if cause is error else f"{type(cause).__name__}: {text}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    whole = "; because of ".join(lines)
    return whole if len(whole) <= limit else whole[: limit - 3] + "..."


def is_quantised(model: Any) -> bool:
    """Whether transformers stored the weights in a quantised form: they keep their place and type."""
    return bool(getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None))


def move(model: Any, device: torch.device, *, role: str = "model", dtype: torch.dtype | None = None) -> None:
    """To a device, parameters to a dtype. Raises ModelError where that would change a quantised model."""
    if is_quantised(model):
        places = {p.device.type for p in model.parameters()}
        if dtype is not None or places != {device.type}:
            raise ModelError(
                f"The {role} is quantised: it keeps the device and the dtype that it was loaded with",
                got=f"on {', '.join(sorted(places))}, asked for {device}" + (f", {dtype}" if dtype else ""),
                fix="Load it there (device_map='auto' or device_map={'': 0}), and leave precision unset.",
            )
        return
    if dtype is not None:
        cast(model, dtype)
    model.to(device)


def cast(model: Any, dtype: torch.dtype) -> None:
    """Parameters and stored buffers to a dtype, as if loaded with it.

    Buffers that no checkpoint holds stay: rotary frequencies in bfloat16 would be off by 0.4 %, which
    thousands of positions multiply. So do the parameters that the model's class keeps in float32.
    """
    strict = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    half = (getattr(model, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else ()
    kept = {*strict, *half}
    stored = set(model.state_dict())
    tensors = [*model.named_parameters(), *((n, b) for n, b in model.named_buffers() if n in stored)]
    for name, tensor in tensors:
        if tensor.is_floating_point():
            inside = dtype.itemsize < 4 and bool(kept.intersection(name.split(".")))
            tensor.data = tensor.data.to(torch.float32 if inside else dtype)
    if hasattr(model, "config"):
        model.config.dtype = dtype


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
