"""``F(ρ) = E_ρ[-λ r] + KL(ρ ‖ π) = E_ρ[L] + E_ρ[log ρ]`` (Eq. 3) on grids, for Gaussians and for particles.

On all three the free energy, its first variation ``δF/δρ = L + log ρ + 1``, the velocity
``v = -∇ δF/δρ`` of its Wasserstein gradient flow and the dissipation ``∫ ρ |v|²``.
"""

from nabla.theory.functionals.gaussian import GaussianEnergy
from nabla.theory.functionals.grid import GridEnergy
from nabla.theory.functionals.particles import ParticleEnergy

__all__ = ["GaussianEnergy", "GridEnergy", "ParticleEnergy"]
