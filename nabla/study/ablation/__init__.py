"""Ablations: one evaluation at many points of a design, on the same problems under the same seeds."""
