from __future__ import annotations

import errno
import json
from collections import Counter

import pytest
import torch

from nabla.core import files
from nabla.core.errors import ConfigError
from nabla.core.solution import RunError, Stopped
from nabla.engine.events import Callback, Run
from nabla.launch.callbacks.trace import SCHEMA, Trace
from nabla.launch.launcher import TestTimeLoop
from nabla.launch.view.lines import read_trace
from nabla.launch.view.problems import of_trace
from tests import tiny
from tests.running import PROMPTS, facts

SAMPLING = {"max_new_tokens": 8}
LATIN = {
    "name": "nabla-reasoner",
    "max_rollouts": 3,
    "dto": {"steps": 2},
    "selector": "all",
    "proposal": {"name": "sample", "temperature": 2.0},
    "sampling": {"max_new_tokens": 64},
}
NABLA = {
    "name": "nabla-reasoner",
    "selector": {"name": "gradient-norm", "threshold": 0.0},
    "proposal": {"name": "sample", "temperature": 3.0},
    "dto": {"steps": 2},
    "sampling": SAMPLING,
}
BACKTRACK = {"name": "backtrack", "screen": "value", "sampling": SAMPLING, "attempts": 6}
BEAM = {
    "name": "beam-search",
    "beams": 1,
    "expansions": 3,
    "boundary": {"name": "length", "tokens": 2},
    "sampling": SAMPLING,
}
METHODS = [
    NABLA,
    BACKTRACK,
    {"name": "qalign", "steps": 4, "sampling": SAMPLING},
    {"name": "pairs", "attempts": 5, "width": 2, "sampling": SAMPLING},
    {"name": "cold", "steps": 2, "sampling": SAMPLING},
    {"name": "best-of-n", "n": 3, "sampling": SAMPLING},
    BEAM,
]


def loop(method, callbacks=(), **arguments):
    reward = tiny.process("qwen3") if method["name"] == "backtrack" else tiny.outcome("qwen3")
    lm = tiny.causal_lm("qwen2")
    return TestTimeLoop(method, lm, reward, callbacks=callbacks, accelerator="cpu", **arguments)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_trace_has_every_event(latin_lm, latin_rm, latin_prompts, tmp_path):
    path = tmp_path / "deep" / "trace.jsonl"
    loop = TestTimeLoop(LATIN, latin_lm, latin_rm, callbacks=[Trace(str(path))], accelerator="cpu")
    with pytest.raises(RunError) as caught:
        loop.run([latin_prompts[0], "∇"])
    (solution,) = caught.value.solutions
    rows = lines(path)
    counts = Counter(row["event"] for row in rows)
    assert counts["rollout"] == solution.candidates
    assert counts["accept"] == sum(r.accepted for r in solution.revisions)
    assert counts["accept"] + counts["reject"] == counts["proposal"] == len(solution.revisions) > 0
    assert counts["refine"] >= counts["proposal"]
    assert counts["solution"] == counts["exception"] == 1
    assert counts["problem"] == 2
    assert {row["schema"] for row in rows if row["event"] == "problem"} == {SCHEMA}
    refined = [row for row in rows if row["event"] == "refine"][1]
    own, *others = refined["candidates"]
    assert len(others) >= 4
    assert 0 < own[2] <= 1
    assert sum(c[2] for c in refined["candidates"]) < 1.01
    assert set(refined["rows"]) == {"kl", "delta_prefix", "delta_postfix", "delta_reward"}
    for row in rows:
        if row["event"] == "proposal":
            assert row["old"] != row["new"]
            assert len(row["before"]) == len(row["after"]) == 2
        if row["event"] in ("accept", "reject"):
            assert row["why"].startswith("strict: reward ")
            assert (row["proposed_reward"] > row["reward"]) == (row["event"] == "accept")
    spent = [row["spent"]["calls"] for row in rows if "spent" in row]
    assert spent == sorted(spent)
    assert 0 < spent[0] < spent[-1] <= solution.cost.total.calls


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m["name"])
def test_recording_adds_no_call_and_no_draw_and_all_can_be_read(method, tmp_path):
    plain = loop(method).run(PROMPTS)
    path = tmp_path / "trace.jsonl"
    traced = loop(method, [Trace(str(path))]).run(PROMPTS)
    assert facts(traced) == facts(plain)
    assert [s.cost.total.tokens for s in traced] == [s.cost.total.tokens for s in plain]
    assert [s.cost.total.flops for s in traced] == [s.cost.total.flops for s in plain]
    problems = {p["id"]: p for p in map(of_trace, read_trace(path))}
    assert set(problems) == {p.id for p in PROMPTS}
    for solution in traced:
        found = problems[solution.prompt.id]
        kept = found["columns"]["piece"]
        pieces = [kept["words"][word] for word in kept["at"]]
        ranges = found["texts"][found["final"]]
        nodes = [ranges[i] + k for i in range(0, len(ranges), 2) for k in range(ranges[i + 1])]
        assert "".join(pieces[node] for node in nodes) == solution.response
        assert found["rewards"][found["final"]] == pytest.approx(solution.reward, rel=1e-3)
        assert len(nodes) == len(solution.tokens)
        accepted = [s for s in found["steps"] if s.get("outcome") == "accepted"]
        assert len(accepted) == solution.cost.counts.get("accepted_proposals", 0)


def test_a_screen_says_where_it_stopped(tmp_path):
    path = tmp_path / "trace.jsonl"
    solutions = loop(BACKTRACK, [Trace(str(path))]).run(PROMPTS)
    stops = [row for row in lines(path) if row["event"] == "stop"]
    steps = [s for t in read_trace(path) for s in of_trace(t)["steps"]]
    assert len(stops) >= sum(s.cost.counts.get("stopped_texts", 0) for s in solutions)
    assert any("stop" in step for step in steps)


