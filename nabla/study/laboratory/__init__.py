"""The estimator laboratory: bias, variance, direction and cost of estimators against exact gradients."""

from nabla.core.extras import require_extra

require_extra("eval", "scipy", "matplotlib", purpose="nabla estimators")
