from __future__ import annotations

from nabla.launch.callbacks.progress import ProgressBar
from nabla.launch.launcher import TestTimeLoop


def test_counts_follow_the_run_and_nothing_is_printed_without_a_terminal(
    latin_lm, latin_rm, latin_prompts, capsys
):
    bar = ProgressBar()
    method = {"name": "nabla-reasoner", "max_rollouts": 3, "sampling": {"max_new_tokens": 64}}
    loop = TestTimeLoop(method, latin_lm, latin_rm, callbacks=[bar], accelerator="cpu")
    solutions = loop.run(latin_prompts)
    accepted = sum(r.accepted for s in solutions for r in s.revisions)
    proposals = sum(len(s.revisions) for s in solutions)
    calls = sum(s.cost.total.calls for s in solutions)
    assert f"accepted {accepted}, rejected {proposals - accepted}" in bar.state
    assert f"{calls:,} calls" in bar.state
    assert capsys.readouterr() == ("", "")
    loop.run(latin_prompts[:1])  # a second run starts from zero
    assert f"{calls:,} calls" not in bar.state


def test_failures_are_counted(latin_lm, latin_rm, latin_prompts):
    import pytest

    from nabla.core.solution import RunError

    bar = ProgressBar()
    loop = TestTimeLoop("greedy", latin_lm, callbacks=[bar], accelerator="cpu")
    with pytest.raises(RunError):
        loop.run([latin_prompts[0], "∇"])
    assert "failed 1" in bar.state
