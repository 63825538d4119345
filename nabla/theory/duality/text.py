"""Check 5: text. Prop. C.1, Eq. 25, caching and reuse are exact; Metropolis-accepted proposals sample
``π e^{λr}`` on an enumerated sequence space, and the paper's strict rule does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from nabla.acceptance.improvement import Strict
from nabla.acceptance.metropolis import Metropolis
from nabla.core.random import generator
from nabla.core.sampling import Sampling
from nabla.estimators.base import Estimator
from nabla.estimators.straight_through import StraightThrough
from nabla.objectives.base import Objective
from nabla.objectives.weighted_sum import WeightedSum
from nabla.refinement.dto import DTO
from nabla.theory.distances import total_variation
from nabla.theory.duality.base import Check, checks
from nabla.theory.duality.chi_square import chi_square
from nabla.theory.duality.exactness import exactness
from nabla.theory.flows.sequence import (
    Kernels,
    Proposals,
    metropolis_rule,
    prior_proposals,
    refined_proposals,
    simulate,
    strict_rule,
)
from nabla.theory.problems.text import SequenceSpace
from nabla.theory.report import Findings


def eq_objective(space: SequenceSpace) -> Objective:
    """Eq. 2 with the space's λ."""
    return WeightedSum({"reward": space.weight, "likelihood": 1.0})


def sampler_dto(space: SequenceSpace) -> DTO:
    """DTO of the sampling checks: as in the paper, with a larger step so that rows move visibly."""
    return DTO(objective=eq_objective(space), steps=8, learning_rate=0.1)


