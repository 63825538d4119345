"""One regression test for each trap in existing code (SPEC section 11)."""

from __future__ import annotations

import logging

import pytest
import torch

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ComponentError, VocabularyError
from nabla.core.prompt import Message, Prompt
from nabla.core.random import derive_key
from nabla.core.sampling import Sampling
from nabla.core.solution import RunError
from nabla.engine.engine import Engine
from nabla.estimators.gumbel import GumbelStraightThrough
from nabla.launch.launcher import TestTimeLoop
from nabla.methods.base import methods
from nabla.methods.nabla_reasoner import NablaReasonerMethod
from nabla.objectives.base import objectives
from nabla.refinement.dto import DTO
from nabla.rewards.base import Response
from nabla.rewards.function import FunctionReward
from tests import tiny

PROMPT = Prompt.of("1+2=", id="p")
SAMPLING = Sampling(temperature=1.0, max_new_tokens=6)


def test_the_current_response_is_scored_with_the_prompt_in_it_once():
    lm, rm = tiny.causal_lm(), tiny.outcome()
    rm = rm.bind(lm.vocabulary)
    prompt = Prompt.of("012345", id="p")
    response = Response(prompt, tiny.ids(lm.tokenizer, "54+"), Account("p", CostMeter(), "reward"))
    text = rm.tokenizer.decode(rm.layout(response).tokens)
    assert text.count("012345") == 1
    assert text.count("54+") == 1


