"""Values that are changed by making another one, and numbers of other libraries."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from numbers import Integral, Real
from typing import Any, TypeVar

T = TypeVar("T")


def plain(value: Any) -> Any:
    """A number of numpy or of torch as one of Python; anything else as it is."""
    if type(value) in (float, int):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    from torch import Tensor  # not above: --help and list do without torch

    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def changed(value: T, **given: Any) -> T:
    """``dataclasses.replace`` for a dataclass without ``__post_init__`` and slots, in a tenth of the time: a
    solve makes thousands. Raises TypeError for a name that is no field."""
    kind: Any = type(value)
    names = _names(kind)
    if not given.keys() <= names:
        raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(given.keys() - names))}")
    new: T = object.__new__(kind)
    own = value.__dict__
    new.__dict__.update({name: own[name] for name in own if name in names}, **given)  # no cached property
    return new


@cache
def _names(kind: Any) -> frozenset[str]:
    found = fields(kind)
    if hasattr(kind, "__post_init__") or "__slots__" in vars(kind) or not all(f.init for f in found):
        raise TypeError(f"{kind.__name__} is no plain dataclass")
    return frozenset(field.name for field in found)
