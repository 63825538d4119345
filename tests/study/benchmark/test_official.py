"""The script beside the authors' code runs both sides where a checkout is at hand, and skips where not."""

from __future__ import annotations

import csv
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from nabla.core.prompt import Prompt
from nabla.models.causal_lm import CausalLM
from nabla.study.benchmark.models import random_model, word_tokenizer
from nabla.study.benchmark.settings import Shape

SCRIPT = Path(__file__).parents[3] / "experiments" / "benchmarks" / "official.py"
#: A folder with a checkout of https://github.com/VITA-Group/Nabla-Reasoner.
CHECKOUT = "NABLA_OFFICIAL"
SHAPE = Shape(vocab=300, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, intermediate=64)
WORDS = "w1 w2 w3"


@pytest.fixture(scope="module")
def official() -> Any:
    spec = importlib.util.spec_from_file_location("official", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a language model and of a reward, with random weights."""
    folder, words = tmp_path_factory.mktemp("pair"), word_tokenizer(SHAPE.vocab)
    for name, kind, seed in (("lm", "ForCausalLM", 1), ("rm", "ForSequenceClassification", 2)):
        model = random_model(SHAPE, kind, positions=64, dtype=torch.float32, device="cpu", seed=seed)
        model.save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    return {name: str(folder / name) for name in ("lm", "rm")}


def request(pair: dict[str, str], **more: Any) -> dict[str, Any]:
    return {**pair, "prompt": WORDS, "lengths": [5, 9], "seed": 0, "steps": 4, "repeats": 1, **more}


def test_without_a_checkout_it_says_why_there_is_nothing(
    official: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official.main([])
    assert "skipped: no folder" in capsys.readouterr().out
    (tmp_path / "optimize.py").write_text("")
    official.main([str(tmp_path)])
    assert "lacks templates.py, utils.py" in capsys.readouterr().out


def test_the_first_free_token_is_the_most_likely_one(official: Any, pair: dict[str, str]) -> None:
    tokens = torch.tensor(official.write(request(pair))["tokens"])
    assert len(tokens) == 9 + official.COMMITTED
    lm, words, _, _ = official.models(request(pair))
    assert not set(tokens.tolist()) & set(words.all_special_ids)
    start = official.initial(request(pair), lm, words, tokens)
    # Where the authors' code stands is the response; the first row is as the model has it.
    assert start[0].argmax(-1).tolist() == tokens[1:].tolist()
    opening = torch.cat([CausalLM(lm, words).encode(Prompt.of(WORDS)), tokens[:1]])
    torch.testing.assert_close(start[0, 0], lm(opening[None]).logits[0, -1])
    with pytest.raises(SystemExit, match="most likely"):
        official.initial(request(pair), lm, words, tokens[1:])


def test_nablas_side(official: Any, pair: dict[str, str], tmp_path: Path) -> None:
    tokens = official.write(request(pair))["tokens"]
    file = str(tmp_path / "nabla.pt")
    told = official.ours(request(pair, tokens=tokens, file=file))
    rows = torch.load(file, weights_only=True)
    assert set(told["seconds"]) == {"gradient", "refine", "position"}
    assert all(len(samples) == 1 and samples[0] > 0 for samples in told["seconds"].values())
    assert rows["gradient"].shape == (9, SHAPE.vocab)
    # Four steps of Adam at a constant rate move a number by four rates at most; a cosine moves it by less.
    moved = official.apart(rows["logits"], rows["start"])
    assert 0 < official.apart(rows["schedule"], rows["start"]) < moved
    assert moved < 4.01 * official.RATE


def test_the_table_divides_their_figures_by_ours(official: Any) -> None:
    names = [*official.COLUMNS]
    row = dict.fromkeys(names, 1.0) | {"tokens": 48, "official_refine_s": 6.0, "nabla_refine_s": 2.0}
    (line,) = official.told([row]).splitlines()[2:]
    assert line.startswith("| 48 |")
    assert "6 / 2 (× 3.0)" in line


def test_both_sides_give_the_same(official: Any, pair: dict[str, str], tmp_path: Path) -> None:
    """The authors' gradient and refined row, from their own code."""
    checkout = os.environ.get(CHECKOUT)
    if checkout is None:
        pytest.skip(f"{CHECKOUT} names no checkout of VITA-Group/Nabla-Reasoner")
    out = tmp_path / "official.csv"
    options = ["--lengths", "9", "--repeats", "1", "--steps", "6", "--prompt", WORDS, "--out", str(out)]
    official.main([checkout, "--lm", pair["lm"], "--rm", pair["rm"], *options])
    (row,) = csv.DictReader(out.read_text(encoding="utf-8").splitlines())
    assert row["tokens"] == "9"
    assert float(row["gradient_difference"]) < 1e-5
    assert float(row["row_moved"]) > 0.05
    assert float(row["row_difference"]) < 1e-4
