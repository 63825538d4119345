"""Where the kit takes hypothesis from: says what to install without it."""

from __future__ import annotations

from nabla.core.extras import require_extra

require_extra("testing", purpose="The contract kit")

import hypothesis  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

__all__ = ["hypothesis", "st"]
