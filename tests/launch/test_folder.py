"""How a run ended, and the end of one whose rows cannot be stored."""

from __future__ import annotations

import json

import pytest

from nabla.core.errors import ConfigError, StorageError
from nabla.core.solution import Interrupted, RunError, Stopped
from nabla.launch.folder import RunFolder, ended


def test_rows_that_are_left_are_no_finished_run_and_the_advice_is_of_their_cause(tmp_path, capsys):
    folder = RunFolder(tmp_path / "out", {}, arguments=[])
    folder.append("x" * 300, {"id": "0"})
    assert "kept in memory" in capsys.readouterr().err
    with pytest.raises(StorageError, match="1 lines could not be stored") as caught:
        folder.finish("finished", solved=1)
    assert "Make room" not in str(caught.value)
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (about["status"], about["solved"]) == ("failed", 1)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "finished"), (KeyboardInterrupt(), "interrupted"), (Interrupted([], 1), "interrupted"),
        (Stopped([], 1, ValueError()), "failed"), (RunError([], {"0": ConfigError("x")}), "failed"),
        (MemoryError(), "failed"),
    ],
)  # fmt: skip
def test_a_signal_interrupts_and_all_else_fails(error, status):
    assert ended(error) == status
