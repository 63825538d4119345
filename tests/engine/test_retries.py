"""Faults at every kind of request, at random: the solutions and counts are those of a run without any."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any
from unittest import mock

import pytest
import torch

from nabla.core.costs import Usage
from nabla.core.errors import ComponentError, ConfigError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.methods.base import Method, methods
from nabla.models.body import Body
from nabla.models.head import Head
from nabla.objectives.base import objectives
from nabla.rewards.function import FunctionReward
from nabla.rollouts.decoder import Decoder

SAMPLING = {"temperature": 0.7, "max_new_tokens": 40}
OBJECTIVE = {"name": "sum", "weights": {"reward": 1.0, "likelihood": 0.001}}
#: Calls without a fault behind each, so that a request that has failed alone gets through at its second try.
REST = 250
FAULTS = (
    lambda: torch.OutOfMemoryError("injected"),
    lambda: RuntimeError("a transient fault"),
    lambda: OSError("a transient fault"),
)


class Faults:
    """Raises at random in what the models do, before and after it, and in their backward passes; counts the
    kinds of request."""

    def __init__(
        self, engine: Engine, seed: int, rate: float, kinds: Sequence[Any] = FAULTS
    ) -> None:
        self.draw, self.rate, self.rest = random.Random(seed), rate, 0
        self.raised = kinds
        self.kinds: list[str] = []
        self.met: Counter[str] = Counter()
        handlers = engine.workspace.handlers
        for kind in list(handlers):
            handlers[kind] = self._within(kind, handlers[kind])

    def _within(self, kind: str, handler: Any) -> Any:
        def inside(requests: Sequence[Any]) -> Any:
            self.kinds.append(kind)
            try:
                self.maybe()
                found = handler(requests)
                self.maybe()
                return found
            finally:
                self.kinds.pop()

        return inside

    def maybe(self) -> None:
        self.rest -= 1
        if self.kinds and self.rest <= 0 and self.draw.random() < self.rate:
            self.fail(self.kinds[-1])

    def fail(self, where: str) -> None:
        self.rest = REST
        self.met[where] += 1
        raise self.draw.choice(self.raised)()

    @contextmanager
    def in_models(self) -> Iterator[None]:
        patches = [self._around(owner, name) for owner, name in (
            (Body, "run"), (Body, "step"), (Head, "logits"), (Head, "partition"),
        )]
        patches += [mock.patch.object(Decoder, name, self._writing(name)) for name in ("_admit", "_step")]
        patches.append(mock.patch.object(torch.autograd, "grad", self._backward(torch.autograd.grad)))
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()

    def _writing(self, name: str) -> Any:
        original = getattr(Decoder, name)

        def inside(decoder: Decoder) -> None:
            self.kinds.append("rollout")
            try:
                original(decoder)
            finally:
                self.kinds.pop()

        return inside

    def _backward(self, grad: Any) -> Any:
        """Before a backward pass, where it arrives at one of its inputs, or behind it."""

        def inside(outputs: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
            self.maybe()
            hooks = []
            if self.kinds and self.rest <= 0 and self.draw.random() < self.rate:
                chosen = self.draw.choice(list(inputs))
                hooks.append(chosen.register_hook(lambda _: self.fail("backward")))
            try:
                found = grad(outputs, inputs, *arguments, **named)
            finally:
                for hook in hooks:
                    hook.remove()
            self.maybe()
            return found

        return inside

    def _around(self, owner: Any, name: str) -> Any:
        original = getattr(owner, name)

        def around(this: Any, *arguments: Any, **named: Any) -> Any:
            self.maybe()
            found = original(this, *arguments, **named)
            self.maybe()
            return found

        return mock.patch.object(owner, name, around)


def plain(value: Any) -> Any:
    """Nested tuples of all that there is, without seconds and bytes."""
    if is_dataclass(value):
        names = [f.name for f in fields(value) if f.name not in ("seconds", "peak_bytes")]
        return tuple((name, plain(getattr(value, name))) for name in names)
    if isinstance(value, dict):
        return tuple((key, plain(value[key])) for key in sorted(value))
    if isinstance(value, list | tuple):
        return tuple(plain(entry) for entry in value)
    return value


def require_same(one: Any, other: Any, where: str = "") -> None:
    """Floats to the rounding of another batch."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            require_same(a, b, f"{where}/{a[0] if isinstance(a, tuple) and a else i}")
    elif isinstance(one, float) and isinstance(other, float):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4, nan_ok=True), where
    else:
        assert one == other, where


