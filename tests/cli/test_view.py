"""``nabla view``: where its page goes."""

from __future__ import annotations

import pytest

from nabla.cli import main


@pytest.mark.parametrize("name", ["", " "])
def test_a_page_has_a_name(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace.jsonl").write_text("")
    assert main(["view", "trace.jsonl", "--output", name]) == 2
    assert "--output has no name" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["trace.jsonl"]
