"""Models from folders: what is missing or broken is named, adapters count, everything is frozen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from nabla.core.errors import ConfigError, ModelError
from nabla.models.body import EMPTY, Chunk
from nabla.models.causal_lm import CausalLM
from nabla.models.checkpoint import require_checkpoint
from nabla.models.loading import as_dtype, freeze, load, unwrap
from nabla.rewards.outcome import OutcomeReward
from nabla.rewards.process import ProcessReward
from tests import tiny
from tests.cases import close
from tests.tiny import lm_model, outcome_model, process_model, tokenizer

IDS = torch.arange(12)

#: peft 0.21 asks transformers 5.23 for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


def save(folder: Path, model: Any, tok: Any = None) -> str:
    model.save_pretrained(folder)
    (tok or tokenizer()).save_pretrained(folder)
    return str(folder)


def lm_logits(lm: CausalLM, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        (output,) = lm.body.run([Chunk(EMPTY, lm.body.embed(ids))])
        return lm.head.logits(output.hidden)


def rm_scores(reward: Any, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        (output,) = reward.body.run([Chunk(EMPTY, reward.body.embed(ids))])
        return reward.head(output.hidden)


@pytest.mark.parametrize("arch", ["qwen2", "gemma2", "gpt2"])
def test_a_saved_language_model(tmp_path: Path, arch: str) -> None:
    model = lm_model(arch, tokenizer())
    path = save(tmp_path, model)
    lm = CausalLM.from_pretrained(path, dtype="float64")
    assert lm.body.dtype == torch.float64
    with torch.no_grad():
        close(lm_logits(lm), model.eval()(input_ids=IDS[None]).logits[0], 1e-5)
    assert not any(p.requires_grad for p in lm.model.parameters())
    assert CausalLM.from_pretrained(path, device="cpu").body.dtype == torch.float32


def test_saved_reward_models(tmp_path: Path) -> None:
    path = save(tmp_path / "outcome", outcome_model("qwen2", tokenizer()))
    reward = OutcomeReward.from_pretrained(path, dtype="float64", minimum_coverage=0.5)
    assert reward.minimum_coverage == 0.5
    path = save(tmp_path / "process", process_model("qwen2", tokenizer(), labels=2))
    process = ProcessReward.from_pretrained(
        path, dtype="float64", aggregation="mean", step_separators=[";"], label=1, reuse_prefix=False
    )
    assert (process.aggregation, process.label, process.step_separators) == ("mean", 1, (";",))
    assert not process.body.reuse_prefix


# -- broken checkpoints --------------------------------------------------------------------------------


def test_a_missing_path() -> None:
    with pytest.raises(ModelError, match="The language model cannot be loaded") as caught:
        CausalLM.from_pretrained("/nowhere/at/all")
    assert "/nowhere/at/all" in str(caught.value)
    assert "save_pretrained" in str(caught.value)
    with pytest.raises(ModelError, match="The reward model cannot be loaded"):
        OutcomeReward.from_pretrained("/nowhere/at/all")


@pytest.mark.parametrize("damage", ["truncated", "empty", "absent", "config", "tokenizer"])
def test_broken_folders(tmp_path: Path, damage: str) -> None:
    path = save(tmp_path, lm_model("qwen2", tokenizer()))
    weights = tmp_path / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:2000])
    elif damage == "empty":
        weights.write_bytes(b"")
    elif damage == "absent":
        weights.unlink()
    elif damage == "config":
        (tmp_path / "config.json").write_text("{")
    else:
        (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        CausalLM.from_pretrained(path)


def test_a_head_that_the_checkpoint_lacks(tmp_path: Path) -> None:
    """transformers would fill in a random reward head and go on."""
    path = save(tmp_path, lm_model("qwen2", tokenizer()))
    for arguments in ({}, {"num_labels": 1}):
        with pytest.raises(ModelError, match=r"lacks weights: score\.weight"):
            OutcomeReward.from_pretrained(path, **arguments)
    with pytest.raises(ModelError, match=r"lacks weights: score\.bias, score\.weight"):
        ProcessReward.from_pretrained(path)


def test_labels(tmp_path: Path) -> None:
    path = save(tmp_path, outcome_model("qwen2", tokenizer(), num_labels=3))
    with pytest.raises(ModelError, match="one label"):
        OutcomeReward.from_pretrained(path)
    with pytest.raises(ModelError, match="has 2 labels"):
        tiny.process("qwen2", labels=2, arguments={"label": 2})


def test_nan_in_a_reward_model() -> None:
    model = outcome_model("qwen2", tokenizer())
    with torch.no_grad():
        model.score.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="NaN or infinity"):
        OutcomeReward(model, tokenizer())


def test_dtypes() -> None:
    assert as_dtype(None, "cpu") == torch.float32
    assert as_dtype(None, "cuda") == as_dtype("auto", "cuda") == "auto"
    assert as_dtype("bfloat16", None) == torch.bfloat16
    assert as_dtype(torch.float16, "cpu") == torch.float16
    with pytest.raises(ConfigError, match="Unknown dtype"):
        as_dtype("float8", None)


@pytest.mark.parametrize(
    ("flags", "stored", "expected", "said"),
    [
        ("sse avx512_bf16", torch.bfloat16, torch.bfloat16, r"in bfloat16.*\(avx512_bf16\)"),
        ("amx_bf16 amx_tile", torch.float16, torch.bfloat16, r"in bfloat16.*\(amx_bf16\)"),
        ("sse avx2", torch.bfloat16, torch.float32, "in float32.*hundreds of times slower"),
        (None, torch.bfloat16, torch.float32, "in float32"),
        ("avx512_bf16", torch.float32, torch.float32, None),
    ],
)
def test_auto_on_a_cpu_asks_the_processor(
    flags: str | None,
    stored: torch.dtype,
    expected: torch.dtype,
    said: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    about = tmp_path / "cpuinfo"
    if flags is not None:
        about.write_text(f"processor\t: 0\nflags\t\t: {flags}\nprocessor\t: 1\n")
    monkeypatch.setattr("nabla.models.loading._CPU_FLAGS", about)
    tok = tokenizer()
    lm_model("qwen2", tok).to(stored).save_pretrained(tmp_path / "model")
    tok.save_pretrained(tmp_path / "model")
    model, _ = load(AutoModelForCausalLM, str(tmp_path / "model"), role="model", dtype="auto", device="cpu")
    assert model.dtype == expected
    messages = [record.message for record in caplog.records if record.name == "nabla.models.loading"]
    assert len(messages) == (0 if said is None else 1)
    assert said is None or re.search(said, messages[0])
    plain, _ = load(AutoModelForCausalLM, str(tmp_path / "model"), role="model", device="cpu")
    assert plain.dtype == torch.float32


# -- adapters -------------------------------------------------------------------------------------------


def lora(model: Any, **arguments: Any) -> PeftModel:
    """A LoRA adapter with weights far from zero."""
    settings = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], **arguments)
    adapted = get_peft_model(model, settings)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight += 0.3 * torch.randn(weight.shape, generator=draw).to(weight)
    return adapted.eval()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    save(tmp_path / "lm", lm_model("qwen2", tokenizer()))
    save(tmp_path / "rm", outcome_model("llama", tokenizer()))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "lm", dtype=torch.float64)
    lora(base).save_pretrained(str(tmp_path / "lm-adapter"))
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm", dtype=torch.float64)
    lora(base, task_type="SEQ_CLS", modules_to_save=["score"]).save_pretrained(str(tmp_path / "rm-adapter"))
    return tmp_path


def test_an_adapter_of_the_language_model(folders: Path) -> None:
    plain = CausalLM.from_pretrained(str(folders / "lm"), dtype="float64")
    adapted = CausalLM.from_pretrained(
        str(folders / "lm"), adapter=str(folders / "lm-adapter"), dtype="float64"
    )
    base = AutoModelForCausalLM.from_pretrained(folders / "lm", dtype=torch.float64)
    peft = PeftModel.from_pretrained(base, folders / "lm-adapter").eval()
    with torch.no_grad():
        expected = peft(input_ids=IDS[None]).logits[0]
    close(lm_logits(adapted), expected, 1e-6)
    assert float((lm_logits(plain) - expected).abs().max()) > 0.1
    assert not any(p.requires_grad for p in adapted.model.parameters())
    assert not any("lora" in name for name, _ in adapted.model.named_parameters())  # merged


def test_an_adapter_of_the_reward_model(folders: Path) -> None:
    """With a head of its own (modules_to_save), also where the base checkpoint has none."""
    base = AutoModelForSequenceClassification.from_pretrained(folders / "rm", dtype=torch.float64)
    peft = PeftModel.from_pretrained(base, folders / "rm-adapter").eval()
    with torch.no_grad():
        expected = peft(input_ids=IDS[None]).logits[0]
    reward = OutcomeReward.from_pretrained(
        str(folders / "rm"), adapter=str(folders / "rm-adapter"), dtype="float64"
    )
    close(rm_scores(reward)[-1], expected, 1e-6)
    plain = OutcomeReward.from_pretrained(str(folders / "rm"), dtype="float64")
    assert float((rm_scores(plain)[-1] - expected).abs().max()) > 1e-3


def test_adapter_weights_may_bring_the_head(folders: Path) -> None:
    headless = lm_model("llama", tokenizer())
    path = save(folders / "headless", headless)
    reward = OutcomeReward.from_pretrained(
        path, adapter=str(folders / "rm-adapter"), num_labels=1, dtype="float64"
    )
    stored = load_file(folders / "rm-adapter" / "adapter_model.safetensors")
    close(reward.head.weight.detach(), stored["base_model.model.score.weight"].double(), 1e-12)


@pytest.mark.parametrize("role", ["lm", "rm"])
def test_a_broken_adapter(folders: Path, role: str) -> None:
    cls: Any = CausalLM if role == "lm" else OutcomeReward
    with pytest.raises(ModelError, match=r"adapter of the .* cannot be loaded"):
        cls.from_pretrained(str(folders / role), adapter=str(folders / "nothing"))
    weights = folders / f"{role}-adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"adapter of the .* cannot be loaded"):
        cls.from_pretrained(str(folders / role), adapter=str(folders / f"{role}-adapter"))


def _rewritten(change: Any) -> Any:
    """Harm to the weights' file of an adapter."""

    def harm(adapter: Path) -> None:
        file = adapter / "adapter_model.safetensors"
        save_file(change(load_file(file)), file)

    return harm


