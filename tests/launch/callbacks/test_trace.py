from __future__ import annotations

import json
from collections import Counter

import pytest

from nabla.core.errors import ConfigError
from nabla.core.solution import RunError
from nabla.launch.callbacks.trace import Trace
from nabla.launch.launcher import TestTimeLoop


def test_the_trace_has_every_event(latin_lm, latin_rm, latin_prompts, tmp_path):
    path = tmp_path / "deep" / "trace.jsonl"
    method = {
        "name": "nabla-reasoner",
        "max_rollouts": 3,
        "dto": {"steps": 2},
        "selector": "all",
        "proposal": {"name": "sample", "temperature": 2.0},
        "sampling": {"max_new_tokens": 64},
    }
    loop = TestTimeLoop(method, latin_lm, latin_rm, callbacks=[Trace(str(path))], accelerator="cpu")
    with pytest.raises(RunError) as caught:
        loop.run([latin_prompts[0], "∇"])
    (solution,) = caught.value.solutions
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    counts = Counter(row["event"] for row in rows)
    assert counts["rollout"] == solution.candidates
    assert counts["accept"] == sum(r.accepted for r in solution.revisions)
    assert counts["accept"] + counts["reject"] == counts["proposal"] == len(solution.revisions) > 0
    assert counts["refine"] >= counts["proposal"]
    assert counts["solution"] == counts["exception"] == 1
    assert rows[0]["problem"] in (latin_prompts[0].id, "1")


def test_a_path_that_cannot_be_written(latin_lm, latin_prompts, tmp_path):
    (tmp_path / "file").write_text("")
    trace = Trace(str(tmp_path / "file" / "trace.jsonl"))
    loop = TestTimeLoop("greedy", latin_lm, callbacks=[trace], accelerator="cpu")
    with pytest.raises(ConfigError, match="trace"):
        loop.run(latin_prompts[:1])
