"""An ablation as a value: a base evaluation of one method, factors, and how their levels are combined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError, require_one_of
from nabla.launch.config.reader import conform, load, merged, require_known
from nabla.study.ablation.factors import FIRST, Factor
from nabla.study.ablation.overrides import PointConfig, apply
from nabla.study.evaluation.config import METHOD, EvaluationConfig

SAMPLERS = ("grid", "random", "tpe")
#: Name of the factor that explicit points are the levels of.
POINTS = "configuration"


@dataclass(frozen=True)
class Point:
    """One configuration.

    Args:
        levels: factor → label, or number of a range.
        config: the evaluation.
    """

    levels: Mapping[str, Any]
    config: EvaluationConfig

    @property
    def label(self) -> str:
        """For tables."""
        return ", ".join(v if isinstance(v, str) else f"{v:.4g}" for v in self.levels.values())

    def resolved(self) -> dict[str, Any]:
        """Plain data with every default written out. Raises ConfigError, which says the levels."""
        with _at(self.levels):
            return self.config.resolved()


@dataclass(frozen=True)
class AblationConfig:
    """One method at many points, on the same problems under the same seeds.

    Args:
        base: what every point starts from; an evaluation with ``method`` in place of ``methods``. Without
            budgets the method runs by its own rule.
        factors: what is changed.
        sampler: ``grid`` takes all combinations, ``random`` and ``tpe`` take ``trials`` of them.
        trials: of a search.
        seed: of the sampler.
        batch: trials that TPE proposes before it hears of their accuracy; fixed, so that a search does not
            depend on the number of workers.
    """

    base: EvaluationConfig
    factors: tuple[Factor, ...]
    sampler: str = "grid"
    trials: int | None = None
    seed: int = 0
    batch: int = 4

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> AblationConfig:
        """From plain data: the arguments, with ``factors`` as a mapping, ``points`` (label → overrides) for
        designs that are no grid, and ``reference`` (factor → level, or a point's label).

        Raises ConfigError for whatever cannot work, as far as that shows without loading a model.
        """
        own = [f.name for f in fields(cls)]
        require_known([*own, "points", "reference"], values, "An ablation")
        base = values.get("base")
        if not isinstance(base, Mapping) or "method" not in base or "methods" in base:
            raise ConfigError("An ablation needs a base: an evaluation with one 'method'", got=base)
        given = {key: value for key, value in base.items() if key != "method"}
        given["methods"] = {METHOD: base["method"]}
        for name, least in (("trials", 1), ("seed", 0), ("batch", 1)):
            value = values.get(name)
            if name in values and (type(value) is not int or value < least):
                raise ConfigError(f"{name} is a whole number from {least}", got=value)
        rest = {name: values[name] for name in own[2:] if name in values}
        found = cls(PointConfig.of(given, "base"), _factors(values), **rest)
        found.check()
        return found

    @classmethod
    def load(cls, path: str | Path) -> AblationConfig:
        """From a YAML file. Its base may name a ``file`` with another base (a path relative to this one),
        over which the rest of the base is laid. Raises ConfigError."""
        values = load(path, "ablation")
        base = values.get("base")
        if isinstance(base, Mapping) and "file" in base:
            if not isinstance(base["file"], str):
                raise ConfigError("The base's file is a path", got=base["file"])
            own = {key: value for key, value in base.items() if key != "file"}
            values["base"] = merged(load(Path(path).parent / base["file"], "ablation's base"), own)
        return cls.of(values)

    def quickened(self) -> AblationConfig:
        """With the base's ``quick`` values."""
        return replace(self, base=self.base.quickened())

    def check(self) -> None:
        """Raises ConfigError for a design that cannot be, and for a level that the base cannot take."""
        require_one_of(self.sampler, SAMPLERS, "Unknown sampler", "Samplers")
        if not self.factors:
            raise ConfigError("An ablation needs factors or points")
        if self.sampler == "grid":
            ranges = [f.name for f in self.factors if f.is_range]
            if ranges or self.trials is not None:
                raise ConfigError(
                    "A grid takes all levels of every factor: no ranges, no trials",
                    got=ranges or self.trials,
                    fix="List levels, or choose sampler: random or tpe.",
                )
            self.points()
        elif self.trials is None:
            raise ConfigError(f"sampler: {self.sampler} needs trials, the number of points")
        else:
            start = {factor.name: factor.samples()[0] for factor in self.factors}
            for factor in self.factors:
                for value in factor.samples():
                    self.point({**start, factor.name: value}).resolved()

    def points(self) -> list[Point]:
        """All points of a grid, in order. Raises ConfigError for two that are the same."""
        names = [factor.name for factor in self.factors]
        found: dict[str, Point] = {}
        for values in product(*(factor.levels for factor in self.factors)):
            point = self.point(dict(zip(names, values, strict=True)))
            key = str(point.resolved())
            if key in found:
                raise ConfigError(
                    "Two points are the same configuration",
                    got=(found[key].label, point.label),
                    fix="A factor changes nothing there; leave out a level.",
                )
            found[key] = point
        return list(found.values())

    @property
    def size(self) -> int:
        """Number of points."""
        return self.trials or prod(len(factor.levels) for factor in self.factors)

    def point(self, values: Mapping[str, Any]) -> Point:
        """The point at some levels. Raises ConfigError."""
        overrides: dict[str, Any] = {}
        for factor in self.factors:
            for path, value in factor.overrides(values[factor.name]).items():
                if path in overrides:
                    raise ConfigError("Two factors change the same path", got=path)
                overrides[path] = value
        with _at(values):
            return Point(dict(values), apply(self.base, overrides))

    def resolved(self) -> dict[str, Any]:
        """Plain data with every default written out."""
        factors = [factor.to_dict() for factor in self.factors]
        return {**vars(self), "base": self.base.resolved(), "factors": factors}


def _factors(values: Mapping[str, Any]) -> tuple[Factor, ...]:
    given = conform(dict[str, Any], values.get("factors", {}), "factors")
    if values.get("points") is not None:
        given = {POINTS: conform(dict[str, Any], values["points"], "points"), **given}
    reference = values.get("reference", {})
    if not isinstance(reference, Mapping):
        reference = {POINTS: reference}
    for name in reference:
        require_one_of(name, given, "reference names no factor", "Factors")
    return tuple(Factor.of(str(name), value, reference.get(name, FIRST)) for name, value in given.items())


@contextmanager
def _at(levels: Mapping[str, Any]) -> Iterator[None]:
    """A ConfigError from within says at which levels it happened."""
    try:
        yield
    except ConfigError as error:
        where = ", ".join(f"{name} = {value}" for name, value in levels.items())
        what = error.what if error.got is None else f"{error.what} (got {error.got})"
        raise ConfigError(f"At {where}: {what}", fix=error.fix) from error
