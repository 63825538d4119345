"""Deliberately wrong components: each with the law that must catch it."""

from __future__ import annotations

import math
from typing import Any

import torch

from nabla.acceptance.base import Acceptance, reward_of
from nabla.acceptance.metropolis import MetropolisHastings, drawn
from nabla.core.random import gumbel_like
from nabla.core.trajectory import Score
from nabla.estimators.anchors.base import Anchor
from nabla.estimators.base import Estimator, hard_rows
from nabla.objectives.base import LogitObjective, TrajectoryObjective
from nabla.objectives.kl import kl_rows
from nabla.proposals.base import Proposal
from nabla.proposals.sample import Sample
from nabla.rewards.base import Reward
from nabla.rewards.outcome import OutcomeReward
from nabla.schedulers.base import Schedule
from nabla.selectors.base import Selector
from nabla.testing import TinyReward, char_tokenizer
from tests.testing.catalogue import caught_by

INF = float("inf")


# -- estimators ------------------------------------------------------------------------------------


def estimator(law: str):
    return caught_by(law, "check_estimator")


class Softmax(Estimator):
    """What most mutants were before they went wrong."""

    hard = False
    stochastic = False

    def relax(self, logits, *, generator, step, anchor):
        return (logits / self.temperature(step)).softmax(-1)


class Straight(Softmax):
    """One-hot forward, softmax backward."""

    hard = True

    def relax(self, logits, *, generator, step, anchor):
        soft = (logits / self.temperature(step)).softmax(-1)
        return hard_rows(logits, anchor) + (soft - soft.detach())

    def surrogate(self, logits, *, generator, step):
        return (logits / self.temperature(step)).softmax(-1)


@estimator("hard rows are exactly one hot")
class MissingStopGradient(Straight):
    """Adds the soft rows, but does not take them away."""

    def relax(self, logits, *, generator, step, anchor):
        soft = (logits / self.temperature(step)).softmax(-1)
        return (hard_rows(logits, anchor) + soft) / 2


@estimator("gradients are finite at extremes")
class MissingStraightThrough(Straight):
    """Stops the gradient twice: none is left. Whichever law asks for a gradient first says so."""

    def relax(self, logits, *, generator, step, anchor):
        soft = (logits / self.temperature(step)).softmax(-1).detach()
        return hard_rows(logits, anchor) + (soft - soft.detach())


@estimator("the closed form is the gradient")
class ForgetsTheTemperature(Straight):
    """A closed form for τ = 1 only."""

    def pull_back(self, logits, feedback, step):
        soft = logits.softmax(-1)
        return soft * (feedback - (soft * feedback).sum(-1, keepdim=True))


@estimator("backward is the declared rule")
class StopGradientOnHalf(Straight):
    """The soft rows are there with twice their gradient."""

    def relax(self, logits, *, generator, step, anchor):
        soft = (logits / self.temperature(step)).softmax(-1)
        return hard_rows(logits, anchor) + 2 * (soft - soft.detach())


@estimator("backward is the declared rule")
class IdentityDeclaredAsSoftmax(Straight):
    """Identity backward under a declared softmax."""

    def relax(self, logits, *, generator, step, anchor):
        finite = logits.masked_fill(logits == -INF, 0.0)
        return hard_rows(logits, anchor) + (finite - finite.detach())


@estimator("gradients of a row sum to zero")
class IdentityUndeclared(IdentityDeclaredAsSoftmax):
    """Identity backward that declares nothing."""

    def surrogate(self, logits, *, generator, step):
        return None


@estimator("a constant added to a row changes nothing")
class ShiftedSoftmax(Softmax):
    """A penalty on large logits slipped into the exponent."""

    def relax(self, logits, *, generator, step, anchor):
        z = logits / self.temperature(step)
        return (z + 1e-3 * torch.tanh(z / 10) * z).softmax(-1)


@estimator("a deterministic hard row is the argmax")
class OffByOneToken(Straight):
    """Stands at the column after the argmax."""

    def relax(self, logits, *, generator, step, anchor):
        rows = super().relax(logits, generator=generator, step=step, anchor=anchor)
        return rows.roll(1, -1) if anchor is None else rows


@estimator("draws follow the softmax")
class BiasedGumbel(Softmax):
    """Gumbel noise of scale 0.9."""

    stochastic = True

    def relax(self, logits, *, generator, step, anchor):
        noisy = logits + 0.9 * gumbel_like(logits, generator)
        return (noisy / self.temperature(step)).softmax(-1)


