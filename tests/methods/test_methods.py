"""Greedy, best-of-N and ∇-Reasoner on the shipped models."""

from __future__ import annotations

import pytest
import torch

from nabla.acceptance.controls import Always, Never
from nabla.core.errors import ConfigError, NablaError
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.engine.events import Callback, Events
from nabla.methods.base import methods
from nabla.methods.nabla_reasoner import NablaReasonerMethod
from nabla.methods.sources import Refined
from nabla.proposals.base import Proposal
from nabla.refinement.dto import DTO
from nabla.rewards.function import FunctionReward
from nabla.selectors.simple import All

SAMPLING = Sampling(temperature=0.7, max_new_tokens=48)


def run(engine, method, prompts):
    method.check(engine)
    found = {p.id: s for p, s in engine.run(method.solve, prompts)}
    for outcome in found.values():
        if isinstance(outcome, NablaError):
            raise outcome
    return [found[p.id] for p in prompts]


def test_greedy_is_transformers_greedy(latin_lm, latin_prompts):
    prompt = latin_prompts[0]
    (solution,) = run(Engine(latin_lm), methods.build("greedy", max_new_tokens=48), [prompt])
    ids = latin_lm.encode(prompt)[None]
    expected = latin_lm.model.generate(ids, max_new_tokens=48, do_sample=False)[0, ids.shape[1] :]
    assert list(solution.tokens) == expected.tolist()
    assert solution.reward is None
    assert solution.cost.total.backward_passes == 0


def test_best_of_n_takes_the_highest_reward_and_prefills_once(latin_lm, latin_prompts):
    seen = []

    def reward(prompt, response):
        seen.append(response)
        return float(response.count("1"))

    (solution,) = run(
        Engine(latin_lm, FunctionReward(reward)),
        methods.build("best-of-n", n=5, sampling={"temperature": 1.5, "max_new_tokens": 48}),
        latin_prompts[:1],
    )
    assert len(seen) == 5
    assert solution.reward == max(float(r.count("1")) for r in seen)
    assert solution.candidates == 5
    assert solution.cost.phases["rollout"].forward_passes == 1  # one prompt, five rows


def test_never_accepting_returns_the_first_rollout(latin_lm, latin_rm, latin_prompts):
    first = run(Engine(latin_lm, latin_rm), methods.build("best-of-n", n=1), latin_prompts)
    kept = run(
        Engine(latin_lm, latin_rm),
        NablaReasonerMethod(acceptance=Never(), proposal={"name": "sample", "temperature": 2.0}),
        latin_prompts,
    )
    assert [s.tokens for s in kept] == [s.tokens for s in first]
    assert any(s.revisions for s in kept)
    assert not any(r.accepted for s in kept for r in s.revisions)


def test_strict_acceptance_only_ever_raises_the_reward(latin_lm, latin_rm, latin_prompts):
    solutions = run(
        Engine(latin_lm, latin_rm),
        NablaReasonerMethod(proposal={"name": "sample", "temperature": 1.5}, max_rollouts=6),
        latin_prompts,
    )
    assert any(r.accepted for s in solutions for r in s.revisions)
    for solution in solutions:
        assert solution.candidates <= 6
        current = None
        for revision in solution.revisions:
            if current is not None:
                assert revision.old_reward == current
            assert revision.accepted == (revision.new_reward > revision.old_reward)
            current = revision.new_reward if revision.accepted else revision.old_reward
        if current is not None:
            assert solution.reward == current


def test_committed_tokens_never_change(latin_lm, latin_rm, latin_prompts):
    committed = {}

    class Watch(Callback):
        def on_commit(self, prompt, trajectory):
            now = trajectory.tokens[: trajectory.committed].tolist()
            before = committed.get(prompt.id, [])
            assert now[: len(before)] == before
            committed[prompt.id] = now

    method = NablaReasonerMethod(
        acceptance=Always(), proposal={"name": "sample", "temperature": 3.0}, selector=All(), max_rollouts=20
    )
    solutions = run(Engine(latin_lm, events=Events([Watch()])), _without_reward(method), latin_prompts[:3])
    for solution in solutions:
        assert committed[solution.prompt.id] == list(solution.tokens)


def _without_reward(method):
    method.rows = Refined(DTO(objective="likelihood", steps=2))
    return method


def test_max_rollouts_one_is_a_plain_sample_without_gradients(latin_lm, latin_rm, latin_prompts):
    (solution,) = run(
        Engine(latin_lm, latin_rm), NablaReasonerMethod(max_rollouts=1), latin_prompts[:1]
    )
    assert solution.cost.total.backward_passes == 0
    assert solution.revisions == ()


def test_coupled_proposals_change_nothing_without_a_gradient(latin_lm, latin_rm, latin_prompts):
    still = NablaReasonerMethod(
        dto=DTO(objective={"name": "sum", "weights": {"kl": 1.0}}, steps=2),
        proposal="coupled",
        selector="all",
        sampling=Sampling(temperature=1.3, top_k=5, top_p=0.9, max_new_tokens=48),
    )
    for solution in run(Engine(latin_lm, latin_rm), still, latin_prompts[:3]):
        assert solution.revisions == ()
        assert solution.cost.counts["unchanged_proposals"] == len(solution.tokens) - solution.finished


def test_gradient_selectors_and_compositions_run(latin_lm, latin_rm, latin_prompts):
    selector = {
        "name": "and",
        "parts": ["entropy", {"name": "not", "selector": {"name": "gradient-norm", "threshold": 1e9}}],
    }
    (solution,) = run(
        Engine(latin_lm, latin_rm), NablaReasonerMethod(selector=selector), latin_prompts[:1]
    )
    assert solution.cost.phases["selection"].flops > 0
    assert solution.cost.phases["selection"].backward_passes >= 1


def test_a_proposal_outside_the_support_is_an_error(latin_lm, latin_rm, latin_prompts):
    class Outside(Proposal):
        def index(self, view):
            return torch.tensor(10**6)

    with pytest.raises(ConfigError, match="Outside"):
        run(Engine(latin_lm, latin_rm), NablaReasonerMethod(proposal=Outside()), latin_prompts[:1])


@pytest.mark.parametrize(
    ("method", "reward", "message"),
    [
        (lambda: methods.build("best-of-n"), None, "ranks by reward"),
        (lambda: methods.build("nabla-reasoner"), None, "differentiable reward"),
        (lambda: methods.build("nabla-reasoner"), FunctionReward(lambda p, r: 0.0), "differentiable reward"),
        (lambda: NablaReasonerMethod(dto={"objective": "likelihood"}), None, "compares rewards"),
    ],
)
def test_a_missing_reward_is_found_before_any_rollout(latin_lm, method, reward, message):
    with pytest.raises(ConfigError, match=message):
        method().check(Engine(latin_lm, reward))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "best-of-n", "n": 0}, "at least 1"),
        ({"name": "nabla-reasoner", "max_rollouts": 0}, "at least 1"),
        ({"name": "nabla-reasoner", "selektor": "all"}, "signature"),
        ({"name": "nabla-reasoner", "dto": {"steps": 0}}, "steps"),
        ({"name": "nabla-reasoner", "dto": {"optimizer": "Adamm"}}, "torch.optim has"),
        ({"name": "nabla-reasoner", "sampling": {"max_new_tokens": 0}}, "max_new_tokens"),
        ({"name": "nabla-reazoner"}, "Did you mean 'nabla-reasoner'"),
    ],
)
def test_bad_arguments_say_what_to_do(spec, message):
    with pytest.raises(ConfigError, match=message):
        methods.build(spec)