def test_latents_are_the_states_that_predict_response_tokens():
    lm = tiny.causal_lm("llama")

    async def program(session):
        (trajectory,) = await session.rollout(SAMPLING)
        return session.prompt_ids, trajectory, session.reference(trajectory, slice(0, len(trajectory)))

    prompt_ids, trajectory, reference = tiny.drive(Engine(lm), PROMPT, program)
    ids = torch.cat([prompt_ids, trajectory.tokens])
    with torch.no_grad():
        states = lm.model.base_model(input_ids=ids[None]).last_hidden_state[0]
        logits = lm.model(input_ids=ids[None]).logits[0]
    at = slice(len(prompt_ids) - 1, -1)
    torch.testing.assert_close(reference.hidden, states[at], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(reference.project(reference.hidden), logits[at], atol=1e-9, rtol=1e-9)


def test_temperature_zero_is_greedy_and_not_one():
    lm = tiny.causal_lm()
    solutions = set()
    for seed in range(4):
        method = NablaReasonerMethod(
            dto=DTO(objective="likelihood", steps=1),
            acceptance="always",
            sampling=Sampling(temperature=0.0, max_new_tokens=6),
            proposal={"name": "sample", "temperature": 0.0},
        )
        ((_, solution),) = Engine(lm, seed=seed).run(method.solve, [PROMPT])
        solutions.add(solution.tokens)
    assert len(solutions) == 1


def test_entropy_of_a_one_hot_row_is_zero_not_nan():
    lm = tiny.causal_lm()
    with torch.no_grad():
        lm.head.module.weight.mul_(1e6)

    async def program(session):
        (trajectory,) = await session.rollout(SAMPLING)
        return trajectory

    trajectory = tiny.drive(Engine(lm), PROMPT, program)
    assert torch.isfinite(trajectory.entropy).all()
    assert float(trajectory.entropy.min()) == 0.0


def test_a_system_prompt_reaches_rollout_gradient_and_reward():
    lm, rm = tiny.causal_lm(), tiny.outcome()
    engine = Engine(lm, rm)
    with_system = Prompt(id="p", messages=(Message("system", "minus"), *PROMPT.messages))
    found = {}
    for name, prompt in (("without", PROMPT), ("with", with_system)):

        async def program(session):
            (trajectory,) = await session.rollout(Sampling(temperature=0.0, max_new_tokens=5))
            fixed = tiny.trajectory(lm, session.prompt, "12+3")
            (scored,) = await session.score([fixed])
            gradient = await session.gradient(fixed, objectives.build("sum"))
            return trajectory.log_probs[0], scored.reward, gradient.terms

        found[name] = tiny.drive(engine, prompt, program)
    assert found["with"][0] != found["without"][0]
    assert found["with"][1] != found["without"][1]
    for term, channel in (("likelihood", 0), ("reward", 1)):
        rows = [found[name][2][term].pulls[channel].vectors for name in ("with", "without")]
        assert not torch.allclose(rows[0], rows[1])


def test_likelihood_alone_needs_no_reward_model():
    method = NablaReasonerMethod(
        dto=DTO(objective="likelihood"), acceptance="always", sampling=SAMPLING, selector="all"
    )
    (solution,) = TestTimeLoop(method, tiny.causal_lm(), None, accelerator="cpu").run([PROMPT])
    assert solution.reward is None
    assert solution.cost.counts["refined_positions"] > 0


def test_no_rollout_starts_after_an_accepted_end_or_without_room():
    lm = tiny.causal_lm()
    eos = lm.eos_ids[0]
    with torch.no_grad():  # an end-of-sequence token is proposed at once
        lm.head.module.weight[eos] = 5 * lm.head.module.weight.abs().max()
    method = NablaReasonerMethod(
        dto=DTO(objective="likelihood", steps=1),
        acceptance="always",
        selector="all",
        sampling=Sampling(temperature=3.0, max_new_tokens=4),
        proposal={"name": "sample", "temperature": 5.0},
        max_rollouts=50,
    )
    prompts = [Prompt.of("1+2=", id=str(i)) for i in range(8)]
    solutions = TestTimeLoop(method, lm, None, accelerator="cpu").run(prompts)
    for solution in solutions:
        assert len(solution.tokens) <= 4
        assert eos not in solution.tokens[:-1]
        assert solution.finished == (solution.tokens[-1] == eos)


def test_committed_tokens_survive_text_that_encodes_differently():
    # "1" + "2" are two tokens, though the tokenizer would read the text "12" as one.
    tok = tiny.tokenizer((*tiny.TOKENS, "12"), pattern=r"12|[\s\S]")
    assert len(tiny.ids(tok, "12")) == 1
    lm = tiny.causal_lm(tok=tok)
    rm = tiny.outcome(tok=tok)
    rm = rm.bind(lm.vocabulary)
    split = torch.tensor([tok.get_vocab()["1"], tok.get_vocab()["2"]])
    assert lm.decode(split) == "12"
    response = Response(PROMPT, split, Account("p", CostMeter(), "reward"))
    assert torch.equal(rm.layout(response).answer, split)


def test_selector_gradients_prefill_and_rewards_are_counted():
    method = NablaReasonerMethod(selector={"name": "gradient-norm", "threshold": 0.0}, sampling=SAMPLING)
    loop = TestTimeLoop(method, tiny.causal_lm(), tiny.outcome(), accelerator="cpu")
    (solution,) = loop.run([PROMPT])
    phases = solution.cost.phases
    assert phases["selection"].backward_passes >= 2  # both models, for the selector
    assert phases["rollout"].forward_passes >= 1  # prefill
    assert phases["reward"].forward_passes >= 1
    assert phases["rollout"].tokens > phases["rollout"].decode_steps  # the prompt's tokens
    assert all(phases[name].flops > 0 for name in ("rollout", "gradient", "reward", "selection"))
    assert all(usage.seconds > 0 for usage in phases.values())


def test_costs_of_a_failed_problem_are_counted():
    reward = FunctionReward(lambda prompt, response: float("nan"))
    method = methods.build("best-of-n", n=2, sampling={"max_new_tokens": 6})
    with pytest.raises(RunError, match="NaN") as caught:
        TestTimeLoop(method, tiny.causal_lm(), reward, accelerator="cpu").run([PROMPT])
    assert caught.value.failed_cost.total.decode_steps > 0


def test_noisy_estimators_recompute_where_their_rows_changed():
    lm, rm = tiny.causal_lm(), tiny.outcome()
    computed = {}
    for name in ("straight-through", "gumbel-softmax", "soft-embedding"):

        async def program(session, name=name):
            (trajectory,) = await session.rollout(SAMPLING)
            refinement = await DTO(estimator=name, steps=7).refine(trajectory, session)
            return refinement.recomputed

        computed[name] = tiny.drive(Engine(lm, rm), PROMPT, program)
    assert computed["straight-through"] == 1
    assert computed["gumbel-softmax"] == computed["soft-embedding"] == 7
    noisy = GumbelStraightThrough()
    rows = torch.eye(4)[:1]
    assert noisy.reusable(rows, rows.clone())
    assert not noisy.reusable(rows, torch.eye(4)[1:2])


def test_seeds_depend_on_run_problem_and_request_alone():
    assert derive_key(0, "p", "request", 1) == derive_key(0, "p", "request", 1)
    lm = tiny.causal_lm()
    prompts = [Prompt.of("1+2=", id=str(i)) for i in range(5)]
    reward = FunctionReward(lambda p, r: float(len(r)))
    method = methods.build("best-of-n", n=3, sampling={"max_new_tokens": 6})
    whole = TestTimeLoop(method, lm, reward, accelerator="cpu").run(prompts)
    last = TestTimeLoop(method, lm, reward, accelerator="cpu").run(prompts[-1:])
    assert last[0].tokens == whole[-1].tokens
    assert len({s.tokens for s in whole}) > 1  # same text, other problem: other draws


def test_errors_are_raised_and_never_answers():
    def reward(prompt, response):
        raise TimeoutError("the grader is gone")

    method = methods.build("best-of-n", n=2, sampling={"max_new_tokens": 6})
    with pytest.raises(RunError) as caught:
        TestTimeLoop(method, tiny.causal_lm(), FunctionReward(reward), accelerator="cpu").run([PROMPT])
    assert caught.value.solutions == []
    assert "the grader is gone" in str(caught.value)


def test_models_are_frozen_on_entry():
    tok = tiny.tokenizer()
    model, judge = tiny.lm_model("gpt2", tok), tiny.outcome_model("gpt2", tok)
    model.train()
    judge.train()
    lm, rm = tiny.CausalLM(model, tok), tiny.OutcomeReward(judge, tok)
    for adapter in (lm, rm):
        assert not adapter.model.training
        assert not any(p.requires_grad for p in adapter.model.parameters())

    async def program(session):
        (trajectory,) = await session.rollout(SAMPLING)
        await DTO(steps=2, rows="all", estimator="soft-embedding").refine(trajectory, session)

    tiny.drive(Engine(lm, rm), PROMPT, program)
    assert all(p.grad is None for a in (lm, rm) for p in a.model.parameters())


def test_different_vocabularies_are_an_error_and_not_a_warning(caplog):
    other = tiny.tokenizer((*tiny.SPECIAL, *"abcdefgh"))
    with caplog.at_level(logging.WARNING), pytest.raises(VocabularyError, match="share"):
        Engine(tiny.causal_lm(), tiny.outcome(tok=other))
    assert caplog.records == []


def test_padded_embedding_matrices_agree_and_their_padding_is_never_written():
    tok = tiny.tokenizer()
    lm, rm = tiny.causal_lm(tok=tok, padded=7), tiny.outcome(tok=tok, padded=3)
    with torch.no_grad():
        lm.head.module.weight[len(tok.get_vocab()) :] = 10.0
    prompts = [Prompt.of("1+2=", id=str(i)) for i in range(6)]
    method = NablaReasonerMethod(
        selector="all", sampling=Sampling(temperature=2.0, max_new_tokens=6),
        proposal={"name": "sample", "temperature": 3.0},
    )
    for solution in TestTimeLoop(method, lm, rm, accelerator="cpu").run(prompts):
        assert max(solution.tokens) < len(tok.get_vocab())


def test_a_crashing_component_names_itself():
    class Wrong(DTO):
        async def refine(self, trajectory, session, ahead=()):
            raise IndexError("off by one")

    method = NablaReasonerMethod(dto=Wrong(), selector="all", sampling=SAMPLING)
    with pytest.raises(RunError) as caught:
        TestTimeLoop(method, tiny.causal_lm(), tiny.outcome(), accelerator="cpu").run([PROMPT])
    (failure,) = caught.value.failures.values()
    assert isinstance(failure, ComponentError)
    assert "off by one" in str(failure)