def _configured(**changes: Any) -> Any:
    """Harm to an adapter's configuration."""

    def harm(adapter: Path) -> None:
        file = adapter / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return harm


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            _rewritten(lambda w: {k.replace("layers.0", "layers.9"): v for k, v in w.items()}),
            "does not fit: it lacks",
        ),
        (_rewritten(lambda w: {"x": torch.zeros(1)}), "does not fit: it lacks"),
        (_rewritten(lambda w: dict(list(w.items())[1:])), "does not fit: it lacks"),
        (
            _rewritten(lambda w: {**w, next(iter(w)).replace("layers.0", "layers.9"): torch.zeros(1)}),
            r"does not fit: it has .*layers\.9.*which the model has not",
        ),
        (lambda a: (a / "adapter_model.safetensors").unlink(), "there is no adapter_model.safetensors in it"),
        (lambda a: (a / "adapter_config.json").unlink(), "there is no adapter_config.json in it"),
        (lambda a: (a / "adapter_config.json").write_text("[1]"), "cannot be read: it is no mapping"),
        (lambda a: (a / "adapter_config.json").write_bytes(b"\xff"), "cannot be read: byte 0"),
        (_configured(peft_type="NONSENSE"), "'NONSENSE' is unknown, or missing"),
        (_configured(task_type="SEQ_CLS"), "it writes no text"),
        (_configured(task_type="TOKEN_CLS"), "it writes no text"),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_an_adapter_that_does_not_fit_is_not_left_out_in_silence(
    folders: Path, harm: Any, said: str, alone: bool
) -> None:
    adapter, base = folders / "lm-adapter", str(folders / "lm")
    _configured(base_model_name_or_path=base)(adapter)
    harm(adapter)
    if alone and not (adapter / "adapter_config.json").exists():
        said = "language model (cannot be loaded|has no tokenizer)"
    path, arguments = (str(adapter), {}) if alone else (base, {"adapter": str(adapter)})
    with pytest.raises(ModelError, match=said):
        CausalLM.from_pretrained(path, **arguments)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("/no/such/base", "names is not there"),
        ("./no/such", "names is not there"),
        (5, "does not name its base model"),
        (["x"], "does not name its base model"),
        ("", "does not name its base model"),
        (None, "does not name its base model"),
    ],
)
def test_the_base_that_an_adapter_names(folders: Path, base: Any, said: str) -> None:
    _configured(base_model_name_or_path=base)(folders / "lm-adapter")
    with pytest.raises(ModelError, match=said):
        CausalLM.from_pretrained(str(folders / "lm-adapter"))


