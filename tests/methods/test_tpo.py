"""TPO's mechanics, on a model that can at least spell the requests."""

from __future__ import annotations

import pytest
import torch

from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.engine.events import Callback, Events
from nabla.methods.base import methods
from nabla.methods.baselines.tpo import TPO
from nabla.models.causal_lm import CausalLM
from tests import tiny
from tests.running import PROMPTS, SAMPLING, assert_anytime, assert_same_alone_and_together, run, tiny_engine

#: Requests in the letters of the tiny tokenizer.
CRITIQUE = "{question} {chosen}; {rejected}. assess"
REVISION = "{question} {chosen}; {critique}. return"


def method(**changes):
    prompts = {"critique_prompt": CRITIQUE, "revision_prompt": REVISION}
    return methods.build(
        {"name": "tpo", "n": 2, "revisions": 2, "iterations": 2, "sampling": SAMPLING, **prompts, **changes}
    )


def test_requests_hold_what_they_should_and_answers_are_the_problems_own():
    written, engine = [], tiny_engine()

    class Watch(Callback):
        def on_rollout(self, prompt, trajectory):
            written.append((trajectory.prompt.text, engine.lm.decode(trajectory.tokens)))

    engine = Engine(engine.lm, engine.reward, events=Events([Watch()]))
    (solution,) = run(engine, method(iterations=1), PROMPTS[:1])
    (q1, first), (q2, second), (critique_request, critique), *revised = written
    assert q1 == q2 == PROMPTS[0].text
    chosen, rejected = (
        (first, second) if f" {first}; {second}." in critique_request else (second, first)
    )
    assert critique_request == CRITIQUE.format(question=q1, chosen=chosen, rejected=rejected)
    assert [r for r, _ in revised] == 2 * [REVISION.format(question=q1, chosen=chosen, critique=critique)]
    assert solution.response in {chosen, *(text for _, text in revised)}
    assert solution.candidates == 4
    assert solution.prompt == PROMPTS[0]


def test_rewards_are_those_of_the_original_question():
    for solution in run(tiny_engine(), method(iterations=3)):

        async def score(session, tokens=solution.tokens):
            (read,) = await session.read([torch.tensor(tokens)], SAMPLING)
            (scored,) = await session.score([read])
            return scored.reward

        assert tiny.drive(tiny_engine(), solution.prompt, score) == pytest.approx(solution.reward, rel=1e-9)


def test_revisions_do_win_sometimes():
    solutions = run(tiny_engine(), method(iterations=4))
    assert any(len(s.checkpoints) > 1 for s in solutions)
    for solution in solutions:
        assert solution.candidates == 2 + 4 * 2
        assert solution.reward == max(c.reward for c in solution.checkpoints)


def test_alone_and_together():
    assert_same_alone_and_together(method())


def test_under_a_budget():
    assert_anytime(method(), (60.0, 150.0))


def test_system_prompts_and_earlier_turns_stay():
    seen = []

    class Watch(Callback):
        def on_rollout(self, prompt, trajectory):
            seen.append([m.role for m in trajectory.prompt.messages])

    engine = tiny_engine()
    run(
        Engine(engine.lm, engine.reward, events=Events([Watch()])),
        method(iterations=1),
        [Prompt.of("1+2=", id="x", system="use +")],
    )
    assert len(seen) == 5
    assert all(roles == ["system", "user"] for roles in seen)


def test_the_requests_must_be_legible(latin_lm, latin_rm):
    with pytest.raises(ConfigError, match="follows instructions"):  # capitals are not in its vocabulary
        TPO(sampling=SAMPLING).check(tiny_engine())
    with pytest.raises(ConfigError, match="sandbox models"):  # no room: trained for short texts
        TPO(sampling=Sampling(max_new_tokens=96)).check(Engine(latin_lm, latin_rm))


def test_a_model_without_conversations_cannot_be_asked():
    tok = tiny.tokenizer(template=None)
    lm = CausalLM(tiny.lm_model("qwen2", tok), tok, chat_template="plain")
    with pytest.raises(ConfigError, match="only continues text"):
        method().check(Engine(lm, tiny.outcome()))


def test_a_missing_reward():
    with pytest.raises(ConfigError, match="compares responses by reward"):
        method().check(tiny_engine(reward=False))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"revisions": 0}, "revisions must be at least 1"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"critique_prompt": "{question} {chosen}"}, "other fields"),
        ({"revision_prompt": "{question} {chosen} {critique} {rejected}"}, "other fields"),
        ({"revision_prompt": "{question"}, "no template"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ConfigError, match=message):
        method(**changes)
