"""Each interface that researchers extend, used from outside the package: its length, and that it works."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.core.trajectory import Score, Trajectory
from nabla.engine.engine import Engine
from nabla.engine.events import Callback, Events
from nabla.engine.session import Session
from nabla.methods.base import methods
from nabla.methods.sources import Own
from nabla.methods.sweep import Sweep
from nabla.problems.sandbox import model_path
from nabla.selectors.base import Selector
from nabla.testing import check_acceptance, check_estimator, check_selector
from nabla.testing.inputs import SessionStandIn, at_once, make_trajectory
from tests import tiny
from tests.testing.lines import code_lines

EXAMPLE = Path(__file__).parents[2] / "experiments" / "example_plugin"
#: Lines without blanks, comments, docstrings and imports: what each interface is to cost, and a little room.
LINES = {
    "damped": 8,
    "doubtful": 14,
    "swaps": 25,
    "foreign": 25,
    "multiples": 20,
    "flatter": 12,
    "barker": 16,
}


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))


@pytest.mark.parametrize("module", LINES)
def test_it_is_as_short_as_the_interface_allows(module: str) -> None:
    found = code_lines((EXAMPLE / "nabla_example" / f"{module}.py").read_text(encoding="utf-8"))
    assert found <= LINES[module], found


def solve(engine: Engine, method: object, prompts: list[Prompt]) -> list[Solution]:
    found = {p.id: s for p, s in engine.run(method.solve, prompts)}  # type: ignore[attr-defined]
    assert all(isinstance(s, Solution) for s in found.values()), found
    return [found[p.id] for p in prompts]


def test_an_estimator_gives_its_soft_rows() -> None:
    from nabla_example.damped import DampedStraightThrough

    check_estimator(DampedStraightThrough(0.7))


def test_a_selector_looks_at_step_rewards(latin_lm, latin_prompts) -> None:
    from nabla_example.doubtful import DoubtfulSteps

    from nabla.rewards.process import ProcessReward

    check_selector(DoubtfulSteps())
    text = make_trajectory([1, 2, 3, 4, 5]).with_score(Score(-1.0, (0.5, -1.0), (1, 4)))
    mask = at_once(DoubtfulSteps().select(text, SessionStandIn(0, None)))
    assert mask.tolist() == [False, False, True, True, True]
    heard: list[tuple[int, tuple[float, ...], list[int]]] = []

    class Watch(Callback):
        def on_select(self, prompt, trajectory, positions):
            heard.append((len(trajectory), trajectory.score.steps, list(positions)))

    reward = ProcessReward.from_pretrained(str(model_path("latin-process-reward")), device="cpu")
    engine = Engine(latin_lm, reward, events=Events([Watch()]))
    sampling = {"max_new_tokens": 48}
    sweep = Sweep(Own(), selector=DoubtfulSteps(), sampling=sampling, max_rollouts=3)
    solve(engine, sweep, latin_prompts[:3])
    assert len({tuple(steps) for _, steps, _ in heard}) > 1
    for length, steps, positions in heard:
        # Every token is a step of this reward; committed ones and the end are never chosen.
        assert all(position < length and steps[position] < 0 for position in positions)


def test_a_selector_may_count_positions() -> None:
    class Widest(Selector):
        """The ``count`` positions of the largest entropy."""

        monotone_in = ("count",)
        pointwise = False

        def __init__(self, count: int = 3) -> None:
            self.count = count

        async def mask(self, trajectory: Trajectory, session: Session) -> torch.Tensor:
            order = trajectory.entropy.argsort(descending=True, stable=True)
            chosen = torch.zeros(len(trajectory), dtype=torch.bool)
            chosen[order[: self.count]] = True
            return chosen

    check_selector(Widest())


def test_a_method_proposes_in_parallel_from_one_backward_pass(latin_lm, latin_rm, latin_prompts) -> None:
    from nabla_example.swaps import ParallelSwaps

    solutions = solve(Engine(latin_lm, latin_rm), ParallelSwaps(width=4, rounds=2, length=48), latin_prompts)
    for solution in solutions:
        counts, usage = solution.cost.counts, solution.cost.phases["gradient"]
        assert counts["gradients_computed"] + counts.get("gradients_reused", 0) == 2
        assert usage.backward_passes <= 2 * 2  # a round costs one pass back through each model, however wide
        assert solution.candidates == 9
        rewards = [c.reward for c in solution.checkpoints]
        assert rewards == sorted(rewards)


def test_a_reward_of_another_tokenizer_reads_text(tmp_path: Path) -> None:
    from nabla_example.foreign import ForeignReward

    tok = tiny.tokenizer(permute=3)
    model = tiny.outcome_model("qwen3", tok)
    model.save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    reward = ForeignReward(str(tmp_path))
    assert not reward.differentiable
    engine = Engine(tiny.causal_lm(), reward)
    method = methods.build("best-of-n", n=4, sampling={"max_new_tokens": 6})
    (solution,) = solve(engine, method, [Prompt.of("1+2=")])
    turns = [{"role": "user", "content": "1+2="}, {"role": "assistant", "content": solution.response}]
    text = tok.apply_chat_template(turns, tokenize=False)
    ids = tok(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = float(reward.model(input_ids=ids).logits[0, 0])
    assert solution.reward == pytest.approx(expected, rel=1e-5)
    assert solution.cost.phases["reward"].forward_passes > 0


def test_a_task_grades_by_a_rule_of_its_own(monkeypatch, capsys) -> None:
    from nabla_example.multiples import Multiples

    from nabla.problems.tasks.base import Problem, Task, tasks

    task = Multiples()
    problem = task.problems(3, seed=1)[2]
    assert problem.gold is None
    assert task.grade(problem, f"so 7 and {problem.metadata['divisor'] * 3}")
    assert not task.grade(problem, "none")
    monkeypatch.setitem(tasks._classes, "multiples", Multiples)
    monkeypatch.setitem(tasks._names, Multiples, "multiples")
    from nabla.cli import main

    models = ["--lm", "sandbox:arithmetic-policy", "--rm", "sandbox:arithmetic-reward"]
    status = main(["solve", "--task", "multiples", "--problems", "2", *models, "--output", "none"])
    assert status == 0
    assert "of 2 right" in capsys.readouterr().out

    class Neither(Task):
        def problems(self, n=None, *, seed=None, offset=0):
            return [Problem("a", "b")]

    with pytest.raises(ConfigError, match="cannot tell right from wrong"):
        Neither().grade(Problem("a", "b"), "c")


def test_a_sweep_is_a_composition(latin_lm, latin_rm, latin_prompts) -> None:
    from nabla_example.flatter import flatter_revision

    method = flatter_revision(3.0, max_rollouts=3)
    assert type(method) is Sweep
    flat = solve(Engine(latin_lm, latin_rm), method, latin_prompts)
    plain = solve(Engine(latin_lm, latin_rm), Sweep(Own(), max_rollouts=3), latin_prompts)
    assert [s.revisions for s in flat] != [s.revisions for s in plain]


def test_an_acceptance_rule_sees_densities(latin_lm, latin_rm, latin_prompts) -> None:
    from nabla_example.barker import Barker

    check_acceptance(Barker())
    with pytest.raises(ConfigError, match="needs the densities"):
        methods.build("nabla-reasoner", acceptance=Barker()).check(Engine(latin_lm, latin_rm))
    sweep = Sweep(Own(), acceptance=Barker(), max_rollouts=4, sampling={"max_new_tokens": 48})
    assert any(s.revisions for s in solve(Engine(latin_lm, latin_rm), sweep, latin_prompts))
