"""Laws of methods: how a problem is answered, and what it costs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nabla.core.budget import Budget
from nabla.core.errors import ConfigError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.solution import Revision, Solution
from nabla.engine.engine import Engine
from nabla.methods.base import Method, methods
from nabla.models.causal_lm import CausalLM
from nabla.rewards.base import Reward
from nabla.testing.laws import MAX_EXAMPLES, Kit, Violation, require, untouched_global_noise
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_reward
from nabla.testing.watch import Journal, Odometer, watched

_PROMPTS = tuple(Prompt.of(text, id=text) for text in ("ab", "ba", "cdc"))
#: Positions of the tiny models: a method's own length limit may be a thousand tokens.
CONTEXT = 20
#: Of rewards: what the order of sums may change.
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class MethodBench:
    """A method and the models that it works with."""

    method: Method
    lm: CausalLM
    reward: Reward | None

    @classmethod
    def of(cls, method: Method, lm: CausalLM | None = None, reward: Reward | None = None) -> MethodBench:
        if lm is None:
            tokenizer = char_tokenizer("abcd;")
            lm = tiny_lm(tokenizer, max_position_embeddings=CONTEXT)
            reward = tiny_reward(tokenizer) if reward is None else reward
        return cls(method, lm, reward)

    def engine(self, **arguments: Any) -> Engine:
        return Engine(self.lm, self.reward, **arguments)

    def run(
        self,
        engine: Engine | None = None,
        prompts: Sequence[Prompt] = _PROMPTS,
        journals: dict[str, Journal] | None = None,
        method: Method | None = None,
    ) -> list[Solution]:
        """Solutions in the order of the prompts; an error is raised, also of whoever does not end."""
        method = self.method if method is None else method
        engine = self.engine() if engine is None else engine
        method.check(engine)
        kept = {} if journals is None else journals
        found = dict(engine.run(watched(method.solve, kept), prompts))
        for journal in kept.values():
            if journal.broken:
                raise Violation(journal.broken)
        for outcome in found.values():
            if isinstance(outcome, NablaError):
                raise outcome
            require(isinstance(outcome, Solution), f"solve returned {outcome!r}, no Solution"[:200])
        return [found[prompt] for prompt in prompts]  # type: ignore[misc]


kit: Kit[Method] = Kit(methods, "a method", "check_method", prepare=MethodBench.of)


def check_method(
    method: object,
    lm: CausalLM | None = None,
    reward: Reward | None = None,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law of methods on small runs.

    Args:
        method: an instance, or a class that needs no arguments. Small settings (a few short responses) make
            small runs; what counts on words ("#", steps that are lines) needs models that write them.
        lm: the language model; None: a tiny one of "a", "b", "c", "d" and ";" with room for a dozen tokens.
        reward: the reward; None with the tiny language model: a tiny outcome reward of the same tokens.
        laws: these and the rest as in :func:`nabla.testing.check_estimator`.

    Raises ContractError at the first law that is broken.
    """
    kit.check(
        method,
        laws=laws,
        skip=skip,
        max_examples=max_examples,
        seed=seed,
        prepare=lambda component: MethodBench.of(component, lm, reward),
    )


def _facts(solution: Solution) -> tuple[Any, ...]:
    """What must not depend on what else runs: all but seconds; rewards without their last bits."""
    reward = None if solution.reward is None else round(solution.reward, 6)
    edits = [(r.position, r.old_token, r.new_token, r.accepted) for r in solution.revisions]
    answers = [(c.tokens, c.usage.calls) for c in solution.checkpoints]
    total = solution.cost.total
    return solution.tokens, reward, edits, answers, total.calls, total.critical_steps, solution.candidates


@kit.law()
def a_solution_answers_its_problem(on: MethodBench) -> None:
    """``solve`` returns a Solution of the session's prompt: its text is that of its tokens, which end where
    ``finished`` says, and its name is the method's. ``Method.solution`` makes one."""
    engine = on.engine()
    for prompt, solution in zip(_PROMPTS, on.run(engine), strict=True):
        require(solution.prompt == prompt, f"the solution is of {solution.prompt.id!r}, not {prompt.id!r}")
        text = engine.vocabulary.response(list(solution.tokens))
        require(solution.response == text, f"the response {solution.response!r} has the tokens of {text!r}")
        ended = bool(solution.tokens) and solution.tokens[-1] in engine.vocabulary.eos_ids
        require(solution.finished == ended, f"finished is {solution.finished}, the tokens say {ended}")
        name = methods.name_of(on.method)
        require(solution.method == name, f"the method is called {solution.method!r}, not {name!r}")
        require(solution.candidates >= 1, f"{solution.candidates} candidates")
        strange = [r for r in solution.revisions if not isinstance(r, Revision)]
        require(not strange, f"{strange[:1]!r} is no Revision")


@kit.law()
def the_same_seed_gives_the_same_answers(on: MethodBench) -> None:
    """Tokens, proposals, costs and answers on the way follow from the run's seed and the problem: alone, with
    other problems and in any order of them, again with the same object (settings only), and without torch's
    global generator (SPEC section 9)."""
    fresh = copy.deepcopy(on.method)
    with untouched_global_noise():
        together = [_facts(s) for s in on.run(on.engine(seed=3))]
    orders = {
        "again": on.run(on.engine(seed=3)),
        "in another order": on.run(on.engine(seed=3), _PROMPTS[::-1])[::-1],
        "one after another": on.run(on.engine(seed=3, live=1)),
        "by a copy": on.run(on.engine(seed=3), method=fresh),
    }
    for what, solutions in orders.items():
        for prompt, expected, solution in zip(_PROMPTS, together, solutions, strict=True):
            found = _facts(solution)
            require(found == expected, f"problem {prompt.id!r} {what}: {found} instead of {expected}"[:600])
    (alone,) = on.run(on.engine(seed=3), _PROMPTS[:1])
    require(_facts(alone) == together[0], f"alone: {_facts(alone)} instead of {together[0]}"[:600])


