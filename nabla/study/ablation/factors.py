"""Factors of a design: what is changed, and to which levels or within which range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nabla.core.errors import ConfigError, require_one_of
from nabla.launch.config.reader import conform, require_known
from nabla.study.ablation.overrides import is_path, unknown

_RANGE = ("low", "high", "log", "int")
#: In place of a reference's value: none is named. Null may be a level.
FIRST: Any = object()


@dataclass(frozen=True)
class Factor:
    """One thing that is changed.

    Args:
        name: a dotted path, or a name of one's own for levels that change several paths.
        levels: label → overrides; empty for a range.
        reference: label that the others are compared with.
        low, high, log, whole: of a range of numbers, which random and TPE search draw from.
    """

    name: str
    levels: Mapping[str, Mapping[str, Any]]
    reference: str | None = None
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def is_range(self) -> bool:
        """Whether the values are drawn from a range."""
        return not self.levels

    @classmethod
    def of(cls, name: str, given: Any, reference: Any = FIRST) -> Factor:
        """From a list of values for the path ``name``; from a mapping of labels to values of that path, or
        to overrides if the name is no path; or from a range ``{low, high, log, int}``. A list may be
        written ``{choice: [...]}``. The first level is the reference unless one is named, by its label or
        its value.

        Raises ConfigError.
        """
        if isinstance(given, Mapping) and set(given) == {"choice"}:
            given = given["choice"]
        if isinstance(given, Mapping) and "low" in given:
            if reference is not FIRST and reference is not None:
                raise ConfigError(f"Factor {name!r} is a range and has no reference level", got=reference)
            return cls._range(name, given)
        if isinstance(given, list):
            if not is_path(name):
                raise unknown(name)
            labels = [label_of(value) for value in given]
            if len(set(labels)) < len(labels):
                raise ConfigError(f"A level of factor {name!r} is given twice", got=given)
            given = dict(zip(labels, given, strict=True))
        if not isinstance(given, Mapping) or not given:
            raise ConfigError(
                f"Factor {name!r} has no levels",
                got=given,
                fix="Write a list of values, a mapping of labels, or {low: ..., high: ...}.",
            )
        levels = {}
        for label, value in given.items():
            if not is_path(name) and not isinstance(value, Mapping):
                raise unknown(name)
            if str(label) in levels:  # 1 and "1"
                raise ConfigError(f"A level of factor {name!r} is given twice", got=label)
            levels[str(label)] = {name: value} if is_path(name) else dict(value)
        if len(levels) < 2:
            raise ConfigError(f"Factor {name!r} needs two levels at least", got=list(levels))
        return cls(name, levels, _reference(name, levels, reference))

    @classmethod
    def _range(cls, name: str, given: Mapping[str, Any]) -> Factor:
        if not is_path(name):
            raise unknown(name)
        require_known(_RANGE, given, "A range")
        try:
            low, high = (conform(float, given.get(end)) for end in ("low", "high"))
        except ConfigError as error:
            raise ConfigError(f"The range of {name!r} needs numbers low and high", got=dict(given)) from error
        log, whole = (conform(bool, given.get(key, False), f"{name}.{key}") for key in ("log", "int"))
        if not low < high < float("inf") or low == -float("inf") or (log and low <= 0):
            raise ConfigError(f"The range of {name!r} ascends, and with log from above 0", got=dict(given))
        if whole and (low % 1 or high % 1):
            raise ConfigError(f"The range of {name!r} has whole ends", got=dict(given))
        return cls(name, {}, None, low, high, log, whole)

    def overrides(self, value: Any) -> Mapping[str, Any]:
        """Of a level's label, or of a number of the range."""
        if not self.is_range:
            return self.levels[value]
        return {self.name: int(value) if self.whole else float(value)}

    def samples(self) -> list[Any]:
        """Values by which to see whether the factor can work: every level, or the ends of the range."""
        return [self.low, self.high] if self.is_range else list(self.levels)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        if self.is_range:
            return {"name": self.name, "low": self.low, "high": self.high, "log": self.log, "int": self.whole}
        levels = {label: dict(overrides) for label, overrides in self.levels.items()}
        return {"name": self.name, "levels": levels, "reference": self.reference}


def _reference(name: str, levels: Mapping[str, Any], named: Any) -> str:
    """The label of the level that others are compared with. Raises ConfigError for one that is none."""
    if named is FIRST:
        return next(iter(levels))
    # A file has 1.0, false and null for the levels 1, false and none of a list; labels of a mapping are text.
    label = named if isinstance(named, str) or str(named) in levels else label_of(named)
    require_one_of(str(label), levels, f"Factor {name!r} has no such level", "Levels")
    return str(label)


def label_of(value: Any) -> str:
    """A level's value in a few characters."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, Mapping) and "name" in value:
        rest = ", ".join(f"{key}={label_of(entry)}" for key, entry in value.items() if key != "name")
        return f"{value['name']}({rest})" if rest else str(value["name"])
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={label_of(entry)}" for key, entry in value.items())
    return str(value)