@estimator("draws follow the softmax")
class LogisticNoise(Softmax):
    """Differences of two Gumbels instead of one."""

    stochastic = True

    def relax(self, logits, *, generator, step, anchor):
        noise = gumbel_like(logits, generator) - gumbel_like(logits, generator)
        return ((logits + noise) / self.temperature(step)).softmax(-1)


@estimator("it keeps no state")
class StaleCache(Softmax):
    """Remembers the rows of a shape."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def relax(self, logits, *, generator, step, anchor):
        rows = super().relax(logits, generator=generator, step=step, anchor=anchor)
        return self.cache.setdefault(logits.shape, rows) if not logits.requires_grad else rows


@estimator("a kept gradient serves equal rows only")
class AlwaysReusable(Softmax):
    """Reuses the first gradient for ever (caching applied to an estimator whose rows move)."""

    def reusable(self, cached, current):
        return cached.shape == current.shape


@estimator("masked candidates get nothing")
class MaskedLeak(Softmax):
    """A floor under the probabilities, masked ones included."""

    def relax(self, logits, *, generator, step, anchor):
        rows = (logits / self.temperature(step)).softmax(-1) + 1e-9
        return rows / rows.sum(-1, keepdim=True)


@estimator("other rows do not matter")
class BatchNormalised(Softmax):
    """Logits centred over the batch."""

    def relax(self, logits, *, generator, step, anchor):
        finite = logits.masked_fill(logits == -INF, 0.0)
        scale = 1 + finite.detach().abs().mean()
        return (logits / scale / self.temperature(step)).softmax(-1)


@estimator("a rows place does not matter")
class PositionDependent(Softmax):
    """Later rows are colder."""

    def relax(self, logits, *, generator, step, anchor):
        place = torch.arange(logits.shape[-2] if logits.dim() > 1 else 1, dtype=logits.dtype)
        scale = (1 + place).reshape(-1, 1) if logits.dim() > 1 else 1.0
        return (logits * scale / self.temperature(step)).softmax(-1)


@estimator("the order of candidates does not matter")
class PrefersEarlyCandidates(Softmax):
    """A bias towards small ids."""

    def relax(self, logits, *, generator, step, anchor):
        bias = -1e-2 * torch.arange(logits.shape[-1], dtype=logits.dtype)
        return ((logits + bias) / self.temperature(step)).softmax(-1)


@estimator("shape and dtype are kept")
class Upcast(Softmax):
    """Works in float64 and stays there."""

    def relax(self, logits, *, generator, step, anchor):
        return super().relax(logits.double(), generator=generator, step=step, anchor=anchor)


@estimator("shape and dtype are kept")
class LostAxis(Softmax):
    """Drops the batch of one."""

    def relax(self, logits, *, generator, step, anchor):
        return super().relax(logits, generator=generator, step=step, anchor=anchor).squeeze(0)


@estimator("rows are on the simplex")
class OverflowsAtExtremes(Softmax):
    """A softmax written out: exp of 1e4 is infinite."""

    def relax(self, logits, *, generator, step, anchor):
        weights = (logits / self.temperature(step)).exp()
        return weights / weights.sum(-1, keepdim=True)


@estimator("gradients are finite at extremes")
class NaNGradient(Softmax):
    """Fine forward; backward through log 0."""

    def relax(self, logits, *, generator, step, anchor):
        p = (logits / self.temperature(step)).softmax(-1)
        return torch.where(p > 0, (p.log()).exp(), 0.0)


@estimator("the generator decides everything")
class GlobalNoise(Softmax):
    """Draws from torch's global generator."""

    stochastic = True

    def relax(self, logits, *, generator, step, anchor):
        noise = -torch.empty_like(logits).exponential_().clamp_min(1e-30).log()
        return ((logits + noise) / self.temperature(step)).softmax(-1)


@estimator("it is noisy as declared")
class QuietlyNoisy(Softmax):
    """Noise under a declaration of none; tiny, so that no other law's tolerance is exceeded."""

    def relax(self, logits, *, generator, step, anchor):
        noise = 1e-12 * gumbel_like(logits, generator)
        return ((logits + noise) / self.temperature(step)).softmax(-1)


