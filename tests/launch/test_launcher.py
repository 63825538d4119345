"""TestTimeLoop: order, failures, interruption, processes, loggers."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

from nabla.core.errors import ConfigError, PromptError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Interrupted, RunError, Stopped
from nabla.engine.events import Callback
from nabla.launch.launcher import TestTimeLoop
from nabla.methods.base import Method, methods
from nabla.rewards.function import FunctionReward


def greedy(lm, **arguments):
    return TestTimeLoop(methods.build("greedy", max_new_tokens=48), lm, accelerator="cpu", **arguments)


def test_solutions_come_in_the_order_of_the_prompts(latin_lm, latin_prompts):
    solutions = greedy(latin_lm, live=2).run(latin_prompts)
    assert [s.prompt.id for s in solutions] == [p.id for p in latin_prompts]


def test_texts_are_numbered(latin_lm, latin_prompts):
    solutions = greedy(latin_lm).run([p.text for p in latin_prompts[:2]])
    assert [s.prompt.id for s in solutions] == ["0", "1"]


def test_no_prompts_and_double_ids(latin_lm, latin_prompts):
    with pytest.raises(PromptError, match="no prompt"):
        greedy(latin_lm).run([])
    with pytest.raises(PromptError, match="same id"):
        greedy(latin_lm).run([latin_prompts[0], latin_prompts[0]])


def gated(**arguments):
    from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_process_reward

    tokenizer = char_tokenizer("abcd")
    method = methods.build(
        "backtrack",
        gate={"texts": 12, "prompts": 3, "least": 3},
        sampling=Sampling(temperature=1.0, max_new_tokens=8),
        boundary={"name": "length", "tokens": 3},
        attempts=4,
    )
    models = tiny_lm(tokenizer), tiny_process_reward(tokenizer)
    return TestTimeLoop(method, *models, accelerator="cpu", **arguments)


def test_a_method_learns_of_all_prompts_before_a_run():
    """Also where an earlier part of the run has solved some; nobody hears of the texts that it asks."""
    heard = []

    class Listening(Callback):
        def on_solution(self, solution):
            heard.append(solution.prompt.id)

    prompts = [Prompt.of(text, id=text) for text in ("ab", "cd", "abcd", "dd")]
    loop = gated(callbacks=[Listening()])
    whole = loop.run(prompts)
    assert "gate:" in loop.learnt
    assert "of 12 texts" in loop.learnt
    assert sorted(heard) == sorted(p.id for p in prompts)
    again = gated()
    (last,) = again.run(prompts[3:], among=prompts)
    assert again.learnt == loop.learnt
    assert last.tokens == whole[3].tokens
    assert last.cost.total.flops == whole[3].cost.total.flops
    alone = gated()
    alone.run(prompts[3:])
    assert alone.learnt is None


def test_failures_keep_the_other_solutions(latin_lm, latin_prompts):
    bad = latin_prompts[1].text
    reward = FunctionReward(lambda prompt, response: float("inf") if prompt == bad else 1.0)
    loop = TestTimeLoop(methods.build("best-of-n", n=2), latin_lm, reward, accelerator="cpu")
    with pytest.raises(RunError) as caught:
        loop.run(latin_prompts[:4])
    assert [s.prompt.id for s in caught.value.solutions] == [latin_prompts[i].id for i in (0, 2, 3)]
    assert list(caught.value.failures) == [latin_prompts[1].id]


def test_a_single_failure_reads_as_itself(latin_lm):
    with pytest.raises(RunError, match="context holds"):
        greedy(latin_lm).run(["1" * 5000])


def test_ctrl_c_keeps_what_is_finished(latin_lm, latin_prompts):
    class Stopping(Method):
        async def solve(self, session):
            if session.prompt.id == latin_prompts[3].id:
                raise KeyboardInterrupt
            (trajectory,) = await session.rollout(Sampling(max_new_tokens=48))
            return self.solution(session, trajectory)

    with pytest.raises(Interrupted) as caught:
        TestTimeLoop(Stopping(), latin_lm, accelerator="cpu", live=1).run(latin_prompts)
    assert [s.prompt.id for s in caught.value.solutions] == [p.id for p in latin_prompts[:3]]


def test_run_hooks_fire_also_after_a_failure(latin_lm):
    heard = []

    class Listening(Callback):
        def on_run_start(self, loop, prompts):
            heard.append("start")

        def on_exception(self, prompt, error):
            heard.append("exception")

        def on_run_end(self, loop, solutions):
            heard.append("end")

    with pytest.raises(RunError):
        greedy(latin_lm, callbacks=[Listening()]).run(["1" * 5000])
    assert heard == ["start", "exception", "end"]


def test_processes_meet_between_their_start_and_their_first_problem(latin_lm, latin_prompts, monkeypatch):
    heard = []

    class Listening(Callback):
        def on_run_start(self, run, prompts):
            heard.append("start")

        def on_rollout(self, prompt, trajectory):
            heard.append("rollout")

    loop = greedy(latin_lm, callbacks=[Listening()])
    two = {"world_size": 2, "global_rank": 1, "is_global_zero": False, "loggers": []}
    monkeypatch.setattr(loop, "fabric", SimpleNamespace(barrier=lambda: heard.append("meet"), **two))
    monkeypatch.setattr(loop, "_gather", lambda own: own)
    loop.run(latin_prompts[:2])
    assert heard == ["start", "meet", "rollout"]


def test_a_callback_that_fails_at_the_end_replaces_no_error(latin_lm, latin_prompts, capsys):
    class Failing(Callback):
        def on_run_end(self, run, solutions):
            raise RuntimeError("oops")

    with pytest.raises(RunError) as caught:
        greedy(latin_lm, callbacks=[Failing()]).run([latin_prompts[0], "1" * 5000])
    assert len(caught.value.solutions) == len(caught.value.failures) == 1
    assert "A callback failed at the end, too" in (said := capsys.readouterr().err)
    assert "oops" in said
    with pytest.raises(Stopped, match="oops"):
        greedy(latin_lm, callbacks=[Failing()]).run(latin_prompts[:1])


def test_those_that_have_begun_end_where_another_does_not_begin(latin_lm, latin_prompts, capsys):
    heard = []

    class Listening(Callback):
        def __init__(self, name, error=None):
            self.name, self.error = name, error

        def on_run_start(self, run, prompts):
            heard.append(f"start {self.name}")
            if self.error is not None:
                raise self.error

        def on_run_end(self, run, solutions):
            heard.append(f"end {self.name}")
            raise ValueError("no end")

    refusing = Listening("second", ConfigError("not here"))
    with pytest.raises(ConfigError, match="not here"):
        greedy(latin_lm, callbacks=[Listening("first"), refusing, Listening("third")]).run(latin_prompts[:1])
    assert heard == ["start first", "start second", "end first"]
    assert "no end" in capsys.readouterr().err


def test_every_callback_that_fails_at_the_end_is_told(latin_lm, latin_prompts, capsys):
    class Failing(Callback):
        def __init__(self, what):
            self.what = what

        def on_run_end(self, run, solutions):
            raise ValueError(self.what)

    with pytest.raises(Stopped, match="the first"):
        greedy(latin_lm, callbacks=[Failing("the first"), Failing("the second")]).run(latin_prompts[:1])
    assert "ValueError: the second" in capsys.readouterr().err


def test_two_processes_give_the_results_of_one(tmp_path, latin_lm, latin_rm, latin_prompts):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, torch
            from nabla import NablaReasoner, Prompt
            from nabla.problems.sandbox import TASKS, model_path

            torch.set_num_threads(1)
            prompts = [Prompt.of(p.prompt, id=p.id) for p in TASKS["latin"].problems("test", 6, 0)]
            reasoner = NablaReasoner.from_pretrained(
                str(model_path("latin-policy")), str(model_path("latin-reward")),
                accelerator="cpu", devices=2, max_new_tokens=48,
            )
            solutions = reasoner.loop.run(prompts)
            rank = reasoner.loop.fabric.global_rank
            with open(f"rank-{rank}.json", "w") as file:  # two processes would mix on one stdout
                json.dump([s.tokens for s in solutions], file)
            """
        )
    )
    command = [sys.executable, str(script)]
    subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True)
    one = TestTimeLoop(
        {"name": "nabla-reasoner", "sampling": {"max_new_tokens": 48}},
        latin_lm, latin_rm, accelerator="cpu",
    ).run(latin_prompts)
    expected = [list(s.tokens) for s in one]
    found = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert found == [expected, expected]


def test_bad_settings(latin_lm):
    with pytest.raises(ConfigError, match="precision"):
        greedy(latin_lm, precision="16-mixed")
    with pytest.raises(ConfigError, match="Unknown component in callbacks"):
        greedy(latin_lm, callbacks=["progresss"])
    with pytest.raises(ConfigError, match="batch_size"):
        greedy(latin_lm, batch_size=0)
