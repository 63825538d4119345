"""Labelled texts: read with the line's number in every complaint, and cut where their steps end."""

from __future__ import annotations

import json
import math

import pytest

from nabla.core.errors import ConfigError
from nabla.study.diagnosis.process_bench import LabelledText, read_labelled, step_values, text_ids
from nabla.testing.tiny import char_tokenizer, tiny_lm

ROW = {"id": "gsm8k-0", "problem": "ab", "steps": ["ab", "cd"], "label": 1, "final_answer_correct": False}


def test_a_file_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (ROW, {**ROW, "label": -1})))
    assert read_labelled(str(path)) == [
        LabelledText("labelled-0", "ab", ("ab", "cd"), 1),
        LabelledText("labelled-1", "ab", ("ab", "cd"), -1),
    ]


@pytest.mark.parametrize(
    "change",
    [
        *({"steps": steps} for steps in ("ab", [], [1])),
        *({"label": label} for label in (2, -2, True, "1")),
        {"problem": ""},
    ],
)
def test_a_bad_row_is_named(tmp_path, change):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, **change}) + "\n")
    with pytest.raises(ConfigError, match=r"rows\.jsonl, line 2"):
        read_labelled(str(path))


def test_steps_end_behind_their_separators():
    vocabulary = tiny_lm(char_tokenizer("abcd\n")).vocabulary
    ids, ends = text_ids(vocabulary, LabelledText("0", "ab", ("ab", "cd", "a"), 0))
    assert vocabulary.response(ids) == "ab\n\ncd\n\na"
    assert ends == [4, 8, len(ids)]
    assert [vocabulary.response(ids[:end]) for end in ends] == ["ab\n\n", "ab\n\ncd\n\n", "ab\n\ncd\n\na"]


def test_a_steps_value_is_its_last_or_its_least():
    values = [1.0, math.nan, 3.0, 2.0, math.nan, math.nan]
    assert step_values(values, [3, 4]) == (3.0, 2.0)
    assert step_values(values, [3, 4], least=True) == (1.0, 2.0)
    assert math.isnan(step_values(values, [4, 6])[1])
