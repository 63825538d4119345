"""Prompts of published tokenizers: the ids that transformers gives, what users type, exact texts."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError, ModelError, PromptError
from nabla.core.prompt import Message, Prompt
from nabla.core.solution import RunError
from nabla.launch.launcher import TestTimeLoop
from nabla.methods.base import methods
from nabla.models.causal_lm import CausalLM
from nabla.models.chat import ChatFormat
from nabla.models.checkpoint import require_checkpoint
from nabla.models.loading import load
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary
from nabla.rewards.base import Response
from nabla.rewards.function import FunctionReward
from tests import tiny

#: peft 0.21 asks transformers 5.23 for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")

FOLDERS = Path(__file__).resolve().parents[3] / "shared" / "tokenizers"
NAMES = ("mistral-v0.2", "mistral-v0.3", "phi2", "phi3", "phonelm", "qwen2.5", "qwen3")
#: Those whose templates write text.
CHAT = tuple(name for name in NAMES if name != "phi2")


def published(name: str) -> Any:
    folder = FOLDERS / name
    if not folder.exists():
        pytest.skip(f"the published tokenizer {name} is not on this machine")
    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


@pytest.mark.parametrize("name", CHAT)
def test_prompts_are_transformers_own(name: str) -> None:
    tok = published(name)
    turns = [{"role": "user", "content": "The  value of $x != 5$?\n"}]
    expected = tok.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert ChatFormat(tok).prompt(user(turns[0]["content"])).tolist() == expected


@pytest.mark.parametrize("name", ["phi2", "phonelm"])
@pytest.mark.parametrize("template", ["plain", "raw", "{{ bos_token + messages[0]['content'] }}"])
def test_an_unknown_token_that_is_also_another(name: str, template: str) -> None:
    """Only what the user wrote is looked at: the template writes the token itself."""
    tok = published(name)
    assert tok.unk_token_id == tok.bos_token_id == tok.eos_token_id
    vocabulary = Vocabulary(tok, chat_template=template)
    ids = vocabulary.encode(Prompt.of("2 + 2 ="))
    assert tok.decode(ids).removeprefix(tok.bos_token).strip() == "2 + 2 ="


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("template", ["plain", "raw"])
def test_base_models_read_the_text_as_the_tokenizer_does(name: str, template: str) -> None:
    """With the space that it writes before the first word."""
    tok = published(name)
    text = "The capital of France is"
    end = "\n" if template == "plain" else ""
    assert ChatFormat(tok, template).prompt(user(text)).tolist() == tok(text + end)["input_ids"]
    several = (Message("system", "Be  brief."), *user(" Go"))
    joined = "Be  brief.\n Go\n" if template == "plain" else "Be  brief. Go"
    assert ChatFormat(tok, template).prompt(several).tolist() == tok(joined)["input_ids"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("template", [None, "plain", "raw"])
def test_control_tokens_that_a_user_types_are_text(name: str, template: str | None) -> None:
    tok = published(name)
    if template is None and name not in CHAT:
        template = "{{ messages[0]['content'] }}"
    chat = ChatFormat(tok, template)
    control = set(tok.all_special_ids)
    typed = "".join(sorted({str(t.content) for t in tok.added_tokens_decoder.values() if t.special})[:30])
    without = [i for i in chat.prompt(user("a b")).tolist() if i in control]
    ids = chat.prompt(user(f"a{typed} b")).tolist()
    assert [i for i in ids if i in control] == without
    assert typed in tok.decode(ids, clean_up_tokenization_spaces=False)
    meant = ChatFormat(tok, template, special_tokens="control").prompt(user(f"a{typed} b")).tolist()
    assert len([i for i in meant if i in control]) > len(without)
    assert len(meant) < len(ids)


def test_special_tokens_is_text_or_control() -> None:
    with pytest.raises(ConfigError, match="text or control"):
        ChatFormat(tiny.tokenizer(), special_tokens="none")


def test_typed_tokens_that_cannot_be_text_are_refused() -> None:
    """A tokenizer of characters that lacks '|'."""
    with pytest.raises(PromptError, match="does not know a character"):
        ChatFormat(tiny.tokenizer()).prompt(user(f"1{tiny.END}2"))
    control = ChatFormat(tiny.tokenizer(), special_tokens="control").prompt(user(f"1{tiny.END}2"))
    assert control.tolist().count(tiny.tokenizer().eos_token_id) == 2


# -- templates ----------------------------------------------------------------------------------------


def test_template_arguments() -> None:
    tok = published("qwen3")
    quiet = ChatFormat(tok, arguments={"enable_thinking": False}).prompt(user("2+2?"))
    assert tok.decode(quiet).endswith("<think>\n\n</think>\n\n")
    assert not tok.decode(ChatFormat(tok).prompt(user("2+2?"))).endswith("</think>\n\n")
    with pytest.raises(ConfigError, match="takes no arguments"):
        ChatFormat(tok, "raw", arguments={"enable_thinking": False})


def test_a_template_by_name_or_file_is_read_and_a_misspelt_one_refused(tmp_path: Path) -> None:
    tok = tiny.tokenizer()
    expected = ChatFormat(tok).prompt(user("1+2="))
    (tmp_path / "a.jinja").write_text(tiny.CHATML)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": tiny.CHATML}))
    (tmp_path / "empty.jinja").write_text("nothing")
    for name in ("a.jinja", "tokenizer_config.json"):
        assert ChatFormat(tok, str(tmp_path / name)).prompt(user("1+2=")).equal(expected)
    for wrong in ("plian", str(tmp_path / "b.jinja"), "chatml", ""):
        with pytest.raises(ConfigError, match="no Jinja template"):
            ChatFormat(tok, wrong)
    with pytest.raises(ConfigError, match="holds no Jinja"):
        ChatFormat(tok, str(tmp_path / "empty.jinja"))
    with pytest.raises(ConfigError, match="no valid Jinja"):
        Vocabulary(tok, chat_template="{% for m in messages %}{{ m['content'] }}")
    tok.chat_template = {"default": "{{ '1' }}", "other": tiny.CHATML}
    assert ChatFormat(tok, "other").prompt(user("1+2=")).equal(expected)


def test_a_template_whose_end_of_turn_ends_nothing_warns(caplog: pytest.LogCaptureFixture) -> None:
    Vocabulary(published("phonelm"))
    assert "'<|im_end|>', which is no end-of-sequence" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        Vocabulary(published("phonelm"), eos_ids=[0, 2])
        Vocabulary(published("qwen3"))
        Vocabulary(published("mistral-v0.3"))
        Vocabulary(published("phi3"), eos_ids=[32000, 32007])
    assert caplog.text == ""


# -- texts --------------------------------------------------------------------------------------------


def test_decoded_text_is_exact() -> None:
    """Phi-2's tokenizer asks for clean-up, which would write ``x!= 5`` and ``do n't``."""
    tok = published("phi2")
    assert tok.clean_up_tokenization_spaces
    wordlevel = tiny.tokenizer((*tiny.TOKENS, "!"))
    wordlevel.clean_up_tokenization_spaces = True
    text = "3 != 1 ; 2 !"
    assert Vocabulary(wordlevel).decode(tiny.ids(wordlevel, text)) == text
    from nabla.core.text import pieces

    assert "".join(pieces(wordlevel, tiny.ids(wordlevel, text).tolist())) == text


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_is_what_was_scored(name: str) -> None:
    """Token by token too, also where a length limit cuts a character in two."""
    from nabla.core.text import pieces

    tok = published(name)
    vocabulary = Vocabulary(tok, chat_template="raw")
    texts = ("So x != 5 , don 't .\n\n  indented 3 . 14 日本語 🙂🎉 é", "🙂", " The answer \n", "a " * 40)
    for text in texts:
        ids = tok(text, add_special_tokens=False)["input_ids"]
        for count in (len(ids), len(ids) - 1):
            assert "".join(pieces(tok, ids[:count])) == vocabulary.decode(ids[:count])
        assert vocabulary.decode(ids).lstrip(" ") == text.lstrip(" ")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("template", ["raw", "plain"])
def test_a_base_models_text_is_what_continues_the_prompt(name: str, template: str) -> None:
    """Tokenizers of the Llama family drop a blank where a text begins; a response begins none."""
    from nabla.core.text import pieces

    tok = published(name)
    vocabulary = Vocabulary(tok, chat_template=template)
    prompt = vocabulary.encode(Prompt.of("def f(x):"))
    front = tok.decode(prompt, clean_up_tokenization_spaces=False)
    # As a model writes it: ids that continue others.
    begun = tok("def f(x):", add_special_tokens=False)["input_ids"]
    seen: list[str] = []
    reward = FunctionReward(lambda _, answer: float(len(seen.append(answer) or "")))  # type: ignore[func-returns-value]
    for text in (" 4", "    return x", " \n return x", " The answer is 4.", "a", "  日本語 🙂"):
        whole = tok("def f(x):" + text, add_special_tokens=False)["input_ids"]
        written = whole[len(begun) :]
        assert whole[: len(begun)] == begun
        expected = tok.decode([*prompt.tolist(), *written], clean_up_tokenization_spaces=False)
        assert vocabulary.response(written) == expected.removeprefix(front)
        assert vocabulary.response(torch.tensor(written)) == text
        for count in range(len(written) + 1):
            shown = "".join(pieces(tok, written[:count], vocabulary.lead))
            assert shown == vocabulary.response(written[:count])
        item = Response(Prompt.of("def f(x):"), torch.tensor(written), Account("p", CostMeter(), "reward"))
        reward.bind(vocabulary).score([item], Runner())
        assert seen.pop() == text


@pytest.mark.parametrize("name", ["mistral-v0.2", "mistral-v0.3", "phi3"])
def test_an_answer_of_a_chat_is_a_text_of_its_own(name: str) -> None:
    vocabulary = Vocabulary(published(name), eos_ids=[2, 32000, 32007])
    word = published(name).convert_tokens_to_ids(["▁The", "▁answer"])
    assert vocabulary.response(word) == vocabulary.decode(word) == "The answer"
    assert Vocabulary(published(name), chat_template="raw").response(word) == " The answer"


def test_half_a_character_ends_its_own_prompt_only() -> None:
    prompts = [Prompt.of(text, id=str(i)) for i, text in enumerate(("1+2=", "1\ud8002", "2+2="))]
    loop = TestTimeLoop(methods.build("greedy", max_new_tokens=4), tiny.causal_lm(), accelerator="cpu")
    with pytest.raises(RunError, match="lone surrogate") as caught:
        loop.run(prompts)
    assert [s.prompt.id for s in caught.value.solutions] == ["0", "2"]
    assert isinstance(caught.value.failures["1"], PromptError)


# -- loading ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> str:
    tok = tiny.tokenizer()
    tiny.lm_model("qwen2", tok).save_pretrained(tmp_path / "lm")
    tok.save_pretrained(tmp_path / "lm")
    return str(tmp_path / "lm")


def test_template_settings_reach_a_loaded_model(folder: str) -> None:
    template = "{{ (mark or '') + messages[0]['content'] }}"
    lm = CausalLM.from_pretrained(
        folder, chat_template=template, template_arguments={"mark": "3"}, special_tokens="control"
    )
    prompt = Prompt.of(f"1{tiny.END}2")
    assert lm.encode(prompt).tolist() == tiny.ids(lm.tokenizer, f"31{tiny.END}2").tolist()


def test_another_tokenizer_by_name(folder: str, tmp_path: Path) -> None:
    other = tiny.tokenizer(template="{{ '5' }}")
    other.save_pretrained(tmp_path / "other")
    for given in (other, str(tmp_path / "other")):
        lm = CausalLM.from_pretrained(folder, tokenizer=given)
        assert lm.decode(lm.encode(Prompt.of("1"))) == "5"
    with pytest.raises(ModelError, match="tokenizer cannot be loaded: there is no such folder"):
        CausalLM.from_pretrained(folder, tokenizer=str(tmp_path / "nothing"))


def test_remote_code_is_named_and_nobody_is_asked(
    folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = Path(folder) / "config.json"
    settings = json.loads(config.read_text())
    classes = {"AutoConfig": "strange.C", "AutoModelForCausalLM": "strange.M"}
    settings |= {"model_type": "strange", "auto_map": classes}
    config.write_text(json.dumps(settings))

    def asked(*_: Any) -> str:
        raise AssertionError("asked on the terminal")

    monkeypatch.setattr("builtins.input", asked)
    with pytest.raises(ModelError, match=r"language model cannot be loaded.*trust_remote_code"):
        CausalLM.from_pretrained(folder)
    with pytest.raises(ModelError, match=r"language model cannot be loaded.*trust_remote_code"):
        require_checkpoint(folder, {}, role="language model", writes=True)


def test_the_cause_is_kept(tmp_path: Path, folder: str) -> None:
    """What follows the first line too: a missing library is only named there."""
    from transformers import AutoModelForCausalLM

    class Broken:
        @staticmethod
        def from_pretrained(*_: Any, **__: Any) -> Any:
            try:
                raise ImportError("first line\nneeds the library xyz")
            except ImportError as error:
                raise ValueError("general\nmisfortune") from error

    with pytest.raises(ModelError, match=r"reward model.*general misfortune.*needs the library xyz"):
        load(Broken, folder, role="reward model")
    shutil.copy(Path(folder) / "config.json", tmp_path / "config.json")
    with pytest.raises(ModelError, match="language model has no tokenizer"):
        load(AutoModelForCausalLM, str(tmp_path), role="language model")


def test_where_files_are_reaches_the_tokenizer(folder: str, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(folder, tmp_path / "repository" / "inner")
    lm = CausalLM.from_pretrained(str(tmp_path / "repository"), subfolder="inner")
    assert lm.decode(tiny.ids(lm.tokenizer, "12")) == "12"
    heard: list[dict[str, Any]] = []
    own = AutoTokenizer.from_pretrained

    def listening(path: str, **arguments: Any) -> Any:
        heard.append(arguments)
        return own(path)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", listening)
    where = {"token": "t", "cache_dir": str(tmp_path), "local_files_only": True}
    CausalLM.from_pretrained(folder, **where)
    assert heard[0] == {**where, "trust_remote_code": False}


def test_gguf_reaches_model_and_tokenizer(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    heard: list[tuple[str, Any]] = []

    def listening(path: str, **arguments: Any) -> Any:
        heard.append((path, arguments.get("gguf_file")))
        return tiny.tokenizer()

    class Model:
        @staticmethod
        def from_pretrained(path: str, **arguments: Any) -> Any:
            heard.append((path, arguments.get("gguf_file")))
            return tiny.lm_model("qwen2", tiny.tokenizer()), {"missing_keys": []}

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", listening)
    load(Model, str(tmp_path / "model.gguf"), role="language model")
    load(Model, str(tmp_path), role="language model", gguf_file="model.gguf")
    require_checkpoint(str(tmp_path / "model.gguf"), {}, role="language model", writes=True)
    # The whole path: by its name alone a file of the working directory would come first.
    assert heard == 4 * [(str(tmp_path), str(tmp_path / "model.gguf"))]


def test_an_adapters_own_template_and_tokenizer(folder: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from tests.models.test_loading import lora

    lora(AutoModelForCausalLM.from_pretrained(folder)).save_pretrained(str(tmp_path / "adapter"))
    (tmp_path / "adapter" / "chat_template.jinja").write_text("{{ '5' }}")
    lm = CausalLM.from_pretrained(folder, adapter=str(tmp_path / "adapter"))
    assert lm.decode(lm.encode(Prompt.of("1"))) == "5"
    (tmp_path / "adapter" / "chat_template.jinja").unlink()
    tiny.tokenizer(template="{{ '4' }}").save_pretrained(tmp_path / "adapter")
    lm = CausalLM.from_pretrained(folder, adapter=str(tmp_path / "adapter"))
    assert lm.decode(lm.encode(Prompt.of("1"))) == "4"
    given = CausalLM.from_pretrained(folder, adapter=str(tmp_path / "adapter"), tokenizer=tiny.tokenizer())
    assert given.decode(given.encode(Prompt.of("1"))) != "4"
    tiny.tokenizer((*tiny.TOKENS, "<a>", "<b>")).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="28 tokens, the model's embedding 26 rows"):
        CausalLM.from_pretrained(folder, adapter=str(tmp_path / "adapter"))
