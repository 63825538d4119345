"""What decides the results of an evaluation: its configuration, the problems and the models' weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nabla.launch.config.run import locate
from nabla.problems.tasks.base import Problem
from nabla.study.evaluation.config import EvaluationConfig

#: Weight files up to this size are hashed whole; of larger ones, blocks spread over the file.
WHOLE = 64 * 2**20
_BLOCK, _BLOCKS = 2**20, 32
#: Arguments of the engine that older journals know nothing of, and the value that does what was done then.
LATER: Mapping[str, Any] = {"prefix_bytes": "auto"}
#: Their arithmetic decides the last bits.
_PACKAGES = ("torch", "transformers")


def fingerprint(config: EvaluationConfig, problems: Mapping[str, Sequence[Problem]]) -> dict[str, Any]:
    """Everything that two runs must have in common to be one run, as plain data.

    Args:
        config: of the evaluation.
        problems: by task, as chosen.
    """
    return {
        "config": config.resolved(),
        "problems": {
            task: _digest([(p.id, p.prompt, p.gold) for p in chosen]) for task, chosen in problems.items()
        },
        "models": {
            f"{label}.{name}": weights(path, arguments)
            for label, setup in config.tasks.items()
            for name, (path, arguments) in setup.paths().items()
        },
        "versions": {package: version(package) for package in _PACKAGES},
    }


def difference(old: Any, new: Any, prefix: str = "") -> str | None:
    """Dotted name and values of the first place where two fingerprints differ; None if they are equal.

    What is in :data:`LATER` may be missing in one of them.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            if key not in old or key not in new:
                if prefix.endswith("engine.") and LATER.get(key, ...) == {**old, **new}[key]:
                    continue
                return f"{prefix}{key} is in one of them alone"
            found = difference(old[key], new[key], f"{prefix}{key}.")
            if found is not None:
                return found
        return None
    return None if old == new else f"{prefix.rstrip('.')}: {old!r} there, {new!r} here"


def weights(path: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Name, size and digest of each weight file of a local model; a hub id stands for itself."""
    folder = Path(locate(path))
    files = sorted(p for p in folder.glob("*") if p.suffix in (".safetensors", ".bin"))
    return {
        "arguments": {key: str(value) for key, value in arguments.items()},
        "files": {file.name: [file.stat().st_size, _hash(file)] for file in files},
    }


def _hash(path: Path) -> str:
    size, found = path.stat().st_size, hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        if size <= WHOLE:
            found.update(file.read())
        else:
            for index in range(_BLOCKS):
                file.seek((size - _BLOCK) * index // (_BLOCKS - 1))
                found.update(file.read(_BLOCK))
    return found.hexdigest()


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
