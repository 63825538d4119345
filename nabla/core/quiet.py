"""Other packages' chatter, off."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

_LOUD = ("lightning", "lightning.fabric", "lightning.pytorch", "transformers", "torch", "peft")
_VARIABLES = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


#: How often nabla's own warnings of one kind are shown.
REPEATS = 3


class _Sparing(logging.Filter):
    """Lets the first few messages of each kind pass."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        kind = str(record.msg)  # before its arguments are filled in
        self._seen[kind] += 1
        if self._seen[kind] == REPEATS:
            record.msg = f"{record.getMessage()} (further warnings of this kind are not shown)"
            record.args = None
        return self._seen[kind] <= REPEATS


@contextmanager
def quiet(debug: bool = False) -> Iterator[None]:
    """No warnings, log lines and progress bars but nabla's own, and few of those; ``debug`` lets everything
    through."""
    if debug:
        yield
        return
    before = {name: logging.getLogger(name).level for name in _LOUD}
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    absent = [name for name in _VARIABLES if name not in os.environ]
    os.environ.update({name: _VARIABLES[name] for name in absent})
    bars = _progress_bars(False)
    handler = logging.StreamHandler()
    handler.addFilter(_Sparing())
    logging.getLogger("nabla").addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("nabla").removeHandler(handler)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        for name in absent:
            os.environ.pop(name, None)
        if bars:
            _progress_bars(True)


@contextmanager
def one_voice() -> Iterator[None]:
    """Only the first of several processes writes to standard output."""
    if main_process():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def main_process() -> bool:
    """Whether this process prints and stores: the first one of the first machine. Fabric starts the others
    with the same command line and these variables; where SLURM has started them, it goes by SLURM's."""
    names = ["NODE_RANK", "LOCAL_RANK", "RANK", *(["SLURM_PROCID"] if slurm_tasks() else [])]
    return all(int(os.environ.get(name, "0")) == 0 for name in names)


def slurm_tasks() -> int:
    """How many processes ``srun`` has started, by the rule by which Fabric takes SLURM for what starts them;
    0 where it does not."""
    by_hand = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if by_hand or "TORCHELASTIC_RUN_ID" in os.environ:
        return 0
    return int(os.environ.get("SLURM_NTASKS", "0"))


def _progress_bars(on: bool) -> bool:
    """Switches transformers' bars; returns whether they were on. Where transformers is not loaded yet, the
    environment variable does it."""
    if "transformers" not in sys.modules:
        return False
    from transformers.utils import logging as control

    was: bool = control.is_progress_bar_enabled()
    if on and not was:
        control.enable_progress_bar()
    elif not on and was:
        control.disable_progress_bar()
    return was
