"""The right to a results folder."""

from __future__ import annotations

import pytest

from nabla.core.errors import ConfigError
from nabla.study.evaluation.claim import LOCK, claim


def test_what_a_kill_leaves_before_a_run_is_in_nobodys_way(tmp_path):
    for name in (LOCK, "fingerprint.json.7-0a.partial", ".writable-7-0a"):
        (tmp_path / name).write_text("")
    claim(tmp_path, "fingerprint.json", {"seed": 0}, "configuration").close()
    claim(tmp_path, "fingerprint.json", {"seed": 0}, "configuration").close()  # the same run goes on
    with pytest.raises(ConfigError, match="another configuration"):
        claim(tmp_path, "fingerprint.json", {"seed": 1}, "configuration")


def test_a_folder_of_something_else_stays_as_it_is(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        claim(tmp_path, "fingerprint.json", {}, "configuration")
    assert [p.name for p in tmp_path.iterdir()] == ["notes"]
