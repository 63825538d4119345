"""∂L/∂y by nabla against a dense L×V reference, position by position and id by id."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import nabla.models.head as head_module
from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError, NumericalError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.trajectory import Trajectory
from nabla.engine.gradient.values import TermGradient, TrajectoryGradient
from nabla.objectives.base import TrajectoryObjective, TrajectoryView, trajectory_terms
from nabla.objectives.likelihood import Likelihood
from nabla.objectives.reward import RewardObjective
from nabla.objectives.weighted_sum import WeightedSum
from nabla.rewards.base import SoftTokens
from nabla.schedulers.base import Step
from tests import cases, tiny
from tests.cases import FINISHED, UNFINISHED, Case, RewardSpec, case, close
from tests.dense import Dense

V = len(tiny.TOKENS)
BOTH = {"reward": 1.0, "likelihood": 0.3}


def gradient_of(c: Case, trajectory: Trajectory, objective: Any, **arguments: Any) -> TrajectoryGradient:
    async def method(session: Any) -> Any:
        return await session.gradient(trajectory, objective, **arguments)

    return c.run(method)


def account() -> Account:
    return Account("test", CostMeter(), "gradient")


def rows_of(
    c: Case, gradient: TrajectoryGradient, part: TermGradient, candidates: Tensor | None = None
) -> Tensor:
    """Rows of all positions that the gradient covers."""
    where = slice(gradient.start, len(gradient.tokens))
    return c.engine.workspace.gradients.rows(gradient, part, where, candidates, account())


def check(c: Case, text: str | Tensor, committed: int = 0, **weights: Any) -> None:
    """Every term's rows, values, and the norms of the weighted sum."""
    trajectory = c.trajectory(text, committed)
    objective = c.objective(**(weights or BOTH))
    gradient = gradient_of(c, trajectory, objective)
    assert gradient.start == committed
    expected = c.dense.term_gradients(trajectory.tokens)
    assert set(gradient.terms) == set(weights or BOTH) - {"detach_context"}
    for name, part in gradient.terms.items():
        c.close(rows_of(c, gradient, part), expected[name][committed:])
    y = c.dense.one_hot(trajectory.tokens)
    with torch.no_grad():
        if "likelihood" in gradient.terms:
            value = -c.dense.log_likelihoods(y)[committed:].sum()
            assert gradient.terms["likelihood"].value == pytest.approx(float(value), rel=c.tolerance)
        if "reward" in gradient.terms:
            reward = float(c.dense.reward(y, trajectory.tokens))
            assert gradient.terms["reward"].value == pytest.approx(-reward, rel=c.tolerance)
            assert gradient.reward == pytest.approx(reward, rel=c.tolerance)
    total = gradient.total(trajectory_terms(objective), Step())
    whole = sum((weights or BOTH)[name] * expected[name][committed:] for name in gradient.terms)
    c.close(rows_of(c, gradient, total), whole)
    plain, centred = c.engine.workspace.gradients.norms(gradient, total, account())
    c.close(plain, whole.norm(dim=-1), 1e-8)
    c.close(centred, (whole - whole.mean(-1, keepdim=True)).norm(dim=-1), 1e-8)


@pytest.mark.parametrize("text", [FINISHED, UNFINISHED], ids=["finished", "unfinished"])
@pytest.mark.parametrize("committed", [0, 4])
@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_rows_equal_the_dense_gradient(arch: str, committed: int, text: str) -> None:
    reward = "qwen3" if arch in ("granite", "cohere") else arch
    check(case(arch, RewardSpec(reward)), text, committed)


