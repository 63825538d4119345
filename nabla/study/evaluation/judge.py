"""Numbers for the answers that a run's records show, where the metric is no matter of right and wrong."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.study.evaluation.metric import function_of

if TYPE_CHECKING:
    from nabla.engine.session import Session
    from nabla.study.evaluation.plan import Unit
    from nabla.study.evaluation.workshop import Workshop

log = logging.getLogger(__name__)

#: A text, and whether it ended by itself: what a record keeps of an answer.
Answer = tuple[str, bool]


class Judge:
    """Measures answers. Like a grader it stands outside: no method's budget pays for it.

    Args:
        workshop: has the models, and the configuration.
    """

    def __init__(self, workshop: Workshop) -> None:
        self.workshop, self.config = workshop, workshop.config
        self.function = function_of(self.config.metric)

    def measure(
        self, unit: Unit, prompt: Prompt, outcome: Solution | NablaError, rows: Iterable[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """The records of one problem with the number of each answer as ``metric``; None without an answer.

        Raises ConfigError for a metric function that fails: the problem is solved again once it is mended.
        """
        found = list(rows)
        own = self.function is None and self._own(unit)
        wanted: dict[Answer, None] = {}
        for row in found:
            row["metric"] = row["reward"] if own else None
            if row["metric"] is None and row["response"] is not None:
                wanted[row["response"], row["finished"]] = None
        if self.function is not None:
            numbers = {answer: self.function(prompt.text, answer[0]) for answer in wanted}
        else:
            numbers = self._rewards(unit, prompt, outcome, list(wanted)) if wanted else {}
        for row in found:
            if row["metric"] is None and row["response"] is not None:
                row["metric"] = numbers.get((row["response"], row["finished"]))
        return found

    def _own(self, unit: Unit) -> bool:
        """Whether the method's own reward is the one that all are measured by."""
        return self.config.reward_name(unit.method, unit.task) == self.config.judge_name(unit.task)

    def _rewards(
        self, unit: Unit, prompt: Prompt, outcome: Solution | NablaError, wanted: list[Answer]
    ) -> dict[Answer, float]:
        """Of answers that the run has not scored itself. One that the reward cannot score has none."""
        tokens = {(c.response, c.finished): c.tokens for c in outcome.checkpoints}
        if isinstance(outcome, Solution):
            tokens[outcome.response, outcome.finished] = outcome.tokens
        numbers: dict[Answer, float] = {}

        async def solve(session: Session) -> Solution:
            texts = [_trajectory(prompt, tokens[answer], answer[1]) for answer in wanted]
            for answer, scored in zip(wanted, await session.score(texts), strict=True):
                if scored.reward is not None and math.isfinite(scored.reward):
                    numbers[answer] = scored.reward
            return Solution(prompt, "", (), None, True, "metric", session.cost)

        for _, judged in self.workshop.judge(unit.task).run(solve, [prompt]):
            if isinstance(judged, NablaError):
                log.warning("%s, %s: no reward for the answers of %s: %s",
                            unit.task, prompt.id, unit.method, judged)  # fmt: skip
        return numbers


def _trajectory(prompt: Prompt, tokens: tuple[int, ...], finished: bool) -> Trajectory:
    ids = torch.tensor(tokens, dtype=torch.long)
    return Trajectory(prompt, ids, finished, torch.full((len(ids),), float("nan")), Sampling(),
                      committed=len(ids))  # fmt: skip
