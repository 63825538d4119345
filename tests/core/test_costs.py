"""Cost accounting (SPEC section 13)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nabla.core.costs import PHASES, Account, Cost, CostMeter, Usage
from nabla.core.errors import ConfigError

counts = st.integers(0, 10**6)
usages = st.builds(
    Usage,
    decode_steps=counts,
    forward_passes=counts,
    backward_passes=counts,
    tokens=counts,
    flops=counts.map(float),
    seconds=counts.map(float),
    peak_bytes=counts,
    beside=counts,
)
costs = st.builds(
    Cost,
    st.dictionaries(st.sampled_from(PHASES), usages),
    st.dictionaries(st.sampled_from(["hits", "misses"]), counts),
)


def test_a_call_is_a_decoding_step_or_a_parallel_pass():
    assert Usage(decode_steps=3, forward_passes=2, backward_passes=1, tokens=99).calls == 6


@given(usages, usages)
def test_everything_adds_up_but_the_peak(a, b):
    both = a + b
    assert both == b + a
    assert both.calls == a.calls + b.calls
    assert both.critical_steps == a.critical_steps + b.critical_steps
    assert (both.tokens, both.flops, both.seconds) == (
        a.tokens + b.tokens,
        a.flops + b.flops,
        a.seconds + b.seconds,
    )
    assert both.peak_bytes == max(a.peak_bytes, b.peak_bytes)
    assert a + Usage() == a


@given(costs, costs, costs)
def test_costs_form_a_commutative_monoid(a, b, c):
    assert (a + b) + c == a + (b + c) == Cost.sum([c, a, b])
    assert a + Cost() == a
    assert (a + b).total == a.total + b.total


@given(st.lists(st.tuples(st.sampled_from(PHASES), usages), max_size=6))
def test_trap_costs_not_counted(added):
    """Whatever phase a usage is booked under, known or not, it is in the total."""
    meter = CostMeter()
    for phase, usage in added:
        meter.add(phase, usage)
    total = sum((usage for _, usage in added), Usage())
    assert meter.snapshot().total == total
    assert set(meter.snapshot().phases) == {phase for phase, _ in added}


def test_a_snapshot_does_not_move():
    meter = CostMeter()
    meter.add("rollout", Usage(tokens=1))
    meter.count("hits")
    before = meter.snapshot()
    meter.add("rollout", Usage(tokens=5))
    meter.count("hits", 2)
    assert before.total.tokens == 1
    assert before.counts == {"hits": 1}
    assert meter.snapshot().total.tokens == 6
    assert meter.snapshot().counts == {"hits": 3}


@given(costs)
def test_a_cost_is_json(cost):
    stored = json.loads(json.dumps(cost.to_dict()))
    assert stored["total"]["calls"] == cost.total.calls
    assert stored["total"]["critical_steps"] == cost.total.critical_steps
    assert stored["counts"] == dict(cost.counts)
    assert set(stored["phases"]) == set(cost.phases)


def test_a_request_is_as_long_as_its_longest_branch():
    account = Account("p", CostMeter(), "rollout")
    account.add(Usage(forward_passes=2))  # without branches one waits for the other
    responses = account.branches(3)
    responses[0].add(Usage(forward_passes=1), responses[1:2])  # a prompt that two of them share
    for branch, steps in zip(responses, (4, 7, 6), strict=True):
        branch.add(Usage(decode_steps=steps))
    assert account.meter.snapshot().total.calls == 2 + 1 + 4 + 7 + 6
    assert account.meter.snapshot().total.critical_steps == 2 + (1 + 7)
    for branch in Account("p", account.meter, "reward").branches(2):  # another request waits for that one
        branch.add(Usage(forward_passes=1, backward_passes=1))
    assert account.meter.snapshot().phases["reward"].critical_steps == 2
    assert account.meter.snapshot().total.critical_steps == 10 + 2


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=12), st.randoms())
def test_the_critical_path_does_not_depend_on_the_order_of_branches(added, random):
    def path(parts):
        account = Account("p", CostMeter(), "rollout")
        branches = account.branches(4)
        for number, steps in parts:
            branches[number].add(Usage(decode_steps=steps))
        return account.meter.snapshot().total.critical_steps

    other = list(added)
    random.shuffle(other)
    sums = [sum(steps for number, steps in added if number == branch) for branch in range(4)]
    assert path(added) == path(other) == max(sums)


def test_work_that_is_done_again_is_once_on_the_critical_path():
    account = Account("p", CostMeter(), "reward")
    short, long = account.branches(2)
    short.add(Usage(forward_passes=1))
    restore = account.meter.checkpoint()
    for _ in range(2):
        long.add(Usage(forward_passes=3))
        restore()
    long.add(Usage(forward_passes=3))
    assert account.meter.snapshot().total.calls == 4
    assert account.meter.snapshot().total.critical_steps == 3


def test_a_usage_is_immutable():
    with pytest.raises(AttributeError):
        Usage().tokens = 1


def test_an_unknown_phase_is_an_error():
    with pytest.raises(ConfigError, match="Unknown cost phase"):
        CostMeter().add("loging", Usage())