SETTINGS: dict[str, dict[str, Any]] = {
    "system prompt": {"system": "use 5 + 5"},
    "padded matrices": {"padded": 6, "rewards": RewardSpec("llama", padded=9)},
    "several ends": {"eos": (tiny.END, tiny.PAD)},
    "another end": {"eos": (tiny.PAD,)},
    "no prefix reuse": {"reuse_prefix": False, "rewards": RewardSpec(reuse_prefix=False)},
    "permuted": {"rewards": RewardSpec("llama", permute=3)},
    "permuted, padded, scaled": {"rewards": RewardSpec("gemma2", permute=4, padded=1), "padded": 2},
    "missing": {"rewards": RewardSpec("qwen3", missing=("4", "5", "0"))},
    "missing, permuted": {"rewards": RewardSpec("gpt2", missing=("4",), permute=2)},
    "template's end differs": {"rewards": RewardSpec("qwen2", template=tiny.OTHER_END)},
    "template without end": {"rewards": RewardSpec("qwen2", template=tiny.NO_END)},
    "sum": {"rewards": RewardSpec("llama", aggregation="sum")},
    "mean, permuted": {"rewards": RewardSpec("qwen2", aggregation="mean", permute=1)},
    "min": {"rewards": RewardSpec("mistral", aggregation="min")},
    "last, other end": {"rewards": RewardSpec("qwen2", aggregation="last", template=tiny.OTHER_END)},
    "sum over steps": {"rewards": RewardSpec("gemma2", aggregation="sum", separators=(";", "+"))},
    "mean over steps": {"rewards": RewardSpec("gpt-neox", aggregation="mean", separators=(";",), permute=6)},
    "third label": {"rewards": RewardSpec("gpt2", aggregation="sum", labels=3, label=2)},
    "min, no prefix reuse": {
        "rewards": RewardSpec("qwen3", aggregation="min", separators=("\n",), reuse_prefix=False)
    },
    "sum without end": {"rewards": RewardSpec("qwen3", aggregation="sum", template=tiny.NO_END)},
    "ensemble": {"rewards": [RewardSpec("qwen2", weight=0.7), RewardSpec("llama", permute=5, weight=-0.4)]},
    "ensemble of different vocabularies": {
        "rewards": [
            RewardSpec("qwen2", weight=0.5, missing=("5",)),
            RewardSpec("gemma3", weight=0.3, missing=("4",), permute=1),
            RewardSpec("llama", weight=0.3, permute=2, aggregation="sum", seed=9),
        ],
        "system": "0",
    },
}


@pytest.mark.parametrize("committed", [0, 5])
@pytest.mark.parametrize("setting", SETTINGS)
def test_rows_equal_the_dense_gradient_in_every_setting(setting: str, committed: int) -> None:
    check(case(**SETTINGS[setting]), FINISHED, committed)


@pytest.mark.parametrize("name", ["reward", "likelihood"])
def test_a_single_term(name: str) -> None:
    check(case("llama"), FINISHED, 2, **{name: 0.8})
    if name == "likelihood":
        check(case("qwen2", None), FINISHED, 2, likelihood=0.8)


@pytest.mark.parametrize("committed", [0, 3])
def test_detached_context_removes_postfix_alone(committed: int) -> None:
    """Prop. C.1: δ_prefix is -log π, δ_postfix what is left of the likelihood's gradient."""
    c = case("qwen3")
    trajectory = c.trajectory(FINISHED, committed)
    with torch.no_grad():
        prefix = -c.dense.lm.log_pi(c.dense.one_hot(trajectory.tokens))[committed:]
    detached = gradient_of(c, trajectory, c.objective(likelihood=1.0, detach_context=True))
    full = gradient_of(c, trajectory, c.objective(likelihood=1.0))
    fixed_rows = rows_of(c, detached, detached.terms["likelihood"])
    rows = rows_of(c, full, full.terms["likelihood"])
    close(fixed_rows, prefix)
    postfix = rows - fixed_rows
    assert float(postfix[-1].abs().max()) < 1e-12
    assert float(postfix[0].norm()) > 1e-3
    assert detached.terms["likelihood"].pulls[0] is None
    check(c, FINISHED, committed, likelihood=0.7, reward=1.0, detach_context=True)


def test_detached_context_runs_no_language_model_for_a_rollout() -> None:
    c = case("qwen3")
    trajectory = c.trajectory(FINISHED, 2)
    objective = c.objective(likelihood=1.0, detach_context=True)

    async def method(session: Any) -> Any:
        await session.gradient(trajectory, objective)
        return session.cost.total

    used = c.run(method)
    assert used.forward_passes == 0
    assert used.backward_passes == 0


