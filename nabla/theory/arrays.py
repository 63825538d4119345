"""The array type of everything on grids; particles are torch tensors, both in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
