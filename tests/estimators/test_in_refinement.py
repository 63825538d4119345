"""Every estimator inside DTO: values of texts by forward passes alone, held noise, configurations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nabla.core.errors import ConfigError, NumericalError
from nabla.core.registry import construct
from nabla.engine.engine import Engine
from nabla.estimators.base import estimators
from nabla.estimators.score_function import ScoreFunction
from nabla.refinement.dto import DTO
from nabla.rewards.function import FunctionReward
from tests import tiny
from tests.cases import FINISHED, RewardSpec, case
from tests.refinement.test_dto import dense_noise

NEW = [
    "reinmax",
    "rao-gumbel",
    "gapped-straight-through",
    "decoupled-straight-through",
    "score-function",
    "sparsemax",
    "sparsemax-straight-through",
    "entmax15",
    "entmax15-straight-through",
]
BOTH = {"reward": 1.0, "likelihood": 0.3}


def refine(c: Any, dto: DTO, text: str = FINISHED, committed: int = 2) -> Any:
    trajectory = c.trajectory(text, committed)

    async def method(session: Any) -> Any:
        return await dto.refine(trajectory, session), session.cost

    return c.run(method)


@pytest.mark.parametrize("rows", ["first", {"name": "all", "support": 7}])
@pytest.mark.parametrize("name", NEW)
def test_every_estimator_refines(name, rows):
    c = case("qwen2", RewardSpec("llama", permute=1))
    dto = construct(DTO, {"estimator": name, "objective": c.objective(**BOTH), "rows": rows, "steps": 3})
    refinement, cost = refine(c, dto)
    assert bool(torch.isfinite(refinement.logits).all())
    assert not torch.equal(refinement.logits, refinement.reference.logits)
    assert (cost.total.backward_passes == 0) == (estimators[name].feedback == "value")


@pytest.mark.parametrize("rows", ["first", "all", {"name": "all", "support": 7}])
def test_a_score_function_step_is_the_formula_on_values_of_the_dense_loss(rows):
    """Values from the models' own forward passes over whole texts; the update is minus rate × estimate."""
    c = case("qwen2", RewardSpec("llama", permute=1))
    objective, estimator = c.objective(**BOTH), ScoreFunction(5)
    dto = DTO(estimator, objective, rows=rows, steps=1, optimizer="SGD", learning_rate=0.5)
    refinement, _ = refine(c, dto)
    z = refinement.reference.logits.clone().requires_grad_()
    drawn = estimator(z, generator=dense_noise(c, 2))
    own = c.trajectory(FINISHED, 2)
    ids = refinement.reference.candidates
    values = []
    for row in drawn:
        index = row.argmax(-1)
        text = own.tokens.clone()
        text[refinement.reference.positions] = index if ids is None else ids.gather(-1, index[:, None])[:, 0]
        values.append(float(c.dense.loss(c.dense.one_hot(text), text, z.detach(), z.detach())))
    (gradient,) = torch.autograd.grad(estimator.loss(z, drawn, torch.tensor(values, dtype=z.dtype)), z)
    c.close(refinement.logits, (z - 0.5 * gradient).detach())
    assert len(set(values)) > 1


def test_values_are_those_of_the_gradient_and_cost_forward_passes_alone():
    c = case("llama", RewardSpec("qwen3", aggregation="sum"))
    trajectory, objective = c.trajectory(FINISHED, 2), c.objective(**BOTH)
    other = trajectory.tokens.clone()
    other[4] = (other[4] + 1) % len(tiny.TOKENS)

    async def method(session: Any) -> Any:
        found = await session.values(trajectory, objective, [trajectory.tokens, other, other])
        first = session.cost
        again = await session.values(trajectory, objective, [other, trajectory.tokens])
        second = session.cost
        gradients = [
            await session.gradient(trajectory, objective, tokens=t) for t in (trajectory.tokens, other)
        ]
        return found, again, first, second, gradients

    found, again, first, second, gradients = c.run(method)
    for name, row in found.items():
        assert row[1] == row[2]
        assert again[name] == [row[1], row[0]]
        assert row[0] != row[1]
        for value, gradient in zip(row, gradients, strict=False):
            assert value == pytest.approx(gradient.terms[name].value, rel=1e-9)
    assert first.total.backward_passes == 0
    assert second.total == first.total  # nothing is computed again
    assert first.counts["values_computed"] == 2
    assert second.counts["values_reused"] == 1 + 2


def test_a_reward_without_gradient_will_do():
    lm = tiny.causal_lm("llama")
    reward = FunctionReward(lambda prompt, response: float(response.count("1")))
    trajectory = tiny.trajectory(lm, tiny.Prompt.of("1+2=", id="case"), FINISHED, committed=2)
    dto = DTO("score-function", {"name": "sum", "weights": {"reward": 1.0}}, steps=3, rows="all")
    assert not dto.needs_reward

    async def method(session: Any) -> Any:
        return await dto.refine(trajectory, session)

    refinement = tiny.drive(Engine(lm, reward), trajectory.prompt, method)
    assert not torch.equal(refinement.logits, refinement.reference.logits)
    with pytest.raises(ConfigError, match="needs a reward, and there is none"):
        tiny.drive(Engine(lm), trajectory.prompt, method)
    broken = FunctionReward(lambda prompt, response: float("nan"))
    with pytest.raises(NumericalError, match="reward term is NaN"):
        tiny.drive(Engine(lm, broken), trajectory.prompt, method)


def test_the_report_of_values_adds_up():
    c = case("qwen2", RewardSpec("llama"))
    dto = DTO("score-function", c.objective(reward=1.0, likelihood=0.3, kl=0.1), steps=1)
    refinement, _ = refine(c, dto)
    terms = refinement.first.terms
    assert set(terms) == {"reward", "likelihood", "kl"}
    assert terms["likelihood"].value > 0  # nats, averaged over the draws
    assert sum(term.gradient_share for term in terms.values()) == pytest.approx(1.0)


def test_gumbel_noise_held_fixed_makes_gradients_reusable():
    c = case("llama", RewardSpec("llama", permute=1), seed=5)
    settings = {"estimator": "gumbel-straight-through", "objective": c.objective(**BOTH), "rows": "all"}
    held, _ = refine(c, DTO(**settings, anchor="gumbel-posterior", steps=10))
    fresh, _ = refine(c, DTO(**settings, anchor="argmax", steps=10))
    assert held.recomputed < fresh.recomputed == 10
    heard = []

    async def method(session: Any) -> Any:
        plain = session.memory.plan_gradient

        def spy(*arguments: Any, **options: Any) -> Any:
            heard.append(options["tokens"].tolist())
            return plain(*arguments, **options)

        session.memory.plan_gradient = spy
        return await DTO(**settings, anchor="gumbel-posterior", steps=1).refine(
            c.trajectory(FINISHED, 2), session
        )

    c.run(method)
    assert heard == [c.trajectory(FINISHED, 2).tokens.tolist()]  # the first gradient is at the text written