@pytest.mark.parametrize("arch", ["qwen2", "llama", "gemma2"])
@pytest.mark.parametrize("detach_context", [False, True])
@pytest.mark.parametrize("committed", [0, 3])
def test_another_text_than_the_rollout(arch: str, detach_context: bool, committed: int) -> None:
    """Tokens replaced behind the prefix, as after an argmax flip."""
    c = case(arch, RewardSpec(arch, permute=2))
    trajectory = c.trajectory(FINISHED, committed)
    text = trajectory.tokens.clone()
    text[[3, 5, -2]] = torch.tensor([14, 17, 23])
    objective = c.objective(reward=1.0, likelihood=0.5, detach_context=detach_context)
    gradient = gradient_of(c, trajectory, objective, tokens=text)
    for name, expected in c.dense.term_gradients(text).items():
        c.close(rows_of(c, gradient, gradient.terms[name]), expected[committed:])


@pytest.mark.parametrize("template", [tiny.CHATML, tiny.OTHER_END, tiny.NO_END])
@pytest.mark.parametrize("aggregation", [None, "sum", "min"])
def test_the_end_of_the_text_may_move(template: str, aggregation: str | None) -> None:
    """An end-of-sequence token replaced by another one, and the reverse, and one in the middle."""
    c = case("qwen2", RewardSpec("llama", template=template, aggregation=aggregation))
    end = c.lm.eos_ids[0]
    finished, unfinished = c.trajectory(FINISHED, 2), c.trajectory(UNFINISHED, 2)
    reopened, closed, middle = (t.tokens.clone() for t in (finished, unfinished, finished))
    reopened[-1], closed[-1], middle[4] = 14, end, end
    for trajectory, text in ((finished, reopened), (unfinished, closed), (finished, middle)):
        gradient = gradient_of(c, trajectory, c.objective(**BOTH), tokens=text)
        for name, expected in c.dense.term_gradients(text).items():
            c.close(rows_of(c, gradient, gradient.terms[name]), expected[2:])


@pytest.mark.parametrize("template", [tiny.CHATML, tiny.OTHER_END, tiny.NO_END])
@pytest.mark.parametrize("aggregation", [None, "sum"])
def test_only_the_end_is_free(template: str, aggregation: str | None) -> None:
    """The last position of a finished text: the reward model may not read it at all."""
    c = case("qwen2", RewardSpec("llama", template=template, aggregation=aggregation))
    check(c, FINISHED, len(c.trajectory(FINISHED)) - 1)
    check(c, UNFINISHED, len(UNFINISHED) - 1)
    check(c, tiny.END, 0)


@pytest.mark.parametrize("arch", ["qwen2", "llama", "gemma2", "gpt-neox"])
@pytest.mark.parametrize("rows", ["first", "all"])
@pytest.mark.parametrize("support", [None, 6])
@pytest.mark.parametrize("detach_context", [False, True])
def test_soft_rows(arch: str, rows: str, support: int | None, detach_context: bool) -> None:
    c = case(
        arch, [RewardSpec(arch, permute=1, weight=0.6), RewardSpec("qwen3", aggregation="sum", weight=0.4)]
    )
    start = 3
    trajectory = c.trajectory(FINISHED, start)
    count = 1 if rows == "first" else len(trajectory) - start
    draw = torch.Generator().manual_seed(1)
    candidates = None
    if support is not None:
        candidates = torch.stack([torch.randperm(V, generator=draw)[:support] for _ in range(count)])
    weights = torch.randn(count, support or V, generator=draw, dtype=torch.float64).softmax(-1)
    y = c.dense.one_hot(trajectory.tokens)
    at = torch.arange(V).expand(count, -1) if candidates is None else candidates
    y[start : start + count] = torch.zeros(count, V, dtype=y.dtype).scatter(-1, at, weights)
    objective = c.objective(reward=1.0, likelihood=0.3, detach_context=detach_context)
    soft = SoftTokens(start, candidates, weights)
    gradient = gradient_of(c, trajectory, objective, soft=soft)
    for name, expected in c.dense.term_gradients(trajectory.tokens, y).items():
        c.close(rows_of(c, gradient, gradient.terms[name]), expected[start:])


