"""The study: which problems, which estimators, and one row of results for each pair."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from nabla.core.errors import ConfigError, NablaError
from nabla.core.random import generator as make_generator
from nabla.estimators.base import Estimator, estimators
from nabla.study.laboratory.measure import Interval, Measurement, mean_interval, measure
from nabla.study.laboratory.problems import Problem, entropies, linear, normal_logits, quadratic, with_entropy
from nabla.study.laboratory.reward import Cost, Judge, bench

SYNTHETIC = {"linear": linear, "quadratic": quadratic}
TASKS = ("arithmetic", "latin")


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Args:
        draws: estimates per cell.
        relaxed_draws: the same for noisy soft estimators on the reward model, which runs for every draw.
        width: K.
        length: L of the grid of temperatures and entropies.
        lengths: L at temperature 1 and the middle entropy.
        temperatures: τ of the estimators.
        entropies: of a row, as shares of log K.
        middle: the share at which temperature and length are compared.
        product: measure every temperature at every entropy.
        cost_repeats: estimates timed per estimator.
    """

    draws: int = 4000
    relaxed_draws: int = 1000
    width: int = 6
    length: int = 2
    lengths: tuple[int, ...] = (1, 3)
    temperatures: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    entropies: tuple[float, ...] = (0.02, 0.1, 0.3, 0.6, 0.9, 0.99)
    middle: float = 0.6
    product: bool = True
    cost_repeats: int = 12

    def grid(self) -> list[tuple[int, float, float]]:
        """(length, temperature, share of log K) of every cell."""
        here = self.length
        cells = [
            (here, tau, share)
            for tau in self.temperatures
            for share in self.entropies
            if self.product or tau == 1.0 or share == self.middle
        ]
        return cells + [(length, 1.0, self.middle) for length in self.lengths]


FULL = Settings()
QUICK = Settings(
    draws=1000,
    relaxed_draws=100,
    lengths=(1,),
    temperatures=(0.5, 1.0, 2.0),
    entropies=(0.1, 0.6, 0.95),
    product=False,
    cost_repeats=6,
)


@dataclass(frozen=True)
class Row:
    """One estimator on one problem."""

    estimator: str
    family: str
    length: int
    width: int
    temperature: float
    entropy: float
    result: Measurement


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that was measured.

    Args:
        settings: what was asked for.
        seed: of everything random.
        rows: results.
        costs: by estimator.
        skipped: estimators that cannot be built without arguments, with the reason.
        problems: by (family, length), before tempering.
    """

    settings: Settings
    seed: int
    rows: tuple[Row, ...]
    costs: Mapping[str, Cost]
    skipped: Mapping[str, str]
    problems: Mapping[tuple[str, int], Problem] = field(repr=False)

    def select(
        self,
        *,
        estimator: str | None = None,
        family: str | None = None,
        length: int | None = None,
        temperature: float | None = None,
        share: float | None = None,
    ) -> list[Row]:
        """Rows with all of these; ``share`` is an entropy as a share of log K."""

        def fits(row: Row) -> bool:
            wanted = share is None or math.isclose(
                row.entropy, share * math.log(row.width), rel_tol=1e-3, abs_tol=1e-4
            )
            pairs = (
                (estimator, row.estimator),
                (family, row.family),
                (length, row.length),
                (temperature, row.temperature),
            )
            return wanted and all(asked is None or asked == found for asked, found in pairs)

        return [row for row in self.rows if fits(row)]

    @property
    def families(self) -> list[str]:
        """In order."""
        return list(dict.fromkeys(row.family for row in self.rows))

    @property
    def estimators(self) -> list[str]:
        """In order."""
        return list(dict.fromkeys(row.estimator for row in self.rows))


def temperature_argument(name: str) -> str | None:
    """The argument that sets the temperature of an estimator's backward rule; None if it has none."""
    parameters = inspect.signature(estimators[name]).parameters
    return next((p for p in ("temperature", "backward_temperature") if p in parameters), None)


def at_temperature(name: str, temperature: float) -> Estimator:
    """The registered estimator with its defaults, at a temperature if it has one."""
    argument = temperature_argument(name)
    return estimators.build({"name": name, **({argument: temperature} if argument else {})})


