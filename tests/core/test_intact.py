"""Parts that write into what they are shown: the response stays as it is, and the part is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nabla.acceptance.base import Acceptance
from nabla.core.errors import ConfigError
from nabla.core.intact import intact
from nabla.engine.events import Callback, Events
from nabla.proposals.base import Proposal, ProposalView
from nabla.selectors.base import Selector
from nabla.testing.inputs import make_trajectory


class Scribbler(Selector):
    async def mask(self, trajectory: Any, session: Any) -> torch.Tensor:
        trajectory.tokens[0] = 3
        return torch.ones(len(trajectory), dtype=torch.bool)


class Careless(Acceptance):
    needs_reward = False

    def rule(self, current: Any, proposal: Any, generator: Any, densities: Any = None) -> bool:
        proposal.log_probs.zero_()
        return True


class Greedy(Proposal):
    def index(self, view: ProposalView) -> torch.Tensor:
        view.reference[0] = 9.0
        return view.logits.argmax()


def text() -> Any:
    found = make_trajectory([1, 2, 1])
    found.log_probs[1] = float("nan")
    return found


def drive(coroutine: Any) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def test_a_selector_that_writes_into_the_tokens() -> None:
    trajectory = text()
    with pytest.raises(ConfigError, match="Scribbler writes into"):
        drive(Scribbler().select(trajectory, None))
    assert trajectory.tokens.tolist() == [1, 2, 1]


def test_an_acceptance_rule_that_writes_into_a_response() -> None:
    current, proposal = text(), text()
    with pytest.raises(ConfigError, match="Careless writes into"):
        Careless().accept(current, proposal, torch.Generator())
    assert proposal.log_probs[0] == -0.5


def test_a_proposal_that_writes_into_the_row_that_others_share() -> None:
    reference = torch.tensor([0.0, 1.0])
    logits, ids = torch.tensor([1.0, 2.0]), torch.tensor([5, 6])
    view = ProposalView(logits, reference, ids, text(), 0, torch.Generator())
    with pytest.raises(ConfigError, match="Greedy writes into"):
        Greedy().propose(view)
    assert reference.tolist() == [0.0, 1.0]


def test_a_listener_that_writes_into_one_of_several_texts() -> None:
    class Pruner(Callback):
        def on_prune(self, prompt: Any, kept: Any, dropped: Any) -> None:
            dropped[1].tokens[0] = 3

    dropped = [text(), text()]
    with pytest.raises(ConfigError, match="Pruner writes into"):
        Events([Pruner()]).on_prune(None, [text()], dropped)
    assert dropped[1].tokens.tolist() == [1, 2, 1]


def test_looking_is_allowed_and_an_error_of_the_part_comes_first() -> None:
    trajectory = text()
    with intact(self := object(), trajectory):
        assert trajectory.tokens.sum() == 4

    def fail() -> None:
        with intact(self, trajectory):
            trajectory.tokens[1] = 7
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert trajectory.tokens.tolist() == [1, 2, 1]
