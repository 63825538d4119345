"""The procedural data sets of reasoning-gym (arXiv 2505.24760), each graded by its own verifier."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast, get_args

from nabla.core.errors import ConfigError, require_count, require_one_of
from nabla.core.extras import require_extra
from nabla.problems.answers.base import Answers
from nabla.problems.answers.process import GradingProcess, Program, Unanswered
from nabla.problems.sandbox.base import Split
from nabla.problems.tasks.base import Problem, Task, check_range, tasks
from nabla.problems.tasks.listed import PLACE, build_answers, checked_template

logger = logging.getLogger(__name__)

#: Seeds of training problems begin here, those of test problems end before.
TRAIN = 2**30
#: Seconds of CPU time for drawing one problem.
DRAWING = 20
#: What a problem is asked in, and where its answer is then found.
TAGGED = PLACE + "\n\nWrite your final answer between <answer> and </answer>."
IN_TAGS = r"(?s)<answer>(.*?)</answer>"


def _require() -> None:
    require_extra("gym", "reasoning_gym", purpose="The task reasoning-gym")


#: The process of this Python process in which reasoning-gym runs.
gym = GradingProcess(
    Program(
        Path(__file__).with_name("gym_worker.py"),
        _require,
        "draws and grades problems of reasoning-gym",
        "It needs the package reasoning-gym: pip install 'nabla-reasoner[gym]'.",
    )
)


@tasks.register("reasoning-gym")
class ReasoningGym(Task):
    """One data set of reasoning-gym: problems in any number, graded by the data set's own verifier in a child
    process with a time limit. A response is right if the verifier gives it 1; its partial score is kept
    beside that.

    A problem is its seed. Problem ``i`` of a test set has the seed ``seed + i``, of a training set
    ``2³⁰ + seed + i``: the two never meet. Sets whose seeds are closer than their sizes share problems.

    Args:
        dataset: its name, as ``chain_sum`` or ``gsm_symbolic``.
        size: how many problems there are.
        seed: of the first one.
        split: ``test`` or ``train``.
        arguments: of the data set itself (``min_terms``, ...).
        template: the user's turn, with ``{problem}`` where the problem goes; None asks for the answer in
            ``<answer>`` tags.
        answers: how the answer is found in a response, also for votes; None: in such tags.
        seconds: CPU time that the verifier may use for an answer; one that needs more is wrong.

    Raises ConfigError for names and arguments that reasoning-gym does not know, when problems are drawn.
    """

    def __init__(
        self,
        dataset: str = "chain_sum",
        size: int = 1000,
        seed: int = 0,
        split: str = "test",
        arguments: dict[str, Any] | None = None,
        template: str | None = None,
        answers: Answers | str | dict[str, Any] | None = None,
        seconds: int = 5,
    ) -> None:
        require_count("size", size, minimum=1)
        require_count("seed", seed)
        require_count("seconds", seconds, minimum=1, note=" second")
        if split not in get_args(Split):
            raise ConfigError("Unknown split", got=split, fix="Use test or train.")
        if seed + size > TRAIN:
            raise ConfigError(
                "Seeds of test and training problems would overlap",
                got={"seed": seed, "size": size},
                fix=f"Keep seed + size at most {TRAIN}.",
            )
        own = {"size", "seed"} & set(arguments or ())
        if own:
            raise ConfigError(
                "The task itself sets these arguments of the data set", got=", ".join(sorted(own)),
                fix="Pass them beside 'arguments'.",
            )  # fmt: skip
        self.dataset, self.size, self.seed, self.split = dataset, size, seed, cast(Split, split)
        self.arguments = dict(arguments or {})
        self.template = checked_template(TAGGED if template is None else template)
        self.answers = build_answers(
            {"name": "regex", "pattern": IN_TAGS} if answers is None else answers
        )
        self.seconds = seconds

    @property
    def name(self) -> str:
        return self.dataset

    @property
    def first(self) -> int:
        """Seed of the first problem."""
        return self.seed + (TRAIN if self.split == "train" else 0)

    def problems(self, n: int | None = None, *, seed: int | None = None, offset: int = 0) -> list[Problem]:
        """As the interface says; a seed shifts which problems are taken: they are in random order already."""
        check_range(n, offset)
        count = self.size - offset if n is None else n
        if count < 1 or offset + count > self.size:
            raise ConfigError(
                f"{self.name} was given the size {self.size}",
                got=f"{count} after the first {offset}" if offset else n,
                fix="Raise the task's size.",
            )
        start = (seed or 0) * self.size + offset
        if self.seed + start + count > TRAIN:
            raise ConfigError(
                "Seeds of test and training problems would overlap", got=seed, fix="Use a smaller seed."
            )
        return [self._problem(self.first + start + i) for i in range(count)]

    def _problem(self, seed: int) -> Problem:
        question, answer, metadata = _drawn(self.dataset, self._arguments, seed)
        return Problem(
            id=f"{self.dataset}-{seed}",
            prompt=self.template.replace(PLACE, question),
            gold=answer,
            metadata={**metadata, "seed": seed, "question": question},
        )

    @property
    def _arguments(self) -> str:
        return json.dumps(self.arguments, sort_keys=True)

    def grade(self, problem: Problem, response: str) -> bool:
        return self.score(problem, response) >= 1.0  # not more: a verifier's 1 is all that there is

    def score(self, problem: Problem, response: str) -> float:
        """What the verifier gives, 0 to 1; 0 without an answer and for one that takes it too long."""
        assert self.answers is not None
        answer = self.answers.extract(response)
        if answer is None:
            return 0.0
        return _scored(self.dataset, self._arguments, int(problem.metadata["seed"]), answer, self.seconds)


@lru_cache(maxsize=1 << 16)
def _drawn(dataset: str, arguments: str, seed: int) -> tuple[str, str | None, Mapping[str, Any]]:
    """Question, answer and what else is known of a problem. Raises ConfigError."""
    request = {"do": "draw", "dataset": dataset, "arguments": arguments, "seeds": [seed]}
    try:
        found = gym.ask(request, DRAWING)
    except Unanswered as error:
        raise ConfigError(
            f"reasoning-gym has not drawn a problem within {DRAWING} s",
            got=f"{dataset}, seed {seed}",
            fix="Choose arguments for smaller problems.",
        ) from error
    if "error" in found:
        known = gym.ask({"do": "names"}, DRAWING)
        require_one_of(dataset, known, "Unknown data set of reasoning-gym", "Names")
        raise ConfigError(
            f"reasoning-gym cannot draw this data set: {found['error']}",
            got={"dataset": dataset, "arguments": json.loads(arguments)},
            fix="Its arguments are those of the data set's configuration in reasoning-gym.",
        )
    ((question, answer, metadata),) = found["drawn"]
    return question, answer, metadata


@lru_cache(maxsize=1 << 16)
def _scored(dataset: str, arguments: str, seed: int, answer: str, seconds: int) -> float:
    request = {"do": "score", "dataset": dataset, "arguments": arguments, "seed": seed, "answer": answer}
    try:
        return float(gym.ask(request, seconds))
    except Unanswered:
        logger.warning("%s %d: not graded within %d s: %.100r", dataset, seed, seconds, answer)
        return 0.0
