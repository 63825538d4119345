"""Deliberately wrong screens and moves: each with the law that must catch it."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from nabla.moves.base import Law, Move
from nabla.moves.gradient import FirstOrder
from nabla.moves.policy import Policy
from nabla.moves.values import ByChangePoint
from nabla.screens.base import Screen
from nabla.screens.posterior import Posterior
from nabla.screens.thresholds import Value
from tests.testing.mutants import caught_by

# -- screens ---------------------------------------------------------------------------------------


def screen(law: str):
    return caught_by(law, "check_screen")


@screen("it finds a token that has a value")
class OneBehind(Value):
    """The token after the bad one."""

    def first_bad(self, values, held):
        found = super().first_bad(values, held)
        return None if found is None else found + 1


@screen("nothing is bad where the reward is silent")
class SilenceIsBad(Value):
    """A comparison that NaN makes false."""

    def first_bad(self, values, held):
        return next((i for i, value in enumerate(values) if not value >= self.threshold), None)


@screen("the text decides everything")
class EveryThirdText(Screen):
    """Counts the texts that it reads."""

    texts = 0

    def first_bad(self, values, held):
        self.texts += 1
        known = [i for i, value in enumerate(values) if not math.isnan(value)]
        return known[0] if known and self.texts % 3 == 0 else None


@screen("what was bad stays bad")
class WorstToken(Screen):
    """The lowest value of the text so far, wherever that is."""

    def first_bad(self, values, held):
        known = [(value, i) for i, value in enumerate(values) if value < 0]
        return min(known)[1] if known else None


@screen("what was bad stays bad")
class PosteriorThatLasts(Posterior):
    """A posterior that good values behind a bad one change."""

    lasting = True


@screen("without values it never stops")
class StopsUnread(Value):
    """Says that open texts need not be judged."""

    @property
    def reads_values(self):
        return False


@screen("a text without a bad token reaches furthest")
class BackwardReach(Value):
    """None stands for the beginning."""

    def reach(self, values, log_probs, bad):
        return -1.0 if bad is None else bad


@screen("fitting leaves it as it is")
class FitsItself(Value):
    """Keeps what it was fitted to."""

    def fitted(self, texts, point):
        self.threshold = 3.0 if self.threshold < 0 else -3.0
        return self


# -- moves -----------------------------------------------------------------------------------------


def move(law: str):
    return caught_by(law, "check_move")


class _Wrong(Policy):
    """Another law than its weights say."""

    def __init__(self):
        super().__init__(temperature=1.0, floor=0.0)

    def changed(self, law, trajectory):
        raise NotImplementedError

    async def law(self, trajectory, session):
        return self.changed(await super().law(trajectory, session), trajectory)


@move("densities are of the response alone")
class Restless(Move):
    """Draws its weights anew whenever it is asked."""

    async def log_weights(self, view):
        generator = view.session.generator("mine", view.session.written)
        return torch.randn(view.log_policy.shape, generator=generator, dtype=torch.float64)


class _Unnormalised(Law):
    def log_density(self, position, token):
        return super().log_density(position, token) + 0.1


@move("the density is a probability")
class Unnormalised(_Wrong):
    """Weights for densities."""

    def changed(self, law, trajectory):
        return _Unnormalised(law.first, law.candidates, law.log_weights)


class _Greedy(Law):
    def draw(self, generator, *, tried=(), last=None):
        flat = self.log_weights.flatten()
        row, column = divmod(int(flat.argmax()), self.log_weights.shape[-1])
        return self.first + row, int(self.candidates[row, column])


@move("draws follow the density")
class AlwaysTheBest(_Wrong):
    """The most probable pair."""

    def changed(self, law, trajectory):
        return _Greedy(law.first, law.candidates, law.log_weights)


@move("nothing is drawn that changes nothing")
class DrawsItsOwn(_Wrong):
    """The response's tokens among the others."""

    def changed(self, law, trajectory):
        own = law.candidates == trajectory.tokens[law.first :].unsqueeze(-1)
        return replace(law, log_weights=law.log_weights.masked_fill(own, 0.0))


@move("forbidden tokens are never drawn")
class EverythingGoes(_Wrong):
    """Every candidate has a weight."""

    def changed(self, law, trajectory):
        own = law.candidates == trajectory.tokens[law.first :].unsqueeze(-1)
        weights = law.log_weights.clamp_min(-50.0).masked_fill(own, -math.inf)
        return replace(law, log_weights=weights)


class _Forgets(Law):
    def draw(self, generator, *, tried=(), last=None):
        return super().draw(generator, last=last)


@move("nothing comes twice")
class WithReplacement(_Wrong):
    """What was tried does not count."""

    def changed(self, law, trajectory):
        return _Forgets(law.first, law.candidates, law.log_weights)


@move("equal responses have equal laws")
class Moody(Move):
    """Weights from torch's global generator."""

    async def log_weights(self, view):
        return torch.rand_like(view.log_policy)


@move("it needs values as declared")
class UndeclaredValues(Move):
    """Reads the reward without asking for it."""

    async def log_weights(self, view):
        return view.log_policy * view.trajectory.score.value


@move("it needs an objective as declared")
class UndeclaredSlope(FirstOrder):
    """Awaits a gradient without saying so."""

    @property
    def needs_gradient(self):
        return False


@move("the weights of a gate make another move")
class TakesThemItself(ByChangePoint):
    """Changes itself."""

    def with_change_point(self, point):
        self.change_point = point
        return self
