"""Refined logits against Algorithm 2 done densely, and what a refinement costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nabla.core.errors import ConfigError, NumericalError
from nabla.core.prompt import Prompt
from nabla.core.random import generator
from nabla.core.sampling import Sampling
from nabla.core.trajectory import Trajectory
from nabla.engine.reports import Refinement
from nabla.refinement.dto import DTO
from nabla.schedulers.cosine import Cosine
from nabla.schedulers.linear import Linear
from tests import dense, tiny
from tests.cases import FINISHED, UNFINISHED, Case, RewardSpec, case, close

V = len(tiny.TOKENS)
STEPS = 6
ESTIMATORS = (
    "straight-through",
    "straight-through-identity",
    "gumbel-softmax",
    "gumbel-straight-through",
    "soft-embedding",
)
BOTH = {"reward": 1.0, "likelihood": 0.3}
ROWS = {"first": ("first", None), "all": ("all", None), "all, top 7": ("all", 7)}
#: A family, tied or untied, with a reward model of another vocabulary, committed tokens and a text.
PROBLEMS: dict[str, tuple[dict[str, Any], str, int]] = {
    "qwen2 tied": ({"arch": "qwen2", "rewards": RewardSpec("qwen3")}, FINISHED, 0),
    "llama untied": (
        {"arch": "llama", "rewards": RewardSpec("llama", permute=2, missing=("4", "5")), "padded": 3},
        FINISHED,
        4,
    ),
    "gemma3 tied": (
        {"arch": "gemma3", "rewards": RewardSpec("mistral", aggregation="mean"), "system": "use +"},
        UNFINISHED,
        3,
    ),
    "gpt-neox untied": (
        {"arch": "gpt-neox", "rewards": RewardSpec("gpt2", template=tiny.OTHER_END)},
        FINISHED,
        6,
    ),
}


def rate(estimator: str, parameterization: str) -> float:
    """Large enough that tokens flip within a few steps."""
    return 0.15 if parameterization == "latents" else 0.8


def refine(c: Case, trajectory: Trajectory, dto: DTO) -> tuple[Refinement, Any]:
    async def method(session: Any) -> Any:
        return await dto.refine(trajectory, session), session.cost

    return c.run(method)


def dense_noise(c: Case, committed: int) -> torch.Generator:
    """The generator that a refinement draws from, before any rollout."""
    return generator(c.engine.seed, c.prompt.id, "method", "refine", committed, 0)


def compare(
    c: Case,
    text: str,
    committed: int,
    *,
    estimator: str,
    anchor: str,
    parameterization: str,
    rows: str,
    steps: int = STEPS,
    weights: dict[str, Any] | None = None,
    optimizer: str = "AdamW",
    learning_rate: float | None = None,
    langevin: float = 0.0,
) -> tuple[Refinement, dense.Refined, Any]:
    trajectory = c.trajectory(text, committed)
    which, support = ROWS[rows]
    start = learning_rate or rate(estimator, parameterization)
    dto = DTO(
        estimator=estimator,
        objective=c.objective(**(weights or BOTH)),
        anchor=anchor,
        parameterization=parameterization,
        rows=which if which == "first" else {"name": "all", "support": support},
        steps=steps,
        optimizer=optimizer,
        learning_rate=Cosine(start, start / 10),
        langevin=langevin,
    )
    refinement, cost = refine(c, trajectory, dto)
    maker: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, optimizer)
    expected = dense.refine(
        c.dense,
        trajectory.tokens,
        committed=committed,
        rows=which,
        estimator=estimator,
        anchor=anchor,
        parameterization=parameterization,
        steps=steps,
        learning_rate=dense.cosine(start, start / 10),
        generator=dense_noise(c, committed),
        support=support,
        optimizer=(lambda p, lr: maker(p, lr=lr, weight_decay=0.0)) if optimizer == "AdamW" else maker,
        langevin=langevin,
    )
    c.close(refinement.reference.logits, expected.reference)
    if refinement.reference.candidates is not None:
        assert torch.equal(refinement.reference.candidates, expected.candidates)
    c.close(refinement.logits, expected.logits)
    return refinement, expected, cost


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("anchor", ["rollout", "argmax"])
@pytest.mark.parametrize("parameterization", ["logits", "latents"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_refined_logits_equal_the_dense_ones(
    problem: str, estimator: str, parameterization: str, anchor: str, rows: str
) -> None:
    settings_, text, committed = PROBLEMS[problem]
    c = case(**settings_)
    refinement, expected, cost = compare(
        c, text, committed,
        estimator=estimator, anchor=anchor, parameterization=parameterization, rows=rows,
    )  # fmt: skip
    distinct = 1 + sum(
        not torch.equal(a, b) for a, b in zip(expected.relaxed[1:], expected.relaxed, strict=False)
    )
    assert refinement.recomputed == distinct  # Algorithm 4: once per change of y, and no oftener
    hard = estimator in ("straight-through", "straight-through-identity", "gumbel-straight-through")
    if not hard:
        assert refinement.recomputed == STEPS
        assert cost.counts.get("gradients_reused", 0) == 0


def test_the_cases_flip_tokens() -> None:
    """The comparison above means little if the text never changes."""
    flips = {}
    for problem, (settings_, text, committed) in PROBLEMS.items():
        _, expected, _ = compare(
            case(**settings_), text, committed, estimator="straight-through", anchor="rollout",
            parameterization="logits", rows="all",
        )  # fmt: skip
        flips[problem] = len(set(expected.texts))
    assert min(flips.values()) >= 2, flips


@pytest.mark.parametrize(
    "weights",
    [
        {"entropy": -0.7},
        {"reward": 1.0, "kl": 0.2},
        {"likelihood": 1.0, "reverse_kl": 0.5},
        {"reward": 0.5, "likelihood": 0.1, "entropy": 0.3, "kl": 0.1, "reverse_kl": 0.1},
        {"likelihood": 1.0, "detach_context": True},
        {"reward": 1.0, "likelihood": 0.5, "detach_context": True},
        {"reward": -1.0},
    ],
    ids=lambda w: "+".join(w),
)
@pytest.mark.parametrize("rows", ["first", "all, top 7"])
@pytest.mark.parametrize("estimator", ["straight-through", "soft-embedding"])
def test_every_objective(weights: dict[str, Any], rows: str, estimator: str) -> None:
    c = case("llama-tied", RewardSpec("llama", permute=1, missing=("4",)))
    compare(
        c, FINISHED, 2, estimator=estimator, anchor="rollout", parameterization="logits",
        rows=rows, weights=weights,
    )  # fmt: skip


@pytest.mark.parametrize("aggregation", ["sum", "mean", "min", "last"])
@pytest.mark.parametrize("template", [tiny.CHATML, tiny.OTHER_END])
@pytest.mark.parametrize("separators", [(), (";", "+")], ids=["tokens", "steps"])
def test_process_rewards(aggregation: str, template: str, separators: tuple[str, ...]) -> None:
    spec = RewardSpec("qwen3", aggregation=aggregation, template=template, separators=separators)
    for estimator, rows in (("straight-through", "all"), ("gumbel-softmax", "all, top 7")):
        compare(
            case("qwen2", spec), FINISHED, 3, estimator=estimator, anchor="rollout",
            parameterization="logits", rows=rows,
        )  # fmt: skip


def test_an_ensemble() -> None:
    specs = [
        RewardSpec("qwen2", weight=0.7),
        RewardSpec("llama", permute=5, weight=-0.4),
        RewardSpec("gpt-neox", aggregation="sum", weight=0.2, missing=("5",)),
    ]
    for estimator in ("straight-through", "soft-embedding"):
        compare(
            case("qwen3", specs), FINISHED, 2, estimator=estimator, anchor="argmax",
            parameterization="logits", rows="all",
        )  # fmt: skip


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop"])
@pytest.mark.parametrize("langevin", [0.0, 0.05])
def test_other_optimizers_and_langevin_noise(optimizer: str, langevin: float) -> None:
    compare(
        case("qwen2"), FINISHED, 2, estimator="straight-through", anchor="rollout",
        parameterization="logits", rows="all", optimizer=optimizer, learning_rate=0.3,
        langevin=langevin,
    )  # fmt: skip


@settings(max_examples=15)
@given(
    estimator=st.sampled_from(ESTIMATORS),
    anchor=st.sampled_from(["rollout", "argmax"]),
    parameterization=st.sampled_from(["logits", "latents"]),
    rows=st.sampled_from(list(ROWS)),
    text=st.text("sum0123+=; ", min_size=1, max_size=9),
    finished=st.booleans(),
    share=st.floats(0, 0.999),
    seed=st.integers(0, 99),
)
def test_any_text_from_any_position(
    estimator: str, anchor: str, parameterization: str, rows: str, text: str, finished: bool,
    share: float, seed: int,
) -> None:  # fmt: skip
    text += tiny.END if finished else ""
    length = len(tiny.ids(tiny.tokenizer(), text))
    aggregation = (None, "sum", "min")[seed % 3]
    template = (tiny.CHATML, tiny.OTHER_END, tiny.NO_END)[seed // 3 % 3]
    c = case("gpt2", RewardSpec("llama", permute=seed, aggregation=aggregation, template=template))
    compare(
        c, text, int(share * length), estimator=estimator, anchor=anchor,
        parameterization=parameterization, rows=rows, steps=3,
    )  # fmt: skip


# -- what it costs ------------------------------------------------------------------------------------


def gentle(c: Case, **changes: Any) -> DTO:
    """The paper's settings: 20 AdamW steps from 0.01 to 0.001, first row."""
    return DTO(**{"objective": c.objective(**BOTH), **changes})


