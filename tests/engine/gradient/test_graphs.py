"""A gradient from the graph that scoring or reading has kept is the gradient, for the price of a backward
pass."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nabla.core.costs import Account, Cost, CostMeter
from nabla.core.errors import NumericalError
from nabla.core.prompt import Prompt
from nabla.core.trajectory import Trajectory
from nabla.engine.gradient.graphs import FreeText, Graphs, KeptBatch, groups
from nabla.engine.gradient.passes import Passes
from nabla.engine.gradient.values import TrajectoryGradient
from nabla.models.channels import TablePull
from nabla.models.ledger import ByteBudget
from nabla.rewards.base import RelaxedReward, SoftTokens
from tests import tiny
from tests.cases import FINISHED, UNFINISHED, Case, RewardSpec, case, close

BOTH = {"reward": 1.0, "likelihood": 0.3}
TEXTS = (FINISHED, UNFINISHED, "12", "sum 3;\n2+1=3;\n4=5", "n" + tiny.END)
REWARDS: dict[str, RewardSpec | list[RewardSpec]] = {
    "outcome": RewardSpec(),
    "outcome, other ids": RewardSpec("llama", permute=3, template=tiny.OTHER_END),
    "steps, min": RewardSpec(aggregation="min", separators=";"),
    "steps, mean": RewardSpec("llama", aggregation="mean", separators=";"),
    "tokens, last": RewardSpec(aggregation="last"),
    "sum of both": [
        RewardSpec(weight=0.7),
        RewardSpec("llama", aggregation="min", separators=";", weight=2.0),
    ],
    "no cache": RewardSpec(reuse_prefix=False),
}


def kept(name: str = "outcome", **engine: Any) -> Case:
    return case(rewards=REWARDS[name], keep_graph=True, **engine)


def same(one: TrajectoryGradient, other: TrajectoryGradient, tolerance: float = 1e-12) -> None:
    """Values, pulls through every channel, and what multiplies ``log π``."""
    assert one.start == other.start
    assert set(one.terms) == set(other.terms)
    for term, part in one.terms.items():
        reference = other.terms[term]
        assert part.value == pytest.approx(reference.value, rel=tolerance, abs=tolerance)
        close(part.direct, reference.direct, tolerance)
        assert [pull is None for pull in part.pulls] == [pull is None for pull in reference.pulls]
        for pull, expected in zip(part.pulls, reference.pulls, strict=True):
            if isinstance(pull, TablePull) and isinstance(expected, TablePull):
                close(pull.vectors, expected.vectors, tolerance)
    if one.reward is not None:
        assert one.reward == pytest.approx(other.reward, rel=tolerance)


def counted(cost: Cost) -> Any:
    """All but seconds and bytes, by phase."""
    phases = {name: replace(usage, seconds=0.0, peak_bytes=0) for name, usage in cost.phases.items()}
    return {name: usage for name, usage in phases.items() if usage.flops}


def gradients(c: Case, texts: Sequence[Trajectory], weights: dict[str, float], **score: Any) -> Any:
    """Of all texts, after they have been scored together; and the cost."""
    objective = c.objective(**weights)

    async def method(session: Any) -> Any:
        scored = await session.score(texts, **score)
        found = [await session.gradient(t, objective) for t in scored]
        return [t.reward for t in scored], found, session.cost

    return c.run(method)


@pytest.mark.parametrize("weights", [{"reward": 1.0}, BOTH], ids=["reward", "both"])
@pytest.mark.parametrize("name", REWARDS)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4, unique=True),
    committed=st.integers(0, 4),
    split=st.sampled_from([1.0, 16.0, float("inf")]),
)
def test_gradients_are_those_without_a_graph(
    name: str, weights: dict[str, float], texts: list[str], committed: int, split: float
) -> None:
    """In batches of every kind: a graph for each row, for some, and one for all."""
    c, plain = kept(name, split_padding=split), case(rewards=REWARDS[name])
    rows = [c.trajectory(text) for text in texts]
    rows = [row.commit(min(committed, len(row) - 1)) for row in rows]
    scores, found, cost = gradients(c, rows, weights, keep_graph=True)
    expected_scores, expected, reference = gradients(plain, rows, weights)
    assert scores == pytest.approx(expected_scores, rel=1e-12)
    for one, other in zip(found, expected, strict=True):
        same(one, other)
    models = len(c.dense.rms)
    assert cost.counts["graphs_kept"] == cost.counts["graphs_used"] == len(rows)
    saved = reference.phases["gradient"].forward_passes - cost.phases["gradient"].forward_passes
    assert saved >= models * len(rows)
    assert cost.phases["gradient"].backward_passes == reference.phases["gradient"].backward_passes
    assert cost.total.flops < reference.total.flops
    if "likelihood" not in weights:
        assert cost.phases["gradient"].forward_passes == 0
        assert cost.phases["gradient"].calls == models * len(rows)


def test_flops_of_a_gradient_are_those_of_its_backward_pass() -> None:
    c = kept()
    text = c.trajectory(FINISHED, 4)
    _, _, cost = gradients(c, [text], {"reward": 1.0}, keep_graph=True)
    body = c.reward.body  # type: ignore[union-attr]
    before = len(c.dense.lm.prompt) + 4
    free = len(text) - 4 + 1  # the template's line break
    assert cost.phases["gradient"].flops == pytest.approx(body.backward_flops(free, before))
    assert cost.phases["reward"].flops == pytest.approx(body.flops(before + free, 0))


def test_a_graph_serves_later_starts_and_other_objectives_and_no_earlier_ones() -> None:
    c, plain = kept(), case()
    text = c.trajectory(FINISHED, 4)
    one, two = c.objective(reward=1.0), c.objective(**BOTH)

    async def method(session: Any) -> Any:
        (scored,) = await session.score([text], keep_graph=True)
        late = await session.gradient(scored.commit(3), one)
        other = await session.gradient(scored.commit(3), two)
        used = session.cost.phases["gradient"]
        early = await session.gradient(scored, two, start=2)
        return late, other, early, used, session.cost

    late, other, early, used, cost = c.run(method)
    assert used.backward_passes == 2  # the reward's once, the language model's
    assert cost.counts["graphs_used"] == 2
    for found, objective, start in ((late, one, 7), (other, two, 7), (early, two, 2)):
        want = plain.run(lambda session, o=objective, s=start: session.gradient(text, o, start=s))
        same(found, want)


def test_another_text_and_relaxed_rows_never_use_a_graph() -> None:
    c, plain = kept(), case()
    text = c.trajectory(FINISHED, 4)
    other = text.tokens.clone()
    other[6] = tiny.TOKENS.index("4")
    candidates = torch.tensor([[5, 6, 7]])
    soft = SoftTokens(4, candidates, torch.full((1, 3), 1 / 3, dtype=torch.float64))
    objective = c.objective(**BOTH)

    async def method(session: Any) -> Any:
        (scored,) = await session.score([text], keep_graph=True)
        changed = await session.gradient(scored, objective, tokens=other)
        mixed = await session.gradient(scored, objective, soft=soft)
        return changed, mixed, session.cost

    changed, mixed, cost = c.run(method)
    assert "graphs_used" not in cost.counts
    same(changed, plain.run(lambda session: session.gradient(text, objective, tokens=other)))
    same(mixed, plain.run(lambda session: session.gradient(text, objective, soft=soft)))


@pytest.mark.parametrize("name", ["outcome", "steps, min"])
def test_the_language_models_graph_is_kept_where_it_reads(name: str) -> None:
    """Texts that a server wrote: reading gives states and log-probabilities, and the gradient's forward
    pass."""
    c, plain = kept(name), case(rewards=REWARDS[name])
    tokens = c.trajectory(FINISHED).tokens
    for committed in (0, 5, len(tokens) - 1):

        async def method(session: Any, committed: int = committed) -> Any:
            (read,) = await session.read(
                [tokens], c.trajectory(FINISHED).sampling, committed=committed, keep_graph=True
            )
            before = session.cost.total.forward_passes
            gradient = await session.gradient(read, c.objective(**BOTH, detach_context=False))
            return read, gradient, session.cost, before

        read, found, cost, before = c.run(method)
        reference, expected, _, plain_before = plain.run(method)
        close(read.hidden, reference.hidden, 1e-12)
        close(read.log_probs, reference.log_probs, 1e-12)
        same(found, expected)
        last = committed == len(tokens) - 1  # whose state nobody needs
        assert cost.counts.get("graphs_kept", 0) == (0 if last else 1)
        assert cost.total.forward_passes - before == 2  # the reward's prefix and free part
        assert last or before == plain_before + (1 if committed >= 0 else 0)


def test_a_budget_of_nothing_falls_back() -> None:
    c, plain = kept(), case()
    c.engine.workspace.graphs.budget = ByteBudget(0)
    texts = [c.trajectory(FINISHED, 4), c.trajectory(UNFINISHED, 2)]
    scores, found, cost = gradients(c, texts, BOTH, keep_graph=True)
    expected_scores, expected, reference = gradients(plain, texts, BOTH)
    assert scores == pytest.approx(expected_scores, rel=1e-12)
    for one, other in zip(found, expected, strict=True):
        same(one, other)
    assert cost.counts["graphs_refused"] == 2
    assert "graphs_used" not in cost.counts
    assert cost.total.flops == pytest.approx(reference.total.flops)
    assert cost.total.calls == reference.total.calls


def test_the_least_recently_used_graph_gives_way() -> None:
    """Room for one graph of two: the second text's takes it, the first one's gradient takes its passes."""
    c, plain = kept(), case()
    graphs = c.engine.workspace.graphs
    graphs.budget = ByteBudget()
    texts = [c.trajectory(FINISHED, 4), c.trajectory(UNFINISHED, 2)]
    objective = c.objective(reward=1.0)

    async def method(session: Any) -> Any:
        (one,) = await session.score(texts[:1], keep_graph=True)
        graphs.budget.limit = int(graphs.budget.used * 1.5)
        (two,) = await session.score(texts[1:], keep_graph=True)
        return [await session.gradient(t, objective) for t in (one, two)], session.cost

    found, cost = c.run(method)
    assert (cost.counts["graphs_kept"], cost.counts["graphs_used"]) == (2, 1)
    assert cost.phases["gradient"].forward_passes == 1
    for one, text in zip(found, texts, strict=True):
        same(one, plain.run(lambda session, t=text: session.gradient(t, objective)))


def live_graphs() -> int:
    """Tensors of graphs that are alive."""
    gc.collect()
    return sum(issubclass(type(x), torch.Tensor) and x.grad_fn is not None for x in gc.get_objects())


def test_memory_is_given_back() -> None:
    """By a drop, by the backward pass, and at the end of a problem."""
    c = kept(split_padding=1.0)
    budget = c.engine.workspace.graphs.budget
    texts = [c.trajectory(text, 1) for text in TEXTS[:4]]
    objective = c.objective(reward=1.0)
    before = live_graphs()

    async def method(session: Any) -> Any:
        scored = await session.score(texts, keep_graph=True)
        full, alive = budget.used, live_graphs()
        await session.gradient(scored[0], objective)
        after_one = budget.used
        session.drop_graphs(but=scored[1:2])
        after_drop = budget.used
        return full, alive, after_one, after_drop

    full, alive, after_one, after_drop = c.run(method)
    assert alive > before
    assert full > after_one > after_drop > 0
    assert budget.used == 0
    assert live_graphs() == before


def test_problems_do_not_meet_in_each_others_graphs() -> None:
    """Interleaved: the same text answers two problems, each is dropped by its own."""
    c, plain = kept(), case()
    objective = c.objective(**BOTH)
    prompts = [Prompt.of(question, id=str(i)) for i, question in enumerate(["1+2=", "2+2=", "1+2="])]

    def method(c: Case) -> Callable[[Any], Any]:
        async def solve(session: Any) -> Any:
            text = tiny.trajectory(c.lm, session.prompt, FINISHED, committed=int(session.prompt.id))
            (scored,) = await session.score([text], keep_graph=True)
            if session.prompt.id == "1":
                session.drop_graphs()
            return (await session.gradient(scored, objective), session.cost)

        return solve

    found = {p.id: value for p, value in c.engine.run(method(c), prompts)}
    expected = {p.id: value for p, value in plain.engine.run(method(plain), prompts)}
    for name, (gradient, cost) in found.items():
        same(gradient, expected[name][0])
        assert cost.counts.get("graphs_used", 0) == (0 if name == "1" else 1)


def test_nan_is_the_error_of_its_row_alone() -> None:
    c = kept(split_padding=float("inf"))
    token = tiny.TOKENS.index("5")
    with torch.no_grad():
        c.reward.model.get_input_embeddings().weight[token] = float("nan")  # type: ignore[union-attr]
    objective = c.objective(**BOTH)
    texts = {"good": "123", "bad": "153"}

    async def method(session: Any) -> Any:
        text = tiny.trajectory(c.lm, session.prompt, texts[session.prompt.id])
        (scored,) = await session.score([text], keep_graph=True)
        return ("fine", await session.gradient(scored, objective))

    found = {p.id: v for p, v in c.engine.run(method, [Prompt.of("1+2=", id=name) for name in texts])}
    assert isinstance(found["bad"], NumericalError)
    assert not isinstance(found["good"], NumericalError)
    assert c.engine.workspace.graphs.budget.used == 0


@pytest.mark.parametrize("fault", ["scoring", "reading", "backward"])
def test_out_of_memory_leaves_nothing_and_falls_back(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    c, plain = kept(), case()
    text = c.trajectory(FINISHED, 4)
    body = c.lm.body if fault == "reading" else c.reward.body  # type: ignore[union-attr]
    run, differentiate, failed = body.run, KeptBatch.differentiate, []

    def full(chunks: Any, *, keep: bool = False) -> Any:
        if torch.is_grad_enabled() and keep:
            failed.append(True)
            raise torch.OutOfMemoryError("none left")
        return run(chunks, keep=keep)

    def broken(batch: KeptBatch) -> None:
        if not failed:
            failed.append(True)
            monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: full_grad())
        differentiate(batch)

    grad = torch.autograd.grad

    def full_grad() -> Any:
        monkeypatch.setattr(torch.autograd, "grad", grad)
        raise torch.OutOfMemoryError("none left")

    if fault == "backward":
        monkeypatch.setattr(KeptBatch, "differentiate", broken)
    else:
        monkeypatch.setattr(body, "run", full)

    async def method(session: Any) -> Any:
        (read,) = await session.read([text.tokens], text.sampling, committed=4, keep_graph=True)
        (scored,) = await session.score([read], keep_graph=True)
        try:
            found = await session.gradient(scored, c.objective(**BOTH))
        except Exception:
            found = await session.gradient(scored, c.objective(**BOTH))
        return found

    same(c.run(method), plain.run(method))
    assert failed
    assert c.engine.workspace.graphs.budget.used == 0


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's compiler asks for it
@pytest.mark.parametrize("option", ["checkpoint_activations", "compile_layers"])
def test_checkpointed_and_compiled_bodies_keep_graphs_too(option: str) -> None:
    c, plain = kept(**{option: True}), case()
    texts = [c.trajectory(FINISHED, 4), c.trajectory(UNFINISHED, 0)]
    _, found, cost = gradients(c, texts, {"reward": 1.0}, keep_graph=True)
    _, expected, _ = gradients(plain, texts, {"reward": 1.0})
    for one, other in zip(found, expected, strict=True):
        same(one, other, 1e-10)
    assert cost.counts["graphs_used"] == 2


def test_an_engine_without_the_option_keeps_nothing() -> None:
    c = case()
    _, _, cost = gradients(c, [c.trajectory(FINISHED)], {"reward": 1.0}, keep_graph=True)
    assert not any(name.startswith("graphs") for name in cost.counts)


# -- the parts alone ----------------------------------------------------------------------------------


@given(lengths=st.lists(st.integers(1, 200), max_size=12), enough=st.sampled_from([1.0, 64.0, float("inf")]))
def test_rows_are_grouped_until_there_are_enough_tokens(lengths: list[int], enough: float) -> None:
    found = list(groups(lengths, enough))
    assert sorted(i for group in found for i in group) == list(range(len(lengths)))
    for group in found[:-1]:
        total = sum(lengths[i] for i in group)
        assert total >= enough
        assert total - min(lengths[i] for i in group) < enough


def test_a_row_that_nobody_wants_any_more_is_not_differentiated() -> None:
    leaves = [torch.ones(2, 3, requires_grad=True) for _ in range(3)]
    rewards = [RelaxedReward((leaf * (i + 1)).sum(), (leaf,)) for i, leaf in enumerate(leaves)]
    graphs, meter = Graphs(ByteBudget(1000)), CostMeter()
    texts = [
        FreeText(Account("p", meter, "reward"), Prompt.of("a"), torch.tensor([i, 5]), 0) for i in range(3)
    ]
    place = graphs.place()
    assert place(900)
    graphs.keep_rewards(texts, rewards, place)
    graphs.drop("p", [(texts[0].prompt, texts[0].tokens), (texts[2].prompt, texts[2].tokens)])
    assert graphs.reward(texts[1]) is None
    kept_row = graphs.reward(texts[2])
    assert kept_row is not None
    (slope,) = kept_row.slopes(1)
    assert torch.equal(slope, torch.full((1, 3), 3.0))
    assert graphs.budget.used == 2 * leaves[0].numel() * 4
    graphs.drop("p")
    assert graphs.budget.used == 0


def test_a_backward_pass_is_counted_where_what_follows_it_fails_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failed attempt's counts are taken back, those of a pass that needs no second run too."""
    text = kept().trajectory(FINISHED, 4)
    _, _, expected = gradients(kept(), [text], BOTH, keep_graph=True)
    c, failed = kept(), []
    language = Passes.language

    def failing(passes: Passes, tasks: Any, **named: Any) -> Any:
        if tasks and not failed:
            failed.append(True)
            raise RuntimeError("a transient fault")
        return language(passes, tasks, **named)

    monkeypatch.setattr(Passes, "language", failing)
    _, _, cost = gradients(c, [text], BOTH, keep_graph=True)
    assert failed
    assert counted(cost) == counted(expected)


@pytest.mark.parametrize("part", ["reward", "states"])
def test_a_pass_that_is_run_again_without_a_graph_is_counted_once(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    c, plain = kept(), case()
    text = c.trajectory(FINISHED, 4)
    body = c.reward.body if part == "reward" else c.lm.body  # type: ignore[union-attr]
    run, failed = body.run, []

    def full(chunks: Any, *, keep: bool = False) -> Any:
        if torch.is_grad_enabled() and keep:
            failed.append(True)
            raise torch.OutOfMemoryError("none left")
        return run(chunks, keep=keep)

    async def method(session: Any) -> Any:
        if part == "reward":
            await session.score([text], keep_graph=True)
        else:
            await session.read([text.tokens], text.sampling, committed=4, keep_graph=True)
        return session.cost

    monkeypatch.setattr(body, "run", full)
    cost = c.run(method)
    assert failed
    monkeypatch.setattr(body, "run", run)
    assert counted(cost) == counted(plain.run(method))
