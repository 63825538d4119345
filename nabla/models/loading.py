"""Loading frozen transformers models from a path or hub id, with clear errors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nabla.core.errors import ConfigError, ModelError, is_out_of_memory
from nabla.core.files import expanded, reason
from nabla.core.trust import require_trusted
from nabla.models.adapters import (
    adapted,
    base_of,
    broken_adapter,
    is_adapter,
    merged,
    require_adapter,
    require_rows,
    require_writing,
    tokenizer_of,
)
from nabla.models.gguf import locate_gguf
from nabla.models.refusals import is_local, no_folder, not_loaded
from nabla.models.zoo.names import place

log = logging.getLogger(__name__)

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


#: Flags of processors that multiply bfloat16 matrices themselves: three times as fast as float32.
_BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16")
_CPU_FLAGS = Path("/proc/cpuinfo")


def as_dtype(dtype: str | torch.dtype | None, device: str | torch.device | None) -> Any:
    """A torch dtype, or ``"auto"``: the checkpoint's own, of which :func:`settle_on_cpu` decides on the CPU.
    None: float32 on the CPU, the checkpoint's own on accelerators."""
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    if dtype is None:
        return torch.float32 if _on_cpu(device) else "auto"
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ConfigError("Unknown dtype", got=dtype, fix=f"Use auto, {', '.join(_DTYPES)}.")
    return _DTYPES[dtype]


def require_device(device: Any) -> None:
    """Raises ConfigError for what names no device."""
    try:
        if device is not None:
            torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            "Unknown device", got=device, fix="Use cpu, cuda, or cuda:INDEX, as this machine has them."
        ) from error


def _on_cpu(device: str | torch.device | None) -> bool:
    return torch.device(device).type == "cpu" if device else not torch.cuda.is_available()


def bfloat16_flag() -> str | None:
    """The flag by which this processor says that it multiplies bfloat16 matrices; None if it does not."""
    try:
        lines = _CPU_FLAGS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return next((flag for flag in _BFLOAT16_FLAGS if flag in flags), None)


