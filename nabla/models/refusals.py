"""Why a model cannot be loaded, in words that say what to do."""

from __future__ import annotations

import os
from pathlib import Path

from nabla.core.errors import ModelError, is_out_of_memory


def reason(error: BaseException, limit: int = 1500) -> str:
    """All that an error says, and what caused it where that says more."""
    lines: list[str] = []
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        text = " ".join(str(cause).split()) or repr(cause)
        if "ignore_mismatched_sizes" in text:  # the report that it speaks of is a table of another logger
            text = "its weights have other sizes than its config.json says"
        if isinstance(cause, KeyError):
            text = f"{text} is unknown, or missing"
        if not any(text in line for line in lines):
            lines.append(text if cause is error else f"{type(cause).__name__}: {text}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    whole = "; because of ".join(lines)
    return whole if len(whole) <= limit else whole[: limit - 3] + "..."


def is_local(path: str, folder: Path) -> bool:
    """Whether a path, beside the folder that it stands for, can be no hub id."""
    return folder.is_absolute() or path.startswith((".", "~"))


def no_folder(path: str, role: str) -> ModelError:
    """For a path where there is no folder."""
    found = "there is no such " + ("file" if path.endswith(".gguf") else "folder")
    if not path.strip():
        found = "its path is empty"
    elif os.path.exists(path):
        found = "it is a file, no folder"
    return ModelError(
        f"The {role} cannot be loaded: {found}",
        got=path,
        fix="Pass a folder saved by save_pretrained, a .gguf file, or a hub id such as "
        "'Qwen/Qwen2.5-7B-Instruct'.",
    )


def not_loaded(error: BaseException, path: str, role: str) -> ModelError:
    """For a model that transformers cannot load, or that there is no room for."""
    if is_out_of_memory(error):
        return ModelError(
            f"There is not enough memory for the {role}: {reason(error, 300)}",
            got=path,
            fix="Load it in half precision (dtype='bfloat16'), quantised, spread over devices "
            "(device_map='auto'), or take a smaller one.",
        )
    return ModelError(
        f"The {role} cannot be loaded: {reason(error)}",
        got=path,
        fix="Pass a folder saved by save_pretrained (config.json, safetensors, tokenizer files) or "
        "a hub id that this machine can reach or has cached.",
    )