def choose(names: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """(estimators to measure, those left out with the reason).

    All registered ones by default, but for wrappers that need arguments. Raises ConfigError for an
    unknown name, and for a named estimator that cannot be built.
    """
    if names is not None:
        if not names:
            raise ConfigError("No estimator is named", fix=f"Known: {', '.join(estimators)}.")
        for name in names:
            at_temperature(name, 1.0)
        return list(dict.fromkeys(names)), {}
    chosen, skipped = [], {}
    for name in estimators:
        try:
            at_temperature(name, 1.0)
        except NablaError as error:
            skipped[name] = error.what
        else:
            chosen.append(name)
    return chosen, skipped


def run_study(
    settings: Settings,
    seed: int,
    names: Sequence[str] | None = None,
    *,
    tasks: Sequence[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Study:
    """Measures every estimator in every cell of every family.

    Args:
        settings: how much.
        seed: of problems, responses and draws.
        names: estimators; None takes all that can be built.
        tasks: sandbox families whose reward model is measured; None takes TASKS.
        progress: called with (what, done, total).

    Raises ConfigError for unknown estimators.
    """
    chosen, skipped = choose(names)
    problems: dict[tuple[str, int], Problem] = {}
    benches: list[Judge] = []
    for length in (settings.length, *settings.lengths):
        for family, make in SYNTHETIC.items():
            source = make_generator("laboratory", seed, family, length)
            problems[family, length] = make(normal_logits(length, settings.width, source), source)
        if length > 2:  # every text is a pass of the reward model
            continue
        for task in TASKS if tasks is None else tasks:
            found = bench(task, length, settings.width, seed)
            problem = found.problem()
            problems[problem.family, length] = problem
            if length == settings.length:
                benches.append(found)
    cells = [
        (family, length, tau, share)
        for family in dict.fromkeys(family for family, _ in problems)
        for length, tau, share in settings.grid()
        if (family, length) in problems
    ]
    rows: list[Row] = []
    for done, (family, length, tau, share) in enumerate(cells):
        if progress is not None:
            progress(f"{family}, L={length}, τ={tau:g}, entropy {share:g} log K", done, len(cells))
        problem = problems[family, length].tempered(share * math.log(settings.width))
        for name in chosen:
            estimator = at_temperature(name, tau)
            draws = settings.draws
            if family not in SYNTHETIC and not estimator.hard:
                draws = settings.relaxed_draws
            source = make_generator("laboratory", seed, family, length, tau, share, name)
            result = measure(estimator, problem, draws, source)
            rows.append(Row(name, family, length, settings.width, tau, problem.entropy, result))
    costs = {}
    if benches:
        for name in chosen:
            source = make_generator("laboratory", seed, "cost", name)
            costs[name] = benches[0].cost(at_temperature(name, 1.0), settings.cost_repeats, source)
    return Study(settings, seed, tuple(rows), costs, skipped, problems)


def softmax_norms(
    widths: Sequence[int], shares: Sequence[float], repeats: int, seed: int
) -> Iterator[tuple[int, float, Interval]]:
    """(K, entropy in nats, ``||∂L/∂z|| / ||∂L/∂y||``) of the softmax backward rule, Eq. 25.

    Over standard normal z (scaled to the entropy) and standard normal, centred ``∂L/∂y``: closed form, so
    that K may be a vocabulary. No estimator needs to be drawn: the rule is deterministic.
    """
    for width in widths:
        for share in shares:
            source = make_generator("laboratory", seed, "softmax", width, share)
            pairs = [
                (normal_logits(1, width, source), normal_logits(1, width, source)) for _ in range(repeats)
            ]
            z = with_entropy(torch.stack([z for z, _ in pairs]), share * math.log(width))
            g = torch.stack([g for _, g in pairs])
            g = g - g.mean(-1, keepdim=True)
            x = z.softmax(-1)
            norms = (x * (g - (x * g).sum(-1, keepdim=True))).norm(dim=-1) / g.norm(dim=-1)
            yield width, float(entropies(z).mean()), mean_interval(norms[:, 0])