def settle_on_cpu(model: Any, role: str) -> None:
    """A model whose checkpoint is in half precision: bfloat16 where the processor has instructions for it,
    else float32 (bfloat16 is emulated there, hundreds of times slower); said as a warning, since scores
    move."""
    if model.dtype not in (torch.bfloat16, torch.float16) or is_quantised(model):
        return
    flag = bfloat16_flag()
    if flag is None:
        log.warning(
            "The %s runs in float32: this processor has no instructions for bfloat16 (%s), which would be "
            "hundreds of times slower",
            role,
            ", ".join(_BFLOAT16_FLAGS),
        )
    else:
        log.warning("The %s runs in bfloat16, for which this processor has instructions (%s)", role, flag)
    cast(model, torch.float32 if flag is None else torch.bfloat16)


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
    dtype: str | torch.dtype | None = None,
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
        path: folder, hub id or name (:mod:`nabla.models.zoo`); a ``.gguf`` file is read as ``gguf_file`` of
            its folder.
        role: of the model, for messages.
        dtype: see :func:`as_dtype`; ``auto`` on the CPU: see :func:`settle_on_cpu`.
        device, device_map: where to.
        adapter: PEFT folder, hub id or name. A tokenizer or chat template that was saved with it counts.
        tokenizer: another one than the model's: a folder, a hub id or an object.
        arguments: of ``from_pretrained``. Those that say where files are (revision, subfolder, token,
            cache_dir, local_files_only, gguf_file, ...) reach the tokenizer too. Remote code is run only
            with ``trust_remote_code=True``; nobody is asked.

    Raises ModelError with the reason if anything is missing or broken.
    """
    require_trusted(arguments)
    require_device(device)
    path = place(path)
    if adapter is not None:
        adapter = require_adapter(adapter, role)
    folder, arguments = locate_gguf(expanded(path), arguments, role)
    if not path.strip() or (is_path(path, folder) and not folder.is_dir()):
        raise no_folder(path, role)
    path = str(folder) if folder.is_dir() else path
    words, below = path, list[str]()
    if is_adapter(folder):
        if adapter is not None:
            raise ModelError(f"The {role} is an adapter, and another one is given", got=adapter)
        adapter = require_adapter(path, role)
        path, words, below, arguments = base_of(folder, role, arguments)
    if adapter is not None and auto.__name__ == "AutoModelForCausalLM":
        require_writing(adapter, role)
    arguments.setdefault("trust_remote_code", False)  # None would ask on the terminal
    where = {k: v for k, v in arguments.items() if k in WHERE}
    wanted = as_dtype(dtype, device)
    if tokenizer is None:
        require_tokenizer(words, where, role)
    try:
        tokens = _load_tokenizer(words, tokenizer, where)
    except ModelError:
        raise
    except Exception as error:  # transformers raises many kinds
        raise not_loaded(error, words, f"{role}'s tokenizer" if Path(words).is_dir() else role) from error
    try:
        model, report = auto.from_pretrained(
            path,
            dtype=wanted,
            device_map=device_map,
            output_loading_info=True,
            **arguments,
        )
    except Exception as error:  # transformers raises many kinds; all mean that the path is unusable
        raise not_loaded(error, str(path), role) from error
    missing = sorted(report["missing_keys"])
    if missing and adapter is None:  # an adapter may bring them; else transformers made up numbers
        value_head = any("v_head" in k or "value_head" in k for k in report["unexpected_keys"])
        raise ModelError(
            f"The {role}'s checkpoint lacks weights: {', '.join(missing[:3])}"
            + (", and has a value head (v_head), which is not supported" if value_head else ""),
            got=str(path),
            fix="Pass a checkpoint of that kind: a reward model has its reward head in it.",
        )
    if dtype == "auto" and device_map is None and _on_cpu(device):
        settle_on_cpu(model, role)
    for inner in below:
        model = merged(model, inner, role)
    if adapter is not None:
        try:
            if tokenizer is None:
                tokens = tokenizer_of(adapter, tokens)
        except Exception as error:
            raise broken_adapter(adapter, role, error) from error
        require_rows(model, tokens, adapter)
        model = adapted(model, adapter, missing, role)
    if device_map is None and device is not None:
        move(model, torch.device(device), role=role)
    return model, tokens


def is_path(path: str, folder: Path) -> bool:
    """Whether it can be no hub id."""
    return is_local(path, folder) or path.endswith(".gguf")


#: Beginnings and ends of the names of files that a tokenizer is made of.
_TOKENIZERS = ("tokenizer*", "vocab*", "merges*", "*.model", "*.tiktoken")


def require_tokenizer(path: str, where: Mapping[str, Any], role: str) -> None:
    """Raises ModelError for a folder without one: transformers would make up an empty one."""
    folder = Path(path) / str(where.get("subfolder") or "")
    if where.get("gguf_file") or not folder.is_dir() or any(list(folder.glob(n)) for n in _TOKENIZERS):
        return
    raise ModelError(
        f"The {role} has no tokenizer: there are no tokenizer files in its folder",
        got=str(folder),
        fix="Save it there too (tokenizer.save_pretrained), or name another one (tokenizer=...).",
    )


def _load_tokenizer(path: str, tokenizer: Any, where: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    if tokenizer is None:
        return AutoTokenizer.from_pretrained(path, **where)
    if not isinstance(tokenizer, str | Path):
        return tokenizer
    if (folder := expanded(tokenizer)).is_absolute() and not folder.is_dir():
        raise ModelError("The tokenizer cannot be loaded: there is no such folder", got=str(tokenizer))
    require_tokenizer(str(folder), {}, "model that is named as tokenizer")
    # Of another repository: its revisions and folders are not the model's.
    shared = {k: v for k, v in where.items() if k not in ("revision", "subfolder", "gguf_file")}
    return AutoTokenizer.from_pretrained(str(tokenizer), **shared)


def is_quantised(model: Any) -> bool:
    """Whether transformers stored the weights in a quantised form: they keep their place and type. Those of a
    GGUF file are unpacked by :func:`load`."""
    quantizer = getattr(model, "hf_quantizer", None)
    if getattr(getattr(quantizer, "quantization_config", None), "dequantize", False):
        return False
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
    try:
        if dtype is not None:
            cast(model, dtype)
        model.to(device)
    except (MemoryError, RuntimeError, AssertionError) as error:
        if is_out_of_memory(error):
            raise not_loaded(error, str(device), role) from error
        raise ModelError(
            f"The {role} cannot be moved to its device: {reason(error)}",
            got=str(device),
            fix="Name a device that this machine has, or cpu.",
        ) from error


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