class Conditional(Method):
    """Reads and differentiates texts, and asks for values of many at once."""

    def __init__(self) -> None:
        self.reached = objectives.build(OBJECTIVE)

    async def solve(self, session: Session) -> Solution:
        objective = self.reached
        sampling = Sampling(**SAMPLING)
        found = await session.rollout(sampling, 3)
        texts = await session.read([t.tokens for t in found], sampling)
        first = await session.score(texts)
        await session.gradient(first[0], objective)
        other = [t.tokens.flip(0) for t in texts]
        await session.values(first[0], objective, other)
        (again,) = await session.score(await session.extend([first[1].commit(1)], sampling=sampling))
        return self.solution(session, again)


def gumbel() -> Method:
    dto = {"estimator": "gumbel-straight-through", "objective": OBJECTIVE, "steps": 4,
           "langevin": 0.1}
    return methods.build("nabla-reasoner", dto=dto, sampling=SAMPLING, max_rollouts=3)


METHODS = {
    "best-of-n": lambda: methods.build("best-of-n", n=5, sampling=SAMPLING),
    "nabla-reasoner": lambda: methods.build("nabla-reasoner", sampling=SAMPLING, max_rollouts=3),
    "gumbel": gumbel,
    "coordinate-search": lambda: methods.build("coordinate-search", steps=2, sampling=SAMPLING),
    "conditional": Conditional,
}


def solved(engine: Engine, method: Method, prompts: Sequence[Prompt]) -> dict[str, Any]:
    found = {prompt.id: outcome for prompt, outcome in engine.run(method.solve, prompts)}
    for outcome in found.values():
        assert isinstance(outcome, Solution), outcome
    return {name: plain(solution) for name, solution in found.items()}


@pytest.mark.parametrize(("name", "rate"), [
    ("best-of-n", 0.3), ("nabla-reasoner", 0.05), ("gumbel", 0.05), ("coordinate-search", 0.2),
    ("conditional", 0.3),
])
def test_faults_at_random_change_nothing(latin_lm, latin_rm, latin_prompts, name, rate):
    prompts = latin_prompts[:3]
    expected = solved(Engine(latin_lm, latin_rm), METHODS[name](), prompts)
    met: Counter[str] = Counter()
    for seed in range(2):
        engine = Engine(latin_lm, latin_rm)
        faults = Faults(engine, seed, rate)
        with faults.in_models():
            found = solved(engine, METHODS[name](), prompts)
        assert sum(faults.met.values()) > 1
        met += faults.met
        for prompt in prompts:
            require_same(expected[prompt.id], found[prompt.id], f"{name}/{prompt.id}")
    print(met)


@pytest.mark.parametrize("kind", ["rollout", "read", "score", "gradient", "value", "joint"])
@pytest.mark.parametrize("after", [False, True])
def test_a_fault_at_each_kind_of_request_changes_nothing(latin_lm, latin_rm, latin_prompts, kind, after):
    """The first two batches of the kind are out of memory, before or after their work is done."""
    prompts = latin_prompts[:3]
    name = "gumbel" if kind == "joint" else "conditional"
    expected = solved(Engine(latin_lm, latin_rm), METHODS[name](), prompts)
    engine, sizes = Engine(latin_lm, latin_rm, continuous=False), []
    handler = engine.workspace.handlers[kind]

    def failing(requests):
        sizes.append(len(requests))
        found = handler(requests) if after or len(sizes) > 2 else None
        if len(sizes) <= 2:
            raise torch.OutOfMemoryError("injected")
        return found

    engine.workspace.handlers[kind] = failing
    found = solved(engine, METHODS[name](), prompts)
    assert sizes[0] > sizes[1] > 0  # halved
    for prompt in prompts:
        require_same(expected[prompt.id], found[prompt.id], f"{kind}/{prompt.id}")


@pytest.mark.parametrize("continuous", [False, True])
def test_a_step_that_fails_again_and_again_ends_one_row(latin_lm, latin_rm, latin_prompts, continuous):
    """One problem's rows cannot be decoded: it fails, the others write what they would have written."""
    prompts = latin_prompts[:3]
    expected = solved(Engine(latin_lm, latin_rm), METHODS["best-of-n"](), prompts)
    step = Decoder._step

    def failing(decoder: Decoder) -> None:
        rows = [row for row in decoder.rows if row is not None]
        if any(row.opening.account.problem == prompts[1].id and len(row.tokens) == 7 for row in rows):
            raise torch.OutOfMemoryError("injected")
        step(decoder)

    engine = Engine(latin_lm, latin_rm, continuous=continuous)
    with mock.patch.object(Decoder, "_step", failing):
        found = {prompt.id: outcome for prompt, outcome in engine.run(METHODS["best-of-n"]().solve, prompts)}
    assert isinstance(found[prompts[1].id], NablaError)
    for prompt in (prompts[0], prompts[2]):
        require_same(expected[prompt.id], plain(found[prompt.id]), prompt.id)


