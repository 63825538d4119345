"""beartype as jaxtyping uses it in tests: an int is a float, as in Python's own typing."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
