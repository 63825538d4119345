"""The harness on small models: what it writes parses and is consistent. Nothing is asserted of times."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from nabla.cli import FAILURE, main
from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError
from nabla.engine.engine import Engine
from nabla.refinement.dto import DTO
from nabla.rewards.base import Response
from nabla.rewards.outcome import OutcomeReward
from nabla.study.benchmark.bench import Stand
from nabla.study.benchmark.floor import Floor, gemm_peak
from nabla.study.benchmark.full_batches import recorded
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.models import Workbench, word_tokenizer
from nabla.study.benchmark.run import run_targets
from nabla.study.benchmark.settings import SETTINGS, setting
from nabla.study.benchmark.solves import Sandbox
from nabla.study.benchmark.speedups import SWITCHES
from nabla.study.benchmark.targets import TARGETS, all_rows, target
from nabla.study.benchmark.targets.growth import _slope
from nabla.study.benchmark.timing import Interval, median, ratio

SMALL = SETTINGS["small"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Targets 1 and 2, 4 and 7 through the command line."""
    folder = tmp_path_factory.mktemp("bench")
    arguments = ["--setting", "small", "--targets", "1,2,4,7", "--repeats", "2", "--threads", "1"]
    assert main(["bench", *arguments, "--output", str(folder)]) == 0
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_json_says_what_ran(results: Path) -> None:
    found = json.loads((results / "results.json").read_text())
    assert found["setting"] == "small"
    assert found["machine"]["threads"] == 1
    assert found["machine"]["peak_flops_per_second"] > 0
    assert found["versions"]["torch"]
    assert {m["target"] for m in found["measurements"]} == {1, 2, 4, 7}


def test_ratios_are_those_of_their_parts(results: Path) -> None:
    found = json.loads((results / "results.json").read_text())
    named = {m["name"]: m for m in found["measurements"]}
    checked = {
        "refine with likelihood / floor": ("refine", "floor"),
        "refine without likelihood / floor": ("refine", "floor"),
        "dense / refine with likelihood": ("dense", "refine"),
        "dense / refine without likelihood": ("dense", "refine"),
        "refine the next position / floor": ("next", "floor"),
        "peak memory, nabla / dense": ("nabla", "dense"),
    }
    for name, (top, bottom) in checked.items():
        m = named[name]
        assert m["value"] == pytest.approx(m["parts"][top] / m["parts"][bottom])
        assert m["low"] <= m["value"] <= m["high"]
        assert m["verdict"] == "not judged"  # the targets are meant for other settings


def test_dense_reference_refines_to_the_same_logits(results: Path) -> None:
    found = json.loads((results / "results.json").read_text())
    rows = [m for m in found["measurements"] if m["name"].startswith("dense / refine")]
    assert len(rows) == 2
    assert all(m["parts"]["difference"] < 1e-3 for m in rows)  # float32


def test_csv_files_hold_the_same_figures(results: Path) -> None:
    found = json.loads((results / "results.json").read_text())
    table = rows_of(results / "measurements.csv")
    assert [row["name"] for row in table] == [m["name"] for m in found["measurements"]]
    for row, m in zip(table, found["measurements"], strict=True):
        assert float(row["value"]) == pytest.approx(m["value"])
    samples = rows_of(results / "samples.csv")
    assert {row["name"] for row in samples} == set(found["samples"])
    assert len([row for row in samples if row["name"] == "refine with likelihood"]) == 2
    growth = rows_of(results / "growth.csv")
    assert {(row["axis"], int(row["value"])) for row in growth} == {
        (axis, value) for axis, values in SMALL.growth for value in values
    }
    assert all(float(row["seconds"]) > 0 for row in growth)


@pytest.mark.parametrize("name", ["floor.png", "growth.png"])
def test_plots_are_written(results: Path, name: str) -> None:
    assert (results / name).read_bytes().startswith(b"\x89PNG")