def test_twenty_steps_cost_one_pass_and_the_next_position_none() -> None:
    c = case("llama", RewardSpec("llama", permute=1), seed=5)  # its top two logits are 0.5 apart
    trajectory = c.trajectory(FINISHED, 1)
    dto = gentle(c)
    assert dto.steps == 20

    async def method(session: Any) -> Any:
        costs, recomputed = [], []
        for count in range(4):
            refinement = await dto.refine(trajectory.commit(count), session)
            recomputed.append(refinement.recomputed)
            costs.append(session.cost)
        return costs, recomputed

    costs, recomputed = c.run(method)
    assert recomputed == [1, 1, 1, 1]
    assert costs[0].total.forward_passes == 2 + 2  # each model: its prefix once, then the free part
    assert costs[0].total.backward_passes == 2
    for cost in costs[1:]:
        assert cost.total.calls == costs[0].total.calls
    assert costs[3].counts["gradients_computed"] == 1
    assert costs[3].counts["gradients_reused"] == 3
    assert costs[3].counts["refine_steps"] == 80
    # After the first, a position costs vector arithmetic: rows of the head and the two tables.
    later = costs[3].total.flops - costs[2].total.flops
    assert 0 < later < 0.1 * costs[0].total.flops


def test_a_prefix_that_is_stored_is_not_run_again() -> None:
    c = case("llama")
    dto = gentle(c)

    async def method(session: Any) -> Any:
        (trajectory,) = await session.rollout(Sampling(max_new_tokens=8))
        (trajectory,) = await session.score([trajectory])
        before = session.cost.total.forward_passes
        await dto.refine(trajectory.commit(2), session)
        return session.cost.total.forward_passes - before, len(trajectory)

    passes, length = c.run(method)
    assert length > 3
    assert passes == 2


