from __future__ import annotations

from nabla.launch.callbacks.stream import CLOSE, OPEN, Stream
from nabla.launch.launcher import TestTimeLoop

ALWAYS = {
    "name": "nabla-reasoner",
    "selector": "all",
    "acceptance": "always",
    "proposal": {"name": "sample", "temperature": 2.0},
    "max_rollouts": 4,
    "dto": {"steps": 1},
    "sampling": {"max_new_tokens": 64},
}


def test_the_stream_is_the_response_with_revised_tokens_marked(
    latin_lm, latin_rm, latin_prompts, capsys
):
    loop = TestTimeLoop(ALWAYS, latin_lm, latin_rm, callbacks=[Stream()], accelerator="cpu")
    (solution,) = loop.run(latin_prompts[:1])
    printed = capsys.readouterr().out
    assert printed.replace(OPEN, "").replace(CLOSE, "") == solution.response + "\n"
    visible = [p for p in solution.revised_positions if p < len(solution.response)]
    assert solution.revised_positions
    assert [printed.split(OPEN)[i + 1][0] for i in range(len(visible))] == [
        solution.response[p] for p in visible
    ]


def test_a_method_that_commits_all_at_once_is_shown_too(latin_lm, latin_prompts, capsys):
    loop = TestTimeLoop("greedy", latin_lm, callbacks=[Stream()], accelerator="cpu")
    (solution,) = loop.run(latin_prompts[:1])
    assert capsys.readouterr().out == solution.response + "\n"


def test_several_problems_would_mix_and_are_not_streamed(latin_lm, latin_prompts, capsys):
    loop = TestTimeLoop("greedy", latin_lm, callbacks=[Stream()], accelerator="cpu")
    loop.run(latin_prompts[:2])
    assert capsys.readouterr().out == ""