def test_whole_solves_and_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([{"peak": 6e6}, {"peak": 5e6}])  # target 4's test starts the processes
    monkeypatch.setattr(all_rows, "memory_over_models", lambda *_, **__: next(peaks))
    bench = Stand(replace(SMALL, problems=2, new_tokens=4), repeats=1, dense_repeats=0, threads=1)
    found = {m.name: m for m in run_targets(bench, [3, 5, 6])}
    share = found["share of latin solves outside rollouts and rewards, 2 at a time"]
    phases = {name: value for name, value in share.parts.items() if name != "wall"}
    assert sum(phases.values()) == pytest.approx(1, abs=1e-6)
    assert share.value is not None
    outside = 1 - phases["rollout"] - phases["reward"]
    assert share.value.value == pytest.approx(outside, abs=1e-6)
    rollouts = found["rollouts / generate, setting small"]
    assert rollouts.parts["tokens"] == 2 * 4
    memory = found["memory over the models, V / (V/4)"]
    assert memory.value is not None
    assert memory.value.value == pytest.approx(1.2)
    assert memory.verdict == "not judged"
    dropped = found["mass outside the support of 64"]
    assert dropped.value is not None
    assert 0 < dropped.value.value < 1
    floor = found["the same of latin, 1 at a time, gradients at their floor and no bookkeeping"]
    assert floor.parts["gradients"] >= 2
    assert 0 < floor.parts["floor"] < floor.parts["wall"]
    throughput = [name for name in found if "together / in turn" in name]
    assert len(throughput) == 8  # families, with and without refilling, one process and several
    most = found["the same of 2 latin problems, all batches full and no bookkeeping"]
    assert most.value is not None
    assert most.value.value > 0


def test_full_batches_hold_all_that_the_models_did() -> None:
    sandbox = Sandbox("latin", 3)
    assert isinstance(sandbox.reward, OutcomeReward)
    bodies = [sandbox.lm.body, sandbox.reward.body]
    with recorded(bodies) as work:
        total = sandbox.solve().cost.total
    forward = sum(len(item.chunk) for item in work.passes)
    backward = sum(len(item.chunk) for item in work.passes if item.differentiated)
    assert forward + backward + total.decode_steps == total.tokens
    assert len(work.contexts) >= total.decode_steps
    before = len(work.passes)
    assert sandbox.replay(2) > 0
    assert len(work.passes) == before  # nothing is noted any more


def test_floor_without_likelihood_leaves_the_language_model_alone() -> None:
    workbench = Workbench(SMALL)
    prompt, text = workbench.prompt(), workbench.text(0)
    whole = Floor(workbench.lm, workbench.reward, prompt, text).parts()
    assert set(whole) > {"LM forward", "head logits", "head backward", "LM backward"}
    assert set(Floor(workbench.lm, workbench.reward, prompt, text, likelihood=False).parts()) == {
        "RM forward",
        "RM backward",
    }


def test_floor_runs_only_what_is_free() -> None:
    workbench = Workbench(SMALL)
    prompt, text = workbench.prompt(), workbench.text(0)
    begin = len(text) - 3
    floor = Floor(workbench.lm, workbench.reward, prompt, text, start=begin)
    assert floor.lm_leaf.shape[1] == 2  # the last token predicts nothing
    assert floor.rm_leaf.shape[1] == 3
    assert floor.lm_prefix[0][0].shape[-2] == len(workbench.lm.encode(prompt)) + begin
    last = Floor(workbench.lm, workbench.reward, prompt, text, start=len(text) - 1)
    assert set(last.parts()) == {"RM forward", "RM backward"}


def test_prompts_have_the_setting_s_length_and_a_safe_first_row() -> None:
    workbench = Workbench(SMALL)
    for seed in range(3):
        assert len(workbench.lm.encode(workbench.prompt(seed))) == SMALL.prefix
    assert len(workbench.text(0)) == SMALL.response
    assert len(word_tokenizer(50).get_vocab()) == 50


def test_its_models_read_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """A template that begins an answer in two ways was reported in every benchmark."""
    workbench = Workbench(SMALL)
    text = Response(workbench.prompt(), workbench.text(0), Account("p", CostMeter(), "reward"))
    assert workbench.reward.bind(workbench.lm.vocabulary).layout(text).visible == SMALL.response
    assert caplog.messages == []


def test_median_and_ratio() -> None:
    found = ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found == Interval(2.0, 2.0, 2.0)  # pairs move together
    middle = median([1.0, 2.0, 9.0])
    assert middle.value == 2.0
    assert (middle.low, middle.high) == (1.0, 9.0)
    assert gemm_peak(torch.float32, "cpu") > 0