@pytest.mark.parametrize("estimator", ["soft-embedding", "gumbel-softmax"])
def test_soft_and_noisy_rows_are_never_reused(estimator: str) -> None:
    c = case("llama")
    refinement, cost = refine(c, c.trajectory(FINISHED, 1), gentle(c, estimator=estimator, steps=5))
    assert refinement.recomputed == 5
    assert cost.counts["gradients_computed"] == 5
    assert "gradients_reused" not in cost.counts
    assert cost.total.backward_passes == 10


def test_the_stale_estimator_reuses_up_to_its_bound() -> None:
    c = case("llama")
    trajectory = c.trajectory(FINISHED, 1)

    def recomputed(bound: float) -> int:
        estimator = {"name": "stale", "estimator": "soft-embedding", "bound": bound}
        return refine(c, trajectory, gentle(c, estimator=estimator, steps=8))[0].recomputed

    assert recomputed(0.0) == 8
    assert recomputed(2.0) == 1
    assert 1 < recomputed(0.004) < 8


def test_logit_terms_alone_run_no_model() -> None:
    c = case("llama", None)
    dto = DTO(objective=c.objective(kl=1.0), steps=4, learning_rate=0.5, optimizer="SGD")
    refinement, cost = refine(c, c.trajectory(FINISHED, 1), dto)
    assert cost.total.calls == 0
    close(refinement.logits, refinement.reference.logits, 1e-12)  # the minimum: nothing moves
    assert float(refinement.kl.max()) == pytest.approx(0.0, abs=1e-12)


