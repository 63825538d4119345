"""Rewards that heard of no mark at a token: their labels, and two steps of their training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

pytest.importorskip("lightning")

from experiments.sandbox import cards, export, seeds, success_labels, train_verifier
from experiments.sandbox.common import Codec
from experiments.sandbox.metrics import calibration_error, first_wrong
from experiments.sandbox.success_labels import Drawn, Labelled, labelled
from nabla.problems.sandbox import MODELS, TASKS, model_path, split_of

RECIPE = {"problems": 2, "roots": 2, "prefixes": 2, "continuations": 2}


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec()


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_label_is_the_share_of_right_texts_drawn_from_there_or_before():
    drawn = [
        Drawn((1, 2, 3), 0, True),
        Drawn((1, 4, 5), 0, False),
        Drawn((1, 2, 6), 2, False),  # says nothing of (1,): it was drawn behind (1, 2)
        Drawn((1, 2, 3), 2, True),
    ]
    found = {row.tokens: row for row in labelled("p", drawn)}
    assert len(found) == 3
    assert found[1, 2, 3] == Labelled("p", (1, 2, 3), 0, (0.5, 0.5, pytest.approx(2 / 3), 1.0))
    assert found[1, 2, 6] == Labelled("p", (1, 2, 6), 2, (pytest.approx(2 / 3), 0.0))
    assert found[1, 4, 5].labels == (0.5, 0.5, 0.0, 0.0)


def test_labels_are_drawn_of_training_problems_and_counted(tmp_path: Path, codec: Codec):
    rows, flops = success_labels.draw("arithmetic", RECIPE, seed=0)
    again, _ = success_labels.draw("arithmetic", RECIPE, seed=0)
    assert rows == again
    assert flops > 1e6
    prompts = {row.prompt for row in rows}
    assert len(prompts) == 2
    assert {split_of("arithmetic", prompt) for prompt in prompts} == {"train"}
    for row in rows:
        right = TASKS["arithmetic"].check(row.prompt, codec.text(row.tokens))
        assert row.labels[-1] == right
        assert len(row.labels) == len(row.tokens) - row.start + 1
    success_labels.save(tmp_path, rows, flops)
    assert success_labels.load(tmp_path) == (rows, flops)


def test_labels_stand_where_their_prefix_ends(codec: Codec):
    text = (*codec.response("12*3=36#36")[:-1],)
    row = Labelled("12*3+10", text, 2, (0.5, *[0.25] * (len(text) - 3), 1.0))
    batch = train_verifier.encode_labels(codec, [row])
    begin = len(codec.prompt(row.prompt))
    assert batch["weight"][0].nonzero()[:, 0].tolist() == list(range(begin + 1, begin + len(text) + 1))
    assert batch["share"][0, begin + 1] == 0.5  # behind two tokens of the answer
    assert batch["share"][0, -2:].tolist() == [1.0, 1.0]  # the end of turn and the template's line break
    assert batch["next"][0, begin - 1 :].tolist() == [*text, codec.tail[1]]
    wrong = train_verifier.encode_labels(codec, [Labelled(row.prompt, text, 0, (0.0,) * (len(text) + 1))])
    assert bool((wrong["next"] == -100).all())
    assert wrong["weight"][0].sum() == len(text) + 2


def test_texts_without_labels_train_comparisons_alone(codec: Codec):
    prompt, right, wrong = "12*3+10", "12*3=36;36+10=46#46", "12*3=36;38+10=47#47"
    labelled_text = Labelled(prompt, tuple(codec.response(right)[:-1]), 0, (1.0,) * (len(right) + 2))
    others = [(prompt, right, True), (prompt, wrong, False)]
    batch = train_verifier.encode_labels(codec, [labelled_text], others)
    assert len({batch[name].shape for name in ("ids", "mask", "share", "weight", "answer")}) == 1
    assert batch["weight"].sum(1).tolist() == [len(right) + 3, 0, 0]
    assert batch["answer"].sum(1).tolist() == [len(right) + 2] * 3
    assert [bool((row >= 0).any()) for row in batch["next"]] == [True, True, False]


def test_an_outcome_only_reward_hears_of_no_mark(codec: Codec):
    prompt, right, wrong = "12*3+10", "12*3=36;36+10=46#46", "12*3=36;36+10=47#47"
    batch = train_verifier.encode_verdicts(TASKS["arithmetic"], codec, [(prompt, right), (prompt, wrong)])
    assert set(batch) == {"ids", "mask", "next", "right"}
    assert batch["right"].tolist() == [1.0, 0.0]
    begin = len(codec.prompt(prompt))
    assert batch["next"][0, begin - 1 :].tolist() == codec.response(right)
    assert bool((batch["next"][1] == -100).all())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", ["outcome-only", "success"])
def test_two_steps(target: str, tmp_path: Path, codec: Codec):
    folder = tmp_path / f"arithmetic-{target}"
    info = replace(MODELS[f"latin-{target}"], name=f"arithmetic-{target}", family="arithmetic")
    if target == "success":
        success_labels.save(folder, *success_labels.draw("arithmetic", RECIPE, seed=0))
    arguments = ["--steps", "2", "--every", "2", "--batch", "4", "--pool", "5", "--out", str(tmp_path)]
    train_verifier.main(["--task", "arithmetic", "--target", target, *arguments])
    state = torch.load(folder / "step_00002.pt")
    model = export.build(info.role, state, codec)
    head = "outcome" if target == "outcome-only" else "process"
    torch.testing.assert_close(model.score.weight, state[f"{head}.weight"])
    row = json.loads((folder / "log.jsonl").read_text())
    assert ("process" in row, "outcome" in row) == (target == "success", target != "success")
    text = cards.card(info, 2, export.recipe_of(info), export.labels_of(info, folder))
    assert f"train_verifier --task arithmetic --target {target}" in text
    assert "FLOPs of training" in text


def test_another_seed_is_measured_beside_the_shipped_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The shipped weights as if a training had just written them: twice the same figures."""
    name = "latin-outcome-only"
    loaded = AutoModelForSequenceClassification.from_pretrained(model_path(name), dtype=torch.float32)
    names = {"model.": "body.", "score.": "outcome."}
    state = {
        key.replace(old, new, 1): value
        for key, value in loaded.state_dict().items()
        for old, new in names.items()
        if key.startswith(old)
    }
    run, step = export.CHECKPOINTS[name]
    (tmp_path / run).mkdir()
    torch.save(state, tmp_path / run / f"step_{step:05d}.pt")
    arguments = ["--task", "latin", "--problems", "6", "--samples", "4", "--only", name]
    seeds.main([*arguments, "--out", str(tmp_path), "--cache", str(tmp_path / "kept")])
    found = json.loads((tmp_path / "seeds.json").read_text())[name]
    assert found["shipped"] == found[tmp_path.name]
    assert 0 < found["shipped"]["auc"] <= 1
    assert capsys.readouterr().out.count(f"| {name} |") == 2
    assert set(seeds.names("latin")) == {"latin-outcome-only", "latin-success"}


def test_the_body_starts_from_layers_that_no_label_has_reached():
    state = train_verifier.lower_layers("arithmetic-process-reward", "arithmetic")
    assert {key.split(".")[2] for key in state if ".layers." in key} == {"0", "1", "2", "3"}
    own = train_verifier.weights("arithmetic-policy")["model.norm.weight"]
    torch.testing.assert_close(state["model.norm.weight"], own)


def test_measures_of_values():
    assert first_wrong([[1.0, 2.0, 3.0], [4.0]], [[True, False, False], [True]]) == ([1.0, 4.0], [2.0])
    assert calibration_error([0.0, 0.0], [1.0, 0.0]) == pytest.approx(0.0)
    assert calibration_error([100.0, 100.0], [1.0, 0.0]) == pytest.approx(0.5)
