"""Deliberately wrong parts of a run: methods, rollouts, callbacks, and what they are made of."""

from __future__ import annotations

from dataclasses import replace

import torch

from nabla.core.costs import Usage
from nabla.core.sampling import Sampling
from nabla.engine.events import Callback
from nabla.methods.base import Method
from nabla.methods.pools import better
from nabla.refinement.parameterizations.base import Parameterization
from nabla.refinement.rows.base import Rows
from nabla.rollouts.base import Continuation, Rollout
from nabla.rollouts.huggingface import HuggingFaceRollout
from tests.testing.catalogue import caught_by

# -- methods ---------------------------------------------------------------------------------------


def method(law: str):
    return caught_by(law, "check_method")


class Pool(Method):
    """Best-of-2 as it should be: what the wrong methods are made of."""

    def __init__(self, n=2, temperature=1.0):
        self.n, self.sampling = n, Sampling(temperature, max_new_tokens=6)

    async def write(self, session):
        (fresh,) = await session.rollout(self.sampling)
        return (await session.score([fresh]))[0] if session.judged else fresh

    async def solve(self, session):
        held, count = None, 0
        while session.proceed(count < self.n):
            held, count = better(held, await self.write(session)), count + 1
            session.report(held)
        return self.solution(session, held, candidates=count)


@method("a solution answers its problem")
class AnotherText(Pool):
    """Tidies the response up, so that it is no longer what was written."""

    async def solve(self, session):
        found = await super().solve(session)
        return replace(found, response=found.response + ".")


@method("the same seed gives the same answers")
class CountsItsProblems(Pool):
    """Gets warmer with every problem: state in the method."""

    calls = 0

    async def write(self, session):
        self.calls += 1
        sampling = replace(self.sampling, temperature=0.2 * self.calls)
        return (await session.score(await session.rollout(sampling)))[0]


@method("the same seed gives the same answers")
class GlobalCoinToss(Pool):
    """Takes the first or the last response by torch's global generator."""

    async def solve(self, session):
        texts = await session.rollout(self.sampling, n=2)
        return self.solution(session, texts[int(torch.rand(()) < 0.5)])


@method("the cost is what ran")
class AsksTheModelItself(Pool):
    """Calls the model behind the engine's back."""

    async def write(self, session):
        fresh = await super().write(session)
        with torch.no_grad():
            session.workspace.lm.model(input_ids=fresh.tokens[None])
        return fresh


@method("reports ascend")
class ForgetsTheBest(Pool):
    """Answers with the last response, whatever its reward was."""

    async def solve(self, session):
        for _ in range(4):
            last = await self.write(session)
            session.report(last)
        return self.solution(session, last)


@method("reports ascend")
class KeepsItToItself(Pool):
    """Goes round and round, and hands in its answer at the end alone."""

    async def solve(self, session):
        held, rounds = None, 0
        while session.proceed(rounds < 3):
            held, rounds = better(held, await self.write(session)), rounds + 1
        return self.solution(session, held)


@method("reports ascend")
class AnswersSomethingElse(Pool):
    """Hands in an answer and returns another one."""

    async def solve(self, session):
        found = await super().solve(session)
        session.report(await self.write(session))
        return replace(found, checkpoints=tuple(session.checkpoints))


@method("a budget is kept")
class IgnoresBudgets(Pool):
    """Never asks whether to go on."""

    async def solve(self, session):
        held = None
        for _ in range(20):
            held = better(held, await self.write(session))
            session.report(held)
        return self.solution(session, held)


@method("a budget is kept")
class HurriesUnderBudgets(Pool):
    """Writes shorter texts when a budget is small: a curve of accuracy over cost needs a run each then."""

    async def solve(self, session):
        limit = min((budget.limit for budget in session.workspace.budgets), default=99.0)
        hurried = Pool(self.n, temperature=1.0 if limit > 50 else 0.2)
        return await hurried.solve(session)


@method("an endless run is ended")
class GoesOn(Pool):
    """Writes for ever."""

    async def solve(self, session):
        while True:
            session.report(await self.write(session))


@method("an endless run is ended")
class AsksAndAsks(Pool):
    """Waits for an answer that it likes better, and does nothing for it."""

    async def solve(self, session):
        held = await self.write(session)
        session.report(held)
        while not session.spent:
            session.proceed(True)
        return self.solution(session, held)


@method("what it lacks is said beforehand")
class UndeclaredScoring(Pool):
    """Needs rewards, and says so in the middle of a run."""

    async def write(self, session):
        return (await session.score(await session.rollout(self.sampling)))[0]


# -- rollouts --------------------------------------------------------------------------------------


def rollout(law: str):
    return caught_by(law, "check_rollout")


class Plain(HuggingFaceRollout):
    """The built-in one, its continuations changed by ``change(opening, continuation)``."""

    def change(self, opening, found):
        return found

    async def generate(self, openings, resources):
        found = await super().generate(openings, resources)
        return [self.change(o, f) for o, f in zip(openings, found, strict=True)]


@rollout("what is written is a continuation")
class WritesBehindTheEnd(Plain):
    """Says of every text that it has ended."""

    def change(self, opening, found):
        return replace(found, finished=True)


@rollout("what is written is a continuation")
class ReturnsTheOpening(Plain):
    """What was given is part of what is written: too many tokens."""

    def change(self, opening, found):
        tokens = torch.cat([opening.response, found.tokens])
        return replace(found, tokens=tokens, log_probs=torch.zeros(len(tokens)))


