"""The front door."""

from __future__ import annotations

import pytest
import torch

from nabla import Message, NablaReasoner, Prompt
from nabla.core.errors import ConfigError, ModelError, PromptError
from nabla.estimators.soft import SoftEmbedding
from nabla.problems.sandbox import model_path
from nabla.rewards.function import FunctionReward


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


def test_the_policy_judges_itself_where_no_judge_is_named(latin_lm, latin_prompts):
    """By its likelihood: no pass but the rollouts'."""
    rm = {"name": "likelihood", "aggregation": "mean"}
    arguments = {"method": "best-of-n", "n": 3, "max_new_tokens": 48, "accelerator": "cpu"}
    solution = NablaReasoner.from_pretrained(latin_lm, rm, **arguments).solve(latin_prompts[0].text)
    assert "reward" not in solution.cost.phases
    by_path = {**rm, "path": str(model_path("latin-policy"))}
    judged = NablaReasoner.from_pretrained(latin_lm, by_path, **arguments).solve(latin_prompts[0].text)
    assert judged.cost.phases["reward"].forward_passes > 0
    assert judged.tokens == solution.tokens
    assert judged.reward == pytest.approx(solution.reward, rel=1e-2)  # log-odds of sure tokens


def test_broken_paths_and_empty_prompts(tmp_path, latin_lm):
    with pytest.raises(ModelError, match="language model cannot be loaded"):
        NablaReasoner.from_pretrained(str(tmp_path / "nothing"), method="greedy")
    # What is missing is said before a model is looked for.
    with pytest.raises(ConfigError, match="differentiable reward"):
        NablaReasoner.from_pretrained(str(tmp_path / "nothing"))
    with pytest.raises(PromptError, match="empty"):
        build(latin_lm, method="greedy").solve("   ")
    with pytest.raises(PromptError, match="no prompt"):
        build(latin_lm, method="greedy").solve([])


def test_a_system_prompt_reaches_every_prompt(latin_lm, latin_prompts):
    reasoner = build(latin_lm, method="greedy", system="Be right.")
    solution = reasoner.solve(latin_prompts[0].text)
    assert [m.role for m in solution.prompt.messages] == ["system", "user"]


# -- ids, names, places ---------------------------------------------------------------------------------


def test_other_prompts_draw_other_noise(latin_lm, latin_rm, latin_prompts):
    """Ids, and with them all draws, follow from the conversation; given ones stay."""
    reasoner = build(latin_lm, latin_rm, method="best-of-n", n=1, temperature=1.0)
    a, b = (p.text for p in latin_prompts[:2])
    alone = [reasoner.solve(a), reasoner.solve(b)]
    ids = [s.prompt.id for s in alone]
    assert ids[0] != ids[1]
    together = reasoner.solve([a, b, a])
    assert [s.prompt.id for s in together] == [*ids, f"{ids[0]}-2"]
    assert [s.tokens for s in together[:2]] == [s.tokens for s in alone]
    assert reasoner.solve(Prompt.of(a, id="mine")).prompt.id == "mine"
    assert Prompt.of("a").id == Prompt.of([{"role": "user", "content": "a"}]).id
    assert Prompt.of("a").id != Prompt.of("a", system="b").id
    assert len(Prompt.of("\ud800").id) == 12


def test_numbered_prompts_draw_by_their_texts(latin_lm, latin_rm, latin_prompts, tmp_path):
    """The number is a name; a given id decides as ever."""
    from nabla.cli.prompts import read_prompts

    a, b = (p.text for p in latin_prompts[:2])
    file = tmp_path / "p.jsonl"
    file.write_text(f'{{"prompt": "{b}"}}\n{{"prompt": "{b}", "id": "mine"}}\n{{"prompt": "{b}"}}\n')
    prompts = read_prompts([a], str(file), None)
    assert [p.id for p in prompts] == ["0", "1", "mine", "3"]
    sources = [p.source for p in prompts]
    assert sources == [Prompt.of(a).id, Prompt.of(b).id, "mine", f"{Prompt.of(b).id}-2"]
    loop = build(latin_lm, latin_rm, method="best-of-n", n=1, temperature=1.0).loop
    alone, together = loop.run([b]), loop.run([a, b])
    assert (alone[0].prompt.id, together[1].prompt.id) == ("0", "1")
    assert alone[0].tokens == together[1].tokens
    given = loop.run([Prompt.of(b, id="0")])[0].prompt
    assert given.source == "0"


@pytest.mark.parametrize("method", ["cold", "best-of-n", "nabla-reasoner"])
def test_temperature_means_one_thing(latin_lm, latin_rm, method):
    reasoner = build(latin_lm, latin_rm, method=method, temperature=0.25)
    assert reasoner.method.sampling.temperature == 0.25
    if method == "cold":
        assert reasoner.method.dto.estimator.temperature.value == 1.0
        own = build(latin_lm, latin_rm, method={"name": "cold", "temperature": 0.5}, temperature=0.25)
        assert own.method.dto.estimator.temperature.value == 0.5
        assert own.method.sampling.temperature == 0.25


def test_what_a_function_reads_is_what_is_returned(latin_lm, latin_prompts):
    """And the best one by that function is returned: nothing is written anew in between."""
    read = []

    def longest(prompt, response):
        read.append(response)
        return float(len(response))

    solution = build(latin_lm, FunctionReward(longest), method={"name": "best-of-n", "n": 4}, temperature=1.0)
    found = solution.solve(latin_prompts[0].text)
    assert found.response in read
    assert found.reward == len(found.response) == max(map(len, read))


def test_apples_gpu_is_refused_at_the_start(latin_lm, monkeypatch, caplog):
    from lightning.fabric.accelerators import MPSAccelerator

    with pytest.raises(ConfigError, match="no float64"):
        NablaReasoner(latin_lm, accelerator="mps", method="greedy")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: True))
    with pytest.raises(ConfigError, match="no float64"):
        NablaReasoner(latin_lm, accelerator="gpu", method="greedy")
    assert NablaReasoner(latin_lm, method="greedy").loop.fabric.device.type == "cpu"
    assert "the CPU is used" in caplog.text


def test_a_results_folder_is_locked_without_fcntl(tmp_path, monkeypatch):
    """On Windows msvcrt locks."""
    import errno
    import sys
    from types import SimpleNamespace

    from nabla.study.evaluation.journal import Lock

    taken = []

    def locking(file, mode, size):
        if taken:
            raise OSError(errno.EDEADLK, "locked")
        taken.append((mode, size))

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    with Lock(tmp_path / "a"):
        assert taken == [(2, 1)]
        with pytest.raises(ConfigError, match="Another process"):
            Lock(tmp_path / "a")
