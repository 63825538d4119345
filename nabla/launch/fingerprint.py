"""What two runs must have in common to be one run: models, packages, plug-ins, as plain data.

An earlier nabla wrote down less. What it did not write down cannot be compared: :func:`known_to` leaves that
out and says what it is.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nabla.core.files import decode, expanded, parse_json, read_bytes
from nabla.core.version import __version__
from nabla.launch.config.run import locate, placed
from nabla.launch.config.slots import slots
from nabla.models.zoo.names import is_name

log = logging.getLogger(__name__)

#: Weight files up to this size are hashed whole; of larger ones, blocks spread over the file.
WHOLE = 64 * 2**20
_BLOCK, _BLOCKS = 2**20, 32
_WEIGHTS = (".safetensors", ".bin")
#: Files beside the weights that decide what is computed: configuration, tokenizer, chat templates, code.
_SETTINGS = (".json", ".jinja", ".model", ".txt", ".py", ".tiktoken")
#: What training leaves beside them, and no loading reads.
_NOTES = ("readme", "license", "notice", "requirements", "trainer_state", "all_results", "train_results",
          "eval_results")  # fmt: skip
#: Arguments for loading a model that decide which files it is made of.
_WHERE = ("subfolder", "gguf_file", "revision", "cache_dir", "adapter", "tokenizer", "chat_template")
#: Arguments that older journals know nothing of, by where they stand: of the engine, of any method. For each
#: the values that do what was done then.
LATER: Mapping[str, tuple[Any, ...]] = {
    "engine.prefix_bytes": ("auto",),
    "engine.continuous": (True,),
    "engine.rollout_bytes": ("auto",),
    "engine.keep_graph": (False,),
    "method.width": (1,),
    "method.score": ("reward", None),
}
#: Their arithmetic decides the last bits.
_PACKAGES = ("torch", "transformers")


def versions() -> dict[str, str]:
    """Of the packages whose arithmetic decides results, and of nabla itself."""
    return {**{package: version(package) for package in _PACKAGES}, "nabla-reasoner": __version__}


def plugins(config: Any) -> dict[str, str]:
    """Distribution → version of every other package that offers a component which a configuration names."""
    names = set(_texts(config))
    found: dict[str, str] = {}
    for registry in slots().values():
        for point in registry.offered.values():
            if point.name in names and point.dist is not None:
                found[point.dist.name] = point.dist.version
    return dict(sorted(found.items()))


def parts(spec: Any, arguments: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(path or hub id as written, arguments for :func:`model`) of every model of a specification. What the
    specification itself says of a model's files comes before the shared arguments, as in loading."""
    return [
        (path, {**arguments, **{key: own[key] for key in _WHERE if key in own}}) for path, own in placed(spec)
    ]


def gates(config: Any) -> dict[str, str | None]:
    """Path as written → digest of every file that a method's gate takes its findings from."""
    found: dict[str, str | None] = {}
    if isinstance(config, Mapping):
        gate = config.get("gate")
        name = gate.get("file") if isinstance(gate, Mapping) else None
        if isinstance(name, str):
            found[name] = _hash(expanded(name)) if _is_file(expanded(name)) else None
        for value in config.values():
            found |= gates(value)
    return found


def surroundings(config: Any) -> dict[str, Any]:
    """What decides results beside a configuration and its models: versions, plug-ins, files of gates."""
    files = gates(config)
    found = {"versions": versions(), "plugins": plugins(config)}
    return {**found, "gates": files} if files else found