@pytest.mark.parametrize("arch", ["qwen2", "gemma2"])
def test_candidates_are_columns_of_the_full_rows(arch: str) -> None:
    c = case(arch, RewardSpec(arch, permute=1, missing=("4",)), padded=3)
    trajectory = c.trajectory(FINISHED, 2)
    for text in (None, trajectory.tokens.roll(1).where(torch.arange(len(trajectory)) > 3, trajectory.tokens)):
        gradient = gradient_of(c, trajectory, c.objective(**BOTH), tokens=text)
        total = gradient.total(trajectory_terms(c.objective(**BOTH)), Step())
        full = rows_of(c, gradient, total)
        each = torch.stack([torch.randperm(V)[:7] for _ in range(len(full))])
        close(rows_of(c, gradient, total, each), full.gather(-1, each), 1e-12)
        shared = torch.randperm(V)[:5]
        close(rows_of(c, gradient, total, shared), full[:, shared], 1e-12)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**20), position=st.integers(0, 12), committed=st.integers(0, 5))
def test_finite_differences(seed: int, position: int, committed: int) -> None:
    """The values' own slopes along a random direction of one soft row.

    GPT-2 and GPT-NeoX compute in float64 throughout; RMSNorm works in float32 whatever the weights."""
    committed = min(committed, position)
    c = case("gpt2", RewardSpec("gpt-neox", aggregation="mean"))
    trajectory = c.trajectory(FINISHED)
    objective = c.objective(**BOTH)
    draw = torch.Generator().manual_seed(seed)
    weights = torch.randn(1, V, generator=draw, dtype=torch.float64).softmax(-1)
    direction = torch.randn(1, V, generator=draw, dtype=torch.float64)
    direction /= direction.norm()
    step = 1e-5
    at = [
        gradient_of(
            c,
            trajectory,
            objective,
            start=committed,
            soft=SoftTokens(position, None, weights + k * step * direction),
        )
        for k in (-1, 0, 1)
    ]
    for name in BOTH:
        slope = (at[2].terms[name].value - at[0].terms[name].value) / (2 * step)
        row = rows_of(c, at[1], at[1].terms[name])[position - committed]
        assert slope == pytest.approx(float(row @ direction[0]), rel=1e-5, abs=1e-7)


# -- norms ------------------------------------------------------------------------------------------


def test_norms_are_padded_with_nan_at_committed_positions() -> None:
    c = case()
    trajectory = c.trajectory(FINISHED, 4)

    async def method(session: Any) -> Any:
        return await session.gradient_norms(trajectory, c.objective(**BOTH))

    plain, centred = c.run(method)
    whole = sum(w * c.dense.term_gradients(trajectory.tokens)[n] for n, w in BOTH.items())
    assert torch.isnan(plain[:4]).all()
    assert torch.isnan(centred[:4]).all()
    close(plain[4:], whole[4:].norm(dim=-1), 1e-8)
    close(centred[4:], (whole - whole.mean(-1, keepdim=True))[4:].norm(dim=-1), 1e-8)
    assert (centred[4:] <= plain[4:]).all()


def test_norms_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    c = case("gemma2", RewardSpec("gemma2", permute=2, missing=("5",)))
    gradient = gradient_of(c, c.trajectory(FINISHED), c.objective(**BOTH))
    total = gradient.total(trajectory_terms(c.objective(**BOTH)), Step())
    expected = c.engine.workspace.gradients.norms(gradient, total, account())
    rows = rows_of(c, gradient, total)
    monkeypatch.setattr(head_module, "CHUNK_ELEMENTS", 2 * V)
    fresh = case("gemma2", RewardSpec("gemma2", permute=2, missing=("5",)))
    again = gradient_of(fresh, fresh.trajectory(FINISHED), fresh.objective(**BOTH))
    total = again.total(trajectory_terms(c.objective(**BOTH)), Step())
    found = fresh.engine.workspace.gradients.norms(again, total, account())
    for value, other in zip(found, expected, strict=True):
        close(value, other, 1e-9)
    close(rows_of(fresh, again, total), rows, 1e-12)


# -- batches, reuse, cost ---------------------------------------------------------------------------

TEXTS = (FINISHED, "3", UNFINISHED, "sum" + tiny.END, tiny.END, "11111111111111111111")


