"""How the refined row becomes a token; the laws of every proposal are checked in tests/testing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nabla.core.errors import ConfigError
from nabla.core.random import gumbel
from nabla.core.sampling import Sampling
from nabla.proposals.argmax import Argmax
from nabla.proposals.base import Proposal, ProposalView
from nabla.proposals.coupled import Coupled
from nabla.proposals.sample import Sample
from tests.strategies import INF, follows, logits, make_trajectory, samplings, seeded

rows = logits(dtypes=(torch.float32, torch.float64)).map(lambda z: z[0])
few = settings(max_examples=100)


def rollout(reference, sampling, key, position=0):
    """A trajectory whose token at ``position`` was drawn as rollouts draw: from the key's Gumbel field."""
    ids = torch.arange(reference.shape[-1])
    noise = gumbel(torch.tensor([key]), torch.tensor([position]), ids)[0]
    token = int(sampling.draw(reference, noise.to(reference)))
    return make_trajectory([0] * position + [token], key=key, sampling=sampling)


def make_view(z, reference=None, trajectory=None, *, candidates=None, position=0, seed=0):
    reference = z if reference is None else reference
    return ProposalView(
        logits=z,
        reference=reference,
        candidates=torch.arange(len(z)) if candidates is None else candidates,
        trajectory=trajectory or make_trajectory([0] * (position + 1)),
        position=position,
        generator=seeded(seed),
    )


# -- argmax and sample -----------------------------------------------------------------------------


@given(rows)
def test_argmax(z):
    assert Argmax().propose(make_view(z)) == int(z.argmax())


@given(rows, st.integers(0, 2**31))
def test_trap_temperature_0_treated_as_1(z, seed):
    assert Sample(temperature=0.0).propose(make_view(z, seed=seed)) == int(z.argmax())
    greedy = make_trajectory([int(z.argmax())], sampling=Sampling(0.0))
    assert Coupled().propose(make_view(z, z.roll(1), greedy)) == int(z.argmax())


@pytest.mark.parametrize(
    "settings_",
    [{}, {"temperature": 1.0}, {"top_k": 3}, {"temperature": 1.5, "top_p": 0.8}],
    ids=["default", "1", "top-k", "top-p"],
)
def test_sample_follows_the_filtered_softmax(settings_):
    z = torch.tensor([0.5, 1.5, -INF, -0.2, 0.9, 0.4])
    sample, view = Sample(**settings_), make_view(z)
    draws = torch.tensor([sample.propose(view) for _ in range(2000)])  # one generator goes on
    law = Sampling(**{"temperature": 0.5, **settings_}).filter(z).softmax(-1)
    assert follows(draws, law)
    assert not follows(draws, (z / 3.0).softmax(-1))  # the test can tell


@pytest.mark.parametrize("arguments", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}])
def test_sample_checks_its_settings(arguments):
    with pytest.raises(ConfigError):
        Sample(**arguments)


# -- coupled ---------------------------------------------------------------------------------------


@few
@given(rows, samplings, st.integers(0, 2**62), st.integers(0, 5))
def test_unrefined_logits_give_back_the_rollouts_own_token(reference, sampling, key, position):
    trajectory = rollout(reference, sampling, key, position)
    view = make_view(reference, reference.clone(), trajectory, position=position)
    assert Coupled().propose(view) == int(trajectory.tokens[position])


@few
@given(rows, samplings, st.integers(0, 2**62), st.integers(1, 4))
def test_unrefined_logits_over_a_support_of_candidates_give_back_the_token(reference, sampling, key, k):
    """A top-p taken over fewer candidates is another top-p: no reason to change the token."""
    trajectory = rollout(reference, sampling, key)
    own = int(trajectory.tokens[0])
    support = reference.topk(min(k, len(reference))).indices
    if own not in support.tolist():
        support[-1] = own
    view = make_view(reference[support], trajectory=trajectory, candidates=support)
    assert Coupled().propose(view) == own


