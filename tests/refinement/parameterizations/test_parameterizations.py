"""What the optimiser moves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nabla.engine.initial_rows import InitialRows
from nabla.refinement.parameterizations.base import parameterizations
from nabla.refinement.parameterizations.latents import Latents
from nabla.refinement.parameterizations.logits import Logits
from tests.strategies import INF, logits, seeded

every = pytest.mark.parametrize(
    "parameterization", [parameterizations.build(n) for n in parameterizations], ids=parameterizations.name_of
)


def make_reference(z, hidden_dtype=None, seed=0):
    """States and a head whose product is ``z`` where it is finite."""
    rows = len(z)
    hidden = torch.randn(rows, 3, generator=seeded(seed), dtype=torch.float64)
    finite = z.masked_fill(z == -INF, 0.0).double()
    head = torch.linalg.pinv(hidden) @ finite  # exact for up to three rows
    hidden = hidden.to(hidden_dtype or z.dtype)

    def project(states):
        product = states.double() @ head
        return product.masked_fill(z == -INF, -INF)

    exact = project(hidden.to(torch.promote_types(hidden.dtype, torch.float32)))
    return InitialRows(
        positions=slice(0, rows),
        logits=exact,
        candidates=None,
        chosen=z.argmax(-1),
        hidden=hidden,
        project=project,
        dropped_mass=torch.zeros(rows),
    )


@every
@settings(max_examples=30)
@given(z=logits(kinds=("normal", "ties", "uniform")), seed=st.integers(0, 2**31))
def test_refinement_starts_at_the_models_own_logits(parameterization, z, seed):
    reference = make_reference(z, seed=seed)
    start = parameterization.initial(reference)
    assert bool(torch.isfinite(start).all())
    torch.testing.assert_close(parameterization.logits(start, reference), reference.logits, rtol=0, atol=0)


@every
def test_an_optimiser_step_keeps_masked_candidates_and_moves_nothing_else_in_place(parameterization):
    z = torch.tensor([[1.0, -INF, 0.5, 0.0], [0.0, 2.0, -INF, -INF]], dtype=torch.float64)
    reference = make_reference(z)
    before = reference.logits.clone(), reference.hidden.clone()
    parameter = parameterization.initial(reference).requires_grad_()
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        parameterization.logits(parameter, reference).softmax(-1)[:, 0].sum().backward()
        assert bool(torch.isfinite(parameter.grad).all())
        optimizer.step()
    refined = parameterization.logits(parameter, reference).detach()
    assert torch.equal(refined == -INF, z == -INF)
    assert bool(torch.isfinite(refined[z > -INF]).all())
    assert float((refined - reference.logits)[z > -INF].abs().max()) > 1e-3
    assert torch.equal(before[0], reference.logits)
    assert torch.equal(before[1], reference.hidden)


@pytest.mark.parametrize(
    ("given_dtype", "kept"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_trap_adam_on_bfloat16_is_a_no_op(given_dtype, kept):
    """Whatever the model's dtype, a step of 0.01 must be able to move a logit of 4."""
    z = torch.full((1, 3), 4.0, dtype=given_dtype)
    reference = make_reference(z, hidden_dtype=given_dtype)
    for parameterization in (Logits(), Latents()):
        half = InitialRows(
            reference.positions,
            reference.logits.to(given_dtype),
            None,
            reference.chosen,
            reference.hidden,
            reference.project,
            reference.dropped_mass,
        )
        assert parameterization.initial(half).dtype == kept


def test_latents_are_the_rows_own_states():
    """SPEC section 11: never those of prompt positions."""
    reference = make_reference(torch.zeros(2, 4))
    start = Latents().initial(reference)
    assert torch.equal(start, reference.hidden)
    assert start.data_ptr() != reference.hidden.data_ptr()
