"""PEFT adapters: what they are of, their tokenizers, and merging them, as nothing is trained here."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nabla.core.errors import ModelError
from nabla.core.files import expanded, parse_json, read_text
from nabla.models.refusals import is_local, reason
from nabla.models.zoo.names import place


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter alone."""
    return (folder / "adapter_config.json").exists() and not (folder / "config.json").exists()


#: Files in which PEFT keeps weights.
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
#: Kinds of tasks whose adapters judge texts.
_JUDGES = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")


def require_adapter(adapter: Any, role: str) -> str:
    """Folder or hub id of an adapter. Raises ModelError for what is none, as far as this machine can say: a
    hub id may be one."""
    if not isinstance(adapter, str) or not adapter.strip():
        raise ModelError(f"The adapter of the {role} is a folder, a hub id or a name", got=adapter)
    named: str = place(adapter)
    folder = expanded(named)
    if not folder.exists():
        if is_local(named, folder):
            raise _no_adapter(named, role, "there is no such folder")
        return named
    if not folder.is_dir():
        raise _no_adapter(named, role, "it is a file")
    if not (folder / "adapter_config.json").is_file():
        raise _no_adapter(named, role, "there is no adapter_config.json in it")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise _no_adapter(named, role, f"there is no {_WEIGHTS[0]} in it")
    return named


def _no_adapter(adapter: str, role: str, why: str) -> ModelError:
    return ModelError(
        f"The adapter of the {role} cannot be loaded: {why}",
        got=adapter,
        fix="Pass a PEFT folder (adapter_config.json and weights) made for this model.",
    )


def require_writing(adapter: str, role: str) -> None:
    """Raises ModelError for an adapter in a folder that was trained to judge texts, where it is to write."""
    folder = expanded(adapter)
    if folder.is_dir() and (kind := _config(folder, role).get("task_type")) in _JUDGES:
        raise ModelError(
            f"The adapter of the {role} makes a reward model or a classifier of its base: it writes no text",
            got=f"{adapter} (task_type {kind})",
            fix="Pass it as the reward (rm=...), and a causal language model as lm=....",
        )


def _config(folder: Path, role: str) -> dict[str, Any]:
    file = folder / "adapter_config.json"
    text = read_text(file, f"configuration of the {role}'s adapter", kind=ModelError)
    try:
        found = parse_json(text)
        if not isinstance(found, dict):
            raise ValueError("it is no mapping")
    except ValueError as error:
        raise ModelError(
            f"The configuration of the {role}'s adapter cannot be read: {error}", got=str(file)
        ) from error
    return found


def _named_base(folder: Path, role: str) -> str:
    """Folder or hub id of the model that an adapter names. Raises ModelError."""
    base = _config(folder, role).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"The {role} is an adapter that does not name its base model",
            got=str(folder),
            fix="Pass the base model as path and this folder as adapter.",
        )
    inner = place(base)
    if is_local(inner, expanded(inner)) and not expanded(inner).is_dir():
        raise ModelError(
            f"The base model that the {role}'s adapter names is not there",
            got=f"{base} of {folder}",
            fix="Pass the base model as path and this folder as adapter.",
        )
    return inner


def base_of(
    folder: Path, role: str, arguments: dict[str, Any]
) -> tuple[str, str, list[str], dict[str, Any]]:
    """Of a folder with an adapter alone: its base model, where its tokenizer is, the adapters that are merged
    into the base first (it may be the adapter of an adapted model), and what the base is loaded with (as many
    labels as the adapter's own head has)."""
    base, chain = _named_base(folder, role), [str(folder)]
    while is_adapter(Path(base)):
        if Path(base).resolve() in [Path(inner).resolve() for inner in chain]:
            raise ModelError(f"The adapter of the {role} is its own base model", got=base)
        chain.insert(0, base)
        base = _named_base(Path(base), role)
    words = next((p for p in reversed(chain) if (Path(p) / "tokenizer_config.json").exists()), base)
    heads = {k: v for k, v in _adapter_weights(str(folder), role).items() if k.endswith(_HEADS)}
    if heads and "num_labels" not in arguments:
        arguments = {**arguments, "num_labels": int(next(iter(heads.values())).shape[0])}
    return base, words, chain[:-1], arguments


#: How the names of the weights of a classifier's head end.
_HEADS = (".score.weight", ".classifier.weight")