@estimator("temperature has its limits")
class TemperatureUpsideDown(Softmax):
    """Multiplies by τ."""

    def relax(self, logits, *, generator, step, anchor):
        return (logits * self.temperature(step)).softmax(-1)


@estimator("the temperature follows its schedule")
class FrozenSchedule(Softmax):
    """Takes the schedule's first value for ever."""

    def relax(self, logits, *, generator, step, anchor):
        from nabla.schedulers.base import Step

        return (logits / self.temperature(Step(0, step.total))).softmax(-1)


@estimator("unrefined rows stand at the rollouts tokens")
class IgnoresTheAnchor(Straight):
    """The argmax, whatever was written."""

    def relax(self, logits, *, generator, step, anchor):
        return super().relax(logits, generator=generator, step=step, anchor=None)


# -- objectives ------------------------------------------------------------------------------------


def objective(law: str, **arguments: Any):
    return caught_by(law, "check_objective", **arguments)


def _kl(p, q):
    return (p * (p / q).log()).sum()


@objective("the value is the given closed form", closed_form=_kl)
class SwappedKL(LogitObjective):
    """``KL(p_ref || p_z)`` sold as ``KL(p_z || p_ref)``: a divergence all the same."""

    unit = "nats"
    divergence = True

    def value(self, logits, reference):
        return kl_rows(reference, logits).sum()


@objective("a divergence is zero at the reference alone")
class NegativeKL(LogitObjective):
    """The wrong sign: pushes away from the reference."""

    unit = "nats"
    divergence = True

    def value(self, logits, reference):
        return -kl_rows(logits, reference).sum()


@objective("the value is the given closed form", closed_form=lambda p, q: (p * p.log()).sum())
class EntropySign(LogitObjective):
    """The entropy instead of its negative."""

    unit = "nats"

    def value(self, logits, reference):
        from nabla.objectives.base import log_probabilities

        log_p, p = log_probabilities(logits)
        return -(p * log_p).sum()


@objective("a value is one finite number")
class EntropyOfZero(LogitObjective):
    """0 · log 0 is NaN."""

    unit = "nats"

    def value(self, logits, reference):
        return (logits.softmax(-1) * logits.log_softmax(-1)).sum()


@objective("rows add")
class MeanOverRows(LogitObjective):
    """A mean: the weight depends on how many rows are refined."""

    unit = "nats"
    divergence = True

    def value(self, logits, reference):
        return kl_rows(logits, reference).mean()


@objective("the gradient of logits is the slope")
class HalfDetached(LogitObjective):
    """The weights of the KL are held fixed."""

    unit = "nats"

    def value(self, logits, reference):
        p = logits.softmax(-1)
        return (p.detach() * (p.clamp_min(1e-30).log() - reference.softmax(-1).clamp_min(1e-30).log())).sum()


@objective("a masked candidate is as good as absent")
class CountsMasked(LogitObjective):
    """Normalises by the number of columns, masked ones included."""

    unit = "nats"
    divergence = True

    def value(self, logits, reference):
        return kl_rows(logits, reference).sum() / logits.shape[-1]


@objective("it reads what it declares")
class UndeclaredReward(TrajectoryObjective):
    """Reads the reward without saying so."""

    unit = "nats"
    needs_likelihood = True

    def value(self, view):
        bonus = 0.0 if view.reward is None else view.reward
        return -view.log_likelihood.sum() - bonus


@objective("the gradient of a view is the slope")
class DetachedLikelihood(TrajectoryObjective):
    """A weight that moves with the likelihood, but whose gradient is cut off."""

    unit = "nats"
    needs_likelihood = True

    def value(self, view):
        return -(view.log_likelihood.exp().detach() * view.log_likelihood).sum()


@objective("the gradient of a view is the slope")
class InfinitePerplexity(TrajectoryObjective):
    """Overflows for an improbable text."""

    unit = "perplexity"
    needs_likelihood = True

    def value(self, view):
        return (-100 * view.log_likelihood.sum()).exp()


@objective("an additive one does not see what is committed")
class MeanThatClaimsToAdd(TrajectoryObjective):
    """A mean over the free tokens weighs each by their number."""

    unit = "nats per token"
    needs_likelihood = True
    additive = True

    def value(self, view):
        return -view.log_likelihood.mean()