class _Kept(Callback):
    def __init__(self):
        self.refinements = []

    def on_refine(self, prompt, position, refinement):
        self.refinements.append(refinement)


def refinements(objective, method="nabla-reasoner"):
    kept = _Kept()
    dto = {"steps": 1, "objective": objective}
    spec = {"name": method, "selector": "all", "dto": dto, "sampling": SAMPLING}
    loop(spec, [kept]).run(PROMPTS[:2])
    assert kept.refinements
    return kept.refinements


def test_the_parts_of_the_gradient_add_up():
    """The norms are those of the paper's parts: δ_prefix is log π, and with one part alone its norm is the
    norm of the whole gradient."""
    for found in refinements("likelihood"):
        log_pi = found.reference.logits.double().log_softmax(-1)
        allowed = log_pi > float("-inf")
        row = log_pi[allowed]
        assert found.deltas["prefix"] == pytest.approx(float((row - row.mean()).norm()), rel=1e-6)
        assert set(found.deltas) == {"prefix", "postfix"}
    (only,) = {tuple(f.deltas) for f in refinements({"name": "likelihood", "detach_context": True})}
    assert only == ("prefix",)
    weights = {"name": "sum", "weights": {"reward": 3.0, "likelihood": 1.0}}
    single = {"name": "sum", "weights": {"reward": 1.0, "likelihood": 1.0}}
    for strong, weak in zip(refinements(weights), refinements(single), strict=False):
        assert torch.allclose(strong.deltas["reward"], 3 * weak.deltas["reward"])
        break


def test_another_direction_has_no_parts():
    assert all(not f.deltas for f in refinements("sum", "random-direction"))


def test_a_path_that_cannot_be_written(latin_lm, latin_prompts, tmp_path):
    (tmp_path / "file").write_text("")
    trace = Trace(str(tmp_path / "file" / "trace.jsonl"))
    loop = TestTimeLoop("greedy", latin_lm, callbacks=[trace], accelerator="cpu")
    with pytest.raises(ConfigError, match="trace"):
        loop.run(latin_prompts[:1])


def test_lines_that_the_disk_does_not_take_are_no_success(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Ends(Callback):
        heard = False

        def on_run_end(self, run, solutions):
            self.heard = True

    path, ends = tmp_path / "trace.jsonl", Ends()
    monkeypatch.setattr(files, "append_whole", full)
    with pytest.raises(Stopped, match=r"after 1 of 1 problems: \d+ lines of the trace are lost") as caught:
        loop(METHODS[-1], [Trace(str(path)), ends]).run(PROMPTS[:1])
    assert [s.prompt.id for s in caught.value.solutions] == [PROMPTS[0].id]
    assert "No space left" in str(caught.value)
    assert ends.heard  # the others hear the end all the same


def test_a_trace_goes_on_behind_a_torn_line(tmp_path, monkeypatch):
    path = tmp_path / "trace.jsonl"
    method = {"name": "best-of-n", "n": 2, "sampling": SAMPLING}
    loop(method, [Trace(str(path))]).run(PROMPTS[:2])
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    monkeypatch.setattr(Trace, "_files", {})  # another process
    loop(method, [Trace(str(path), append=True)]).run(PROMPTS[1:])
    found = {t.about["problem"]: [line["event"] for line in t.lines] for t in read_trace(path)}
    assert set(found) == {p.id for p in PROMPTS}
    assert all(events[-1] == "solution" for events in found.values())


def test_any_of_several_processes_may_write_first(tmp_path, monkeypatch):
    path, runs = tmp_path / "trace.jsonl", []
    for main in (False, True):  # the first one begins last
        monkeypatch.setattr(Trace, "_files", {})  # a process of its own
        trace = Trace(str(path))
        trace.on_run_start(Run(tiny.causal_lm("qwen2").vocabulary, 2, main), PROMPTS)
        runs.append(trace)
    for trace, prompt in zip(runs, PROMPTS, strict=False):
        trace.on_exception(prompt, ConfigError("no"))
        trace.on_run_end(Run(tiny.causal_lm("qwen2").vocabulary, 2), [])
    assert [row["event"] for row in lines(path)] == ["problem", "exception"] * 2
    monkeypatch.setattr(Trace, "_files", {})
    with pytest.raises(ConfigError, match="there already"):
        Trace(str(path)).on_run_start(Run(tiny.causal_lm("qwen2").vocabulary, 2, True), PROMPTS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"event": "rollout", "problem": "a", "text": "x"}\n', "no schema"),
        ('{"event": "problem", "problem": "a", "schema": 99}\n', "another schema"),
        ("nonsense\n", "Line 1"),
        ("[]\n", "Line 1"),
        ("{", "Line 1"),
    ],
)
def test_what_is_no_trace(tmp_path, text, said):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_trace(tmp_path / "t.jsonl")


def test_a_search_shows_what_it_has_dropped_and_every_reward(tmp_path):
    path = tmp_path / "trace.jsonl"
    loop(BEAM, [Trace(str(path))]).run(PROMPTS)
    assert any(row["event"] == "prune" and row["dropped"] for row in lines(path))
    for traced in read_trace(path):
        steps = of_trace(traced)["steps"]
        assert {step["outcome"] for step in steps} == {"kept", "dropped", "complete"}
        assert all(step["reward"] is not None for step in steps)
        prunes = [line for line in traced.lines if line["event"] == "prune"]
        assert [step["text"] for step in steps if step["outcome"] == "dropped"] == [
            text for line in prunes for text in sorted(line["dropped"])
        ]
        rollouts = sum(line["event"] == "rollout" for line in traced.lines)
        assert sum(step.get("times", 1) for step in steps) == rollouts