@pytest.mark.parametrize("points", [3, 5, 6])
def test_an_interval_of_a_slope_is_that_of_a_few_points(points: int) -> None:
    """Student's t, as scipy has it: with five points the normal one held the truth in 86 %."""
    values = [2**i for i in range(points)]
    seconds = [value**0.5 * (1 + 0.1 * (-1) ** i) for i, value in enumerate(values)]
    found = _slope("x", values, seconds, None).value
    fit = stats.linregress(np.log(values), np.log(seconds))
    half = stats.t.ppf(0.975, points - 2) * fit.stderr
    assert found is not None
    assert found.value == pytest.approx(fit.slope)
    assert (found.low, found.high) == pytest.approx((fit.slope - half, fit.slope + half), rel=1e-3)


@pytest.mark.parametrize(
    ("value", "goal", "at_most", "expected"),
    [(1.0, 1.2, True, "met"), (1.3, 1.2, True, "missed"), (50, 40, False, "met"), (30, 40, False, "missed")],
)
def test_verdicts(value: float, goal: float, at_most: bool, expected: str) -> None:
    m = Measurement(1, "x", Interval(value, value, value), "×", goal, at_most=at_most)
    assert m.verdict == expected
    assert replace(m, judged=False).verdict == "not judged"
    assert replace(m, value=None).verdict == "not measured"


def test_every_switch_is_an_argument_that_exists() -> None:
    workbench = Workbench(SMALL)
    for switch in SWITCHES.values():
        assert isinstance(workbench.engine(**switch.engine), Engine)
        assert isinstance(workbench.dto(**switch.dto), DTO)
        assert set(switch.scenarios) <= {"refine", "next", "solve"}


def test_unknown_names_are_errors() -> None:
    with pytest.raises(ConfigError, match="small"):
        setting("C")
    with pytest.raises(ConfigError, match="Targets are"):
        target(max(TARGETS) + 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_setting_without_a_gpu(capsys: Any) -> None:
    assert main(["bench", "--setting", "gpu", "--output", "none"]) == FAILURE
    said = capsys.readouterr().err
    assert "CUDA" in said
    assert "got '--setting gpu'" in said
    assert main(["bench", "--setting", "A", "--device", "cuda", "--output", "none"]) == FAILURE
    said = capsys.readouterr().err
    assert "got '--device cuda'" in said
    assert "leave out --device cuda" in said


@pytest.mark.parametrize("given", ["x", "9"])
def test_wrong_targets(given: str, capsys: Any) -> None:
    assert main(["bench", "--setting", "small", "--targets", given, "--output", "none"]) == FAILURE
    assert "arget" in capsys.readouterr().err


def test_models_are_set_aside_while_another_process_measures(monkeypatch):
    """On a GPU that the models nearly fill, a child that loads them again would find no room."""
    moved = []

    class Model:
        def __init__(self, name):
            self.name = name

        def to(self, device):
            moved.append((self.name, device))

    part = {name: type("Part", (), {"model": Model(name)})() for name in ("lm", "reward")}
    stand = Stand(replace(setting("small"), device="cuda"))
    with stand.set_aside():
        assert moved == []  # nothing is loaded yet
    vars(stand)["workbench"] = type("Bench", (), part)()

    def fail() -> None:
        with stand.set_aside():
            assert moved == [("lm", "cpu"), ("reward", "cpu")]
            raise ConfigError("no room")

    with pytest.raises(ConfigError, match="no room"):
        fail()
    assert moved[2:] == [("lm", "cuda"), ("reward", "cuda")]
    moved.clear()
    stand.setting = replace(stand.setting, device="cpu")
    with stand.set_aside():
        pass
    assert moved == []


@pytest.mark.parametrize(("stop", "ended"), [(KeyboardInterrupt, 130), (RuntimeError, FAILURE)])
def test_what_was_measured_before_an_end_is_printed(stop, ended, monkeypatch, capsys):
    """Also where nothing is stored."""
    import nabla.study.benchmark.run as running

    def cut(bench, numbers, keep):
        keep([Measurement(1, "refine beside its floor", Interval(1.5, 1.4, 1.6), "×")])
        raise stop("enough")

    monkeypatch.setattr(running, "run_targets", cut)
    status = main(["bench", "--setting", "small", "--threads", "1", "--output", "none"])
    shown = capsys.readouterr()
    assert status == ended
    assert "refine beside its floor" in shown.out
    assert "1.5×" in shown.out
    assert "enough" in shown.err