@pytest.mark.parametrize("adapter", [5, ["a"], "", {}])
def test_what_is_no_adapter(folders: Path, adapter: Any) -> None:
    with pytest.raises(ModelError, match="is a folder, a hub id or a name"):
        require_checkpoint(str(folders / "lm"), {"adapter": adapter}, role="language model")


@pytest.mark.parametrize("path", ["", " ", "~nobody-of-this-name/model", "missing.gguf"])
def test_paths_that_can_be_no_hub_id(path: str) -> None:
    for take in (
        lambda: CausalLM.from_pretrained(path),
        lambda: require_checkpoint(path, {}, role="language model"),
    ):
        with pytest.raises(ModelError, match=r"cannot be loaded: (there is no such|its path is)"):
            take()


def test_a_folder_without_a_tokenizer(folders: Path) -> None:
    """transformers makes up one of no tokens for some models."""
    for file in [*(folders / "lm").glob("tok*"), *(folders / "lm").glob("*.jinja")]:
        file.unlink()
    with pytest.raises(ModelError, match="language model has no tokenizer"):
        CausalLM.from_pretrained(str(folders / "lm"))
    CausalLM.from_pretrained(str(folders / "lm"), tokenizer=str(folders / "rm"))
    with pytest.raises(ModelError, match="named as tokenizer has no tokenizer"):
        CausalLM.from_pretrained(str(folders / "rm"), tokenizer=str(folders / "lm"))
    with pytest.raises(ModelError, match="tokenizer cannot be loaded: there is no such folder"):
        CausalLM.from_pretrained(str(folders / "rm"), tokenizer="/no/such")