def test_flops_do_not_depend_on_neighbours(latin_lm, latin_rm, latin_prompts, monkeypatch):
    """Rows ahead are as many alone as in company, also where a chunk of logits holds a few only."""
    from nabla.models import head

    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 5 * latin_lm.head.usable)
    alone = solved(Engine(latin_lm, latin_rm, live=1), METHODS["nabla-reasoner"](), latin_prompts)
    together = solved(Engine(latin_lm, latin_rm), METHODS["nabla-reasoner"](), latin_prompts)
    for prompt in latin_prompts:
        require_same(alone[prompt.id], together[prompt.id], prompt.id)


def test_rows_that_share_a_prompt_cost_the_same_in_parts(latin_lm, latin_rm, latin_prompts):
    """The rows of a problem meet the same prefixes however few are decoded together."""
    expected = solved(Engine(latin_lm, latin_rm), METHODS["best-of-n"](), latin_prompts)
    small = Engine(latin_lm, latin_rm, rollout={"name": "huggingface", "batch_size": 3}, batch_size=2)
    found = solved(small, METHODS["best-of-n"](), latin_prompts)
    for prompt in latin_prompts:
        require_same(expected[prompt.id], found[prompt.id], prompt.id)


def test_what_fails_for_good_fails_alone_and_is_counted_once(latin_lm, latin_prompts):
    calls: list[str] = []

    def judge(prompt: str, response: str) -> float:
        calls.append(prompt)
        if prompt == latin_prompts[1].text:
            raise ValueError("no")
        return 1.0

    engine = Engine(latin_lm, FunctionReward(judge))
    found = {p.id: s for p, s in engine.run(METHODS["best-of-n"]().solve, latin_prompts[:4])}
    failures = {name: outcome for name, outcome in found.items() if isinstance(outcome, NablaError)}
    assert set(failures) == {latin_prompts[1].id}


@pytest.mark.parametrize(("error", "tries"), [
    (torch.OutOfMemoryError("no"), 2), (RuntimeError("no"), 2), (OSError("no"), 2),
    (ValueError("no"), 1), (ConfigError("no"), 1),
])
def test_a_lone_request_has_a_second_try_where_the_fault_may_pass(latin_lm, latin_prompts, error, tries):
    engine, calls = Engine(latin_lm, FunctionReward(lambda prompt, response: 0.0)), []

    def failing(requests):
        calls.append(requests)
        raise error

    engine.workspace.handlers["score"] = failing
    ((_, outcome),) = engine.run(METHODS["best-of-n"]().solve, latin_prompts[:1])
    assert isinstance(outcome, NablaError)
    lone = Counter(id(requests[0]) for requests in calls if len(requests) == 1)
    assert set(lone.values()) == {tries}
    expected = {ConfigError: ConfigError, torch.OutOfMemoryError: NablaError}
    assert type(outcome) is expected.get(type(error), ComponentError)


class Kinds(Method):
    """One request of every kind, several of a problem at once."""

    async def solve(self, session: Session) -> Solution:
        objective, sampling = objectives.build(OBJECTIVE), Sampling(**SAMPLING)
        found = await session.rollout(sampling, 3)
        texts = await session.read([t.tokens for t in found], sampling, keep_graph=True)
        others = [text.tokens.flip(0) for text in texts]
        await session.values(texts[0], objective, others)  # before anything of the reward is stored
        await session.gradient(texts[0], objective, tokens=others[0])
        scored = await session.score(texts, keep_graph=True)
        for text in scored:
            await session.gradient(text, objective)
        await session.values(scored[0], objective, [t.roll(1) for t in others])
        await session.judge(await session.rollout(sampling, 2))
        (again,) = await session.score(await session.extend([texts[1].commit(1)], sampling=sampling))
        return self.solution(session, again)


@pytest.mark.parametrize("keep_graph", [False, True])
def test_costs_do_not_depend_on_where_a_batch_is_cut(latin_lm, latin_rm, latin_prompts, keep_graph):
    prompts = latin_prompts[:2]
    settings = {"keep_graph": keep_graph, "continuous": False}
    expected = solved(Engine(latin_lm, latin_rm, live=1, **settings), Kinds(), prompts)
    for size in (1, 2, 8):
        found = solved(Engine(latin_lm, latin_rm, batch_size=size, **settings), Kinds(), prompts)
        for prompt in prompts:
            require_same(expected[prompt.id], found[prompt.id], f"{size}/{prompt.id}")


class Differentiating(Method):
    """Texts whose graphs are kept, and their gradients; gives these away."""

    def __init__(self) -> None:
        self.gradients: dict[str, list[torch.Tensor]] = {}

    async def solve(self, session: Session) -> Solution:
        objective, sampling = objectives.build(OBJECTIVE), Sampling(**SAMPLING)
        found = await session.rollout(sampling, 3)
        texts = await session.read([t.tokens for t in found], sampling, keep_graph=True)
        scored = await session.score(texts, keep_graph=True)
        rows = [await session.gradient(text, objective) for text in scored]
        self.gradients[session.prompt.id] = [
            pull.rows(torch.arange(len(row.tokens) - row.start), None)
            for row in rows
            for term in row.terms.values()
            for pull in term.pulls
            if pull is not None
        ]
        return self.solution(session, scored[0])


