"""The duality of DTO and PPO (arXiv 2603.04948, Theorem 4.1), checked numerically.

Descending ``L = -λ r - log π`` in sample space with noise is the Wasserstein gradient flow of
``F(ρ) = E_ρ[-λ r] + KL(ρ ‖ π)``, the objective of KL-regularised RL. The package computes that flow by five
routes that share no code (:mod:`~nabla.theory.flows`), and compares them (:mod:`~nabla.theory.duality`).
"""

from nabla.core.extras import require_extra

require_extra("theory", purpose="nabla theory")

from nabla.theory.duality.base import Check, checks  # noqa: E402
from nabla.theory.report import Findings, Order, Report, Verdict, fit_order  # noqa: E402
from nabla.theory.suite import Outcome, run_checks  # noqa: E402

__all__ = ["Check", "Findings", "Order", "Outcome", "Report", "Verdict", "checks", "fit_order", "run_checks"]