@pytest.mark.parametrize("aggregation", [None, "sum"])
@pytest.mark.parametrize("arch", ["qwen2", "gemma3", "gpt2"])
@pytest.mark.parametrize("batch_size", [64, 2])
def test_batches_equal_single_tasks(arch: str, aggregation: str | None, batch_size: int) -> None:
    reward = "mistral" if arch == "gemma3" else "llama"  # both with a sliding window
    spec = RewardSpec(reward, aggregation=aggregation, template=tiny.OTHER_END)
    together = case(arch, spec, batch_size=batch_size)
    objective = together.objective(**BOTH)
    prompts = [
        Prompt.of("1+2=" * (1 + i % 3), id=str(i), system="0" if i % 2 else None) for i in range(len(TEXTS))
    ]
    starts = [min(i, len(tiny.ids(together.lm.tokenizer, t)) - 1) for i, t in enumerate(TEXTS)]
    wanted = {p.id: (t, s) for p, t, s in zip(prompts, TEXTS, starts, strict=True)}

    def method_of(c: Case) -> Any:
        async def method(session: Any) -> Any:
            text, start = wanted[session.prompt.id]
            trajectory = tiny.trajectory(c.lm, session.prompt, text, committed=start)
            gradient = await session.gradient(trajectory, objective)
            values = [p.value for p in gradient.terms.values()]
            return values, [rows_of(c, gradient, p) for p in gradient.terms.values()], session.cost

        return method

    batched = tiny.drive(together.engine, prompts, method_of(together))
    for prompt, (values, rows, cost) in zip(prompts, batched, strict=True):
        alone = case(arch, spec)
        own_values, own_rows, own_cost = tiny.drive(alone.engine, prompt, method_of(alone))
        assert values == pytest.approx(own_values, rel=1e-9)
        for value, expected in zip(rows, own_rows, strict=True):
            close(value, expected)
        for phase, usage in own_cost.phases.items():  # cost as if it had run alone
            assert cost.phases[phase].flops == usage.flops
            assert cost.phases[phase].calls == usage.calls


def test_a_gradient_serves_later_positions_of_its_text() -> None:
    c = case("llama", RewardSpec("llama", aggregation="sum"))
    objective = c.objective(**BOTH)
    first = c.trajectory(FINISHED)

    async def method(session: Any) -> Any:
        early = await session.gradient(first, objective)
        used = session.cost.total
        late = await session.gradient(first.commit(5), objective)
        assert late is early
        assert session.cost.total == used
        other = first.tokens.clone()
        other[7] = 20
        changed = await session.gradient(first.commit(5), objective, tokens=other)
        assert changed is not early
        again = await session.gradient(first.commit(6), objective)  # a rejected proposal later
        assert again is early
        return early, session.cost.counts

    early, counts = c.run(method)
    assert counts["gradients_computed"] == 2
    assert counts["gradients_reused"] == 2
    fresh = case("llama", RewardSpec("llama", aggregation="sum"))
    late = gradient_of(fresh, fresh.trajectory(FINISHED, 5), fresh.objective(**BOTH))
    where = slice(5, len(first))
    for name, part in early.terms.items():
        close(
            c.engine.workspace.gradients.rows(early, part, where, None, account()),
            fresh.engine.workspace.gradients.rows(late, late.terms[name], where, None, account()),
        )


class PerToken(TrajectoryObjective):
    """A mean over the free tokens: another objective at each position."""

    unit = "nats per token"
    needs_likelihood = True

    def value(self, view: TrajectoryView) -> Tensor:
        return -view.log_likelihood.mean()


def test_a_gradient_that_is_no_sum_over_tokens_serves_its_own_position_alone() -> None:
    c, objective = case("llama"), WeightedSum({"mean": 1.0}, {"mean": PerToken()})
    first = c.trajectory(FINISHED)

    async def method(session: Any) -> Any:
        early = await session.gradient(first, objective)
        assert await session.gradient(first, objective) is early
        return await session.gradient(first.commit(5), objective)

    late, fresh = c.run(method), case("llama")
    alone = gradient_of(fresh, fresh.trajectory(FINISHED, 5), objective)
    assert late.start == alone.start == 5
    close(rows_of(c, late, late.terms["mean"]), rows_of(fresh, alone, alone.terms["mean"]))