def _adapter_weights(adapter: str, role: str) -> dict[str, torch.Tensor]:
    from peft.utils import load_peft_weights

    try:
        found: dict[str, torch.Tensor] = load_peft_weights(adapter, device="cpu")
    except Exception as error:
        raise broken_adapter(adapter, role, error) from error
    return found


def broken_adapter(adapter: str, role: str, error: Exception) -> ModelError:
    fix = "Pass a PEFT folder (adapter_config.json and weights) made for this model."
    if "size mismatch" in str(error) and any(head.removesuffix(".weight") in str(error) for head in _HEADS):
        fix = "Its head has another number of labels than the base was loaded with: load with num_labels=1."
    return ModelError(f"The adapter of the {role} cannot be loaded: {reason(error)}", got=adapter, fix=fix)


def _put_on(model: Any, adapter: str, **arguments: Any) -> Any:
    from peft import PeftModel

    with warnings.catch_warnings():  # _require_fit says it, as an error
        warnings.filterwarnings("ignore", "Found missing adapter keys")
        return PeftModel.from_pretrained(model, adapter, **arguments)


def merged(model: Any, adapter: str, role: str) -> Any:
    """A model with an adapter of its layers merged into it, whatever task that was trained for."""
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(adapter)
        config.task_type = None  # a reward's body has no head that a language model's adapter asks for
        wrapped = _put_on(model, adapter, config=config)
        _require_fit(wrapped, _adapter_weights(adapter, role), adapter, role)
        return wrapped.merge_and_unload()
    except ModelError:
        raise
    except Exception as error:
        raise broken_adapter(adapter, role, error) from error


def adapted(model: Any, adapter: str, missing: list[str], role: str) -> Any:
    """The model with an adapter merged into it. Raises ModelError where the adapter lacks weights that the
    checkpoint lacks too, and where merging changes what the adapted model gives."""
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
        wrapped = _put_on(model, adapter).eval()
        _require_fit(wrapped, given, adapter, role)
        inner = wrapped.get_base_model()
        parts = (inner.get_input_embeddings(), inner.get_output_embeddings())
        ends = any(part is not None and not _plain(part) for part in parts)
        probe = torch.arange(8, device=wrapped.device)[None] % int(inner.config.get_text_config().vocab_size)
        with torch.no_grad():
            before = wrapped(input_ids=probe).logits if ends else None
            model = wrapped.merge_and_unload().eval()
            after = model(input_ids=probe).logits if ends else None
    except ModelError:
        raise
    except Exception as error:
        raise broken_adapter(adapter, role, error) from error
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


def _require_fit(wrapped: Any, given: Mapping[str, torch.Tensor], adapter: str, role: str) -> None:
    """Raises ModelError where an adapter and its model have not the same layers: PEFT leaves out weights that
    it finds no place for, and makes up those that are missing."""
    from peft import get_peft_model_state_dict

    wanted = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    lacking = sorted(wanted - set(given))
    # What training saved besides (a head, an embedding) is not the adapter's own.
    own = {_kind(name) for name in wanted}
    unknown = sorted(name for name in given if name not in wanted and _kind(name) in own)
    if lacking or unknown:
        what = f"lacks {lacking[0]}" if lacking else f"has {unknown[0]}, which the model has not"
        raise ModelError(
            f"The adapter of the {role} does not fit: it {what}",
            got=adapter,
            fix="Pass a PEFT folder that was made for this model, with all of its weights.",
        )


def _kind(name: str) -> str:
    """What a weight is: the last part of its name before ``weight`` (``lora_A``)."""
    return name.removesuffix(".weight").rpartition(".")[2]


def _plain(part: Any) -> bool:
    """A layer of the model's own, not one that an adapter put in its place."""
    return not hasattr(part, "base_layer") and not hasattr(part, "modules_to_save")


def tokenizer_of(adapter: str, base: Any) -> Any:
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


def require_rows(model: Any, tokenizer: Any, adapter: str) -> None:
    rows = int(next(model.get_input_embeddings().parameters()).shape[0])
    if len(tokenizer) > rows:
        raise ModelError(
            f"The adapter's tokenizer has {len(tokenizer)} tokens, the model's embedding {rows} rows",
            got=adapter,
            fix="Merge the adapter into a model with its embedding resized, or name the model's own "
            "tokenizer (tokenizer=...).",
        )