def without_repeats(value: Any) -> Any:
    """A plain solution without the work that was done twice, which is counted apart."""
    if isinstance(value, tuple):
        return tuple(
            without_repeats(v) for v in value if not (isinstance(v, tuple) and v[:1] == ("repeated",))
        )
    return value


def compare(sound: Differentiating, method: Differentiating, expected: Any, found: Any) -> None:
    """Answers, gradients, rewards, calls and FLOPs."""
    for name, solution in expected.items():
        for one, other in zip(sound.gradients[name], method.gradients[name], strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)
        require_same(without_repeats(solution), without_repeats(found[name]), name)


@pytest.fixture(scope="module")
def sound(latin_lm, latin_rm, latin_prompts) -> Any:
    method = Differentiating()
    return method, solved(Engine(latin_lm, latin_rm, keep_graph=True), method, latin_prompts[:3])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", range(len(FAULTS)), ids=["memory", "runtime", "system"])
def test_faults_with_kept_graphs_change_nothing(latin_lm, latin_rm, latin_prompts, sound, seed, kind):
    method, engine = Differentiating(), Engine(latin_lm, latin_rm, keep_graph=True)
    faults = Faults(engine, seed, 0.3, FAULTS[kind : kind + 1])
    with faults.in_models():
        found = solved(engine, method, latin_prompts[:3])
    assert sum(faults.met.values()) > 1
    compare(*sound[:1], method, sound[1], found)
    assert engine.workspace.graphs.budget.used == 0
    assert not engine.workspace.graphs._lost


@pytest.mark.parametrize("what", ["through the kept", "through the models"])
@pytest.mark.parametrize("where", ["in it", "behind it"])
@pytest.mark.parametrize("kind", range(len(FAULTS)), ids=["memory", "runtime", "system"])
def test_a_backward_pass_that_fails_costs_nothing(
    latin_lm, latin_rm, latin_prompts, sound, monkeypatch, what, where, kind
):
    """The first backward pass of its kind, of several rows where they share a graph. Where memory has run
    out the graphs make room, and the passes that this costs are counted apart."""
    grad, failed = torch.autograd.grad, []

    def broken(outputs: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        kept = not arguments and "retain_graph" in named
        models = bool(arguments) and "retain_graph" in named
        hit = not failed and (kept if what == "through the kept" else models)

        def fail(*_: Any) -> None:
            failed.append(len(list(inputs)))
            raise FAULTS[kind]()

        hooks = [list(inputs)[-1].register_hook(fail)] if hit and where == "in it" else []
        try:
            found = grad(outputs, inputs, *arguments, **named)
        finally:
            for hook in hooks:
                hook.remove()
        if hit and where == "behind it":
            fail()
        return found

    monkeypatch.setattr(torch.autograd, "grad", broken)
    method, engine = Differentiating(), Engine(latin_lm, latin_rm, keep_graph=True)
    found = solved(engine, method, latin_prompts[:3])
    assert len(failed) == 1
    compare(*sound[:1], method, sound[1], found)
    again = sum(dict(dict(solution)["cost"])["repeated"] != plain(Usage()) for solution in found.values())
    assert (again > 0) == (FAULTS[kind]().__class__ is torch.OutOfMemoryError)


def test_a_request_that_fails_behind_its_backward_pass_finds_its_graph(
    latin_lm, latin_rm, latin_prompts, sound
):
    engine, method, calls = Engine(latin_lm, latin_rm, keep_graph=True), Differentiating(), []
    handler = engine.workspace.handlers["gradient"]

    def failing(requests: Sequence[Any]) -> Any:
        calls.append(len(requests))
        found = handler(requests)
        if len(calls) % 3 == 1:  # the second try of each is let through
            raise RuntimeError("a transient fault")
        return found

    engine.workspace.handlers["gradient"] = failing
    found = solved(engine, method, latin_prompts[:3])
    assert len(calls) > 3
    compare(*sound[:1], method, sound[1], found)


def test_a_graph_without_memory_is_not_kept(latin_lm, latin_rm, latin_prompts, sound, monkeypatch):
    def full(*arguments: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("injected")

    monkeypatch.setattr(type(latin_rm), "judged", full)
    method = Differentiating()
    found = solved(Engine(latin_lm, latin_rm, keep_graph=True), method, latin_prompts[:3])
    for name, solution in sound[1].items():
        for one, other in zip(sound[0].gradients[name], method.gradients[name], strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)
        assert dict(solution)["tokens"] == dict(found[name])["tokens"]