def model(path: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is made of.

    Args:
        path: folder, ``.gguf`` file, hub id, name or ``sandbox:NAME``.
        arguments: for loading it.

    Of a folder: name, size and digest of each weight file, a digest of each other file that decides what is
    computed; of a subfolder and a ``gguf_file`` that the arguments name likewise. Of a hub id: the commit,
    where this machine has it already. Adapter, tokenizer and chat template that are given apart count, too.
    """
    place = expanded(locate(path))
    found = {
        "arguments": {key: str(value) for key, value in arguments.items()},
        "files": _weights(place),
        "settings": _settings(place, arguments.get("subfolder")),
        "revision": None if place.exists() else _commit(path, arguments),
        "gguf": _sized(place) if place.is_file() else None,
    }
    inner, gguf = arguments.get("subfolder"), arguments.get("gguf_file")
    if inner:
        found["subfolder"] = _weights(place / str(inner))
    if gguf:
        places = (place / str(inner or "") / str(gguf), place / str(gguf))  # as loading looks for it
        found["gguf_file"] = next((_sized(file) for file in places if _is_file(file)), None)
    base = _named_base(place)
    if base is not None:
        found["base"] = model(base, {})
    for name in ("adapter", "tokenizer"):
        given = arguments.get(name)
        found[name] = model(given, {}) if isinstance(given, str) else None
    template = arguments.get("chat_template")
    file = expanded(template) if isinstance(template, str) and len(template) < 1024 else None
    found["chat_template"] = _hash(file) if file is not None and _is_file(file) else None
    return found


def _weights(folder: Path) -> dict[str, list[Any]]:
    """Name → size and digest of each weight file."""
    return {p.name: _sized(p) for p in sorted(folder.glob("*")) if p.suffix in _WEIGHTS}


def _named_base(place: Path) -> str | None:
    """The base of an adapter alone, where it is a name that may stand for other weights elsewhere."""
    file = place / "adapter_config.json"
    if not file.is_file() or (place / "config.json").exists():
        return None
    try:
        base = str(parse_json(decode(read_bytes(file))).get("base_model_name_or_path"))
    except (OSError, ValueError, AttributeError):  # loading says so
        return None
    return base if is_name(base) else None


def digest(value: Any) -> str:
    """Of plain data."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def difference(old: Any, new: Any, prefix: str = "") -> str | None:
    """Dotted name and values of the first place where two fingerprints differ; None if they are equal.

    A commit that was not known at one of the two times is not compared, and what is in :data:`LATER` may be
    missing in one of them.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            if key not in old or key not in new:
                if _came_later(prefix, key, {**old, **new}[key]):
                    continue
                return f"{prefix}{key} is in one of them alone"
            if key == "revision" and None in (old[key], new[key]):
                continue
            found = difference(old[key], new[key], f"{prefix}{key}.")
            if found is not None:
                return found
        return None
    return None if old == new else f"{prefix.rstrip('.')}: {old!r} there, {new!r} here"


def _came_later(prefix: str, key: str, value: Any) -> bool:
    """An argument that older journals know nothing of, with the value that does what was done then."""
    parts = prefix.split(".")
    slot = "engine" if prefix.endswith("engine.") else "method" if {"method", "methods"} & {*parts} else ""
    return value in LATER.get(f"{slot}.{key}", ())


def without_later(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration as an earlier nabla wrote it: what is in :data:`LATER` left out where it does
    what was done then."""
    found: dict[str, Any] = {"engine": {}, **config}
    for slot in ("engine", "method"):
        if isinstance(found.get(slot), Mapping):
            found[slot] = {k: v for k, v in found[slot].items() if v not in LATER.get(f"{slot}.{k}", ())}
    return found


def known_to(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new fingerprint without what the nabla that wrote the old one did not know; a warning names it.

    Only versions, plug-ins and what a model is made of have grown: a configuration is compared as a whole.
    """
    found, missing = dict(new), []
    for key, what in (("plugins", "plug-ins"), ("gates", "what the gate's file holds")):
        if key in new and key not in old:
            del found[key]
            missing.append(what)
    for part in ("versions", "models"):
        if not (isinstance(old.get(part), Mapping) and isinstance(new.get(part), Mapping)):
            continue
        found[part] = dict(new[part])
        for name in new[part]:
            before = old[part].get(name)
            if part == "versions" and before is None:
                del found[part][name]
                missing.append(f"the version of {name}")
            elif part == "models" and isinstance(before, Mapping):
                found[part][name] = {k: v for k, v in new[part][name].items() if k in before}
                missing += [f"{k} of the models" for k in new[part][name] if k not in before]
    if missing:
        log.warning(
            "The results folder was begun by an earlier nabla, which did not write down %s: whether these "
            "are still the same cannot be checked",
            ", ".join(dict.fromkeys(missing)),
        )
    return found


def _settings(place: Path, subfolder: Any) -> dict[str, str]:
    """Relative name → digest."""
    folders = [place, place / "additional_chat_templates", *([place / str(subfolder)] if subfolder else [])]
    files = sorted(p for folder in folders for p in folder.glob("*") if p.suffix in _SETTINGS and p.is_file())
    return {
        str(file.relative_to(place)): _hash(file)
        for file in files
        if not file.name.lower().startswith(_NOTES)
    }


def _commit(path: str, arguments: Mapping[str, Any]) -> str | None:
    """The commit of a hub id that the cache holds."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    subfolder = arguments.get("subfolder")
    for name in ("config.json", "adapter_config.json", "tokenizer_config.json"):
        file = f"{subfolder}/{name}" if subfolder else name
        try:
            found = try_to_load_from_cache(
                path, file, cache_dir=arguments.get("cache_dir"), revision=arguments.get("revision")
            )
        except HFValidationError:  # no hub id: loading says so
            return None
        if isinstance(found, str):  # .../snapshots/<commit>/<file>
            parts = Path(found).parts
            return parts[len(parts) - 1 - parts[::-1].index("snapshots") + 1]
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a template in the argument itself is no path
        return False


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _sized(file: Path) -> list[Any]:
    return [file.stat().st_size, _hash(file)]


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
