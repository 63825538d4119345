"""``nabla show``: what would run."""

from __future__ import annotations

import pytest
import yaml

from nabla.cli import main
from nabla.launch.config.presets import BOUNDARIES


@pytest.mark.parametrize("method", ["backtrack", "greedy"])
def test_an_embedded_model_goes_by_its_family_s_steps(method, tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("lm: sandbox:latin-policy\nrm: sandbox:latin-reward\n")
    assert main(["show", str(file), "--method", method]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)["method"].get("boundary")
    assert shown == (BOUNDARIES["latin"] if method == "backtrack" else None)
