"""The shipped reward model over the last tokens of a real sandbox response, as a problem to enumerate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.trajectory import Trajectory
from nabla.engine.engine import Engine
from nabla.engine.gradient.values import GradientTask
from nabla.engine.session import Session
from nabla.estimators.base import Estimator
from nabla.objectives.base import Objective
from nabla.objectives.reward import RewardObjective
from nabla.rewards.base import SoftTokens
from nabla.study.laboratory.measure import Interval, mean_interval
from nabla.study.laboratory.problems import Problem, text_rows


@dataclass(frozen=True, eq=False)
class Judge:
    """A response whose last tokens are free, with the engine that judges it. f is ``-r``, DTO's loss.

    Args:
        task: sandbox family.
        engine: of the shipped policy and reward model.
        trajectory: a finished response of the policy.
        prompt_ids: of the language model.
        positions: the free tokens.
        candidates: ids per free token ``[L, K]``, the policy's most likely ones.
        logits: the policy's, float64 ``[L, K]``.
    """

    task: str
    engine: Engine
    trajectory: Trajectory
    prompt_ids: Int[Tensor, " prompt"]
    positions: slice
    candidates: Int[Tensor, "length k"]
    logits: Float[Tensor, "length k"]

    @property
    def objective(self) -> Objective:
        """What f is."""
        return _OBJECTIVE

    def account(self, meter: CostMeter | None = None) -> Account:
        """Who pays."""
        return Account(self.trajectory.prompt.id, meter or CostMeter(), "gradient")

    def problem(self) -> Problem:
        """The reward at all K^L texts, and its gradient there as DTO uses it: one pass each way per text."""
        values, slopes = self._consult(text_rows(*self.logits.shape))
        return Problem(f"{self.task} reward", self.logits, values, slopes, lambda y: self._consult(y)[1])

    def _consult(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """f and ``∂f/∂y`` at relaxed rows ``[n, L, K]``, through the engine's own gradient."""
        account, start = self.account(), self.positions.start
        terms, size = self.objective.terms(), self.engine.workspace.runner.batch_size
        tasks = [
            GradientTask(
                self.prompt_ids,
                self.trajectory,
                self.trajectory.tokens,
                start,
                SoftTokens(start, self.candidates, row.float()),
                account,
            )
            for row in rows
        ]
        values, slopes = [], []
        for i in range(0, len(tasks), size):
            for found in self.engine.workspace.gradients.compute(terms, tasks[i : i + size]):
                if isinstance(found, NablaError):
                    raise found
                (part,) = found.terms.values()
                slope = self.engine.workspace.gradients.rows(
                    found, part, self.positions, self.candidates, account
                )
                values.append(part.value)
                slopes.append(slope.double())
        return torch.tensor(values, dtype=torch.float64), torch.stack(slopes)

    def cost(self, estimator: Estimator, repeats: int, generator: torch.Generator) -> Cost:
        """Model calls and seconds of one estimate, alone and with nothing cached but the prefix."""
        seconds, meter = [], CostMeter()
        account, terms, start = self.account(meter), self.objective.terms(), self.positions.start
        logits = self.logits.float()
        for repeat in range(repeats + 1):  # the first fills the prefix cache
            if repeat == 1:
                meter = CostMeter()
                account = self.account(meter)
            begin = time.perf_counter()
            leaf = logits.clone().requires_grad_()
            rows = estimator(leaf, generator=generator)
            detached = rows.detach().reshape(-1, *logits.shape)
            if estimator.feedback == "value":
                texts = self.candidates.gather(-1, detached.argmax(-1).T).T
                tasks = []
                for text in texts:
                    tokens = self.trajectory.tokens.clone()
                    tokens[self.positions] = text
                    tasks.append(GradientTask(self.prompt_ids, self.trajectory, tokens, start, None, account))
                found = self.engine.workspace.gradients.values(terms, tasks)
                feedback = torch.tensor([_value(answer) for answer in found])
            else:
                soft = SoftTokens(start, self.candidates, detached[0])
                task = GradientTask(
                    self.prompt_ids, self.trajectory, self.trajectory.tokens, start, soft, account
                )
                (gradient,) = self.engine.workspace.gradients.compute(terms, [task])
                if isinstance(gradient, NablaError):
                    raise gradient
                (part,) = gradient.terms.values()
                feedback = self.engine.workspace.gradients.rows(
                    gradient, part, self.positions, self.candidates, account
                )
            torch.autograd.grad(estimator.loss(leaf, rows, feedback), leaf)
            seconds.append(time.perf_counter() - begin)
        used = meter.snapshot().total
        return Cost(
            used.forward_passes / repeats,
            used.backward_passes / repeats,
            mean_interval(torch.tensor(seconds[1:], dtype=torch.float64)),
        )


@dataclass(frozen=True)
class Cost:
    """One estimate: passes of the reward model, and seconds (batches of several texts run as one)."""

    forward_passes: float
    backward_passes: float
    seconds: Interval


_OBJECTIVE = RewardObjective()


def _value(answer: dict[str, float] | NablaError) -> float:
    if isinstance(answer, NablaError):
        raise answer
    (value,) = answer.values()
    return value


def bench(task: str, length: int, width: int, seed: int) -> Judge:
    """The first finished response of the policy to a test problem, its last ``length`` tokens free.

    Args:
        task: ``latin`` or ``arithmetic``.
        length: L; the end-of-sequence token behind the free tokens stays.
        width: K.
        seed: of the response and the problems.

    Raises ConfigError where no response is finished and long enough.
    """
    from nabla.models.causal_lm import CausalLM
    from nabla.problems.sandbox import TASKS, model_path
    from nabla.rewards.outcome import OutcomeReward

    lm = CausalLM.from_pretrained(str(model_path(f"{task}-policy")), device="cpu")
    reward = OutcomeReward.from_pretrained(str(model_path(f"{task}-reward")), device="cpu")
    engine = Engine(lm, reward, seed=seed)
    prompts = [Prompt.of(p.prompt, id=p.id) for p in TASKS[task].problems("test", 8, seed)]

    async def method(session: Session) -> Any:
        (trajectory,) = await session.rollout(Sampling(temperature=0.7, max_new_tokens=96))
        end = len(trajectory) - 1
        if not trajectory.finished or end <= length:
            return "unusable"
        positions = slice(end - length, end)
        reference = session.reference(trajectory, positions, width)
        candidates = reference.candidates
        if candidates is None:
            candidates = torch.arange(reference.logits.shape[-1]).expand(length, -1)
        logits = reference.logits.double()
        return Judge(task, engine, trajectory, session.prompt_ids, positions, candidates, logits)

    found: dict[str, Any] = {prompt.id: result for prompt, result in engine.run(method, prompts)}
    for prompt in prompts:
        result = found[prompt.id]
        if isinstance(result, NablaError):
            raise result
        if isinstance(result, Judge):
            return result
    raise ConfigError("No response of the policy is finished and long enough", got=(task, length))
