"""The one reader of configurations: YAML files, values of a command line, arguments by annotation.

Scalars are those of YAML 1.2's core schema, and quotes are respected: ``"3"`` is text, ``1e-3`` a number,
``no`` a word, ``012`` twelve. ``<<`` merges, as in YAML 1.1. Keys are names: their text as it is written.
What could mean two things (a key given twice, several documents, tags of other languages) or would not end
(aliases of aliases) is refused with its key path.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import typing
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nabla.core.errors import ConfigError, nearest
from nabla.core.files import read_bytes
from nabla.core.registry import argument_hints, members

T = TypeVar("T")

#: Bounds of a document: bytes, values once all aliases are written out, and levels.
BYTES, VALUES, LEVELS = 2**20, 100_000, 64

#: Byte order marks; that of UTF-8 would become part of the first key elsewhere.
_MARKS = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\0\0\xfe\xff": "UTF-32"}
_TAG = "tag:yaml.org,2002:"
#: The core schema (YAML 1.2.2, section 10.3.2): tag, pattern of plain scalars, value.
_CORE: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("null", r"~|null|Null|NULL|", lambda _: None),
    ("bool", r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    ("int", r"[-+]?[0-9]+", int),
    ("int", r"0o[0-7]+|0x[0-9a-fA-F]+", lambda text: int(text, 0)),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", lambda text: float(text.replace(".", ""))),
)
#: What PyYAML's parser raises at malformed text: its own errors, and those of a bad escape or directive.
_MALFORMED = (yaml.YAMLError, ValueError, OverflowError)


def load(path: str | Path, what: str = "configuration") -> dict[str, Any]:
    """A YAML file that holds one mapping. Raises ConfigError; ``what`` names the file in messages."""
    try:
        found = parse(_text(Path(path)))
    except ConfigError as error:
        reason = f"The {what} cannot be read: {error.what}"
        raise ConfigError(reason, got=str(path), fix=error.fix, path=error.path) from error
    if not isinstance(found, dict):
        raise ConfigError(f"The {what} is a mapping of names to values", got=found)
    return found


def _text(path: Path) -> str:
    try:
        data = read_bytes(path)
    except FileNotFoundError as error:
        raise ConfigError("it does not exist") from error
    except (OSError, ValueError) as error:  # a zero byte in the path is a ValueError
        raise ConfigError(str(error)) from error
    if len(data) > BYTES:
        raise ConfigError(f"it has more than {BYTES:,} bytes")
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            raise ConfigError(f"it begins with a byte order mark of {encoding}", fix="Save it as UTF-8.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"byte {error.start} is no UTF-8", fix="Save it as plain UTF-8.") from error


def parse(text: str) -> Any:
    """The value of one YAML document. Raises ConfigError with the line and the key path."""
    try:
        return _Document(text).read()
    except _MALFORMED as error:
        raise ConfigError(f"malformed YAML: {' '.join(str(error).split())}") from error


def parse_option(text: str, hint: Any = Any) -> Any:
    """A value of a command line: as in YAML, but plain text is taken as it stands (``a # b``), and an option
    that takes text alone takes any (``--system "Answer: yes"``). Raises ConfigError."""
    start, options = text.lstrip()[:1], members(hint)
    collections = any(typing.get_origin(option) in (list, dict) for option in options)
    try:
        value = parse(text) if start else text
        plain = isinstance(value, str) and start not in "\"'|>!&"
        return conform(hint, text if plain else value)
    except ConfigError:
        if str in options and not (collections and start in "[{"):
            return text
        return parse(text)  # of another type: said with the option's name when the whole is checked


class _Document:
    """One document, built from PyYAML's events; its parser knows no types and does not recurse."""

    def __init__(self, text: str) -> None:
        self._events = yaml.parse(text, Loader=yaml.SafeLoader)  # type: ignore[no-untyped-call]
        #: Name → value, and the number of values in it.
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._values = 0

    def read(self) -> Any:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise ConfigError("it is empty")
        found = self._value(next(self._events), ())
        next(self._events)
        if not isinstance(next(self._events), yaml.StreamEndEvent):
            raise ConfigError("it holds several documents", fix="Remove the lines '---' and what follows.")
        return found

    def _value(self, event: Any, keys: tuple[str, ...]) -> Any:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _refused(event, keys, f"*{event.anchor} names no complete value above it")
            found, size = self._anchors[event.anchor]
            self._values += size
        else:
            before = self._values
            self._anchors.pop(event.anchor, None)
            found = self._built(event, keys)
            self._values += 1
            if event.anchor is not None:
                self._anchors[event.anchor] = found, self._values - before
        if self._values > VALUES:
            raise _refused(event, keys, f"with its aliases written out, this has more than {VALUES:,} values")
        return found

    def _built(self, event: Any, keys: tuple[str, ...]) -> Any:
        if len(keys) > LEVELS:
            raise _refused(event, keys, f"nested in more than {LEVELS} levels")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event, keys)
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", f"{_TAG}{'map' if mapping else 'seq'}"):
            raise _refused(event, keys, f"the tag {event.tag} is not read")
        if mapping:
            return self._mapping(keys)
        found: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event, (*keys, str(len(found)))))
        return found

    def _mapping(self, keys: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merge = None
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise _refused(event, keys, "a key is text on one line")
            place = (*keys, event.value)
            if event.value in found:
                raise _refused(event, place, "this key is given twice")
            self._value(event, place)
            found[event.value] = self._value(next(self._events), place)
            if event.value == "<<" and not event.style:
                merge = event
        if merge is None:
            return found
        sources = found.pop("<<")
        sources = sources if isinstance(sources, list) else [sources]
        if not all(isinstance(source, dict) for source in sources):
            raise _refused(merge, (*keys, "<<"), "what is merged is a mapping, or a list of them")
        return {**ChainMap(*sources), **found}


def _scalar(event: Any, keys: tuple[str, ...]) -> Any:
    """A scalar's value by its tag, or by the core schema where it is plain."""
    text = event.value
    if event.tag in ("!", f"{_TAG}str") or (event.tag is None and event.style):
        try:  # "\\ud83d\\ude00", as JSON writes what is beyond 16 bits, is one character
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            raise _refused(event, keys, "half of a pair of surrogates is no character") from error
    for tag, pattern, convert in _CORE:
        if event.tag in (None, f"{_TAG}{tag}") and re.fullmatch(pattern, text):
            try:
                value = convert(text)
            except ValueError as error:  # Python reads no whole numbers of thousands of digits
                raise _refused(event, keys, f"a number of {len(text)} digits is not read") from error
            if isinstance(value, float) and math.isinf(value) and "i" not in text.lower():
                raise _refused(event, keys, f"{text} is beyond the largest number")
            return value
    if event.tag is not None:
        raise _refused(event, keys, f"the tag {event.tag} is not read, or not with {text[:40]!r}")
    return text


def _refused(event: Any, keys: tuple[str, ...], what: str) -> ConfigError:
    path = ".".join(keys)
    said = f"{path if len(path) <= 80 else f'{path[:79]}…'}: {what}" if path else what
    return ConfigError(f"{said} (line {event.start_mark.line + 1})", path=path)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would take for something else."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> Any:
    # Numbers do not begin with a letter; for words (null, yes) the dumper looks itself.
    plain = text[:1].isalpha() and text.isprintable()
    return dumper.represent_scalar(f"{_TAG}str", text, style=None if plain else '"')


_Dumper.add_representer(str, _quoted)


def dump(values: Any) -> str:
    """Plain data as YAML that :func:`parse` and readers of YAML 1.1 read back."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


# -- places in a tree ------------------------------------------------------------------------------------


def join(path: str, key: object) -> str:
    """A key path, one key longer."""
    return f"{path}.{key}" if path else str(key)


def put(tree: dict[str, Any], keys: Sequence[str], value: Any, short: str = "name") -> None:
    """A value at a place, in copies of what is on the way; text there stands for ``{short: text}``."""
    for key in keys[:-1]:
        below = tree.get(key)
        if isinstance(below, str):  # a component's name, then an argument of it
            below = {short: below}
        tree[key] = tree = dict(below) if isinstance(below, Mapping) else {}
    tree[keys[-1]] = value


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, the new over the old."""
    found = dict(old)
    for key, value in new.items():
        both = isinstance(found.get(key), Mapping) and isinstance(value, Mapping)
        found[key] = merged(found[key], value) if both else value
    return found


# -- values by their annotations -------------------------------------------------------------------------

_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def conform(hint: Any, value: Any, path: str = "", part: Callable[..., Any] = lambda *_: None) -> Any:
    """The value as its annotation has it: 4 is a number too, mappings become dataclasses, tuples lists.

    Args:
        hint: the annotation; what it does not describe in plain data (a callable, Any) is taken as it is.
        value: from a configuration.
        path: key path, for errors.
        part: ``(members of the annotation, value, path)`` → what becomes of the value, or None; asked first.

    Raises ConfigError for anything else: true is no number, 1.5 and infinity are not whole, NaN is nothing.
    """
    options = members(hint)
    if (found := part(options, value, path)) is not None:
        return found
    kinds = {typing.get_origin(option) or option: option for option in options}
    if type(value) in kinds and type(value) in _NAMES and value == value:
        return value
    if isinstance(value, Real) and not isinstance(value, bool) and value == value:
        if int in kinds and isinstance(value, Integral):
            return int(value)
        if float in kinds:
            with suppress(OverflowError):
                return float(value)
    for kind, option in kinds.items():
        inner = typing.get_args(option)
        if kind is typing.Literal and any(value == one and type(value) is type(one) for one in inner):
            return value
        if kind in _NAMES or kind is typing.Literal:
            continue
        if kind is Any or not inspect.isclass(kind):
            return value
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping) and dict not in kinds:
            return make(kind, value, path=path)
        if issubclass(kind, Mapping) and isinstance(value, Mapping):
            each = inner[-1] if inner else Any
            return {key: conform(each, entry, join(path, key), part) for key, entry in value.items()}
        if issubclass(kind, Sequence) and isinstance(value, list | tuple):
            each = inner[0] if inner else Any
            return [conform(each, entry, join(path, place), part) for place, entry in enumerate(value)]
        if isinstance(value, kind):
            return value
    wanted = " or ".join(dict.fromkeys(map(_named, options)))
    raise ConfigError(f"{path or 'This'} is {wanted}", got=value, path=path)


