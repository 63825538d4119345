"""Laws of proposals (Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from nabla.core.random import gumbel
from nabla.core.sampling import Sampling
from nabla.proposals.base import Proposal, ProposalView, proposals
from nabla.testing.inputs import INF, follows, make_trajectory, seeded
from nabla.testing.laws import MAX_EXAMPLES, Kit, require, untouched_global_noise
from nabla.testing.optional import st
from nabla.testing.strategies import logits, seeds

kit: Kit[Proposal] = Kit(proposals, "a proposal", "check_proposal")

_DRAWS = 2000
_rows = logits(dtypes=(torch.float32, torch.float64), max_rows=1).map(lambda z: z[0])


def check_proposal(
    proposal: object,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law of proposals.

    Raises ContractError at the first law that is broken; the arguments are
    :func:`nabla.testing.check_estimator`'s.
    """
    kit.check(proposal, laws=laws, skip=skip, max_examples=max_examples, seed=seed)


def _view(z: Tensor, seed: int, offset: int = 0, reference: Tensor | None = None) -> ProposalView:
    """The row at position 0 of a response whose token was drawn as rollouts draw: from its key's noise."""
    reference = z if reference is None else reference
    ids = offset + torch.arange(len(z))
    sampling = Sampling()
    noise = gumbel(torch.tensor([seed]), torch.tensor([0]), ids)[0].to(reference)
    own = make_trajectory([int(ids[sampling.draw(reference, noise)])], key=seed, sampling=sampling)
    return ProposalView(z.clone(), reference.clone(), ids, own, 0, seeded(seed))


@kit.law(z=_rows, seed=seeds)
def one_usable_column_is_proposed(proposal: Proposal, z: Tensor, seed: int) -> None:
    """``index`` gives one column whose candidate is not masked."""
    found: Any = proposal.index(_view(z, seed))
    require(
        isinstance(found, int | Tensor) and torch.as_tensor(found).numel() == 1,
        f"index returned {found!r}, not one column",
    )
    column = int(found)
    require(0 <= column < len(z), f"column {column} of {len(z)}")
    require(z[column] > -INF, f"column {column} is masked")


@kit.law(z=_rows, seed=seeds, offset=st.integers(0, 1000))
def a_candidates_id_is_returned(proposal: Proposal, z: Tensor, seed: int, offset: int) -> None:
    """``propose`` gives the id of a candidate, whatever the ids are: the same column for shifted ids."""
    token: Any = proposal.propose(_view(z, seed, offset))
    require(isinstance(token, int), f"propose returned a {type(token).__name__}")
    require(offset <= token < offset + len(z), f"token {token} is none of the candidates")
    require(z[token - offset] > -INF, f"token {token} is masked")


@kit.law(z=_rows, seed=seeds)
def the_generator_decides_everything(proposal: Proposal, z: Tensor, seed: int) -> None:
    """Equal views and generators propose equal tokens; no global noise; views are left as they were."""
    view = _view(z, seed)
    with untouched_global_noise():
        first, second = proposal.propose(view), proposal.propose(_view(z, seed))
    require(first == second, f"equal views gave the tokens {first} and {second}")
    require(torch.equal(view.logits, z) and torch.equal(view.reference, z), "it changes the view's logits")


@kit.law(z=_rows, seed=seeds, column=st.integers(0, 5))
def a_certain_row_is_proposed(proposal: Proposal, z: Tensor, seed: int, column: int) -> None:
    """Where refinement put all probability on one candidate, it is proposed: by the argmax, a draw at any
    usual temperature and a coupled one alike."""
    usable = (z > -INF).nonzero()[:, 0]
    column = int(usable[column % len(usable)])
    refined = z.clamp(max=50.0)
    refined = torch.where(refined > -INF, refined.clamp(min=-50.0), refined)
    refined[column] = 1e4
    found = proposal.propose(_view(refined, seed, reference=z))
    require(found == column, f"token {found} instead of {column}, whose probability is 1")


@kit.law(z=_rows, seed=seeds, applies=lambda p: p.dense)
def the_density_is_a_probability(proposal: Proposal, z: Tensor, seed: int) -> None:
    """With ``dense``, ``log_density`` over all columns adds up to one, and a masked one has none."""
    view = _view(z, seed)
    logs = [float(proposal.log_density(view, column)) for column in range(len(z))]
    masked = [column for column in range(len(z)) if not z[column] > -INF and logs[column] > -INF]
    require(not masked, f"the masked column {masked[:1]} has a density")
    total = sum(map(math.exp, logs))
    require(abs(total - 1) < 1e-3, f"the densities add up to {total:.6g}")


@kit.law(z=_rows, seed=seeds, applies=lambda p: p.dense, examples=0.3)
def draws_follow_the_density(proposal: Proposal, z: Tensor, seed: int) -> None:
    """Frequencies of proposed columns agree with ``log_density`` (chi-square): an exact acceptance rule takes
    it at its word."""
    view = _view(z, seed)
    densities = torch.tensor(
        [math.exp(proposal.log_density(view, column)) for column in range(len(z))], dtype=torch.float64
    )
    drawn = torch.tensor([proposal.propose(view) for _ in range(_DRAWS)])
    require(follows(drawn, densities / densities.sum()), "proposals do not follow the density")


@kit.law(z=_rows, seed=seeds, eighths=st.integers(-80, 80))
def a_constant_added_to_the_rows_changes_nothing(
    proposal: Proposal, z: Tensor, seed: int, eighths: int
) -> None:
    """Logits are defined up to a constant: refined and reference rows may be shifted together."""
    z = z.double()
    moved = z + eighths / 8
    found, expected = proposal.propose(_view(moved, seed)), proposal.propose(_view(z, seed))
    require(found == expected, f"token {found} after a shift by {eighths / 8}, {expected} before")