@objective("it is linear in the weights")
class TwoTermsOneName(LogitObjective):
    """Terms that share a name: their reports and gradients are mixed up."""

    unit = "nats"

    def value(self, logits, reference):
        return kl_rows(logits, reference).sum()

    def terms(self):
        return super().terms() * 2


# -- selectors -------------------------------------------------------------------------------------


def selector(law: str):
    return caught_by(law, "check_selector")


class Threshold(Selector):
    def __init__(self, threshold=0.5):
        self.threshold = threshold


@selector("each position is judged by its own numbers")
class OffByOneSelector(Threshold):
    """The entropy of the token before."""

    async def mask(self, trajectory, session):
        return (trajectory.entropy > self.threshold).roll(1)


@selector("it returns a mask and not positions")
class Positions(Threshold):
    """Indices."""

    async def mask(self, trajectory, session):
        return (trajectory.entropy > self.threshold).nonzero()[:, 0]


@selector("final positions are never chosen")
class CommittedPositions(Threshold):
    """Overrides the guard with the mask itself."""

    async def mask(self, trajectory, session):
        return trajectory.entropy > self.threshold

    async def select(self, trajectory, session):
        return await self.mask(trajectory, session)


@selector("it is monotone in its threshold")
class Band(Threshold):
    """A window around its threshold."""

    async def mask(self, trajectory, session):
        return (trajectory.entropy - self.threshold).abs() < 0.5


@selector("it needs gradients as declared")
class UndeclaredGradient(Threshold):
    """Reads gradient norms without asking for them."""

    async def mask(self, trajectory, session):
        return (await session.gradient_norms(trajectory))[0] > self.threshold


@selector("the generator decides everything")
class GlobalCoin(Selector):
    """Draws from torch's global generator."""

    async def mask(self, trajectory, session):
        return torch.rand(len(trajectory)) < 0.5


# -- proposals -------------------------------------------------------------------------------------


def proposal(law: str):
    return caught_by(law, "check_proposal")


@proposal("a certain row is proposed")
class OffByOneProposal(Proposal):
    """The next usable column."""

    def index(self, view):
        usable = (view.logits > -INF).nonzero()[:, 0]
        at = (usable == view.logits.argmax(-1)).nonzero()[0, 0]
        return usable[(at + 1) % len(usable)]


@proposal("one usable column is proposed")
class IgnoresMasks(Proposal):
    """A uniform draw over all columns."""

    def index(self, view):
        return torch.randint(len(view.logits), (), generator=view.generator)


@proposal("the generator decides everything")
class GlobalDraw(Proposal):
    """Draws from torch's global generator."""

    def index(self, view):
        return torch.multinomial(view.logits.softmax(-1), 1)[0]


@proposal("a candidates id is returned")
class ColumnInsteadOfId(Proposal):
    """Returns the column where the id is wanted."""

    def index(self, view):
        return view.logits.argmax(-1)

    def propose(self, view):
        return int(self.index(view))


@proposal("the density is a probability")
class CertainOfEverything(Sample):
    """Log-densities of 0."""

    def log_density(self, view, column):
        return 0.0


@proposal("draws follow the density")
class AnotherTemperature(Sample):
    """The density of draws at temperature 1, whatever they are drawn at."""

    def __init__(self):
        super().__init__(temperature=0.3)

    def log_density(self, view, column):
        return float(view.logits.double().log_softmax(-1)[column])


# -- acceptance ------------------------------------------------------------------------------------


def acceptance(law: str):
    return caught_by(law, "check_acceptance")


@acceptance("a strict rule is a strict order")
class AcceptsTies(Acceptance):
    """``>=`` for ``>``."""

    strict = True

    def rule(self, current, proposal, generator):
        return reward_of(proposal) >= reward_of(current)


class Tilted(Acceptance):
    @property
    def tilt(self):
        return 1.0

    def probability(self, gain):
        return math.exp(min(gain, 0.0))

    def rule(self, current, proposal, generator):
        draw = float(torch.rand((), generator=generator))
        return draw < self.probability(reward_of(proposal) - reward_of(current))


@acceptance("more reward is never worse")
class MetropolisWrongSign(Tilted):
    """Goes downhill."""

    def probability(self, gain):
        return math.exp(min(-gain, 0.0))


@acceptance("the tilted law is invariant")
class MetropolisWrongTemperature(Tilted):
    """λ = 1.3 under a declared 1."""

    def probability(self, gain):
        return math.exp(min(1.3 * gain, 0.0))


