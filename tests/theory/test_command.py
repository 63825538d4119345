"""``nabla theory``: table, plots, exit status, and checks that others register."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nabla.cli import main
from nabla.core.errors import ConfigError
from nabla.theory.duality.base import Check, checks
from nabla.theory.figures import Figure, Line, Panel
from nabla.theory.report import Findings, Verdict
from nabla.theory.suite import run_checks


@pytest.fixture
def own() -> Iterator[None]:
    """A registered check of somebody else, which passes under even seeds."""

    @checks.register("own")
    @dataclass(frozen=True)
    class Own(Check):
        claim = "seeds are even"

        @classmethod
        def quick(cls) -> Own:
            return cls()

        def run(self, seed: int) -> Findings:
            found = self.findings()
            found.add("parity", float(seed % 2), floor=0.0, tolerance=0.5, unit="1", detail="a detail")
            found.add("noisy", 0.1, floor=1.0, tolerance=0.5)
            lines = (Line("a", (1.0, 2.0), (1.0, 4.0), "o-"),)
            found.figures.append(
                Figure("own", (Panel("t", "x", "y", lines, True, True), Panel("u", "", "", lines)))
            )
            return found

    yield
    checks._names.pop(checks._classes.pop("own"))


def test_table_plots_and_status(own: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "own", "--quick", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "parity" in said
    assert "1 pass, 0 fail, 1 inconclusive" in said
    assert (tmp_path / "out" / "own.png").stat().st_size > 1000
    rows = json.loads((tmp_path / "out" / "reports.json").read_text(encoding="utf-8"))
    assert [(r["name"], r["verdict"]) for r in rows] == [("parity", "pass"), ("noisy", "inconclusive")]
    assert main(["theory", "own", "--seeds", "2", "--jobs", "1"]) == 1  # seed 1 is odd
    assert "±" in capsys.readouterr().out


def test_list_and_unknown_names(own: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "--list"]) == 0
    said = capsys.readouterr().out
    for name in ("stationarity", "trajectories", "dissipation", "amortised", "text", "gap", "own"):
        assert name in said
    assert main(["theory", "stationary"]) == 2
    assert "Did you mean 'stationarity'" in capsys.readouterr().err


def test_output_must_be_a_folder(own: None, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert main(["theory", "own", "--output", str(file)]) == 2


def test_seeds_are_spread(own: None) -> None:
    outcome = run_checks(["own"], seeds=3)
    assert outcome.reports[0].seeds == 3
    assert outcome.reports[0].spread > 0
    assert outcome.verdict is Verdict.FAIL
    with pytest.raises(ConfigError):
        run_checks(["own"], seeds=0)


@pytest.fixture
def stopped(own: None) -> Iterator[None]:
    """A check that somebody stops."""

    @checks.register("stopped")
    @dataclass(frozen=True)
    class Stopped(Check):
        claim = "never"

        @classmethod
        def quick(cls) -> Stopped:
            return cls()

        def run(self, seed: int) -> Findings:
            raise KeyboardInterrupt

    yield
    checks._names.pop(checks._classes.pop("stopped"))


def test_what_was_finished_before_a_stop_is_shown_and_stored(
    stopped: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["theory", "own", "stopped", "--jobs", "1", "--output", str(out)]) == 130
    said = capsys.readouterr()
    assert "parity" in said.out
    assert "Interrupted" in said.err
    assert {row["check"] for row in json.loads((out / "reports.json").read_text())} == {"own"}
    assert {p.name for p in out.iterdir()} == {"reports.json", "figures.json", "own.png"}
    assert main(["theory", "stopped", "--jobs", "1", "--output", str(tmp_path / "none")]) == 130
    assert not (tmp_path / "none").exists()  # there is nothing to keep


def test_two_at_once_do_not_share_a_folder(
    own: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second one is refused before it computes, and what the first one has stored stays."""
    out = tmp_path / "out"
    run = checks["own"].run
    status = []

    def meanwhile(self: Check, seed: int) -> Findings:
        monkeypatch.setattr(checks["own"], "run", run)
        status.append(main(["theory", "own", "--output", str(out)]))
        return run(self, seed)

    monkeypatch.setattr(checks["own"], "run", meanwhile)
    assert main(["theory", "own", "--output", str(out)]) == 0
    assert status == [2]
    assert "Another process is writing to this run's folder" in capsys.readouterr().err
    assert (out / "reports.json").is_file()


def test_a_full_disk_is_an_error_after_the_table(
    own: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nabla.theory.plots.replace_whole", full)
    assert main(["theory", "own", "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "parity" in said.out
    assert "The reports cannot be written: No space left on device" in said.err
