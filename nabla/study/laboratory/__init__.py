"""The estimator laboratory: bias, variance, direction and cost of estimators against exact gradients."""