def test_results_do_not_depend_on_what_runs_beside() -> None:
    texts = {"a": (FINISHED, 2), "b": ("33", 0), "c": (UNFINISHED, 5), "d": ("1=" + tiny.END, 1)}
    prompts = [Prompt.of("1+2=" * (1 + i), id=name) for i, name in enumerate(texts)]

    def run(chosen: list[Prompt], **engine: Any) -> list[tuple[Tensor, Any]]:
        c = case("gpt2", RewardSpec("gpt-neox", permute=1), **engine)
        dto = DTO(
            objective=c.objective(**BOTH), estimator="gumbel-straight-through", rows="all",
            steps=4, learning_rate=0.5,
        )  # fmt: skip

        async def method(session: Any) -> Any:
            text, committed = texts[session.prompt.id]
            trajectory = tiny.trajectory(c.lm, session.prompt, text, committed=committed)
            return (await dto.refine(trajectory, session)).logits, session.cost

        return tiny.drive(c.engine, chosen, method)

    together = run(prompts)
    for prompt, (logits, cost) in zip(prompts, together, strict=True):
        ((alone, own),) = run([prompt])
        close(logits, alone)
        assert cost.total.calls == own.total.calls
    for (logits, _), (other, _) in zip(run(prompts, batch_size=1, live=2), together, strict=True):
        close(logits, other)


# -- numbers and reports ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("parameterization", ["logits", "latents"])
@pytest.mark.parametrize("rows", ["first", "all"])
def test_logits_are_float32_whatever_the_models(dtype: torch.dtype, parameterization: str, rows: str) -> None:
    """A step of 0.01 is below half an ulp of a bfloat16 logit of 4 or more."""
    from nabla.engine.engine import Engine

    lm = tiny.causal_lm("qwen2", dtype=dtype, initializer_range=0.6)
    reward = tiny.outcome("llama", dtype=dtype)
    prompt = Prompt.of("1+2=", id="half")
    dto = DTO(steps=2, parameterization=parameterization, rows=rows, learning_rate=0.001)

    async def method(session: Any) -> Any:
        (trajectory,) = await session.rollout(Sampling(max_new_tokens=6))
        assert trajectory.hidden.dtype == dtype
        return await dto.refine(trajectory, session)

    refinement = tiny.drive(Engine(lm, reward), prompt, method)
    initial = refinement.reference.logits
    assert initial.dtype == refinement.logits.dtype == torch.float32
    moved = (refinement.logits - initial).abs()
    assert float(initial.abs().max()) > 1
    assert float((moved > 0).float().mean()) > 0.8
    if parameterization == "logits":
        assert float(moved.max()) == pytest.approx(0.002, rel=0.1)  # Adam: one learning rate a step


def test_adam_moves_a_logit_by_the_learning_rate() -> None:
    c = case("qwen2")
    dto = DTO(objective=c.objective(**BOTH), steps=20)
    refinement, _ = refine(c, c.trajectory(FINISHED, 1), dto)
    schedule = [dense.cosine(0.01, 0.001)(k, 20) for k in range(20)]
    moved = (refinement.logits - refinement.reference.logits).abs().max()
    assert float(moved) <= sum(schedule) * 1.05  # bias correction can overshoot a little
    assert float(moved) > 0.5 * sum(schedule)


def test_blocked_tokens_stay_blocked() -> None:
    c = case("qwen2", RewardSpec("llama", missing=("4", "5")))
    blocked = [tiny.TOKENS.index("4"), tiny.TOKENS.index("5")]
    for parameterization in ("logits", "latents"):
        for estimator in ESTIMATORS:
            dto = gentle(c, estimator=estimator, parameterization=parameterization, steps=3)
            refinement, _ = refine(c, c.trajectory(FINISHED, 2), dto)
            assert (refinement.logits[:, blocked] == float("-inf")).all()
            assert int(refinement.logits.isinf().sum()) == len(blocked)
            assert math.isfinite(float(refinement.kl.sum()))


def test_the_reports_add_up() -> None:
    c = case("qwen2", RewardSpec("llama", aggregation="sum"))
    trajectory = c.trajectory(FINISHED, 2)
    objective = c.objective(reward=1.0, likelihood=0.3, kl=0.1)
    refinement, _ = refine(c, trajectory, DTO(objective=objective, steps=1))
    y = c.dense.one_hot(trajectory.tokens)
    gradients = c.dense.term_gradients(trajectory.tokens)
    z = refinement.reference.logits[0].clone().requires_grad_()
    soft = z.softmax(-1)
    through = {
        name: weight * torch.autograd.grad(soft @ gradients[name][2], z, retain_graph=True)[0]
        for name, weight in BOTH.items()
    }
    whole = sum(through.values())
    assert refinement.first.gradient_norm == pytest.approx(float(whole.norm()), rel=1e-9)
    shares = sum(float(g.norm()) for g in through.values())
    for name, report in refinement.first.terms.items():
        if name == "kl":
            assert report.value == pytest.approx(0.0, abs=1e-12)
            assert report.gradient_share == pytest.approx(0.0, abs=1e-12)
        else:
            assert report.weight == BOTH[name]
            assert report.gradient_share == pytest.approx(float(through[name].norm()) / shares)
    with torch.no_grad():
        reward = float(c.dense.reward(y, trajectory.tokens))
        likelihood = float(c.dense.log_likelihoods(y)[2:].sum())
    assert refinement.first.terms["reward"].value == pytest.approx(-reward)
    assert refinement.first.terms["likelihood"].value == pytest.approx(-likelihood)
    assert refinement.first.recomputed


