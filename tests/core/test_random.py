"""Keys, generators and the Gumbel field."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nabla.core.errors import ConfigError
from nabla.core.random import derive_key, generator, gumbel
from tests.strategies import ALPHA

KEYS = st.integers(0, 2**63 - 1)


def field(keys, positions, tokens):
    return gumbel(torch.as_tensor(keys), torch.as_tensor(positions), torch.as_tensor(tokens))


# -- keys ------------------------------------------------------------------------------------------


def test_keys_are_pinned():
    """Results of published runs depend on these numbers: they may never change."""
    assert derive_key("a", 1) == 6222101017213550541
    assert derive_key(0, "problem-7", "request", 3) == 262851326315890571
    assert derive_key() == 2847183694713211083
    assert int(torch.randint(2**31, (), generator=generator(0, "0", "method"))) == 1633272256


@given(st.lists(st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats()), max_size=4))
def test_keys_fit_an_int64_and_are_functions_of_their_parts(parts):
    key = derive_key(*parts)
    assert 0 <= key < 2**63
    assert key == derive_key(*parts)
    assert key != derive_key(*parts, "more")


def test_keys_tell_parts_apart():
    keys = [derive_key(*p) for p in [("ab",), ("a", "b"), ("b", "a"), (1,), ("1",), (1.0,), (True,), (None,)]]
    assert len(set(keys)) == len(keys)


def test_numpy_numbers_count_as_pythons():
    assert derive_key(np.int64(3), np.float64(0.5), np.str_("x")) == derive_key(3, 0.5, "x")


@pytest.mark.parametrize("part", [object(), ["a"], torch.tensor(1)], ids=["object", "list", "tensor"])
def test_a_part_whose_text_is_not_stable_is_an_error(part):
    with pytest.raises(ConfigError, match="texts and numbers"):
        derive_key("seed", part)


def test_trap_seeds_that_depend_on_the_worker():
    """Another process with another hash seed derives the same keys and the same noise."""
    program = (
        "import torch; from nabla.core.random import derive_key, gumbel; k = derive_key('x', 1);"
        "print(k, gumbel(torch.tensor([k]), torch.tensor([4]), torch.arange(3))[0].tolist())"
    )
    code = (
        "import importlib.util, sys, types; sys.modules['nabla'] = types.ModuleType('nabla');"
        "sys.modules['nabla'].__path__ = [sys.argv[1]];" + program  # without the import of all of nabla
    )
    root = sys.modules["nabla"].__path__[0]
    found = subprocess.run(
        [sys.executable, "-c", code, root],
        env={"PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    key = derive_key("x", 1)
    assert found.strip() == f"{key} {field([key], [4], range(3))[0].tolist()}"


# -- the Gumbel field ------------------------------------------------------------------------------


def test_the_field_is_pinned():
    noise = field([0, derive_key("a")], [0, 17], [0, 1, 50_000])
    expected = [[-0.0552855246, -0.1889838129, 1.1770206690], [0.1855800748, 1.4409259558, 0.3886370360]]
    torch.testing.assert_close(noise, torch.tensor(expected), rtol=1e-6, atol=1e-6)


@given(st.lists(st.tuples(KEYS, st.integers(0, 10**6)), min_size=1, max_size=5), st.integers(1, 40))
@settings(max_examples=50)
def test_noise_is_a_pure_function_of_key_position_and_token(rows, width):
    keys, positions = [k for k, _ in rows], [p for _, p in rows]
    together = field(keys, positions, range(width))
    assert together.dtype == torch.float32
    assert bool(torch.isfinite(together).all())
    for i, (key, position) in enumerate(rows):
        for token in {0, width - 1}:
            assert float(field([key], [position], [token])) == float(together[i, token])
    order = torch.arange(width).flip(0)
    per_row = field(keys, positions, order.expand(len(rows), -1).contiguous())
    assert torch.equal(per_row, together.flip(-1))


def test_any_integer_dtype_gives_the_same_noise():
    small = gumbel(
        torch.tensor([5], dtype=torch.int32),
        torch.tensor([2], dtype=torch.int16),
        torch.arange(9, dtype=torch.int32),
    )
    assert torch.equal(small, field([5], [2], range(9)))


@pytest.mark.parametrize("axis", ["key", "position", "token"])
def test_noise_follows_the_gumbel_law_along_every_axis(axis):
    """Kolmogorov-Smirnov at a controlled rate, for consecutive keys, positions and tokens."""
    count = 50_000
    run = torch.arange(count)
    one = torch.full((count,), 3)
    if axis == "token":
        noise = field([3], [3], run)[0]
    else:
        noise = gumbel(run if axis == "key" else one, run if axis == "position" else one, torch.tensor([3]))
    assert stats.kstest(noise.double().flatten().numpy(), stats.gumbel_r.cdf).pvalue > ALPHA
    assert stats.kstest(noise.double().flatten().numpy() * 1.05, stats.gumbel_r.cdf).pvalue < ALPHA


@pytest.mark.parametrize(
    ("key", "position", "token"),
    [
        (1, 0, 0),
        (2, 0, 0),
        (1 << 32, 0, 0),
        (0, 1, 0),
        (0, 2, 0),
        (0, 0, 1),
        (0, 0, 2),
        (1, 1, 0),
        (0, 1, -1),
    ],
)
def test_neighbours_are_independent(key, position, token):
    """Chi-square on a 16 x 16 grid of the pair's quantiles."""
    run = 4 * torch.arange(1, 301)
    here, there = gumbel(run, run, run), gumbel(run + key, run + position, run + token)
    cells = [(16 * torch.exp(-torch.exp(-g.double()))).long().clamp(max=15) for g in (here, there)]
    counts = torch.bincount((16 * cells[0] + cells[1]).flatten(), minlength=256).numpy()
    assert stats.chisquare(counts).pvalue > ALPHA


def test_the_largest_noise_keeps_its_resolution():
    """A float32 uniform would have 2^-24 as its smallest distance from 1: ties where draws are decided."""
    noise = field(range(40), range(40), range(50_000)).flatten()
    top = noise.topk(100).values
    assert len(top.unique()) == 100
    assert float(top[0]) > 11