@kit.law()
def the_cost_is_what_ran(on: MethodBench) -> None:
    """Every pass of a model is counted, and no other: calls and tokens of the solution are those that went
    through the models' layers, measured there (SPEC section 13). A method awaits the session and calls no
    model itself."""
    # One row at a time, nothing kept: then there is neither padding nor sharing between batches.
    rollout = {"name": "huggingface", "batch_size": 1}
    engine = on.engine(live=1, batch_size=1, reuse_prefixes=False, rollout=rollout)
    bodies = [on.lm.body, *([] if engine.reward is None else engine.reward.bodies())]
    for prompt in _PROMPTS[:2]:
        with Odometer(bodies) as ran:
            (solution,) = on.run(engine, [prompt])
        total = solution.cost.total
        counted = total.decode_steps + total.forward_passes, total.backward_passes, total.tokens
        real = ran.forward, ran.backward, ran.tokens
        require(
            counted == real,
            f"(forward, backward, tokens) counted {counted}, ran {real}, for problem {prompt.id!r}",
        )


@kit.law()
def reports_ascend(on: MethodBench) -> None:
    """Answers on the way (``session.report``) are in the order of their costs, and the last one is the
    solution. Whoever goes round and round (``session.proceed``) hands in answers on the way, not at the end
    alone. Where the method keeps its best (``keeps_best``), no later answer has a lower reward."""
    for budgets in ((), (Budget("calls", (60.0,)),)):
        journals: dict[str, Journal] = {}
        for solution in on.run(on.engine(budgets=budgets), journals=journals):
            points, journal = solution.checkpoints, journals[solution.prompt.id]
            require(points, "no answer was handed in: session.report, or Method.solution, does so")
            require(
                journal.rounds < 3 or len(journal.reports) > 1,
                f"{journal.rounds} rounds, and no answer before the end: call session.report after each, or "
                "a smaller budget finds nothing",
            )
            calls = [point.usage.calls for point in points]
            require(calls == sorted(calls), f"answers at {calls} calls")
            last = points[-1].tokens, points[-1].reward
            require(
                last == (solution.tokens, solution.reward),
                f"the last answer handed in is {last}, the solution {(solution.tokens, solution.reward)}",
            )
            rewards = [point.reward for point in points if point.reward is not None]
            if on.method.keeps_best and len(rewards) == len(points):
                falls = [(a, b) for a, b in pairwise(rewards) if b < a - ROUNDING]
                require(not falls, f"an answer of reward {falls[:1]} was given up for a lower one")


@kit.law()
def a_budget_is_kept(on: MethodBench) -> None:
    """Behind a budget's end no round begins (``session.proceed``), and none of several proposals goes on
    (``session.spent``): a method that holds an answer hands in one more at the most. What it spends on that
    one is at most half of the budget (a pool grows by a share of itself) and the cost of a whole run without
    one. A smaller budget changes nothing of what was there before."""
    free = max(solution.cost.total.calls for solution in on.run())
    before: list[list[Any]] | None = None
    for limit in (90.0, 45.0, 25.0):
        journals: dict[str, Journal] = {}
        solutions = on.run(on.engine(budgets=[Budget("calls", (limit,))]), journals=journals)
        answers = []
        for solution in solutions:
            handed = journals[solution.prompt.id].reports
            late = sorted({calls for calls in handed if calls > limit})
            first = handed[0] if handed else 0
            require(
                len(late) <= 1 + (first > limit),
                f"beyond a budget of {limit:g} calls it hands in answers at {late} calls",
            )
            own = solution.cost.total.calls
            require(
                own <= 1.5 * max(limit, first) + free,
                f"{own} calls for a budget of {limit:g}, {first} of them for a first answer; without one it "
                f"takes {free} at the most",
            )
            within = [c for c in solution.checkpoints if c.usage.calls <= limit]
            answers.append([(c.tokens, c.usage.calls) for c in within])
        if before is not None:
            for larger, smaller in zip(before, answers, strict=True):
                kept = [answer for answer in larger if answer[1] <= limit]
                require(smaller == kept, f"answers {smaller} under {limit:g} calls, {kept} under more"[:600])
        before = answers


@kit.law()
def an_endless_run_is_ended(on: MethodBench) -> None:
    """Under budgets that last for ever a method ends as well: a round that has called no model is its last
    (``session.proceed`` says so). And whatever it does, it comes to an end or to an await in time."""
    on.run(on.engine(budgets=[Budget("calls", (200.0,))]), _PROMPTS[:1])


@kit.law()
def what_it_lacks_is_said_beforehand(on: MethodBench) -> None:
    """Without a reward a method works, or ``check`` raises a ConfigError before anything runs."""
    engine = Engine(on.lm)
    try:
        on.method.check(engine)
    except ConfigError:
        return
    except Exception as error:
        raise Violation(f"check raised {error!r} instead of a ConfigError") from error
    bare = MethodBench(on.method, on.lm, None)
    try:
        bare.run(engine, _PROMPTS[:1])
    except Violation:
        raise
    except Exception as error:
        reason = f"check has nothing to say, but without a reward it fails: {error!r}"
        raise Violation(reason[:400]) from error
