"""Whether two tokenizers mean the same by their tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nabla.cli.display import marked_response
from nabla.core.costs import Account, Cost, CostMeter
from nabla.core.errors import VocabularyError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.engine.events import Run
from nabla.launch.callbacks.stream import Stream
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary, align, usable_ids
from nabla.problems.answers.extraction import final_answer
from nabla.rewards.base import Response
from nabla.rewards.function import FunctionReward
from tests import tiny
from tests.tiny import TOKENS, tokenizer


def test_the_same_tokenizer() -> None:
    found = align(tokenizer(), tokenizer())
    assert found.exact
    assert found.index is None
    assert found.coverage == 1.0
    assert found.missing == ()


def test_permuted_ids() -> None:
    other = tokenizer(permute=3)
    found = align(tokenizer(), other)
    assert not found.exact
    assert found.missing == ()
    assert found.coverage == 1.0
    assert found.index is not None
    for number, token in enumerate(TOKENS):
        assert int(found.index[number]) == other.get_vocab()[token]


def test_a_larger_vocabulary_of_the_reward_model_is_exact() -> None:
    found = align(tokenizer(), tokenizer((*TOKENS, "<think>", "</think>")))
    assert found.exact


def test_partial_coverage() -> None:
    other = tokenizer(missing=("4", "5"))
    found = align(tokenizer(), other, minimum_coverage=0.9)
    assert found.coverage == pytest.approx(1 - 2 / len(TOKENS))
    assert found.missing == ("4", "5")
    assert not found.exact
    assert found.index is not None
    assert int(found.index[TOKENS.index("4")]) == -1
    assert int(found.index[TOKENS.index("=")]) == other.get_vocab()["="]


def test_too_little_coverage_names_a_token() -> None:
    with pytest.raises(VocabularyError, match=r"92\.3%.*99\.0%.*missing: '4', '5'"):
        align(tokenizer(), tokenizer(missing=("5", "4")), minimum_coverage=0.99)


def test_no_agreement() -> None:
    alien = tokenizer(tuple(t + "x" for t in TOKENS[4:]) + TOKENS[:4])
    with pytest.raises(VocabularyError, match="share"):
        align(tokenizer(), alien)


def test_the_same_tokens_cut_differently() -> None:
    tokens = (*TOKENS, "42", "12")
    with pytest.raises(VocabularyError, match="cut texts differently"):
        align(tokenizer(tokens), tokenizer(tokens, pattern=r"42|12|[\s\S]"))


def test_only_texts_without_missing_tokens_tell_whether_texts_are_cut_alike() -> None:
    tokens = (*TOKENS, "42")
    pattern = r"42|[\s\S]"
    found = align(tokenizer(tokens, pattern=pattern), tokenizer(tokens, missing=("42",)))
    assert found.missing == ("42",)
    assert found.coverage < 1
    # One token is missing, and a text that does not need it is cut differently all the same.
    longer = (*TOKENS, "42", "12")
    with pytest.raises(VocabularyError, match="cut texts differently"):
        align(tokenizer(longer, pattern=r"12|42|[\s\S]"), tokenizer(longer, missing=("42",)))


def test_usable_ids_with_holes() -> None:
    class Holes:
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "b": 7}

    assert usable_ids(Holes()) == 8
    assert usable_ids(tokenizer()) == len(TOKENS)


@pytest.mark.parametrize("padded", [0, 5])
def test_padding_of_the_matrices_does_not_matter(padded: int) -> None:
    lm = tiny.causal_lm("qwen2", padded=padded)
    reward = tiny.outcome("qwen2", padded=7 - padded)
    reward = reward.bind(lm.vocabulary)
    assert lm.head.usable == len(TOKENS)
    assert reward.alignment is not None
    assert reward.alignment.exact
    assert reward.unreadable is None


def test_binding_forbids_what_the_reward_model_lacks(caplog: pytest.LogCaptureFixture) -> None:
    lm = tiny.causal_lm("qwen2")
    reward = tiny.outcome("llama", tokenizer(missing=("4", "5"), permute=1))
    own = Engine(lm, reward).lm
    blocked = own.head.blocked
    assert blocked is not None
    assert [TOKENS[i] for i in blocked.nonzero()[:, 0].tolist()] == ["4", "5"]
    assert "lacks 2" in caplog.text
    assert sorted(set(range(len(TOKENS))) - set(own.candidates.tolist())) == blocked.nonzero()[:, 0].tolist()


def test_binding_never_forbids_the_end() -> None:
    """The end-of-sequence token is the language model's own affair."""
    tok = tokenizer((*TOKENS, "<eot>"))
    lm = tiny.causal_lm("qwen2", tok, eos=(tiny.END, "<eot>"))
    reward = tiny.outcome("llama", tokenizer())
    own = Engine(lm, reward).lm
    assert own.head.blocked is None or not own.head.blocked[list(lm.eos_ids)].any()


def test_an_end_id_beyond_the_tokenizer() -> None:
    """Generation configs name ids that the tokenizer does not have (padded vocabularies)."""
    tok = tokenizer()
    model = tiny.lm_model("qwen2", tok, padded=6)
    model.generation_config.eos_token_id = [2, len(TOKENS) + 3]
    from nabla.models.causal_lm import CausalLM

    lm = CausalLM(model, tok)
    reward = tiny.outcome("llama", tokenizer(missing=("4",), permute=1))
    own = Engine(lm, reward).lm
    assert own.head.blocked is not None
    assert int(own.head.blocked.sum()) == 1


def test_below_the_threshold_binding_fails() -> None:
    reward: Any = tiny.outcome("llama", tokenizer(missing=("4", "5", "3", "2")))
    with pytest.raises(VocabularyError, match="at least 90"):
        reward = reward.bind(tiny.causal_lm("qwen2").vocabulary)
    assert torch.is_tensor(tiny.causal_lm("qwen2").candidates)


# -- channels -----------------------------------------------------------------------------------------


HARMONY = ("<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|return|>")


def harmony() -> Vocabulary:
    """Of a model that writes gpt-oss's channels."""
    tok = tokenizer((*TOKENS, *sorted(set("analysisfinalt") - set(TOKENS))))
    tok.add_special_tokens({"additional_special_tokens": list(HARMONY), "eos_token": "<|return|>"})
    return Vocabulary(tok, chat_template="raw")


def test_a_response_in_channels_is_the_same_text_to_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A function reward, the grader, what is printed and what is streamed."""
    vocabulary = harmony()
    tok = vocabulary.tokenizer
    text = (
        "<|channel|>analysis<|message|>1+2=3<|end|><|start|>assistant<|channel|>final<|message|>42<|return|>"
    )
    ids = tok(text, add_special_tokens=False)["input_ids"]
    assert tok.unk_token_id not in ids
    shown = text.removesuffix("<|return|>")
    assert vocabulary.response(ids) == vocabulary.decode(torch.tensor(ids)) == shown
    seen: list[str] = []

    def keeps(prompt: Any, answer: str) -> float:
        seen.append(answer)
        return 1.0

    item = Response(Prompt.of("1+2="), torch.tensor(ids), Account("p", CostMeter(), "reward"))
    FunctionReward(keeps).bind(vocabulary).score([item], Runner())
    assert seen == [shown]
    assert final_answer(seen[0]) == "42"
    solution = Solution(item.prompt, shown, tuple(ids), None, True, "greedy", Cost())
    assert marked_response(solution, vocabulary).plain == shown
    # And token by token.
    stream = Stream()
    stream.on_run_start(Run(vocabulary), [item.prompt])
    stream.on_solution(solution)
    assert capsys.readouterr().out.replace("\n", "") == shown
