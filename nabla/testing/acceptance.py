"""Laws of acceptance rules (Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from nabla.acceptance.base import Acceptance, Densities, acceptances
from nabla.core.errors import ConfigError, NumericalError
from nabla.testing.inputs import ALPHA, INF, make_trajectory, seeded
from nabla.testing.laws import MAX_EXAMPLES, Kit, Violation, require, untouched_global_noise
from nabla.testing.strategies import rewards, seeds

kit: Kit[Acceptance] = Kit(acceptances, "an acceptance rule", "check_acceptance")

#: Draws per pair of states in the invariance law.
_DRAWS = 1500
_SPACE = ((0.4, 0.0), (0.3, 1.0), (0.2, -0.7), (0.1, 1.8))  # probability under π, reward
#: A proposal that is none of π's: from each state to each.
_PROPOSES = ((0.1, 0.2, 0.3, 0.4), (0.4, 0.1, 0.2, 0.3), (0.15, 0.6, 0.15, 0.1), (0.25, 0.25, 0.4, 0.1))


def check_acceptance(
    rule: object,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law that an acceptance rule declares (``strict``, ``tilt``, ``needs_reward``).

    Raises ContractError at the first law that is broken; the arguments are
    :func:`nabla.testing.check_estimator`'s.
    """
    kit.check(rule, laws=laws, skip=skip, max_examples=max_examples, seed=seed)


def _accepts(rule: Acceptance, current: float | None, proposal: float | None, seed: int = 0) -> bool:
    pair = make_trajectory(reward=current), make_trajectory(reward=proposal)
    return rule.accept(*pair, seeded(seed), _densities(rule))


def _densities(rule: Acceptance, *logs: float) -> Densities | None:
    """For rules that need them; of a proposal that is as probable as its way back, unless told otherwise."""
    return Densities(*(logs or (0.0, 0.0, 0.0))) if rule.needs_densities else None


@kit.law(current=rewards, proposal=rewards, seed=seeds)
def the_answer_is_yes_or_no(rule: Acceptance, current: float, proposal: float, seed: int) -> None:
    """``rule`` returns a bool: True takes the proposal, False keeps the current response."""
    pair = make_trajectory(reward=current), make_trajectory(reward=proposal)
    given = (_densities(rule),) if rule.needs_densities else ()
    found: Any = rule.rule(*pair, seeded(seed), *given)
    require(isinstance(found, bool), f"rule returned {found!r}, a {type(found).__name__}")


@kit.law(current=rewards, proposal=rewards, seed=seeds)
def the_generator_decides_everything(rule: Acceptance, current: float, proposal: float, seed: int) -> None:
    """Equal rewards and generators give equal answers; no global noise and no state."""
    with untouched_global_noise():
        first = _accepts(rule, current, proposal, seed)
        _accepts(rule, proposal, current, seed + 1)
        require(first == _accepts(rule, current, proposal, seed), "equal arguments gave different answers")


@kit.law()
def it_needs_rewards_as_declared(rule: Acceptance) -> None:
    """With ``needs_reward`` a missing reward is a ConfigError and one that is no number a NumericalError;
    without it the rule works in runs that have no reward (SPEC section 11)."""
    if not rule.needs_reward:
        try:
            _accepts(rule, None, None)
        except Exception as error:
            raise Violation(f"needs_reward is False, but without rewards it fails: {error!r}") from error
        return
    cases: list[tuple[float | None, type[Exception]]] = [
        (None, ConfigError),
        (float("nan"), NumericalError),
        (INF, NumericalError),
    ]
    for bad, expected in cases:
        for pair in ((bad, 1.0), (1.0, bad)):
            try:
                _accepts(rule, *pair)
            except expected:
                continue
            except Exception as error:
                raise Violation(f"rewards {pair}: {error!r} instead of a {expected.__name__}") from error
            raise Violation(f"rewards {pair} are no error")


@kit.law(applies=lambda r: r.strict, a=rewards, b=rewards, seed=seeds)
def a_strict_rule_is_a_strict_order(rule: Acceptance, a: float, b: float, seed: int) -> None:
    """Irreflexive, and only ever upwards: an equal or lower reward is turned down (Algorithm 1)."""
    require(not _accepts(rule, a, a, seed), f"it accepts an equal reward, {a!r}")
    low, high = min(a, b), max(a, b)
    require(not _accepts(rule, high, low, seed), f"it accepts {low!r} in place of {high!r}")


@kit.law(current=rewards, a=rewards, b=rewards, seed=seeds)
def more_reward_is_never_worse(rule: Acceptance, current: float, a: float, b: float, seed: int) -> None:
    """What accepts a proposal accepts a better one under the same draw."""
    low, high = min(a, b), max(a, b)
    require(
        not _accepts(rule, current, low, seed) or _accepts(rule, current, high, seed),
        f"from {current!r} it accepts {low!r} but not {high!r}",
    )


@kit.law(applies=lambda r: r.tilt is not None)
def the_tilted_law_is_invariant(rule: Acceptance) -> None:
    """``π e^{λ r}`` (SPEC Eq. 3) is left invariant with proposals from π: detailed balance on every two
    states of an enumerable space, tested at a joint false-alarm rate of 1e-4."""
    _require_balance(rule, [[p for p, _ in _SPACE]] * len(_SPACE))


@kit.law(applies=lambda r: r.tilt is not None and r.needs_densities)
def the_tilted_law_is_invariant_whatever_proposes(rule: Acceptance) -> None:
    """The same with proposals that depend on the current response: what a rule with ``needs_densities`` reads
    them for (Hastings, 1970)."""
    _require_balance(rule, _PROPOSES)


def _require_balance(rule: Acceptance, proposes: Sequence[Sequence[float]]) -> None:
    """Detailed balance under ``q(j | i) = proposes[i][j]``."""
    tilt = rule.tilt
    assert tilt is not None
    source = seeded(5)
    pairs = [(i, j) for i in range(len(_SPACE)) for j in range(i)]
    # Two-sided normal quantile by bisection, with Bonferroni's correction.
    low, high = 0.0, 40.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(middle / math.sqrt(2)) > ALPHA / len(pairs) else (low, middle)
    for i, j in pairs:
        flows, noise, accepted = [], 0.0, []
        for a, b in ((i, j), (j, i)):
            (p_a, r_a), (p_b, r_b) = _SPACE[a], _SPACE[b]
            logs = math.log(proposes[a][b]), math.log(proposes[b][a]), math.log(p_b / p_a)
            densities = _densities(rule, *logs)
            states = make_trajectory(reward=r_a), make_trajectory(reward=r_b)
            share = sum(rule.accept(*states, source, densities) for _ in range(_DRAWS)) / _DRAWS
            weight = math.exp(tilt * r_a) * p_a * proposes[a][b]
            flows.append(weight * share)
            accepted.append(share)
            smoothed = (share * _DRAWS + 1) / (_DRAWS + 2)
            noise += weight**2 * smoothed * (1 - smoothed) / _DRAWS
        require(
            abs(flows[0] - flows[1]) <= low * math.sqrt(noise),
            f"between rewards {_SPACE[i][1]} and {_SPACE[j][1]} it accepts {accepted[0]:.3f} and "
            f"{accepted[1]:.3f} of proposals: with λ = {tilt:g} flows of {flows[0]:.3g} and {flows[1]:.3g}",
        )
