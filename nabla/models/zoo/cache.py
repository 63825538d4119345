"""Conversions of GGUF files, kept: made once by one process, checked whenever they are used.

A folder of the cache is what ``save_pretrained`` writes, and a list of what is in it. It appears whole or
not at all. What does not match its list is thrown away and made anew.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nabla.core.errors import ModelError, is_out_of_memory
from nabla.core.files import expanded, parse_json, reason
from nabla.core.locks import Lock
from nabla.models.gguf import locate_gguf
from nabla.models.refusals import not_loaded

log = logging.getLogger(__name__)

#: The list of a folder: what it was made of, and the digest of each file.
MANIFEST = "nabla.json"
#: Of what is written; another one makes a conversion anew.
VERSION = 1
#: Seconds that a process waits for another one's conversion.
PATIENCE = 900.0
_PIECE = 1 << 20
#: Folders that this process has checked: (path, times and sizes of its files).
_checked: set[tuple[Any, ...]] = set()


def cache_folder() -> Path:
    """``NABLA_CACHE``, or ``nabla`` in ``XDG_CACHE_HOME`` (``~/.cache``)."""
    own = os.environ.get("NABLA_CACHE")
    if own:
        return expanded(own)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "nabla"


def converted(
    name: str, files: Sequence[Path], missing: ModelError, sha256: str | None = None
) -> Path:
    """The folder of a converted model, made now if it is not there or is damaged.

    Args:
        name: of the folder.
        files: the GGUF file, or its parts in their order; none where it is not on this machine: then what was
            kept must do.
        missing: the error for a conversion that is wanted without its file.
        sha256: of the file that the shipped adapters were trained on; another one is used with a warning.

    Raises ModelError.
    """
    folder = cache_folder() / name
    source = _source(files) if files else None
    if fault(folder, source) is None:
        return folder
    if source is None:
        raise missing
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = Lock(
            folder.parent / f".{name}.lock",
            patience=PATIENCE,
            what="cache of models",
            option="NABLA_CACHE",
            waiting=lambda: log.warning("Another process converts %s: waiting for it", name),
        )
    except OSError as error:
        raise _no_room(folder, error) from error
    with lock:
        why = fault(folder, source)
        if why is None:  # another process has made it
            return folder
        if os.path.lexists(folder):
            _require_ours(folder)
            log.warning("The kept conversion of %s is not used: %s; it is made anew", name, why)
        if sha256 is not None and source["sha256"] != sha256:
            log.warning("The file of %s is another one than the shipped adapters were trained on", name)
        log.warning("Converting %s once, into %s (up to a minute)", name, folder)
        _make(folder, files, source)
    return folder


def fault(folder: Path, source: Mapping[str, Any] | None = None) -> str | None:
    """What is wrong with a kept conversion; None where nothing is.

    Args:
        folder: of the conversion.
        source: what it should be made of; None leaves that out.
    """
    try:
        about = parse_json((folder / MANIFEST).read_bytes())
        if about["version"] != VERSION:
            return "another version of nabla made it"
        if source is not None and about["source"]["sha256"] != source["sha256"]:
            return "it was made of another file"
        states = {name: (folder / name).stat() for name in about["files"]}
        key = (str(folder), *((n, s.st_mtime_ns, s.st_size) for n, s in sorted(states.items())))
        if key in _checked:
            return None
        for name, digest in about["files"].items():
            if sha256_of(folder / name) != digest:
                return f"{name} is damaged"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is not there"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"it cannot be read ({reason(error)})"
    _checked.add(key)
    return None


def sha256_of(*files: Path) -> str:
    """Digest of the bytes of files, one behind the other."""
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                found.update(piece)
    return found.hexdigest()


def _source(files: Sequence[Path]) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in files)
    return {"name": files[0].name, "size": size, "sha256": sha256_of(*files)}


def _require_ours(folder: Path) -> None:
    """Raises ModelError for a file or folder in a conversion's place that nabla did not make."""
    if not (folder / MANIFEST).is_file():
        raise ModelError(
            "A converted model cannot be kept: in its place is something that nabla did not make "
            f"(no {MANIFEST})",
            got=str(folder),
            fix="Move that away, or set NABLA_CACHE to a folder of its own.",
        )


def _make(folder: Path, files: Sequence[Path], source: Mapping[str, Any]) -> None:
    """Converts beside the place, and moves there."""
    prefix = f".{folder.name}.made-"  # what another model's process makes now has another beginning
    for left in folder.parent.glob(glob.escape(prefix) + "*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        fresh = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    except OSError as error:
        raise _no_room(folder, error) from error
    try:
        whole = files[0] if len(files) == 1 else _joined(files, fresh / "joined.gguf")
        write(whole, fresh)
        (fresh / "joined.gguf").unlink(missing_ok=True)
        digests = {p.name: sha256_of(p) for p in sorted(fresh.iterdir()) if p.is_file()}
        about = {"version": VERSION, "source": source, "files": digests}
        (fresh / MANIFEST).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        fresh.chmod(0o755)
        for file in fresh.iterdir():  # several people may share a cache
            file.chmod(0o644)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
            os.replace(folder, old / "old")
            shutil.rmtree(old, ignore_errors=True)
        os.replace(fresh, folder)
    except OSError as error:
        raise _no_room(folder, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _joined(files: Sequence[Path], whole: Path) -> Path:
    with whole.open("wb") as target:
        for file in files:
            with file.open("rb") as part:
                shutil.copyfileobj(part, target, _PIECE)
    return whole


def write(file: Path, folder: Path) -> None:
    """A GGUF file as ``save_pretrained`` writes a model and its tokenizer: all weights unpacked, in float32.
    The configuration names bfloat16, the type that models of this kind are published in: ``dtype='auto'``
    takes it.

    Raises ConfigError without the package that reads GGUF files, and ModelError.
    """
    role = "model of this file"
    parent, arguments = locate_gguf(file, {}, role)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(str(parent), dtype="float32", **arguments)
        tokenizer = AutoTokenizer.from_pretrained(str(parent), gguf_file=arguments["gguf_file"])
    except Exception as error:  # transformers raises many kinds
        raise not_loaded(error, str(file), role) from error
    # Unpacked weights are those of any other model: transformers would write down how they were packed.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # safetensors says in its own way that a disk is full
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise
        raise OSError(reason(error)) from error
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = "bfloat16"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _no_room(folder: Path, error: OSError) -> ModelError:
    return ModelError(
        f"A converted model cannot be kept: {reason(error)}",
        got=str(folder),
        fix="Set NABLA_CACHE to a folder that can be written, with room for 4 bytes a parameter.",
    )
