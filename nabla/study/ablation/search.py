"""Which points there are, by Optuna's samplers (arXiv 1907.10902).

The samplers work in memory, from a seed and in a fixed order, and are played again when a run goes on: a
search proposes the same points however often it was killed and however many processes solve them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nabla.core.extras import require_extra
from nabla.study.ablation.config import AblationConfig, Point
from nabla.study.ablation.factors import Factor

STUDY = "study.journal"


def distribution(factor: Factor) -> Any:
    """A factor as Optuna sees it (an ``optuna.distributions.BaseDistribution``)."""
    require_extra("eval", "optuna", purpose="nabla ablate")
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not factor.is_range:
        return CategoricalDistribution(list(factor.levels))
    if factor.whole:
        return IntDistribution(int(factor.low), int(factor.high), log=factor.log)
    return FloatDistribution(factor.low, factor.high, log=factor.log)


class Search:
    """Points in batches; the next batch may depend on the values of those before it.

    Args:
        config: of the ablation.
    """

    def __init__(self, config: AblationConfig) -> None:
        require_extra("eval", "optuna", purpose="nabla ablate")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.config = config
        self.space = {factor.name: distribution(factor) for factor in config.factors}
        self._study = optuna.create_study(sampler=self._sampler(), direction="maximize")
        self._open: list[Any] = []  # trials

    def _sampler(self) -> Any:
        from optuna import samplers

        config = self.config
        if config.sampler == "grid":
            levels = {factor.name: list(factor.levels) for factor in config.factors}
            return samplers.GridSampler(levels, seed=config.seed)
        if config.sampler == "random":
            return samplers.RandomSampler(seed=config.seed)
        return samplers.TPESampler(seed=config.seed)

    def batches(self) -> Iterator[list[Point]]:
        """Batches of points; :meth:`tell` their values before the next one is asked for."""
        config = self.config
        left = config.size
        size = config.batch if config.sampler == "tpe" else left
        while left > 0:
            self._open = [self._study.ask(self.space) for _ in range(min(size, left))]
            left -= len(self._open)
            batch = [config.point(trial.params) for trial in self._open]
            if config.sampler == "grid":  # the sampler shuffles
                order = {str(dict(p.levels)): i for i, p in enumerate(config.points())}
                batch = sorted((self._ordered(p) for p in batch), key=lambda p: order[str(dict(p.levels))])
            yield batch

    def _ordered(self, point: Point) -> Point:
        return Point({name: point.levels[name] for name in self.space}, point.config)

    def tell(self, values: Sequence[float]) -> None:
        """Accuracies of the last batch, in its order."""
        if self.config.sampler == "tpe":
            for trial, value in zip(self._open, values, strict=True):
                self._study.tell(trial, value)


class Storage:
    """Finished points as an Optuna study in a results folder, for Optuna's own tools (its dashboard, say).

    It follows from the points' records, so it is written anew by each run: nothing depends on it.

    Args:
        folder: of the results; the caller has it to himself.
        search: whose space the parameters are of.
    """

    def __init__(self, folder: Path, search: Search) -> None:
        require_extra("eval", "optuna", purpose="nabla ablate")
        from optuna import create_study
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        path = folder / STUDY
        for old in (path, path.with_name(path.name + ".lock")):
            old.unlink(missing_ok=True)
        storage = JournalStorage(JournalFileBackend(str(path)))
        self._space = search.space
        self._study = create_study(storage=storage, study_name="ablation", direction="maximize")

    def add(self, point: Point, value: float, notes: dict[str, Any]) -> None:
        """A finished point with its mean accuracy."""
        from optuna.trial import create_trial

        self._study.add_trial(
            create_trial(value=value, params=dict(point.levels), distributions=self._space, user_attrs=notes)
        )