@rollout("a row is the same alone and in company")
class OrderMatters(HuggingFaceRollout):
    """Numbers the rows of a batch and draws by the number."""

    async def generate(self, openings, resources):
        return await super().generate([replace(o, key=i) for i, o in enumerate(openings)], resources)


@rollout("the key decides")
class OneKeyForAll(HuggingFaceRollout):
    """Best-of-N of equal responses."""

    async def generate(self, openings, resources):
        return await super().generate([replace(o, key=7) for o in openings], resources)


@rollout("what is written is paid")
class Free(HuggingFaceRollout):
    """Nobody pays."""

    async def generate(self, openings, resources):
        from nabla.core.costs import Account, CostMeter

        others = [replace(o, account=Account("nobody", CostMeter(), "rollout")) for o in openings]
        return await super().generate(others, resources)


@rollout("it writes the language models words")
class AlwaysWarm(HuggingFaceRollout):
    """Draws at temperature 1 where the likeliest token was asked for."""

    async def generate(self, openings, resources):
        warm = [replace(o, sampling=replace(o.sampling, temperature=3.0)) for o in openings]
        return await super().generate(warm, resources)


@rollout("rows that join write the same")
class AnotherWriter(HuggingFaceRollout):
    """A row that joins later draws with another key."""

    def writer(self, resources):
        inner = super().writer(resources)
        submit = inner.submit
        inner.submit = lambda openings: submit([replace(o, key=o.key + 1) for o in openings])
        return inner


class Repeats(Rollout):
    """A local rollout without a model, as it should be: the same token until there is no more room."""

    async def generate(self, openings, resources):
        found = []
        for o in openings:
            room = resources.vocabulary.room(len(o.prompt), o.sampling.max_new_tokens) - len(o.response)
            o.account.add(Usage(decode_steps=room, tokens=room))
            found.append(Continuation(torch.full((room,), 4), False, torch.full((room,), float("nan"))))
        return found


# -- callbacks -------------------------------------------------------------------------------------


def callback(law: str):
    return caught_by(law, "check_callback")


@callback("listening changes nothing")
class ChangesTexts(Callback):
    """Marks revised tokens in the text itself."""

    def on_accept(self, prompt, old, new, position):
        new.tokens[position] = 4


@callback("listening changes nothing")
class DrawsGlobally(Callback):
    """Looks at a random tenth of all rollouts."""

    def on_rollout(self, prompt, trajectory):
        self.chosen = bool(torch.rand(()) < 0.1)


@callback("it hears one run after another")
class OneRunOnly(Callback):
    """Keeps the first run's prompts for ever."""

    known = None

    def on_run_start(self, run, prompts):
        if self.known is not None:
            raise RuntimeError("the file is open already")
        self.known = list(prompts)


@callback("it bears failures")
class NeedsSolutions(Callback):
    """Divides by the number of solutions."""

    def on_run_end(self, run, solutions):
        self.mean = sum(s.candidates for s in solutions) / len(solutions)


@callback("it works in every process")
class FirstProcessOnly(Callback):
    """Opens its file in the first process, and writes to it in every one."""

    file = None

    def on_run_start(self, run, prompts):
        self.file = [] if run.main else None

    def on_solution(self, solution):
        self.file.append(solution)


# -- update rules and parameterisations ------------------------------------------------------------


@caught_by("the support is a number or all", "check_rows")
class NoSupport(Rows):
    """Forgets the base class."""

    def __init__(self):
        pass

    def positions(self, trajectory):
        return slice(trajectory.committed, len(trajectory))


@caught_by("rows begin at the first free position", "check_rows")
class EveryRow(Rows):
    """Committed ones too."""

    def positions(self, trajectory):
        return slice(0, len(trajectory))


@caught_by("it keeps no state", "check_rows")
class FirstAnswerForEver(Rows):
    """Remembers the rows of the first response."""

    known = None

    def positions(self, trajectory):
        self.known = self.known or slice(trajectory.committed, trajectory.committed + 1)
        return self.known


class PlainLogits(Parameterization):
    """The logits, forbidden ones set aside."""

    def initial(self, reference):
        return reference.logits.clone().masked_fill(reference.logits == float("-inf"), 0.0)

    def logits(self, parameter, reference):
        return parameter.masked_fill(reference.logits == float("-inf"), float("-inf"))


def parameterization(law: str):
    return caught_by(law, "check_parameterization")


@parameterization("it starts at the language models rows")
class StartsFlat(PlainLogits):
    """At zero."""

    def initial(self, reference):
        return torch.zeros_like(reference.logits)


@parameterization("the parameter is wide and finite")
class KeepsForbidden(PlainLogits):
    """-inf is part of the parameter."""

    def initial(self, reference):
        return reference.logits.clone()


@parameterization("the reference is left as it is")
class SharesMemory(PlainLogits):
    """Moves the reference along."""

    def initial(self, reference):
        return reference.logits


@parameterization("forbidden candidates stay forbidden")
class Unmasks(PlainLogits):
    """A forbidden candidate comes back where its parameter is large."""

    def logits(self, parameter, reference):
        kept = super().logits(parameter, reference)
        return torch.where(parameter > 3.0, parameter, kept)


@parameterization("other rows do not matter")
class SharedShift(PlainLogits):
    """Rows are pulled to their mean."""

    def logits(self, parameter, reference):
        start = self.initial(reference)
        return super().logits(parameter + (parameter - start).mean(0), reference)


@parameterization("the gradient is the slope")
class CutOff(PlainLogits):
    """Half of the parameter is detached."""

    def logits(self, parameter, reference):
        return super().logits(parameter / 2 + parameter.detach() / 2, reference)
