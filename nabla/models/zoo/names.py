"""From a name to a folder."""

from __future__ import annotations

from nabla.core.errors import ModelError
from nabla.core.files import expanded
from nabla.models.zoo.cache import cache_folder, converted, fault, sha256_of
from nabla.models.zoo.catalogue import ADAPTERS, PUBLISHED

#: Whatever may stand in a path's place; a folder of such a name is written ``./NAME``.
NAMES = (*PUBLISHED, *ADAPTERS)
#: Larger files, in bytes, are not converted but read anew each time: unpacked they take eight times the room.
LARGEST = 2**30


def is_name(path: str) -> bool:
    """Whether a path is a model's name."""
    return path in PUBLISHED or path in ADAPTERS


def place(path: str) -> str:
    """A path or hub id as it is; a name becomes the folder, made now if it is not there. Raises ModelError
    that says what to install."""
    if path in ADAPTERS:
        return str(ADAPTERS[path].folder)
    if path not in PUBLISHED:
        return path
    model = PUBLISHED[path]
    return str(converted(path, model.find(), model.missing, model.sha256))


def require_at_hand(path: str) -> None:
    """Raises ModelError for a name whose package is neither installed nor converted before."""
    model = PUBLISHED.get(ADAPTERS[path].root if path in ADAPTERS else path)
    if model is not None and not model.find() and fault(cache_folder() / model.name) is not None:
        raise model.missing


def prepare(path: str) -> str:
    """As :func:`place`; a ``.gguf`` file of moderate size is converted once, too."""
    file = expanded(path)
    if file.suffix != ".gguf" or not file.is_file() or file.stat().st_size > LARGEST:
        return place(path)
    missing = ModelError("The file is not there any more", got=path)
    return str(converted(f"{file.stem}-{sha256_of(file)[:12]}", [file], missing))
