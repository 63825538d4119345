"""What a model's small configuration file tells before gigabytes are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nabla.core.errors import ModelError
from nabla.core.files import expanded
from nabla.models.adapters import require_adapter, require_writing
from nabla.models.loading import WHERE, is_path
from nabla.models.refusals import no_folder, not_loaded

#: Architectures that judge texts and write none.
_JUDGES = re.compile(r"For(Sequence|Token)Classification|ForMultipleChoice|Reward|ValueHead|ForScore")
_WRITERS = re.compile(r"ForCausalLM|LMHead|ForConditionalGeneration")


def require_checkpoint(path: str, arguments: Mapping[str, Any], *, role: str, writes: bool = False) -> None:
    """Raises ModelError for a model that is not there, and for one that cannot write where it is to.

    Args:
        path: folder or hub id.
        arguments: for loading it.
        role: of the model, for messages.
        writes: it is to be a language model.
    """
    folder = expanded(path)
    whole = not (folder / "adapter_config.json").exists() or (folder / "config.json").exists()
    adapter = str(folder) if not whole else arguments.get("adapter")
    if adapter is not None:
        adapter = require_adapter(adapter, role)
        if writes:
            require_writing(adapter, role)
    if folder.is_file() or arguments.get("gguf_file") or not whole:
        return  # a .gguf file says it inside, an adapter names its base; both are said when they are loaded
    if not path.strip() or (is_path(path, folder) and not folder.is_dir()):
        raise no_folder(path, role)
    from transformers import AutoConfig

    # Without trust_remote_code transformers would ask on the terminal.
    where = {"trust_remote_code": False, **{k: v for k, v in arguments.items() if k in WHERE}}
    try:
        config = AutoConfig.from_pretrained(str(folder) if folder.is_dir() else path, **where)
    except Exception as error:  # transformers raises many kinds
        raise not_loaded(error, path, role) from error
    if writes:
        require_writer(config, path, role)


def require_writer(config: Any, path: str, role: str = "language model") -> None:
    """Raises ModelError for the configuration of a model that judges texts and writes none."""
    names = [str(name) for name in getattr(config, "architectures", None) or ()]
    if any(map(_JUDGES.search, names)) and not any(map(_WRITERS.search, names)):
        raise ModelError(
            f"The {role} is a reward model or a classifier: it writes no text",
            got=f"{path} ({', '.join(names)})",
            fix="Pass it as the reward (rm=...), and a causal language model as lm=....",
        )
