"""``nabla plot``: figures from what studies have stored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nabla.cli import main
from nabla.core.errors import ConfigError
from nabla.study.evaluation.choice import choose
from nabla.study.evaluation.stored import read_results
from nabla.theory.figures import Figure, Line, Panel
from nabla.theory.plots import read, write

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SANDBOX = EXPERIMENTS / "results" / "sandbox"


def test_an_evaluation_of_which_tables_were_kept(tmp_path, capsys):
    drawn = ["plot", str(SANDBOX), "--output", str(tmp_path), "--format", "svg"]
    assert main([*drawn, "--methods", "nabla, best-of-n"]) == 0
    names = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    units = ("calls", "tokens", "flops", "seconds")
    lines = {f"accuracy_{unit}{rest}.svg" for unit in units for rest in ("", "_others")}
    assert names == {*lines, "accuracy_all.svg"}
    text = (tmp_path / "accuracy_flops.svg").read_text()
    assert "best-of-n" in text
    assert "revision" not in text
    assert "revision" in (tmp_path / "accuracy_all.svg").read_text()
    others = (tmp_path / "accuracy_flops_others.svg").read_text()
    assert all(f">{name}</text>" in others for name in ("revision", "greedy", "best-of-n weighted"))
    assert not any(f">{name}</text>" in others for name in ("nabla", "best-of-n"))
    assert main([*drawn, "--methods", "nobody"]) == 2
    assert "There are no results of this method" in capsys.readouterr().err


def test_a_kept_evaluation_by_a_number_is_drawn_by_that_number(tmp_path, capsys):
    kept = EXPERIMENTS / "results" / "sentiment"
    assert main(["plot", str(kept), "--output", str(tmp_path), "--format", "svg"]) == 0
    names = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    assert names == {"compound_flops.svg", "compound_all.svg"}
    lines = (tmp_path / "compound_flops.svg").read_text()
    assert all(f">{name}</text>" in lines for name in ("revision", "nabla"))
    shutil.copytree(kept, tmp_path / "kept")
    (tmp_path / "kept" / "hacking.csv").write_text("method,gap\nrevision,0.1\n")  # of somebody else
    assert main(["plot", str(tmp_path / "kept"), "--output", str(tmp_path)]) == 2
    assert "hacking.csv has other columns" in capsys.readouterr().err


def test_small_panels_are_those_that_show_something(tmp_path, capsys):
    kept = EXPERIMENTS / "results" / "real"
    assert main(["plot", str(kept), "--output", str(tmp_path), "--format", "svg"]) == 0
    others = (tmp_path / "accuracy_flops_others.svg").read_text()
    assert others.count(">vgb</text>") == 2  # of five tasks two were solved by it
    assert ">random-direction long</text>" in others  # and the rest on the next line: it would not fit
    assert ">random-direction long steps</text>" not in others


def test_eight_lines_by_default_the_reference_controls_and_baselines_among_them():
    _, summary = read_results(SANDBOX)
    found = choose(summary)
    assert len(found) == 8
    assert {"nabla", "revision", "random-direction", "best-of-n"} <= set(found)
    assert "greedy" in choose(summary, ["greedy"])
    with pytest.raises(ConfigError):
        choose(summary, [])


def test_a_control_is_drawn_beside_what_it_is_of():
    _, summary = read_results(EXPERIMENTS / "results" / "values" / "arithmetic_parts")
    found = choose(summary)
    assert len(found) == 8
    assert {"random-direction long steps", "nabla long steps", "revision", "backtrack"} <= set(found)


def test_the_estimators(tmp_path, capsys):
    shutil.copy(EXPERIMENTS / "estimators" / "estimators.csv", tmp_path)
    assert main(["plot", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.glob("*.png")} == {"bias_variance", "gradient_norm", "cosine"}
    for data in ("estimator\nx\n", "9" * 140_000):  # longer than a cell that Python's reader takes
        (tmp_path / "estimators.csv").write_text(data)
        assert main(["plot", str(tmp_path)]) == 2
        assert "damaged" in capsys.readouterr().err


def test_the_theory(tmp_path, capsys):
    nan = float("nan")
    panel = Panel("a", "x", "y", (Line("one", (1.0, 2.0), (3.0, nan), "C1--"),), log_x=True, ticks=("p", "q"))
    write([Figure("own", (panel,))], tmp_path / "figures.json")
    (back,) = read(tmp_path / "figures.json")
    assert (back.name, back.panels[0].lines[0].style, back.panels[0].ticks) == ("own", "C1--", ("p", "q"))
    assert main(["plot", str(tmp_path), "--format", "pdf"]) == 0
    assert (tmp_path / "own.pdf").read_bytes().startswith(b"%PDF")
    assert main(["plot", str(tmp_path), "--methods", "a"]) == 2
    assert main(["plot", str(tmp_path), "--format", "gif"]) == 2
    assert main(["plot", str(tmp_path / "nowhere")]) == 2
    assert "nothing here that figures are drawn of" in capsys.readouterr().err


def test_a_diagnosis(tmp_path, capsys):
    known, unknown = ({"value": v, "low": v, "high": v, "count": 3} for v in (0.7, None))
    bins = [{"said": 0.2, "right": 0.1}, {"said": 0.9, "right": 0.8}]
    findings = {
        "problems": 3,
        "predictors": [
            {"name": "position", "reward": None, "auc": known},
            {"name": "value drop", "reward": "judge", "auc": unknown},
        ],
        "choosers": [{"name": "judge", "pooled": known, "within": known, "error": 0.1, "bins": bins}],
        "locators": [{"name": "drop", "prefix": known, "first": known, "hit": known}],
    }
    told = {"task": "sums", "findings": findings, "verdicts": []}
    (tmp_path / "sums.json").write_text(json.dumps(told))
    (tmp_path / "other.json").write_text("[1")
    assert main(["plot", str(tmp_path), "--format", "svg"]) == 0
    (drawn,) = tmp_path.glob("*.svg")
    text = drawn.read_text()
    assert drawn.name == "sums.svg"
    assert all(f">{word}</text>" in text for word in ("position (language model)", "first mistake: drop"))
    assert "value drop" not in text
    assert main(["plot", str(tmp_path), "--methods", "a"]) == 2
    (tmp_path / "results.json").write_text("{}")
    assert main(["plot", str(tmp_path)]) == 2
    assert "no result of 'nabla bench'" in capsys.readouterr().err


def own_theory(folder: Path, name: str = "own") -> None:
    folder.mkdir(exist_ok=True)
    write([Figure(name, (Panel("a", "x", "y", (Line("one", (1.0, 2.0), (3.0, 4.0), "C1--"),)),))],
          folder / "figures.json")  # fmt: skip


def test_no_figure_of_somebody_else_is_written_over(tmp_path, capsys):
    own_theory(tmp_path / "run")
    theirs = tmp_path / "talk" / "own.png"
    theirs.parent.mkdir()
    theirs.write_bytes(b"by hand")
    drawn = ["plot", str(tmp_path / "run"), "--output"]
    assert main([*drawn, str(theirs.parent)]) == 2
    assert "that nabla has not drawn" in capsys.readouterr().err
    assert theirs.read_bytes() == b"by hand"
    theirs.unlink()
    for _ in range(2):  # its own figures are
        assert main([*drawn, str(theirs.parent)]) == 0
    (tmp_path / "loop").symlink_to("loop")
    for place in (str(tmp_path / "loop"), "nu\0l", "x" * 300):
        assert main([*drawn, place]) == 2
        assert "The folder of the figures cannot be written" in capsys.readouterr().err
    assert main([*drawn, " "]) == 2
    assert "--output has no name" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../own", "/tmp/own", "a/b", "", 5, None])
def test_a_name_in_the_data_leads_out_of_no_folder(tmp_path, capsys, name):
    own_theory(tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "figures.json").read_text())
    rows[0]["name"] = name
    (tmp_path / "run" / "figures.json").write_text(json.dumps(rows))
    assert main(["plot", str(tmp_path / "run")]) == 2
    assert "figures.json is damaged" in capsys.readouterr().err
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["figures.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.update(style="zzz"),
        lambda line: line.update(style=None),
        lambda line: line.update(x=[1.0], y=[None]),
        lambda line: line.update(x=[1.0, 2.0, 3.0]),
        lambda line: line.update(label={}),
    ],
)
def test_what_cannot_be_drawn_is_an_error_and_no_bug(tmp_path, capsys, change):
    own_theory(tmp_path)
    rows = json.loads((tmp_path / "figures.json").read_text())
    change(rows[0]["panels"][0]["lines"][0])
    (tmp_path / "figures.json").write_text(json.dumps(rows))
    assert main(["plot", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "cannot be drawn" in said or "is damaged" in said
    assert "A bug of nabla" not in said


@pytest.mark.parametrize("data", [b"[" * 100_000, b"9" * 5000, b"\xff\xfe\x00", b"\xe9", b""])
def test_files_that_are_no_json_beside_a_run(tmp_path, capsys, data):
    (tmp_path / "other.json").write_bytes(data)
    (tmp_path / "folder.json").mkdir()
    assert main(["plot", str(tmp_path)]) == 2
    assert "nothing here that figures are drawn of" in capsys.readouterr().err
    (tmp_path / "results.json").write_bytes(data)
    assert main(["plot", str(tmp_path)]) == 2
    assert "no result of 'nabla bench'" in capsys.readouterr().err