def test_a_gradient_does_not_serve_earlier_positions_or_other_objectives() -> None:
    c = case()
    objective, other = c.objective(**BOTH), c.objective(**BOTH)
    trajectory = c.trajectory(FINISHED, 4)

    async def method(session: Any) -> Any:
        late = await session.gradient(trajectory, objective)
        early = await session.gradient(trajectory, objective, start=1)
        third = await session.gradient(trajectory, other)
        return late, early, third

    late, early, third = c.run(method)
    assert (late.start, early.start, third.start) == (4, 1, 4)
    assert len({id(late), id(early), id(third)}) == 3


def test_kept_gradients_belong_to_live_objectives() -> None:
    """An objective that is gone must not lend its gradient to one that takes its place in memory."""
    c = case()
    trajectory = c.trajectory(FINISHED)

    async def method(session: Any) -> Any:
        first = Likelihood(detach_context=True)
        place = id(first)
        await session.gradient(trajectory, WeightedSum({"likelihood": 1.0}, {"likelihood": first}))
        del first
        await session.rollout(Sampling(max_new_tokens=1))  # the engine lets go of the last request
        gc.collect()
        others = [Likelihood() for _ in range(2000)]
        other = next((o for o in others if id(o) == place), others[0])
        gradient = await session.gradient(trajectory, WeightedSum({"likelihood": 1.0}, {"likelihood": other}))
        return gradient.terms["likelihood"].pulls[0]

    assert c.run(method) is not None  # the new objective reaches the contexts


def test_terms_that_share_a_model_add_up() -> None:
    """Nested sums, the same term twice, and one objective instance under two names."""
    c = case("llama", [RewardSpec(weight=0.5), RewardSpec("gpt2", permute=1, weight=0.5)])
    shared = Likelihood()
    inner = WeightedSum({"reward": 2.0, "likelihood": 0.5})
    objective = WeightedSum(
        {"a": 0.3, "b": -0.2, "c": 0.5, "d": 0.1, "e": 0.4},
        {"a": RewardObjective(), "b": shared, "c": inner, "d": shared, "e": Likelihood(True)},
    )
    trajectory = c.trajectory(FINISHED, 3)
    gradient = gradient_of(c, trajectory, objective)
    assert set(gradient.terms) == {"a", "b", "c.reward", "c.likelihood", "d", "e"}
    total = gradient.total(trajectory_terms(objective), Step())
    expected = c.dense.term_gradients(trajectory.tokens)
    with torch.no_grad():
        prefix = -c.dense.lm.log_pi(c.dense.one_hot(trajectory.tokens))
    whole = (0.3 + 1.0) * expected["reward"] + (-0.2 + 0.25 + 0.1) * expected["likelihood"] + 0.4 * prefix
    c.close(rows_of(c, gradient, total), whole[3:])
    plain, centred = c.engine.workspace.gradients.norms(gradient, total, account())
    c.close(plain, whole[3:].norm(dim=-1), 1e-8)
    c.close(centred, (whole - whole.mean(-1, keepdim=True))[3:].norm(dim=-1), 1e-8)


def test_a_shared_objective_under_another_name_is_not_confused() -> None:
    c = case("llama")
    shared = Likelihood()
    trajectory = c.trajectory(FINISHED)

    async def method(session: Any) -> Any:
        one = await session.gradient(trajectory, WeightedSum({"one": 1.0}, {"one": shared}))
        two = await session.gradient(trajectory, WeightedSum({"two": 1.0}, {"two": shared}))
        return set(one.terms), set(two.terms)

    assert c.run(method) == ({"one"}, {"two"})


def test_passes_and_tokens_are_counted() -> None:
    c = case("qwen2")
    trajectory = c.trajectory(FINISHED, 4)
    free = len(trajectory) - 4
    question = len(c.dense.lm.prompt)

    async def method(session: Any) -> Any:
        await session.gradient(trajectory, c.objective(**BOTH), phase="selection")
        return session.cost

    cost = c.run(method)
    assert set(cost.phases) <= {"selection", "method"}
    assert cost.total.calls == cost.phases["selection"].calls
    used = cost.phases["selection"]
    # Per model: its prefix once, then one forward and one backward pass of the free part.
    assert used.forward_passes == 4
    assert used.backward_passes == 2
    lm, rm = c.lm.body, c.reward.body  # type: ignore[union-attr]
    before = question + 4
    expected = (
        lm.flops(before, 0) + lm.flops(free - 1, before) + lm.backward_flops(free - 1, before)
        + 2 * 2.0 * free * V * 16
        + rm.flops(before, 0) + rm.flops(free + 1, before) + rm.backward_flops(free + 1, before)
    )  # fmt: skip
    assert used.flops == pytest.approx(expected)