@checks.register("text")
@dataclass(frozen=True)
class Text(Check):
    """On a tiny LM and RM in float64, against dense autograd and full enumeration.

    Args:
        chains, sweeps: of the sampled Metropolis chains.
        temperature: of the proposals.
        resolution: smallest TV from the target that the χ² tests must find with a probability of 99 %.
        problems: runs of the shipped method against its exact kernel; 0 leaves that out.
        tolerance: relative, of the exact statements.
        objective, estimator, acceptance, corrected: the parts under test.
    """

    claim = "Prop. C.1, Eq. 25, caching, reuse are exact; Metropolis samples π e^{λr}, the strict rule not"
    chains: int = 16_000
    sweeps: int = 14
    temperature: float = 1.0
    resolution: float = 0.05
    problems: int = 1200
    tolerance: float = 1e-10
    objective: Callable[[SequenceSpace], Objective] = eq_objective
    estimator: Callable[[], Estimator] = StraightThrough
    cached: Callable[[], Estimator] = StraightThrough
    acceptance: Callable[[float], Metropolis] = Metropolis
    corrected: bool = True

    @classmethod
    def quick(cls) -> Text:
        return cls(chains=2_000, sweeps=10, resolution=0.12, problems=0)

    def run(self, seed: int) -> Findings:
        found = self.findings()
        space = SequenceSpace()
        exactness(found, space, self.objective(space), self.estimator(), self.cached(), self.tolerance)
        self.sampling(found, space, seed)
        return found

    # -- sampling --------------------------------------------------------------------------------------

    def sampling(self, found: Findings, space: SequenceSpace, seed: int) -> None:
        """χ² of chains with nabla's acceptance classes, and the exact kernels beside them."""
        prior = prior_proposals(space)
        sampling = Sampling(temperature=self.temperature, max_new_tokens=space.length)
        dto = sampler_dto(space)
        refined = refined_proposals(space, dto, sampling)
        start, target = space.log_pi.exp().numpy(), space.target.numpy()
        cases = (
            ("proposals from π, plain Metropolis", prior, False),
            ("DTO proposals, Metropolis with proposal correction", refined, self.corrected),
        )
        for i, (label, proposals, corrected) in enumerate(cases):
            kernels = Kernels(space, proposals, metropolis_rule(space), corrected=corrected)
            found.add(
                f"detailed balance: {label}",
                kernels.imbalance(),
                floor=1e-17,
                tolerance=1e-14,
                unit="probability",
            )
            left = total_variation(kernels.sweep(start, self.sweeps), target)
            self._chi(
                found,
                label,
                space,
                proposals,
                self.acceptance(1 / space.weight),
                corrected,
                target,
                generator("text", seed, i),
                f"exact kernel is at TV {left:.1e} after {self.sweeps} sweeps",
                doubt="the chain is too short"
                if left > self.resolution / 5 and corrected == bool(i)
                else None,
            )
        self._uncorrected(found, space, refined, seed)
        if self.problems:
            shipped = Kernels(space, refined, strict_rule(space), corrected=False, keep_end=True)
            self._method(found, space, dto, shipped.sweep(start), target, seed)

    def _uncorrected(self, found: Findings, space: SequenceSpace, refined: Proposals, seed: int) -> None:
        """Rules that leave out the proposal correction: chains against their own exact kernels."""
        start, target = space.log_pi.exp().numpy(), space.target.numpy()
        plain = Kernels(space, refined, metropolis_rule(space), corrected=False)
        far = total_variation(plain.sweep(start, 400), target)
        strict = Kernels(space, refined, strict_rule(space), corrected=False)
        once = strict.sweep(start)
        near = total_variation(once, target)
        for label, law, rule, sweeps, n in (
            (
                "DTO proposals, Metropolis without correction",
                plain.sweep(start, 8),
                self.acceptance(1 / space.weight),
                8,
                far,
            ),
            ("DTO proposals, the paper's strict rule, one sweep", once, Strict(), 1, near),
        ):
            self._chi(
                found,
                f"{label}, against its own kernel",
                space,
                refined,
                rule,
                False,
                law,
                generator("text", seed, label),
                f"TV to π e^(λr): {n:.3f}; π itself: {total_variation(start, target):.3f}",
                sweeps=sweeps,
            )

    def _chi(
        self,
        found: Findings,
        label: str,
        space: SequenceSpace,
        proposals: Proposals,
        rule: Metropolis | Strict,
        corrected: bool,
        law: np.ndarray,
        draws: torch.Generator,
        detail: str,
        *,
        sweeps: int | None = None,
        doubt: str | None = None,
    ) -> None:
        counts, rate = simulate(
            space,
            proposals,
            rule,
            corrected=corrected,
            chains=self.chains,
            sweeps=self.sweeps if sweeps is None else sweeps,
            generator=draws,
        )
        self._verdict(found, label, counts, law, f"{detail}; acceptance {rate:.2f}", doubt)

    def _verdict(
        self,
        found: Findings,
        label: str,
        counts: np.ndarray,
        law: np.ndarray,
        detail: str,
        doubt: str | None = None,
    ) -> None:
        test = chi_square(counts, law)
        if test.resolution > self.resolution:
            doubt = f"too few chains: a TV of {test.resolution:.2f} is the smallest found"
        found.add(
            f"χ²: {label}",
            test.ratio,
            floor=1.0,
            tolerance=test.limit,
            unit="χ²/dof",
            detail=f"p = {test.p:.3f}, finds a TV of {test.resolution:.3f}; {detail}",
            doubt=doubt,
        )

    def _method(
        self, found: Findings, space: SequenceSpace, dto: DTO, law: np.ndarray, target: np.ndarray, seed: int
    ) -> None:
        """The shipped method, as a user runs it, against the enumerated kernel of one sweep.

        Its selectors never choose an end-of-sequence token, so the kernel keeps those.
        """
        from nabla.core.prompt import Prompt
        from nabla.core.solution import Solution
        from nabla.methods.nabla_reasoner import nabla_reasoner

        method = nabla_reasoner(
            dto,
            selector="all",
            proposal={"name": "sample", "temperature": self.temperature},
            acceptance="strict",
            sampling=Sampling(temperature=1.0, max_new_tokens=space.length),
            max_rollouts=100,
        )
        prompts = [Prompt(f"{seed}-{i}", space.prompt.messages) for i in range(self.problems)]
        counts = np.zeros(len(space))
        for _, solution in space.engine(seed=seed).run(method.solve, prompts):
            if not isinstance(solution, Solution):
                raise solution
            counts[space.index[solution.tokens]] += 1
        far = total_variation(law, target)
        test = chi_square(counts, law)
        found.add(
            f"χ²: the shipped method, strict rule, {self.problems} problems, against the enumerated kernel",
            test.ratio,
            floor=1.0,
            tolerance=test.limit,
            unit="χ²/dof",
            detail=f"p = {test.p:.3f}, finds a TV of {test.resolution:.3f}; TV to π e^(λr): {far:.3f}",
            doubt=None if test.resolution <= 4 * self.resolution else "too few problems",
        )