@pytest.mark.parametrize("support", [3, 10, V, 10 * V])
def test_dropped_mass_bounds_the_tail(support: int) -> None:
    c = case("qwen2", padded=4)
    trajectory = c.trajectory(FINISHED, 2)
    dto = gentle(c, rows={"name": "all", "support": support}, steps=1)
    refinement, _ = refine(c, trajectory, dto)
    with torch.no_grad():
        p = c.dense.lm.logits(c.dense.one_hot(trajectory.tokens))[2:].softmax(-1)
    candidates = refinement.reference.candidates
    if support >= V:
        assert candidates is None
        assert refinement.dropped_mass == 0.0
        return
    dropped = 1 - p.gather(-1, candidates).sum(-1)
    close(refinement.reference.dropped_mass, dropped)
    assert refinement.dropped_mass == pytest.approx(float(dropped.max()))
    own = candidates.gather(-1, refinement.reference.chosen[:, None])[:, 0]
    assert torch.equal(own, trajectory.tokens[2:])


def test_scheduled_weights_follow_the_step() -> None:
    """A weight that falls to zero: the last step is that of the other term alone."""
    c = case("qwen2")
    trajectory = c.trajectory(FINISHED, 2)
    from nabla.objectives.weighted_sum import WeightedSum

    def gradient_free_difference(weights: dict[str, Any], steps: int) -> Tensor:
        dto = DTO(objective=WeightedSum(weights), steps=steps, optimizer="SGD", learning_rate=0.1)
        refinement, _ = refine(c, trajectory, dto)
        return refinement.logits - refinement.reference.logits

    both = gradient_free_difference({"reward": Linear(1.0, 0.0), "likelihood": 0.3}, 1)
    close(both, gradient_free_difference({"reward": 1.0, "likelihood": 0.3}, 1), 1e-12)
    two = gradient_free_difference({"reward": Linear(1.0, 0.0), "likelihood": 0.3}, 2)
    assert not torch.allclose(two, gradient_free_difference({"reward": 1.0, "likelihood": 0.3}, 2))
    never = gradient_free_difference({"reward": 0.0, "likelihood": 0.3}, 2)
    close(never, gradient_free_difference({"likelihood": 0.3}, 2), 1e-12)


def test_a_weight_of_zero_needs_no_reward_model() -> None:
    c = case("qwen2", None)
    dto = DTO(objective=c.objective(reward=0.0, likelihood=1.0), steps=2)
    assert not dto.needs_reward
    refinement, _ = refine(c, c.trajectory(FINISHED, 1), dto)
    assert torch.isfinite(refinement.logits).all()


def test_collapse_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    c = case("qwen2")
    dto = DTO(objective=c.objective(**BOTH), steps=20, learning_rate=2.0)
    refinement, cost = refine(c, c.trajectory(FINISHED, 1), dto)
    p, q = refinement.logits[0].softmax(-1), refinement.reference.logits[0].log_softmax(-1)
    assert float(refinement.kl[0]) == pytest.approx(float((p * (p.log() - q)).sum()), rel=1e-6)
    assert refinement.collapsed
    assert cost.counts["collapsed_refinements"] == 1
    assert "nats from the language model" in caplog.text


def test_nan_is_an_error() -> None:
    c = case("qwen2")
    dto = DTO(objective=c.objective(reward=1e308, likelihood=1e308), steps=3)
    with pytest.raises(NumericalError, match="Refinement gave NaN"):
        refine(c, c.trajectory(FINISHED, 1), dto)


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": 0},
        {"optimizer": "Adamant"},
        {"optimizer": "LBFGS"},  # wants a closure
        {"optimizer": "SparseAdam"},  # wants sparse gradients
        {"optimizer": "AdamW", "optimizer_arguments": {"bettas": 1}},
        {"langevin": -1.0},
        {"estimator": "straight"},
        {"rows": {"name": "all", "support": 1}},
    ],
    ids=str,
)
def test_wrong_settings(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        DTO(**arguments)