@acceptance("the tilted law is invariant whatever proposes")
class DeafToDensities(MetropolisHastings):
    """As if π proposed."""

    def rule(self, current, proposal, generator, densities=None):
        return drawn((reward_of(proposal) - reward_of(current)) / self.temperature, generator)


@acceptance("the tilted law is invariant whatever proposes")
class HastingsUpsideDown(MetropolisHastings):
    """Subtracts Hastings' ratio."""

    def rule(self, current, proposal, generator, densities=None):
        gain = (reward_of(proposal) - reward_of(current)) / self.temperature
        return drawn(gain - densities.ratio, generator)


@acceptance("the answer is yes or no")
class Probability(Tilted):
    """Returns the probability."""

    def rule(self, current, proposal, generator):
        return self.probability(reward_of(proposal) - reward_of(current))


# -- schedules -------------------------------------------------------------------------------------


def schedule(law: str, **arguments: Any):
    return caught_by(law, "check_schedule", **arguments)


class Line(Schedule):
    def share(self, step):
        return step.progress

    def __call__(self, step):
        return 1.0 - self.share(step)

    @property
    def bounds(self):
        return 0.0, 1.0


@schedule("values stay within the bounds")
class LeavesItsBounds(Line):
    """Counts one step too many."""

    def share(self, step):
        return 1.1 * step.progress


@schedule("a run of one step has a value")
class NaNAtOneStep(Line):
    """0/0 in a run of one step."""

    def share(self, step):
        return step.index / (step.total - 1) if step.total > 1 else float("nan")


@schedule("the ends are as given", start=1.0, end=0.0)
class NeverArrives(Line):
    """Divides by the number of steps, not of intervals."""

    def share(self, step):
        return step.index / step.total


@schedule("it keeps no state")
class CountsCalls(Line):
    """Its own clock instead of the step's."""

    calls = 0

    def share(self, step):
        self.calls += 1
        return (self.calls % 7) / 6


# -- rewards ---------------------------------------------------------------------------------------


def reward(law: str):
    return caught_by(law, "check_reward")


class Length(Reward):
    """Counts tokens: not differentiable."""

    def score(self, responses, runner):
        return [Score(float(len(r.tokens))) for r in responses]


@reward("a score is a finite number")
class NaNReward(Length):
    """0/0 for a text of one token."""

    def score(self, responses, runner):
        return [Score(float("nan") if len(r.tokens) == 1 else 1.0) for r in responses]


@reward("steps end in the response")
class StepsOfAnotherText(Length):
    """An end for every separator that a text might have."""

    def score(self, responses, runner):
        return [Score(1.0, (1.0, 0.5), (0, len(r.tokens))) for r in responses]


@reward("steps imply values")
class HiddenSteps(Length):
    """Says what a step is worth, and not that it does."""

    def score(self, responses, runner):
        return [Score(0.0, (0.0,), (len(r.tokens) - 1,)) for r in responses]


@reward("other responses do not matter")
class BatchOrder(Length):
    """The place in the batch counts."""

    def score(self, responses, runner):
        return [Score(len(r.tokens) + 0.01 * i) for i, r in enumerate(responses)]


@reward("other responses do not matter")
class BatchNormalisedReward(Length):
    """Centred over the batch."""

    def score(self, responses, runner):
        values = [s.value for s in super().score(responses, runner)]
        return [Score(v - sum(values) / len(values)) for v in values]


@reward("scores are deterministic")
class NoisyReward(Length):
    """A judge with moods."""

    def score(self, responses, runner):
        return [Score(float(torch.rand(()))) for _ in responses]


class Running(Length):
    """The number of tokens up to each one."""

    reads_every_token = True

    def values(self, texts, runner):
        return [[float(i + 1) for i in range(t.known, len(t.response.tokens))] for t in texts]

    def together(self, values, response=None):
        return values[-1]


@reward("what is known is left out")
class ReadsAllAgain(Running):
    """As if nothing were known."""

    def values(self, texts, runner):
        return [[float(i + 1) for i in range(len(t.response.tokens))] for t in texts]


@reward("values are those of the score")
class SumOfItsValues(Running):
    """The score is the last value, the sum is said to be."""

    def together(self, values, response=None):
        return 1.0 + sum(values)