def test_a_tail_token_of_the_nucleus_survives_a_support_of_candidates():
    """Of mass 0.4, 0.3, 0.1, ...: the third is in the nucleus of 0.75, but not in that of the top three."""
    reference = torch.tensor([0.4, 0.3, 0.1, 0.05, 0.05, 0.05, 0.05]).log()
    sampling, support, tail = Sampling(1.0, top_p=0.75), torch.tensor([0, 1, 2]), 0
    for key in range(100):
        trajectory = rollout(reference, sampling, key)
        view = make_view(reference[support], trajectory=trajectory, candidates=support)
        assert Coupled().propose(view) == int(trajectory.tokens[0])
        tail += int(trajectory.tokens[0]) == 2
    assert tail > 0


def test_an_accepted_token_was_not_drawn_with_its_positions_noise_and_stays_all_the_same():
    reference = torch.tensor([4.0, 0.0, 0.0])
    for key in range(20):
        revised = make_trajectory([1], key=key, sampling=Sampling(0.7))
        assert Coupled().propose(make_view(reference, trajectory=revised)) == 1


@few
@given(rows, samplings, st.integers(0, 2**62), st.floats(0, 20))
def test_more_weight_on_the_token_never_changes_it(reference, sampling, key, gain):
    trajectory = rollout(reference, sampling, key)
    own = int(trajectory.tokens[0])
    refined = reference.clone()
    refined[own] += gain
    assert Coupled().propose(make_view(refined, reference, trajectory)) == own


@few
@given(rows, samplings, st.integers(0, 2**62), st.floats(-20, 20))
def test_a_shift_of_all_logits_changes_nothing(reference, sampling, key, shift):
    if sampling.top_p < 1 or float(reference.abs().max()) > 1e3:
        reference, sampling = reference.clamp(-50, 50), Sampling(sampling.temperature, sampling.top_k)
    reference = reference.double()
    trajectory = rollout(reference, sampling, key)
    view = make_view(reference + shift, reference, trajectory)
    assert Coupled().propose(view) == int(trajectory.tokens[0])


@pytest.mark.parametrize("other", [0, 3])
def test_enough_weight_on_another_token_changes_it(other):
    reference = torch.tensor([0.0, 0.5, 1.0, -1.0])
    changed = 0
    for key in range(50):
        trajectory = rollout(reference, Sampling(0.7, top_p=0.9), key)
        refined = reference.clone()
        refined[other] += 60.0
        assert Coupled().propose(make_view(refined, reference, trajectory)) == other
        changed += int(trajectory.tokens[0]) != other
    assert changed > 0


def test_over_all_rollouts_coupled_tokens_follow_the_refined_softmax():
    """The coupling says which rollouts change; the law of the result is the refined one."""
    reference = torch.tensor([0.0, 0.5, 1.0, -1.0])
    refined = torch.tensor([0.7, 0.5, 0.2, -1.0])
    sampling = Sampling(0.8)
    tokens, changed = [], 0
    for key in range(1500):
        trajectory = rollout(reference, sampling, key)
        tokens.append(Coupled().propose(make_view(refined, reference, trajectory)))
        changed += tokens[-1] != int(trajectory.tokens[0])
    p, q = ((z / 0.8).softmax(-1) for z in (reference, refined))
    assert follows(torch.tensor(tokens), q)
    apart = float((p - q).abs().sum()) / 2  # no coupling changes less often than the total variation
    independent = 1 - float((p * q).sum())
    assert apart - 0.05 < changed / 1500 < (apart + independent) / 2


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor(1), "masked or unknown column"),
        (torch.tensor(3), "masked or unknown column"),
        (torch.tensor(-1), "masked or unknown column"),
        (torch.tensor([0, 2]), "must return one column"),
    ],
    ids=["masked", "too large", "negative", "two"],
)
def test_a_proposal_is_one_usable_column(value, message):
    class Broken(Proposal):
        def index(self, view):
            return value

    with pytest.raises(ConfigError, match=f"Broken.*{message}"):
        Broken().propose(make_view(torch.tensor([0.0, -INF, 1.0])))


def test_a_plain_int_is_a_column():
    class Last(Proposal):
        def index(self, view):
            return len(view.logits) - 1

    assert Last().propose(make_view(torch.zeros(4))) == 3