def _named(option: Any) -> str:
    kind = typing.get_origin(option) or option
    if kind is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(option)))}"
    if kind in _NAMES:
        return _NAMES[kind]
    if dataclasses.is_dataclass(kind) or issubclass(kind, Mapping):
        return "a mapping"
    return "a list" if issubclass(kind, Sequence) else f"a {kind.__name__}"


def require_known(
    known: Iterable[str], names: Iterable[object], label: str, *, path: str = "", noun: str = "key"
) -> None:
    """Raises ConfigError for a name that is not known, with the nearest that is."""
    known = list(known)
    for name in names:
        if name not in known:
            fix = f"{nearest(name, known)}{noun.capitalize()}s: {', '.join(known) or 'none'}."
            raise ConfigError(f"{label} has no {noun} {name!r}", fix=fix).at(join(path, name))


def make(cls: Callable[..., T], values: Mapping[str, Any], *, label: str = "", path: str = "") -> T:
    """A dataclass from plain data. Raises ConfigError for unknown, missing and unfit values."""
    label = label or path or cls.__name__
    parameters, found = inspect.signature(cls).parameters, argument_hints(cls)
    require_known(parameters, values, label, path=path)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in values:
            raise ConfigError(f"{label} needs {name!r}", got=dict(values), path=path)
    return cls(**{name: conform(found[name], value, join(path, name)) for name, value in values.items()})


def settle(config: Any) -> None:
    """Of a frozen dataclass made in Python: every field as its annotation has it. Raises ConfigError."""
    cls: Callable[..., Any] = type(config)
    for name, hint in argument_hints(cls).items():
        if name != "return":
            object.__setattr__(config, name, conform(hint, getattr(config, name), name))