@reward("other texts do not matter to values")
class RankedValues(Running):
    """The place in the batch counts."""

    def values(self, texts, runner):
        return [[value + i for value in row] for i, row in enumerate(super().values(texts, runner))]


@reward("a prefix keeps its values")
class CountsDown(Running):
    """How many tokens are still to come, as if that were the prefix's own."""

    def score(self, responses, runner):
        return [Score(1.0) for _ in responses]

    def values(self, texts, runner):
        lengths = [len(t.response.tokens) for t in texts]
        return [[float(n - i) for i in range(t.known, n)] for t, n in zip(texts, lengths, strict=True)]


class _Wrong(OutcomeReward):
    def __init__(self):
        whole = TinyReward(char_tokenizer("abcd"))
        super().__init__(whole.model, whole.tokenizer)


@reward("the value at one hot rows is the score")
class AnotherScore(_Wrong):
    """Scores are rescaled, the relaxed value is not."""

    def score(self, responses, runner):
        return [Score(2 * s.value) for s in super().score(responses, runner)]


@reward("the gradient is the slope")
class HalfTheGradient(_Wrong):
    """The value is right and half of its graph is cut off."""

    def relaxed(self, responses, runner):
        from dataclasses import replace

        found = super().relaxed(responses, runner)
        return [replace(f, value=f.value / 2 + f.value.detach() / 2) for f in found]


# -- anchors ---------------------------------------------------------------------------------------


@caught_by("one usable column per row", "check_anchor")
class AnchorAtTheFirstColumn(Anchor):
    """Column 0, masked or not."""

    def index(self, scores, reference_scores, chosen):
        return torch.zeros_like(chosen)


@caught_by("the anchor follows far moves", "check_anchor")
class AnchorThatNeverLeaves(Anchor):
    """The rollout's token for ever: refinement changes nothing."""

    def index(self, scores, reference_scores, chosen):
        return chosen


@caught_by("other rows do not matter", "check_anchor")
class AnchorOfTheBatch(Anchor):
    """One token for all rows."""

    def index(self, scores, reference_scores, chosen):
        return scores.nan_to_num(neginf=-1e9).sum(0).argmax(-1).expand_as(chosen)


# -- one more of each kind -------------------------------------------------------------------------


@objective("only the distributions matter")
class SquaredDistance(LogitObjective):
    """Between logits, which are defined up to a constant."""

    unit = "nats"
    divergence = True

    def value(self, logits, reference):
        free = logits > -INF
        gap = torch.where(free, logits, 0.0) - torch.where(free, reference, 0.0)
        return (gap**2).sum()


@objective("the gradient decomposes")
class DetachedWeight(DetachedLikelihood):
    """Its δ_prefix and δ_postfix lack the weight's own part."""


@objective("the value at one hot rows is the discrete one")
class SmoothedWhenDifferentiated(TrajectoryObjective):
    """Worth less while a gradient is taken."""

    unit = "nats"
    needs_likelihood = True

    def value(self, view):
        return -view.log_likelihood.sum() * (0.9 if view.log_likelihood.requires_grad else 1.0)


@schedule("the bounds are reached")
class LooseBounds(Line):
    """Bounds that no value comes near."""

    @property
    def bounds(self):
        return -1.0, 5.0


@proposal("a constant added to the rows changes nothing")
class AbsoluteThreshold(Proposal):
    """The first column above zero."""

    def index(self, view):
        above = (view.logits > 0).nonzero()[:, 0]
        return above[0] if len(above) else view.logits.argmax(-1)


@acceptance("it needs rewards as declared")
class UndeclaredRewards(Acceptance):
    """Compares rewards in runs that have none."""

    @property
    def needs_reward(self):
        return False

    def rule(self, current, proposal, generator):
        return reward_of(proposal) > reward_of(current)


@reward("without a gradient it says so")
class SilentlyFlat(Length):
    """An empty gradient instead of an error."""

    def relaxed(self, responses, runner):
        return []


@schedule("a value is a finite number")
class Overflows(Line):
    """Infinite at the last step."""

    def share(self, step):
        return INF if step.index == 7 else step.progress


@acceptance("the generator decides everything")
class GlobalMood(Tilted):
    """Draws from torch's global generator."""

    def rule(self, current, proposal, generator):
        return float(torch.rand(())) < self.probability(reward_of(proposal) - reward_of(current))


# They are made with caught_by, above.
from tests.testing import mutants_of_searches  # noqa: E402, F401
