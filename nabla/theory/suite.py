"""Runs checks, several seeds of each, side by side in processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass

import torch

from nabla.core.errors import require_count, require_threads
from nabla.core.processes import spawned
from nabla.theory.duality.base import Check, checks
from nabla.theory.figures import Figure
from nabla.theory.report import Findings, Report, Verdict

#: Of a check, at the most.
SEEDS = 10_000
#: In the order of a reader; others that are registered follow.
ORDER = ("stationarity", "trajectories", "dissipation", "amortised", "text", "gap")


@dataclass(frozen=True)
class Outcome:
    """All reports of a run, seeds merged, and the first seed's figures."""

    reports: tuple[Report, ...]
    figures: tuple[Figure, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst."""
        return Verdict.worst([r.verdict for r in self.reports])


def names() -> list[str]:
    """All registered checks."""
    return [*ORDER, *(name for name in checks if name not in ORDER)]


def run_checks(
    wanted: Sequence[str] = (),
    *,
    quick: bool = False,
    seeds: int = 1,
    jobs: int = 1,
    progress: Callable[[Report], None] | None = None,
    found: dict[tuple[str, int], Findings] | None = None,
) -> Outcome:
    """Runs checks by name (all by default) under seeds 0, 1, ...

    Args:
        wanted: registered names.
        quick: the smaller settings.
        seeds: how many; with more than one, values are means and their spread is reported.
        jobs: processes; each uses one thread.
        progress: called with each finished report (of one seed).
        found: gets what each check has found under each seed as soon as it is finished, so that it is there
            when the run is stopped; :func:`merged` makes an outcome of it.

    Raises ConfigError for unknown names or counts below 1, and whatever a check raises.
    """
    require_count("seeds", seeds, minimum=1, maximum=SEEDS)
    require_threads(jobs, "jobs")
    chosen = list(dict.fromkeys(wanted)) or names()
    tasks = [(name, seed) for seed in range(seeds) for name in chosen]
    for name in chosen:
        checks[name]  # unknown names fail before anything runs
    found = {} if found is None else found
    if jobs == 1 or len(tasks) == 1:
        for task in tasks:
            found[task] = _run(*task, quick)
            _tell(found[task], progress)
    else:
        with spawned(min(jobs, len(tasks))) as pool:
            ordered = sorted(tasks, key=lambda task: _COST.get(task[0], 0), reverse=True)
            waiting = {pool.submit(_alone, *task, quick): task for task in ordered}
            for future in as_completed(waiting):
                found[waiting[future]] = future.result()
                _tell(found[waiting[future]], progress)
    return merged(found, chosen)


def merged(found: Mapping[tuple[str, int], Findings], order: Sequence[str] = ()) -> Outcome:
    """What finished checks have found, by (name, seed): seeds merged, in the order of the names."""
    reports, figures = [], []
    for name in order or names():
        seeds = [findings for (own, _), findings in sorted(found.items()) if own == name]
        reports += [Report.merge(same) for same in zip(*(one.reports for one in seeds), strict=True)]
        figures += seeds[0].figures if seeds else []
    return Outcome(tuple(reports), tuple(figures))


#: Rough shares of the time, so that the longest start first.
_COST = {"trajectories": 5, "gap": 4, "stationarity": 3, "text": 2, "amortised": 1}


def _run(name: str, seed: int, quick: bool) -> Findings:
    cls: type[Check] = checks[name]
    return (cls.quick() if quick else cls()).run(seed)


def _alone(name: str, seed: int, quick: bool) -> Findings:
    torch.set_num_threads(1)
    import logging

    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    logging.getLogger("nabla").setLevel(logging.ERROR)
    return _run(name, seed, quick)


def _tell(findings: Findings, progress: Callable[[Report], None] | None) -> None:
    for report in findings.reports:
        if progress is not None:
            progress(report)
