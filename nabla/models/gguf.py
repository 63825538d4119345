"""GGUF files, as models like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nabla.core.errors import ModelError
from nabla.core.extras import require_extra


def locate_gguf(folder: Path, arguments: dict[str, Any], role: str) -> tuple[Path, dict[str, Any]]:
    """The folder of a ``.gguf`` file, and its name among the arguments, with what makes of it a model like
    any other: blocks that a kernel multiplies have no gradient, so all weights are unpacked.

    Raises ConfigError without the package that reads such files, ModelError if another file would be read.
    """
    if folder.suffix == ".gguf" and folder.is_file() and "gguf_file" not in arguments:
        arguments, folder = {**arguments, "gguf_file": folder.name}, folder.parent
    if arguments.get("gguf_file") is None:
        return folder, arguments
    require_extra("gguf", purpose=f"A GGUF file as {role}")
    import transformers

    name = Path(arguments["gguf_file"])
    inside = folder / arguments.get("subfolder", "") / name
    if inside.is_file():  # by its bare name one in the working directory would come first
        arguments = {**arguments, "gguf_file": str(inside.resolve())}
    elif name.is_file() and not name.is_absolute():
        raise ModelError(
            f"The {role}'s GGUF file is not where it was named, but one is in the working directory",
            got=f"{name} of {folder}",
            fix="Pass the path of the file itself, or go to another directory.",
        )
    if hasattr(transformers, "GgufConfig"):
        arguments.setdefault("quantization_config", transformers.GgufConfig(dequantize=True))
    return folder, arguments
