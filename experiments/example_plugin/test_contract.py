"""The contract of the example's components: ``pytest`` in this folder, after ``pip install .[testing]``."""

from __future__ import annotations

from nabla_example.surprise import SurpriseSelector
from nabla_example.top_k import TopKSoftEmbedding
from nabla_example.total_variation import TotalVariation

from nabla.testing import parametrize_with_checks

COMPONENTS = [TopKSoftEmbedding(k=3), TotalVariation(), SurpriseSelector()]


@parametrize_with_checks(COMPONENTS)
def test_contract(component, check):
    check(component)
