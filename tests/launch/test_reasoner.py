"""The front door."""

from __future__ import annotations

import pytest

from nabla import Message, NablaReasoner
from nabla.core.errors import ConfigError, ModelError, PromptError
from nabla.estimators.soft import SoftEmbedding
from nabla.problems.sandbox import model_path


def build(latin_lm, latin_rm=None, **parts):
    return NablaReasoner(latin_lm, latin_rm, accelerator="cpu", max_new_tokens=48, **parts)


def test_one_prompt_gives_one_solution_a_list_gives_a_list(latin_lm, latin_rm, latin_prompts):
    reasoner = build(latin_lm, latin_rm, max_rollouts=2)
    one = reasoner.solve(latin_prompts[0].text)
    many = reasoner.solve([p.text for p in latin_prompts[:2]])
    assert one.prompt.text == latin_prompts[0].text
    assert [s.prompt.text for s in many] == [p.text for p in latin_prompts[:2]]
    assert one.tokens == many[0].tokens


def test_a_conversation_is_one_prompt(latin_lm, latin_prompts):
    reasoner = build(latin_lm, method="greedy")
    text = latin_prompts[0].text
    as_dicts = reasoner.solve([{"role": "user", "content": text}])
    as_messages = reasoner.solve([Message("user", text)])
    assert as_dicts.tokens == as_messages.tokens == reasoner.solve(text).tokens


def test_parts_are_sorted_to_whom_they_belong(latin_lm, latin_rm):
    reasoner = build(
        latin_lm,
        latin_rm,
        estimator=SoftEmbedding(0.5),
        steps=3,
        selector="all",
        acceptance={"name": "margin", "margin": 1.0},
        temperature=0.3,
        max_rollouts=2,
        seed=5,
        batch_size=7,
    )
    assert isinstance(reasoner.method.rows.dto.estimator, SoftEmbedding)
    assert reasoner.method.rows.dto.steps == 3
    assert reasoner.method.acceptance.margin == 1.0
    assert reasoner.method.sampling.temperature == 0.3
    assert reasoner.loop.engine.seed == 5
    assert reasoner.loop.engine.workspace.runner.batch_size == 7


def test_unknown_parts_and_components_say_what_to_do(latin_lm, latin_rm):
    with pytest.raises(ConfigError, match="Did you mean 'estimator'"):
        build(latin_lm, latin_rm, estimater="soft-embedding")
    with pytest.raises(ConfigError, match="Did you mean 'soft-embedding'"):
        build(latin_lm, latin_rm, estimator="soft-embeding")
    with pytest.raises(ConfigError, match="Unknown part"):
        build(latin_lm, method="greedy", steps=3)


def test_from_pretrained_takes_paths_functions_and_dicts(latin_prompts):
    policy = str(model_path("latin-policy"))
    process = {"name": "process", "path": str(model_path("latin-process-reward")), "aggregation": "min"}
    for rm, objective in ((process, "sum"), (lambda prompt, response: 0.0, "likelihood")):
        reasoner = NablaReasoner.from_pretrained(
            policy, rm, objective=objective, accelerator="cpu", steps=2, max_rollouts=2, max_new_tokens=48
        )
        assert reasoner.solve(latin_prompts[0].text).reward is not None


def test_broken_paths_and_empty_prompts(tmp_path, latin_lm):
    with pytest.raises(ModelError, match="language model cannot be loaded"):
        NablaReasoner.from_pretrained(str(tmp_path / "nothing"))
    with pytest.raises(PromptError, match="empty"):
        build(latin_lm, method="greedy").solve("   ")
    with pytest.raises(PromptError, match="no prompt"):
        build(latin_lm, method="greedy").solve([])


def test_a_system_prompt_reaches_every_prompt(latin_lm, latin_prompts):
    reasoner = build(latin_lm, method="greedy", system="Be right.")
    solution = reasoner.solve(latin_prompts[0].text)
    assert [m.role for m in solution.prompt.messages] == ["system", "user"]
