"""A diagnosis: texts are drawn once, every reward judges them, and the numbers follow."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from nabla.core.costs import Cost
from nabla.core.display import Line
from nabla.core.errors import ConfigError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.text import pieces
from nabla.launch.config.presets import changed
from nabla.launch.config.run import RunConfig
from nabla.launch.launcher import TestTimeLoop
from nabla.methods.searches.backtrack import Backtrack
from nabla.models.vocabulary import Vocabulary
from nabla.problems.problem import Problem
from nabla.problems.tasks.base import Task
from nabla.problems.tasks.sandbox import Sandbox
from nabla.screens.gate import Calibration
from nabla.study.diagnosis.findings import OWN, Findings, find
from nabla.study.diagnosis.judgements import Judged, judge, judge_steps
from nabla.study.diagnosis.measures import F1, Labelled, f1
from nabla.study.diagnosis.process_bench import LabelledText
from nabla.study.diagnosis.texts import Drawn, Sample, Settings, draw
from nabla.study.diagnosis.verdict import Verdict, verdicts

if TYPE_CHECKING:
    from nabla.engine.session import Session
    from nabla.models.causal_lm import CausalLM
    from nabla.rewards.base import Reward

T = TypeVar("T")

#: Units of rewards that are read as log-odds of being right.
LOG_ODDS = ("reward logits", "log-odds of a token")


@dataclass(frozen=True, eq=False)
class Subject:
    """What is diagnosed.

    Args:
        config: language model, and everything around it; its method says how tokens are drawn.
        rewards: specifications by a name of one's own.
        task: grades.
        problems: of the task.
        labelled: texts whose first wrong step is marked.
        settings: how much is drawn.
    """

    config: RunConfig
    rewards: Mapping[str, Any]
    task: Task
    problems: Sequence[Problem]
    labelled: Sequence[LabelledText] = ()
    settings: Settings = field(default_factory=Settings)

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn. Raises ConfigError where all samples would be the same."""
        found = getattr(self.config.build_method(), "sampling", None)
        sampling = found if isinstance(found, Sampling) else Sampling()
        if sampling.temperature == 0:
            raise ConfigError(
                "A diagnosis compares several responses to a problem, and at temperature 0 all are the same",
                fix="Pass method.sampling.temperature 0.7, say.",
            )
        return sampling

    def run(self, reward: Any) -> RunConfig:
        """The configuration that runs a reward (None: none)."""
        method = {"name": "sampling", "sampling": vars(self.sampling)}
        return replace(self.config, rm=reward, method=method, callbacks=None, loggers=[])

    def gated(self, reward: Any) -> RunConfig:
        """The configuration that asks the gate of ``backtrack`` about a reward: with the settings of the
        configuration's own method, if that is one, and with the default ones if not."""
        method: dict[str, Any] = {"name": "backtrack", "sampling": vars(self.sampling)}
        if isinstance(self.config.build_method(), Backtrack):
            return replace(self.run(reward), method=self.config.method)
        return changed(replace(self.run(reward), method=method), None)

    def require_one_process(self) -> None:
        """Raises ConfigError for several."""
        if (self.config.devices, self.config.num_nodes) != (1, 1):
            raise ConfigError(
                "A diagnosis runs in one process",
                got=f"devices={self.config.devices!r}",
                fix="Pass devices=1.",
            )


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What came out.

    Args:
        subject: that was diagnosed.
        findings: the numbers.
        verdicts: one for each reward, what is worth trying first at the top.
        cost: of all model calls.
        seconds: that it took.
        failures: problem → error of those that are left out.
        gates: reward → what the gate of ``backtrack`` finds of it, without a label; a file of it spares a run
            the gate. None of a reward without values, and where there are too few problems.
    """

    subject: Subject
    findings: Findings
    verdicts: tuple[Verdict, ...]
    cost: Cost
    seconds: float
    failures: Mapping[str, str]
    gates: Mapping[str, Calibration] = field(default_factory=dict)


@dataclass
class Progress:
    """How far a diagnosis has come."""

    name: str = "loading"
    done: int = 0
    total: int = 1
    begin: float = field(default_factory=time.monotonic)

    def start(self, name: str, total: int) -> None:
        """Another stage."""
        self.name, self.done, self.total, self.begin = name, 0, total, time.monotonic()

    def lines(self) -> list[Line]:
        """For a display."""
        return [Line(self.name, self.done, self.total, self.done, time.monotonic() - self.begin)]


@dataclass
class _Ledger:
    """What stages have cost, and which problems have failed."""

    cost: Cost = field(default_factory=Cost)
    failures: dict[str, str] = field(default_factory=dict)


def diagnose(subject: Subject, progress: Progress | None = None) -> Diagnosis:
    """Draws texts, has every reward judge them, and answers.

    Args:
        subject: what.
        progress: is kept up to date.

    Raises NablaError, where no problem could be run at all the first problem's.
    """
    subject.require_one_process()
    begin, progress, ledger = time.monotonic(), progress or Progress(), _Ledger()
    lm = subject.config.load_lm()
    prompts = [Prompt.of(p.prompt, id=p.id, system=subject.config.system) for p in subject.problems]
    given = {problem.id: problem for problem in subject.problems}
    sampling, task = subject.sampling, subject.task

    async def texts(session: Session) -> Drawn:
        problem = given[session.prompt.id]

        def right(text: str) -> bool:
            return task.verdicts([(problem, text)])[0]

        return await draw(session, subject.settings, sampling, right)

    loop = subject.run(None).loop(lm, None)
    progress.start("texts", len(prompts))
    drawn = _gathered(loop, prompts, texts, ledger, progress)
    drawn = {prompt.id: drawn[prompt.id] for prompt in prompts if prompt.id in drawn}
    going = [prompt for prompt in prompts if prompt.id in drawn]
    judged: dict[str, dict[str, Judged]] = {}
    probability: dict[str, bool] = {}
    scores: dict[str, F1 | None] = {}
    gates: dict[str, Calibration] = {}
    if not subject.rewards:
        scores |= _labelled(subject, loop, None, "", ledger, progress)
    for name, spec in subject.rewards.items():
        config = subject.run(spec)
        loop = config.loop(lm, config.load_reward())
        reward = loop.engine.reward
        assert reward is not None
        progress.start(name, len(going))
        judged[name] = _gathered(loop, going, _judging(drawn, reward), ledger, progress)
        probability[name] = reward.unit in LOG_ODDS
        scores |= _labelled(subject, loop, reward, name, ledger, progress)
        progress.start(f"{name} gate", 1)
        gate = _gate(subject.gated(spec), lm, reward, prompts)
        gates |= {} if gate is None else {name: gate}
        progress.done += 1
    common = [p.id for p in going if all(p.id in rows for rows in judged.values())]
    drawn = {key: drawn[key] for key in common}
    judged = {name: {key: rows[key] for key in common} for name, rows in judged.items()}
    marks = _marks(subject, drawn, lm.vocabulary) if isinstance(task, Sandbox) else None
    findings = find(drawn, judged, marks, probability, scores)
    found = tuple(verdicts(findings, list(subject.rewards)))
    seconds = time.monotonic() - begin
    return Diagnosis(subject, findings, found, ledger.cost, seconds, ledger.failures, gates)


def _gate(
    config: RunConfig, lm: CausalLM, reward: Reward, prompts: Sequence[Prompt]
) -> Calibration | None:
    """What a run of ``backtrack`` over these prompts would find before it began; None without a gate."""
    if not reward.has_values:
        return None
    method = config.loop(lm, reward).prepared(prompts)
    return method.calibration if isinstance(method, Backtrack) else None


def _judging(drawn: Mapping[str, Drawn], reward: Reward) -> Callable[[Session], Coroutine[Any, Any, Judged]]:
    async def judging(session: Session) -> Judged:
        return await judge(session, drawn[session.prompt.id], reward)

    return judging


def _labelled(
    subject: Subject,
    loop: TestTimeLoop,
    reward: Reward | None,
    name: str,
    ledger: _Ledger,
    progress: Progress,
) -> dict[str, F1 | None]:
    """F1 on the labelled texts, of the language model's own probabilities and of the reward."""
    texts = {text.id: text for text in subject.labelled}
    if not texts:
        return {}
    prompts = [Prompt.of(t.problem, id=t.id, system=subject.config.system) for t in texts.values()]

    async def judging(session: Session) -> tuple[Labelled, Labelled | None]:
        return await judge_steps(session, texts[session.prompt.id], subject.sampling, reward)

    progress.start(f"{name} labelled".strip(), len(prompts))
    found = _gathered(loop, prompts, judging, ledger, progress)
    rows = [found[p.id] for p in prompts if p.id in found]
    own, judged = [row for row, _ in rows], [row for _, row in rows if row is not None]
    return {OWN: f1(own), **({name: f1(judged)} if judged else {})}


