"""Prompts, sampling settings, trajectories and solutions."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nabla.core.costs import Cost, Usage
from nabla.core.errors import ConfigError, PromptError
from nabla.core.prompt import Message, Prompt
from nabla.core.random import gumbel, gumbel_like
from nabla.core.sampling import Sampling
from nabla.core.solution import Revision, Solution
from nabla.proposals.coupled import noise_of
from tests.strategies import INF, follows, logits, make_trajectory, seeded, softmax_list, trajectories

few = settings(max_examples=100)

# -- prompts ---------------------------------------------------------------------------------------


def test_prompts_from_text_messages_and_prompts():
    text = Prompt.of("What is 2 + 2?", id="p1")
    assert text.messages == (Message("user", "What is 2 + 2?"),)
    assert text.text == "What is 2 + 2?"
    assert Prompt.of(text) is text
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert Prompt.of(turns).messages == (Message("system", "Be brief."), Message("user", "Hi"))
    assert Prompt.of([Message("user", "Hi")]).text == "Hi"


def test_trap_system_prompts_that_reach_the_rollout_but_not_the_gradient():
    """A system prompt is part of the one conversation that every model is shown."""
    prompt = Prompt.of("Hi", system="Be brief.")
    assert prompt.messages == (Message("system", "Be brief."), Message("user", "Hi"))
    own = [Message("system", "Be long."), Message("user", "Hi")]
    assert Prompt.of(own, system="Be brief.").messages == tuple(own)  # the conversation's own wins


@pytest.mark.parametrize("empty", ["", "  \n", [], [Message("user", " ")]])
def test_an_empty_prompt(empty):
    with pytest.raises(PromptError, match="prompt is empty"):
        Prompt.of(empty)


def test_a_malformed_conversation():
    with pytest.raises(PromptError, match="needs 'role' and 'content'"):
        Prompt.of([{"role": "user"}])


# -- sampling: validation --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", INF),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", float("nan")),
        ("max_new_tokens", 0),
    ],
)
def test_sampling_checks_its_settings(name, value):
    with pytest.raises(ConfigError, match=name):
        Sampling(**{name: value})


def test_sampling_is_a_value():
    assert Sampling() == Sampling()
    assert hash(Sampling(top_k=3)) == hash(Sampling(top_k=3))
    with pytest.raises(FrozenInstanceError):
        Sampling().temperature = 1.0


# -- sampling: filters -----------------------------------------------------------------------------


def naive_top_p(row: list[float], temperature: float, top_p: float) -> int:
    """Size of the smallest set of most likely tokens with at least ``top_p`` mass."""
    mass, count = 0.0, 0
    for p in sorted(softmax_list(row, temperature), reverse=True):
        mass, count = mass + p, count + 1
        if mass >= top_p:
            break
    return count


@given(logits(), st.floats(0.02, 0.999), st.sampled_from([0.3, 1.0, 2.0]))
@few
def test_top_p_keeps_the_smallest_set_with_at_least_that_mass(z, top_p, temperature):
    kept = Sampling(temperature, top_p=top_p).filter(z) > -INF
    for row, mask in zip(z, kept, strict=True):
        p = (row / temperature).softmax(-1)
        sums = p.sort(descending=True).values.cumsum(-1)
        assume(bool(((sums - top_p).abs() > 1e-9).all()))  # rounding decides a tie with top_p itself
        assert int(mask.sum()) == naive_top_p(row.tolist(), temperature, top_p)
        assert float(p[mask].sum()) >= top_p - 1e-9
        if not mask.all():
            assert float(p[mask].min()) >= float(p[~mask].max())  # the most likely ones


@given(logits(), st.floats(0.001, 1.0), st.integers(0, 10))
@few
def test_filters_keep_the_argmax_and_only_rescale(z, top_p, top_k):
    scores = Sampling(0.5, top_k=top_k, top_p=top_p).filter(z)
    kept = scores > -INF
    assert bool(kept.gather(-1, z.argmax(-1, keepdim=True)).all())
    shifted = z - z.amax(-1, keepdim=True)  # a shift moves no probability
    assert torch.equal(scores[kept], (shifted / 0.5)[kept])
    assert not bool((kept & (z == -INF)).any())


@given(logits(dtypes=(torch.float32, torch.float64)), st.integers(1, 10))
@few
def test_top_k_keeps_k_and_those_tied_with_the_kth(z, k):
    kept = Sampling(1.0, top_k=k).filter(z) > -INF
    for row, mask in zip(z, kept, strict=True):
        finite = row[row > -INF].sort(descending=True).values
        least = finite[min(k, len(finite)) - 1]
        assert torch.equal(mask, row >= least)


def test_top_k_ties_do_not_depend_on_the_order_of_tokens():
    z = torch.tensor([1.0, 3.0, 1.0, 1.0, 0.0])
    assert (Sampling(1.0, top_k=2).filter(z) > -INF).tolist() == [True, True, True, True, False]


@given(logits(min_rows=2), st.sampled_from([0.3, 0.9]), st.sampled_from([0, 2]))
@few
def test_a_row_is_filtered_as_if_alone(z, top_p, top_k):
    sampling = Sampling(0.7, top_k=top_k, top_p=top_p)
    together = sampling.filter(z)
    for row, expected in zip(z, together, strict=True):
        assert torch.equal(sampling.filter(row), expected)


# -- sampling: draws -------------------------------------------------------------------------------


@given(logits(), st.integers(0, 2**31))
@few
def test_trap_temperature_0_treated_as_1(z, seed):
    noise = 100 * gumbel_like(z, seeded(seed))
    assert torch.equal(Sampling(0.0, top_k=3, top_p=0.5).draw(z, noise), z.argmax(-1))
    assert torch.equal(Sampling(0.0).draw(z, None), z.argmax(-1))


def test_a_draw_needs_noise():
    with pytest.raises(ConfigError, match="needs Gumbel noise"):
        Sampling(0.5).draw(torch.zeros(3), None)


@pytest.mark.parametrize("sampling", [Sampling(0.5), Sampling(1.3, top_k=3), Sampling(1.0, top_p=0.8)])
def test_draws_follow_the_filtered_softmax(sampling):
    z = torch.tensor([0.5, 1.5, -1.0, -INF, 0.9, 0.0])
    noise = gumbel(torch.arange(20_000), torch.zeros(20_000, dtype=torch.long), torch.arange(6))
    draws = sampling.draw(z.expand(20_000, -1), noise)
    assert follows(draws, sampling.filter(z).softmax(-1))


@pytest.mark.parametrize("temperature", [1e-4, 1e-2])
def test_a_small_temperature_is_nearly_the_argmax(temperature):
    z = torch.tensor([0.5, 1.5, -1.0]).expand(1000, -1)
    draws = Sampling(temperature).draw(z, gumbel_like(z, seeded()))
    assert bool((draws == 1).all())


# -- trajectories ----------------------------------------------------------------------------------


@given(trajectories(), st.integers(0, 9))
def test_trap_text_round_trips_that_change_committed_tokens(trajectory, count):
    """Committing touches a counter: the token ids are the same object to the end."""
    after = trajectory.commit(count)
    assert after.tokens is trajectory.tokens
    assert after.committed == min(trajectory.committed + count, len(trajectory))
    assert after.complete == (after.committed == len(trajectory))
    assert after.with_reward(2.0).tokens is trajectory.tokens


def test_a_trajectory_is_immutable():
    trajectory = make_trajectory()
    scored = trajectory.with_reward(1.5)
    assert (trajectory.reward, scored.reward) == (None, 1.5)
    with pytest.raises(FrozenInstanceError):
        trajectory.reward = 1.0
    assert trajectory.log_likelihood == -1.5
    assert len(trajectory) == 3


def test_noise_is_the_fields_at_the_tokens_own_key():
    trajectory = replace(make_trajectory(), noise_keys=torch.tensor([3, 9, 9]))
    found = noise_of(trajectory, 1, torch.tensor([4, 0]))
    assert torch.equal(found, gumbel(torch.tensor([9]), torch.tensor([1]), torch.tensor([4, 0]))[0])


# -- solutions -------------------------------------------------------------------------------------


def test_a_solution_is_json():
    solution = Solution(
        prompt=Prompt.of("2 + 2?", id="p"),
        response="4",
        tokens=(4, 0),
        reward=1.5,
        finished=True,
        method="greedy",
        cost=Cost({"rollout": Usage()}),
        revisions=(
            Revision(0, 3, 4, 0.5, 1.5, True, "3", "4"),
            Revision(0, 4, 5, 1.5, 0.1, False, "4", "5"),
        ),
        candidates=3,
        revised_positions=(0,),
    )
    stored = json.loads(json.dumps(solution.to_dict()))
    assert (stored["id"], stored["prompt"], stored["tokens"]) == ("p", "2 + 2?", [4, 0])
    assert (stored["accepted"], stored["rejected"], stored["candidates"]) == (1, 1, 3)
    assert stored["revisions"][0]["new_response"] == "4"


def test_a_tiny_temperature_is_argmax_without_overflow():
    logits = torch.tensor([1.0, 3.0, 2.0])
    assert int(Sampling(temperature=1e-40).draw(logits, torch.zeros(3))) == 1


def test_temperature_zero_cannot_be_filtered():
    with pytest.raises(ConfigError, match="Temperature 0"):
        Sampling(temperature=0.0).filter(torch.zeros(3))


def test_a_system_prompt_is_put_before_a_prompt_that_has_none():
    plain = Prompt.of("1+2=", id="p")
    with_system = Prompt.of(plain, system="be right")
    assert [m.role for m in with_system.messages] == ["system", "user"]
    assert with_system.id == "p"
    assert Prompt.of(with_system, system="other") is with_system


@pytest.mark.parametrize(
    "messages",
    [[{"role": "user", "content": None}], [{"role": "user"}], [{"role": "assistant", "content": "done"}]],
)
def test_malformed_conversations_are_prompt_errors(messages):
    with pytest.raises(PromptError):
        Prompt.of(messages)