# -- errors ---------------------------------------------------------------------------------------


def test_a_reward_term_without_a_reward() -> None:
    c = case("qwen2", None)
    with pytest.raises(ConfigError, match="differentiable reward"):
        gradient_of(c, c.trajectory(FINISHED), c.objective(reward=1.0))


def test_nan_is_the_error_of_its_row_alone() -> None:
    c = case("qwen2")
    token = tiny.TOKENS.index("5")
    with torch.no_grad():
        c.reward.model.get_input_embeddings().weight[token] = float("nan")  # type: ignore[union-attr]
    objective = c.objective(**BOTH)
    texts = {"good": "123", "bad": "153"}

    async def method(session: Any) -> Any:
        text = texts[session.prompt.id]
        gradient = await session.gradient(tiny.trajectory(c.lm, session.prompt, text), objective)
        return ("fine", gradient)

    prompts = [Prompt.of("1+2=", id=name) for name in texts]
    found = {p.id: value for p, value in c.engine.run(method, prompts)}
    assert isinstance(found["bad"], NumericalError)
    assert not isinstance(found["good"], NumericalError)


def test_norms_need_a_term_with_a_model() -> None:
    """A selector by gradient norm, and an objective that is a function of the logits alone."""
    c = case("qwen2")
    trajectory = c.trajectory(FINISHED)

    async def method(session: Any) -> Any:
        return await session.gradient_norms(trajectory, c.objective(kl=1.0, entropy=0.1))

    with pytest.raises(ConfigError, match="Gradient norms need"):
        c.run(method)


# -- memory -----------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Records the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.shape = 0, ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, list | tuple) else [out]
        view = getattr(func, "is_view", False)
        for tensor in made:
            if isinstance(tensor, Tensor) and not view and tensor.numel() > self.elements:
                self.elements, self.shape = tensor.numel(), tuple(tensor.shape)
        return out


@pytest.fixture
def wide() -> Any:
    """A vocabulary of 5000 and a text of 40 tokens."""
    from nabla.engine.engine import Engine

    tok = tiny.tokenizer((*tiny.TOKENS, *(f"<{i}>" for i in range(5000 - V))))
    lm = tiny.causal_lm("llama", tok)
    reward = tiny.outcome(
        "llama", tiny.tokenizer((*tiny.TOKENS, *(f"<{i}>" for i in range(5000 - V))), permute=1)
    )
    prompt = Prompt.of("1+2=", id="wide")
    trajectory = tiny.trajectory(lm, prompt, "12345" * 8)
    return Engine(lm, reward), prompt, trajectory


@pytest.mark.parametrize("rows", ["first", "all"])
def test_no_tensor_of_length_times_vocabulary(wide: Any, rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from nabla.refinement.dto import DTO

    engine, prompt, trajectory = wide
    monkeypatch.setattr(head_module, "CHUNK_ELEMENTS", 4 * 5000)
    monkeypatch.setitem(head_module.TILE_ELEMENTS, "cpu", 4 * 5000)
    dto = DTO(rows=rows, steps=3, learning_rate=0.5)

    async def method(session: Any) -> Any:
        await session.gradient_norms(trajectory, dto.objective)
        await dto.refine(trajectory, session)
        return True

    with Largest() as largest:
        assert tiny.drive(engine, prompt, method)
    assert len(trajectory) == 40
    # The reward model's table in the language model's order is V×H; nothing else comes close.
    assert largest.elements < 40 * 5000, largest.shape


def test_dense_reference_is_not_trivial() -> None:
    """The yardstick itself: gradients that are far from zero, and differ from token to token."""
    c = case("qwen2")
    trajectory = c.trajectory(FINISHED)
    assert isinstance(c.dense, Dense)
    for gradient in c.dense.term_gradients(trajectory.tokens).values():
        spread = gradient - gradient.mean(-1, keepdim=True)
        assert float(spread.norm(dim=-1).min()) > 1e-4
    assert cases.FINISHED.endswith(tiny.END)