def _gathered(
    loop: TestTimeLoop,
    prompts: Sequence[Prompt],
    work: Callable[[Session], Coroutine[Any, Any, T]],
    ledger: _Ledger,
    progress: Progress,
) -> dict[str, T]:
    """What comes of each problem, all costs counted; those that fail are left out."""
    found: dict[str, T] = {}

    async def solve(session: Session) -> Solution:
        found[session.prompt.id] = await work(session)
        return Solution(session.prompt, "", (), None, True, "diagnose", session.cost)

    errors: list[NablaError] = []
    for prompt, outcome in loop.engine.run(solve, prompts):
        if isinstance(outcome, NablaError):
            errors.append(outcome)
            ledger.failures[prompt.id] = str(outcome)
            ledger.cost += outcome.cost or Cost()
        else:
            ledger.cost += outcome.cost
        progress.done += 1
    if errors and not found:
        raise errors[0]
    return found


def _marks(
    subject: Subject, drawn: Mapping[str, Drawn], words: Vocabulary
) -> Callable[[str, int], int | None]:
    """Of (problem, sample) the first token at which no right answer can come of it any more."""
    assert isinstance(subject.task, Sandbox)
    checker, prompts = subject.task.checker, {p.id: p.prompt for p in subject.problems}

    def first(prompt: str, sample: Sample) -> int | None:
        good = checker.progress(prompt, sample.response)
        ids = sample.trajectory.tokens.tolist()
        lengths = accumulate(map(len, pieces(words.tokenizer, ids, words.lead, words.eos_ids)))
        return next((i for i, end in enumerate(lengths) if not all(good[:end])), None)

    known = {key: [first(prompts[key], sample) for sample in d.samples] for key, d in drawn.items()}
    return lambda key, number: known[key][number]
