"""What a refinement tells: a report a step, and the refined rows at its end."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nabla.core.errors import NablaError, NumericalError
from nabla.engine.reports import COLLAPSE, Refinement, StepReport, TermReport
from nabla.objectives.base import LogitObjective, Term
from nabla.objectives.kl import kl_rows
from nabla.refinement.deltas import deltas
from nabla.refinement.slopes import Slopes
from nabla.refinement.task import Group, Heard, Parts, RefineTask
from nabla.schedulers.base import Step

log = logging.getLogger(__name__)


class Reporting:
    """Reports the steps of some problems, and remembers the first of each.

    Args:
        parts: settings of the refinement.
        group: the problems.
        heard: what the models have said; read only.
        slopes: gives the loss that a term's share is taken of.
    """

    def __init__(self, parts: Parts, group: Group, heard: Heard, slopes: Slopes) -> None:
        self.parts, self.group, self.heard, self.slopes = parts, group, heard, slopes
        self.tell = any(t.session.events.hears("on_refine_step") for t in group.tasks)
        self.traced = any(t.session.events.hears("on_refine") for t in group.tasks)
        #: Norms of the gradient's parts at the first step, of the joint rows.
        self.deltas: dict[str, Tensor] = {}
        self.first: list[StepReport] = []
        #: What each problem's listeners are told at the end: a descent that fails may be run again.
        self.steps: list[list[StepReport]] = [[] for _ in group.tasks]

    def step(
        self,
        step: Step,
        parameter: Tensor,
        logits: Tensor,
        relaxed: Tensor | None,
        moved: Sequence[int],
    ) -> None:
        """Each term's value, unit, weight and share of the gradient, by one small backward each.

        Only for the first step, unless somebody listens.
        """
        if step.index > 0 and not self.tell:
            return
        if self.traced and step.index == 0:
            self.deltas = deltas(self.parts, self.group, self.heard, step)
        terms = [term for term in self.parts.terms if term.active]
        total = torch.zeros_like(parameter)
        norms: dict[str, list[float]] = {}
        values: dict[str, list[float]] = {}
        for term in terms:
            values[term.name], loss = self._value(term, logits, relaxed, step)
            (slope,) = torch.autograd.grad(loss, parameter, retain_graph=True)
            weighted = term.weight(step) * slope
            total += weighted
            norms[term.name] = self._norms(weighted)
        whole = self._norms(total)
        for i in range(len(self.group.tasks)):
            scale = sum(norms[t.name][i] for t in terms) or 1.0
            found = {
                t.name: TermReport(
                    values[t.name][i], t.objective.unit, t.weight(step), norms[t.name][i] / scale
                )
                for t in terms
            }
            report = StepReport(step, found, whole[i], i in moved)
            if step.index == 0:
                self.first.append(report)
            if self.tell and i not in self.heard.errors:
                self.steps[i].append(report)

    def _value(
        self, term: Term, logits: Tensor, relaxed: Tensor | None, step: Step
    ) -> tuple[list[float], Tensor]:
        """A term's value for each problem, and a scalar with the term's gradient in the logits."""
        if isinstance(term.objective, LogitObjective):
            each = [
                term.objective.value(logits[span], reference.logits)
                for span, reference in zip(self.group.spans, self.group.references, strict=True)
            ]
            return [float(v.detach()) for v in each], torch.stack(each).sum()
        values = [v.get(term.name, math.nan) for v in self.heard.values]
        return values, self.slopes.loss(logits, relaxed, {term.name: 1.0}, step)

    def _norms(self, gradient: Tensor) -> list[float]:
        """Of each problem's part."""
        squared, spans = gradient.detach().square().sum(-1), self.group.spans
        if len(squared) == len(spans):
            return [float(x) for x in squared.sqrt().tolist()]
        return [float(squared[span].sum().sqrt()) for span in spans]

    def finish(self, parameter: Tensor) -> list[Refinement | NablaError]:
        """The refined rows of each problem, or its error; NumericalError where they are not finite. Listeners
        hear of all steps now."""
        group = self.group
        with torch.no_grad():
            refined = self.parts.parameterization.logits(parameter, group.joint).detach()
            finite = (refined.amax(-1) < math.inf).tolist()  # NaN is not smaller either
            divergence = kl_rows(refined, group.joint.logits)
        largest = divergence.tolist()
        dropped = group.joint.dropped_mass.tolist()
        results: list[Refinement | NablaError] = []
        for i, span in enumerate(group.spans):
            position = group.references[i].positions.start
            if i in self.heard.errors:
                results.append(self.heard.errors[i])
                continue
            if not all(finite[span]) or not math.isfinite(self.first[i].gradient_norm):
                results.append(
                    NumericalError(
                        "Refinement gave NaN logits",
                        got=f"position {position}",
                        fix="Lower learning_rate, or check the models' dtype.",
                    )
                )
                continue
            result = Refinement(
                group.references[i],
                refined[span],
                divergence[span],
                self.first[i],
                self.heard.recomputed[i],
                max(dropped[span]),
                {name: norms[span] for name, norms in self.deltas.items()},
            )
            results.append(result)
        for i, (task, found) in enumerate(zip(group.tasks, results, strict=True)):
            self._announce(task, i, found, max(largest[group.spans[i]]))
        return results

    def _announce(self, task: RefineTask, i: int, result: Refinement | NablaError, largest: float) -> None:
        session, position = task.session, self.group.references[i].positions.start
        for report in self.steps[i]:
            session.events.on_refine_step(session.prompt, position, report)
        if isinstance(result, NablaError):
            return
        session.meter.count("refined_positions")
        session.meter.count("refine_steps", self.parts.steps)
        if largest > COLLAPSE:
            session.meter.count("collapsed_refinements")
            log.warning(
                "Problem %s, position %d: refined rows are up to %.2f nats from the language model; "
                "lower the learning rate, steps or reward weight, or add a 'kl' term",
                session.prompt.id,
                position,
                largest,
            )
        session.events.on_refine(session.prompt, position, result)