@pytest.mark.parametrize("device", ["nonsense", "cuda:x", ""])
def test_what_names_no_device(folders: Path, device: Any) -> None:
    with pytest.raises(ConfigError, match="Unknown device"):
        CausalLM.from_pretrained(str(folders / "lm"), device=device)


def test_a_configuration_of_other_sizes_is_said_in_plain_words(folders: Path) -> None:
    file = folders / "lm" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "intermediate_size": 8}))
    with pytest.raises(ModelError, match=r"its weights have other sizes than its config\.json says"):
        CausalLM.from_pretrained(str(folders / "lm"))


@pytest.mark.parametrize(("file", "text"), [("tokenizer.json", "{}"), ("tokenizer_config.json", "[]")])
def test_a_broken_tokenizer_is_told_from_a_broken_model(folders: Path, file: str, text: str) -> None:
    (folders / "lm" / file).write_text(text)
    with pytest.raises(ModelError, match="language model's tokenizer cannot be loaded"):
        CausalLM.from_pretrained(str(folders / "lm"))


def test_an_unknown_dtype_is_said_once(folders: Path) -> None:
    with pytest.raises(ConfigError, match=r"^Unknown dtype"):
        CausalLM.from_pretrained(str(folders / "lm"), dtype="nonsense")


def test_an_adapter_without_the_head_that_the_base_lacks(folders: Path) -> None:
    """transformers would make one up."""
    base = AutoModelForSequenceClassification.from_pretrained(folders / "rm", dtype=torch.float64)
    lora(base).save_pretrained(str(folders / "headless-adapter"))
    path = save(folders / "headless", lm_model("llama", tokenizer()))
    with pytest.raises(ModelError, match=r"Neither .* score\.weight"):
        OutcomeReward.from_pretrained(path, adapter=str(folders / "headless-adapter"), num_labels=1)
    # The base's own head is enough.
    OutcomeReward.from_pretrained(str(folders / "rm"), adapter=str(folders / "headless-adapter"))


