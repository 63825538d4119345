"""Several methods on the same problems with the same models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nabla.core.costs import Cost
from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.solution import Interrupted, RunError, Solution
from nabla.engine.events import Callback
from nabla.launch.config.resolve import resolve
from nabla.launch.config.run import RunConfig
from nabla.launch.config.slots import slots
from nabla.launch.records import accepted_revisions, correct, effect
from nabla.problems.sandbox.base import Problem, Task
from nabla.study.evaluation.statistics import Proportion

if TYPE_CHECKING:
    from nabla.models.causal_lm import CausalLM
    from nabla.rewards.base import Reward

#: What the issue asks for: the two baselines and the method, eight rollouts each.
DEFAULT_METHODS: tuple[str | dict[str, Any], ...] = (
    "greedy",
    {"name": "best-of-n", "n": 8},
    {"name": "nabla-reasoner", "max_rollouts": 8},
)


@dataclass(frozen=True)
class Outcome:
    """What one method did on the problems of one task.

    Args:
        label: of the method.
        task: which checked the responses.
        problems: number of problems, failed ones included.
        solutions: of those that did not fail.
        failures: problem id → its error.
    """

    label: str
    task: Task
    problems: int
    solutions: tuple[Solution, ...]
    failures: Mapping[str, NablaError]

    @property
    def accuracy(self) -> Proportion:
        """Right answers of all problems; a failure is a wrong answer."""
        return Proportion(sum(correct(s, self.task) for s in self.solutions), self.problems)

    @property
    def cost(self) -> Cost:
        """Of all solutions."""
        return Cost.sum(s.cost for s in self.solutions)

    @property
    def mean_reward(self) -> float | None:
        """Over solutions that were scored."""
        rewards = [s.reward for s in self.solutions if s.reward is not None]
        return sum(rewards) / len(rewards) if rewards else None

    @property
    def acceptance(self) -> Proportion | None:
        """Accepted proposals of all; None for a method without proposals."""
        proposals = [r for s in self.solutions for r in s.revisions]
        return Proportion(sum(r.accepted for r in proposals), len(proposals)) if proposals else None

    @property
    def effects(self) -> dict[tuple[bool, bool], int]:
        """Accepted proposals by (right before, right after): the reward model had no say in this."""
        counts = {(before, after): 0 for before in (False, True) for after in (False, True)}
        for solution, revision in accepted_revisions(self.solutions):
            counts[effect(revision, solution, self.task)] += 1
        return counts

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        accuracy, acceptance, effects = self.accuracy, self.acceptance, self.effects
        return {
            "task": self.task.name,
            "method": self.label,
            "problems": self.problems,
            "failed": len(self.failures),
            "right": accuracy.successes,
            "accuracy": accuracy.value,
            "interval": list(accuracy.interval()),
            "mean_reward": self.mean_reward,
            "proposals": 0 if acceptance is None else acceptance.total,
            "accepted": 0 if acceptance is None else acceptance.successes,
            "wrong_to_right": effects[False, True],
            "right_to_wrong": effects[True, False],
            "wrong_to_wrong": effects[False, False],
            "right_to_right": effects[True, True],
            "cost": self.cost.to_dict(),
        }


def variants(config: RunConfig, methods: Sequence[str | Mapping[str, Any]]) -> dict[str, RunConfig]:
    """Label → configuration: each method laid over the configuration's own, so that what both have
    (sampling, mostly) is the same. Labels are names with the arguments that were given."""
    registry = slots()["methods"]
    found: dict[str, RunConfig] = {}
    for spec in methods:
        changes: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
        label = " ".join([str(changes.get("name", "method")), *_given(changes)])
        stem, number = label, 1
        while label in found:
            number += 1
            label = f"{stem} ({number})"
        values = {**vars(config), "method": resolve(registry, config.method, changes)}
        found[label] = RunConfig(**values)
    return found


def _given(changes: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``argument=value`` for every simple value, dotted where it is nested."""
    found: list[str] = []
    for key, value in changes.items():
        if isinstance(value, Mapping):
            if "name" in value:
                found.append(f"{prefix}{key}={value['name']}")
            found += _given(value, f"{prefix}{key}.")
        elif key != "name" and isinstance(value, int | float | str):
            found.append(f"{prefix}{key}={value}")
    return found


def evaluate(
    label: str,
    config: RunConfig,
    task: Task,
    problems: Sequence[Problem],
    lm: CausalLM,
    reward: Reward | None,
    *,
    callbacks: Sequence[Callback] = (),
    folder: Path | None = None,
) -> Outcome:
    """Runs one method. Failing problems count as wrong. Raises Interrupted, and ConfigError."""
    prompts = [Prompt.of(p.prompt, id=p.id, system=config.system) for p in problems]
    loop = config.loop(lm, reward, callbacks=callbacks, folder=folder)
    try:
        solutions, failures = loop.run(prompts), {}
    except Interrupted:
        raise
    except RunError as error:
        solutions, failures = error.solutions, error.failures
    return Outcome(label, task, len(problems), tuple(solutions), failures)
