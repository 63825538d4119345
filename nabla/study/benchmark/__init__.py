"""``nabla bench``: what refinement costs, beside its floor, a dense reference and generate."""