def test_the_number_of_labels_is_asked_for(folders: Path) -> None:
    path = save(folders / "headless", lm_model("llama", tokenizer()))
    with pytest.raises(ModelError, match="num_labels=1"):
        OutcomeReward.from_pretrained(path, adapter=str(folders / "rm-adapter"))


@pytest.mark.parametrize("words", ["base", "adapter"])
def test_a_folder_with_an_adapter_alone(folders: Path, words: str) -> None:
    """Base and head are found from it; the tokenizer is its own where it has one."""
    headless = save(folders / "headless", lm_model("llama", tokenizer()))
    adapter = folders / "rm-adapter"
    settings = adapter / "adapter_config.json"
    written = settings.read_text().replace(str(folders / "rm") + '"', headless + '"')
    assert headless in written
    settings.write_text(written)
    if words == "adapter":
        tokenizer(template=tiny.OTHER_END).save_pretrained(adapter)
    reward = OutcomeReward.from_pretrained(str(adapter), dtype="float64")
    asked = OutcomeReward.from_pretrained(headless, adapter=str(adapter), num_labels=1, dtype="float64")
    close(rm_scores(reward), rm_scores(asked), 1e-12)
    template = tiny.OTHER_END if words == "adapter" else tiny.CHATML
    assert reward.tokenizer.chat_template == template
    with pytest.raises(ModelError, match="another one is given"):
        OutcomeReward.from_pretrained(str(adapter), adapter=str(adapter))
    settings.write_text(written.replace(headless, ""))
    with pytest.raises(ModelError, match="does not name its base"):
        OutcomeReward.from_pretrained(str(adapter))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("part", ["lm_head", "embed_tokens"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_of_the_head(tmp_path: Path, tied: bool, part: str) -> None:
    """It equals peft's own logits, or is refused: merged into a tied matrix it changes the other end."""
    path = save(tmp_path / "lm", lm_model("llama-tied" if tied else "llama", tokenizer()))
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
    adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", part]))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight += 0.3 * torch.randn(weight.shape, generator=draw).to(weight)
        expected = adapted.eval()(input_ids=IDS[None]).logits[0]
    adapted.save_pretrained(str(tmp_path / "adapter"))
    if tied:
        with pytest.raises(ModelError, match="tied"):
            CausalLM.from_pretrained(path, adapter=str(tmp_path / "adapter"), dtype="float64")
    else:
        lm = CausalLM.from_pretrained(path, adapter=str(tmp_path / "adapter"), dtype="float64")
        close(lm_logits(lm), expected, 1e-6)


def test_a_value_head_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = save(tmp_path, lm_model("llama", tokenizer()))
    weights = load_file(tmp_path / "model.safetensors")
    weights["v_head.summary.weight"] = torch.ones(1, 16)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="value head"):
        OutcomeReward.from_pretrained(path, num_labels=1)


def test_wrapped_instances() -> None:
    """PeftModels are taken as they are: the adapter stays where it is, and counts."""
    model = lm_model("qwen2", tokenizer())
    with torch.no_grad():
        bare = model.eval()(input_ids=IDS[None]).logits[0]
    peft = lora(model)
    lm = CausalLM(peft, tokenizer())
    with torch.no_grad():
        expected = peft(input_ids=IDS[None]).logits[0]
    close(lm_logits(lm), expected)
    assert float((bare - expected).abs().max()) > 0.1
    assert not any(p.requires_grad for p in peft.parameters())
    assert lm.body.parameters > CausalLM(lm_model("qwen2", tokenizer()), tokenizer()).body.parameters
    rm = lora(outcome_model("llama", tokenizer()), task_type="SEQ_CLS", modules_to_save=["score"])
    reward = OutcomeReward(rm, tokenizer())
    with torch.no_grad():
        close(rm_scores(reward)[-1], rm(input_ids=IDS[None]).logits[0])
    assert not any(p.requires_grad for p in rm.parameters())


def test_adapters_that_cannot_be_used() -> None:
    soft = get_peft_model(
        lm_model("qwen2", tokenizer()), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    )
    with pytest.raises(ModelError, match="Prompt-learning"):
        CausalLM(soft, tokenizer())
    for changes in ({"modules_to_save": ["lm_head"]}, {"modules_to_save": ["embed_tokens"]}):
        with pytest.raises(ModelError, match="embedding or the head"):
            CausalLM(lora(lm_model("llama", tokenizer()), **changes), tokenizer())
    settings = LoraConfig(r=2, target_modules=["embed_tokens"])
    with pytest.raises(ModelError, match="embedding or the head"):
        CausalLM(get_peft_model(lm_model("llama", tokenizer()), settings), tokenizer())


def test_unwrap_and_freeze() -> None:
    model = lm_model("qwen2", tokenizer())
    assert unwrap(model) is model
    assert freeze(model.train()) is model
    assert not model.training
    assert unwrap(lora(model)) is model


def test_load_passes_arguments_on(tmp_path: Path) -> None:
    path = save(tmp_path, lm_model("qwen2", tokenizer()))
    model, tok = load(
        AutoModelForCausalLM, path, role="language model", dtype="float64", attn_implementation="eager"
    )
    assert model.config._attn_implementation == "eager"
    assert tok.get_vocab() == tokenizer().get_vocab()


def test_an_adapter_of_an_adapted_model(tmp_path: Path) -> None:
    """Those below are merged first, for a reward's body too; a circle is named."""
    base = save(tmp_path / "base", lm_model("llama", tokenizer()).float())
    for name, below in (("first", base), ("second", str(tmp_path / "first"))):
        torch.manual_seed(len(name))
        model = AutoModelForCausalLM.from_pretrained(base)
        settings = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
        made = get_peft_model(model, settings)
        for parameter in made.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
        made.save_pretrained(tmp_path / name)
        config = tmp_path / name / "adapter_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": below}))
    expected = AutoModelForCausalLM.from_pretrained(base)
    for name in ("first", "second"):
        expected = PeftModel.from_pretrained(expected, tmp_path / name).merge_and_unload()
    with torch.no_grad():
        wanted = expected(input_ids=IDS[None]).logits[0]
        states = expected.model(input_ids=IDS[None]).last_hidden_state[0]
    close(lm_logits(CausalLM.from_pretrained(str(tmp_path / "second"))), wanted, 1e-5)
    head = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    reward = get_peft_model(head, LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS"))
    reward.save_pretrained(tmp_path / "reward")
    config = tmp_path / "reward" / "adapter_config.json"
    above = {"base_model_name_or_path": str(tmp_path / "second")}
    config.write_text(json.dumps({**json.loads(config.read_text()), **above}))
    weight = reward.get_base_model().score.modules_to_save["default"].weight
    loaded = OutcomeReward.from_pretrained(str(tmp_path / "reward"))
    close(rm_scores(loaded), states @ weight.detach().T, 1e-5)  # its own adapter is still nothing
    config = tmp_path / "first" / "adapter_config.json"
    circle = {"base_model_name_or_path": str(tmp_path / "second")}
    config.write_text(json.dumps({**json.loads(config.read_text()), **circle}))
    with pytest.raises(ModelError, match="its own base model"):
        CausalLM.from_pretrained(str(tmp_path / "second"))
