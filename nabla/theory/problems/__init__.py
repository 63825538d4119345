"""Problems with known answers: Gaussians, mixtures, double wells, and sequence spaces to enumerate."""

from nabla.theory.problems.base import Problem, check_integrable, check_stability
from nabla.theory.problems.gaussian import GaussianProblem
from nabla.theory.problems.mixture import MixtureProblem
from nabla.theory.problems.wells import DoubleWell

__all__ = [
    "DoubleWell",
    "GaussianProblem",
    "MixtureProblem",
    "Problem",
    "check_integrable",
    "check_stability",
]
