"""Searches are told change by change: what was stopped where, what was drawn, what became of it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from nabla.core.prompt import Prompt
from nabla.engine.events import Run
from nabla.launch.callbacks.stream import BAD_CLOSE, BAD_OPEN, CLOSE, OPEN, Stream
from nabla.launch.launcher import TestTimeLoop
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_process_reward
from tests.strategies import PROMPT, make_trajectory

TOKENS = char_tokenizer("abcd")
SAMPLING = {"temperature": 1.0, "max_new_tokens": 12}
STEPS = {"sampling": SAMPLING, "boundary": {"name": "length", "tokens": 3}}


def told(capsys, method, prompts=("ab",)):
    loop = TestTimeLoop(
        method, tiny_lm(TOKENS), tiny_process_reward(TOKENS), callbacks=[Stream()], accelerator="cpu"
    )
    solutions = loop.run([Prompt.of(text) for text in prompts])
    return solutions, capsys.readouterr().out


def test_backtracking_shows_stops_draws_decisions_and_fresh_starts(capsys):
    how = {"attempts": 12, "patience": 2, "screen": "value", "move": "policy"}
    method = {"name": "backtrack", **how, **STEPS}
    (solution,), out = told(capsys, method)
    lines = [(line[:10].strip(), line[10:]) for line in out.splitlines()]
    labels = [label for label, _ in lines]
    assert labels.count("stopped") == solution.cost.counts["stopped_texts"] > 0
    assert labels.count("drawn") == len(solution.revisions)
    assert labels.count("accepted") == sum(r.accepted for r in solution.revisions)
    assert labels.count("rejected") == sum(not r.accepted for r in solution.revisions)
    assert labels.count("restart") == solution.candidates - 1 - len(solution.revisions) > 0
    drawn = [re.match(r"at (\d+): (.+) → (.+)", text) for label, text in lines if label == "drawn"]
    pairs = [(int(m[1]), m[2], m[3]) for m in drawn if m is not None]
    names = {i: TOKENS.decode([i]) for r in solution.revisions for i in (r.old_token, r.new_token)}
    assert [p for p, _, _ in pairs] == [r.position for r in solution.revisions]
    for (_, old, new), revision in zip(pairs, solution.revisions, strict=True):
        assert names[revision.old_token].strip() in old
        assert names[revision.new_token].strip() in new
    for label, text in lines:
        if label == "stopped":  # one token is marked, and nothing is lost
            assert re.search(f"{BAD_OPEN}.*{BAD_CLOSE}", text)
    assert lines[-1] == ("answer", solution.response)


def test_a_search_without_a_screen_is_told_too(capsys):
    (solution,), out = told(capsys, {"name": "pairs", "attempts": 4, "sampling": SAMPLING})
    assert out.count("drawn") == len(solution.revisions)
    assert "reward" in out
    assert out.splitlines()[0].startswith("written")


def test_several_problems_would_mix_and_are_not_told(capsys):
    _, out = told(capsys, {"name": "backtrack", "attempts": 4, "screen": "value", **STEPS}, ("ab", "cd"))
    assert out == ""


@pytest.mark.parametrize("bad", [0, 60, 199])
def test_a_long_text_is_shown_around_its_bad_token(capsys, bad):
    lm = tiny_lm(TOKENS)
    stream = Stream()
    stream.on_run_start(Run(lm.vocabulary), [PROMPT])
    ids = TOKENS("abcd" * 50, add_special_tokens=False)["input_ids"]
    bare = {"states": None, "noise_keys": None, "log_probs": torch.zeros(len(ids))}
    text = replace(make_trajectory(), tokens=torch.tensor(ids), finished=False, **bare)
    stream.on_stop(PROMPT, text, bad)
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{BAD_OPEN}{'abcd'[bad % 4]}{BAD_CLOSE}" in line
    assert len(line) <= 110
    assert ("…" in line.partition(BAD_OPEN)[0]) == (bad > 60)
    assert OPEN not in line
    assert CLOSE not in line


def test_a_fresh_text_is_told_although_it_equals_an_earlier_one(capsys):
    stream, text = Stream(), replace(make_trajectory(), finished=True)
    stream.on_run_start(Run(tiny_lm(TOKENS).vocabulary), [PROMPT])
    for begin in (None, stream.on_restart):
        if begin is not None:
            begin(PROMPT, text)
        for position in (1, 2):
            stream.on_proposal(PROMPT, text, position, 1)
    labels = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert labels == ["written", "drawn", "drawn", "restart", "written", "drawn", "drawn"]
