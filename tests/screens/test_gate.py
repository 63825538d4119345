"""The gate and the fit behind it, on texts whose first mistake is known."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest
import torch

from nabla.core.change_point import ChangePoint
from nabla.core.errors import ConfigError
from nabla.screens import gate
from nabla.screens.base import screens
from nabla.screens.fitting import _Table, cross_entropy, fit
from nabla.screens.gate import Calibration, Gate, entropy
from nabla.screens.sampled import Sampled, chosen, quantile, variance_within, verdicts

LENGTH, STEP = 12, 3


def texts(prompts=20, each=8, *, noise=0.5, told=True, surprising=0.0, seed=0):
    """Texts with a first bad token in half of them: values fall from 2 to -2 there if they are ``told``, and
    the token is more improbable by ``surprising`` nats."""
    source, found = random.Random(seed), []
    for prompt in range(prompts):
        for _ in range(each):
            bad = source.randrange(LENGTH) if source.random() < 0.5 else None
            values, own = [], []
            for i in range(LENGTH):
                wrong = told and bad is not None and i >= bad
                values.append((-2.0 if wrong else 2.0) + noise * source.gauss(0, 1))
                own.append(-0.3 - source.random() - (surprising if i == bad else 0.0))
            reward = source.gauss(0, 0.3) + (3.0 if bad is None else -3.0)
            ends = tuple(range(STEP, LENGTH + 1, STEP))
            found.append(Sampled(f"p{prompt}", tuple(values), tuple(own), ends, reward))
    return found


def test_values_that_tell_open_the_gate():
    found = Gate().judge(screens.build("posterior"), texts(), flops=7.0)
    assert found.opened
    assert found.aimed
    assert found.loss < 0.15
    assert found.kept == 1.0
    assert found.caught > 0.5
    assert found.written < 0.9
    assert (found.texts, found.prompts, found.flops) == (160, 20, 7.0)
    assert "stopped early" in found.told


def test_the_level_is_a_share_of_the_verdicts_entropy():
    """Where one text in twenty is right, 0.2 nats are what knows nothing but that."""
    assert entropy(0.05) < 0.2
    assert entropy(0.5) == pytest.approx(math.log(2))
    assert entropy(0.0) == entropy(1.0) == 0.0
    given = texts(noise=2.4)
    fitted = Gate(level=0.0).judge(screens.build("posterior"), given)
    share = fitted.loss / entropy(fitted.right / fitted.texts)
    assert f"(loss {fitted.loss:.2f} of 0.69 nats" in fitted.told
    assert Gate(level=1.01 * share).judge(screens.build("posterior"), given).aimed
    assert not Gate(level=0.99 * share).judge(screens.build("posterior"), given).aimed


def test_each_screen_walks_the_texts_once(monkeypatch):
    """The default screen's walk also says what the change point sees."""
    walked = []
    plain = gate._written
    monkeypatch.setattr(gate, "_written", lambda screen, text: walked.append(screen) or plain(screen, text))
    ours = Gate().judge(screens.build("posterior"), texts())
    assert len(walked) == 160
    walked.clear()
    surer = Gate().judge(screens.build({"name": "posterior", "certainty": 0.3}), texts())
    assert len(walked) == 320
    assert (surer.caught, surer.alarms) == (ours.caught, ours.alarms)
    assert surer.written > ours.written


def test_values_that_tell_nothing_shut_it():
    found = Gate().judge(screens.build("posterior"), texts(told=False))
    assert not found.opened
    assert not found.aimed
    assert found.loss > 0.5
    assert "no text is stopped, values do not say where" in found.told


def test_values_that_tell_the_end_alone_do_not_say_where():
    """As an outcome reward's: the last value is the verdict, and those before it say nothing."""
    ends = [replace(t, values=(*[2.0] * (LENGTH - 1), t.reward)) for t in texts(surprising=4.0)]
    found = Gate().judge(screens.build("posterior"), ends)
    assert not found.opened
    assert not found.aimed
    assert found.caught == 0.0
    assert found.surprise > 0.3
    weights = found.change_point.weights([2.0, 2.0, -9.0])
    assert weights == pytest.approx([1 / 3] * 3, abs=1e-4)


def test_a_screen_that_stops_everything_has_not_said_where():
    """Every prefix is called bad until the last value brings the verdict: all wrong texts are seen early, and
    all right ones too."""
    low = [replace(t, values=(*[-2.0] * (LENGTH - 1), 50.0 * t.reward)) for t in texts()]
    found = Gate().judge(screens.build("posterior"), low)
    assert found.loss < 0.2
    assert found.caught == found.alarms == 1.0
    assert not found.aimed


def test_texts_that_are_stopped_too_soon_may_still_be_aimed():
    """The best texts have a low value behind their first step, which values after it make up for."""
    shaken = [replace(t, values=(*t.values[:2], -4.0, *t.values[3:])) for t in texts()]
    value = screens.build({"name": "value", "threshold": -3.5})
    found = Gate().judge(value, shaken)
    assert found.kept < 0.5
    assert found.aimed
    assert not found.opened
    assert found.told.startswith("gate: no text is stopped (")


def test_a_reward_that_tells_prompts_apart_is_not_searched_by():
    """The same texts, each prompt's all right or all wrong: values still tell the verdict."""
    given = texts()
    right = [t for t, good in zip(given, verdicts(given), strict=True) if good]
    wrong = [t for t, good in zip(given, verdicts(given), strict=True) if not good]
    sorted_texts = [replace(t, prompt=f"r{i % 8}") for i, t in enumerate(right)]
    sorted_texts += [replace(t, prompt=f"w{i % 8}") for i, t in enumerate(wrong)]
    found = Gate().judge(screens.build("posterior"), sorted_texts)
    assert found.loss < 0.2
    assert found.caught - found.alarms > 0.5
    assert found.within == 0.0
    assert not found.aimed
    assert not found.opened


def test_variance_within_prompts_is_all_of_it_where_prompts_are_alike():
    """The mean over many draws of prompts with one chance of a right text is 1; a mixture of certain prompts
    and of even ones has its share."""

    def drawn(chances, seed):
        source = random.Random(seed)
        return [
            Sampled(f"p{i}", (0.0,), (0.0,), (1,), 1.0 if source.random() < chance else -1.0)
            for i, chance in enumerate(chances)
            for _ in range(4)
        ]

    alike = [variance_within(drawn([0.4] * 30, seed)) for seed in range(200)]
    assert sum(alike) / len(alike) == pytest.approx(1.0, abs=0.03)
    mixed = [variance_within(drawn([0.0, 1.0, 0.5, 0.5] * 10, seed)) for seed in range(200)]
    assert sum(mixed) / len(mixed) == pytest.approx(0.5, abs=0.03)
    assert variance_within([]) == variance_within(drawn([1.0, 1.0], 0)) == 0.0
    single = [replace(t, prompt=str(i)) for i, t in enumerate(drawn([0.5] * 4, 0))]
    assert variance_within(single) == 0.0


def test_one_verdict_teaches_nothing():
    one = [Sampled(t.prompt, t.values, t.log_probs, t.ends, -1.0) for t in texts()]
    found = Gate().judge(screens.build("posterior"), one)
    assert not found.opened
    assert found.change_point == ChangePoint()


def test_a_screen_that_would_lose_the_best_texts_stays_shut():
    """Nearly every text has a low value somewhere, although the values as a whole tell the verdict."""
    shaken = []
    for text in texts():
        values = list(text.values)
        values[1] = -6.0
        shaken.append(Sampled(text.prompt, tuple(values), text.log_probs, text.ends, text.reward))
    found = Gate(level=99.0).judge(screens.build("value"), shaken)
    assert not found.opened
    assert found.kept == 0.0


def test_the_fit_is_no_worse_than_the_default_and_deterministic():
    given = texts(noise=1.5)
    point = fit(given)
    assert cross_entropy(point, given) < cross_entropy(ChangePoint(), given)
    assert fit(given) == point


def test_surprise_has_a_weight_only_where_it_tells():
    silent = fit(texts(told=False, surprising=4.0))
    assert silent.surprise > 0.3
    assert cross_entropy(silent, texts(told=False, surprising=4.0)) < 0.5
    assert fit(texts()).surprise == 0.0


def test_the_table_is_the_change_point_written_out():
    """The fitted loss is the cross-entropy of the change point, steps without values included."""
    given = [
        Sampled(t.prompt, tuple(v if i % 3 == 2 else math.nan for i, v in enumerate(t.values)),
                t.log_probs, t.ends, t.reward)
        for t in texts(prompts=3)
    ]  # fmt: skip
    point = ChangePoint(0.4, 0.7, 0.05, 0.6)
    at = torch.tensor([0.4, math.log(0.7), math.log(0.05), 0.6], dtype=torch.float64)
    assert float(_Table(given).loss(at)) == pytest.approx(cross_entropy(point, given), abs=1e-9)


def test_surprise_moves_the_change_point():
    point = ChangePoint(surprise=1.0)
    values, own = [2.0, 2.0, -2.0, -2.0], [-0.1, -5.0, -0.1, -0.1]
    with_it, without = point.weights(values, own), ChangePoint().weights(values)
    assert with_it[1] / with_it[2] == pytest.approx(math.exp(4.9) * without[1] / without[2])
    # Without a value of its own a token counts to the next that has one, by the mean.
    rare = point.log_odds([math.nan, 1.0], [-3.0, -1.0])
    plain = ChangePoint().log_odds([math.nan, 1.0])
    assert rare[0][1] - plain[0][1] == pytest.approx(math.log((math.exp(3.0) + math.exp(1.0)) / 2))
    assert point.log_odds([1.0], [math.nan]) == ChangePoint().log_odds([1.0])


def test_reach_is_the_expected_first_bad_position():
    point, values = ChangePoint(), [1.0, -3.0, -3.0]
    weights, none = point.weights(values), point.none(values)
    want = none * 3 + (1 - none) * sum(i * w for i, w in enumerate(weights))
    assert point.reach(values) == pytest.approx(want)
    assert point.reach([math.nan]) == 1.0


def test_a_quantile_keeps_the_texts_that_best_of_n_chooses():
    given = texts()
    screen = screens.build({"name": "quantile", "share": 0.1}).fitted(given, ChangePoint())
    lost = [screen.stop(t.values[: t.ends[-2]], None) is not None for t in chosen(given)]
    assert sum(lost) <= 0.1 * len(lost)
    others = [t for t, right in zip(given, verdicts(given), strict=True) if not right]
    assert sum(screen.stop(t.values, None) is not None for t in others) > 0.8 * len(others)
    assert quantile([3.0, 1.0, 2.0], 0.0) == 1.0
    assert quantile([3.0, 1.0, 2.0], 0.4) == 2.0
    with pytest.raises(ConfigError, match="sampled before"):
        screens.build("quantile").fitted([], ChangePoint()).stop([1.0], None)
    wrong = [replace(t, reward=-1.0) for t in given]
    none = screens.build("quantile").fitted(wrong, ChangePoint())
    assert all(none.stop(t.values, None) is None for t in wrong)


def test_prompts_without_a_right_text_do_not_shut_the_gate():
    """Their best text is bad, and stopping it loses nothing."""
    hard = [Sampled("hard", t.values, t.log_probs, t.ends, -3.0) for t in texts(seed=1) if t.reward < 0]
    found = Gate().judge(screens.build("posterior"), [*texts(), *hard[:40]])
    assert found.opened
    assert found.kept == 1.0
    assert all(t.prompt != "hard" for t in chosen([*texts(), *hard]))


def test_a_reward_whose_zero_means_nothing_is_split_in_the_middle():
    given = texts()
    assert verdicts(given) == [t.reward > 0 for t in given]
    raised = [Sampled(t.prompt, t.values, t.log_probs, t.ends, t.reward + 50) for t in given]
    assert sum(verdicts(raised)) == len(given) // 2
    assert Gate().judge(screens.build("posterior"), raised).loss < 0.2


def test_a_calibration_is_stored_and_read(tmp_path):
    found = Gate().judge(screens.build("posterior"), texts())
    file = tmp_path / "gate.json"
    file.write_text(json.dumps(found.to_dict()))
    assert Calibration.load(file) == found
    for wrong in ({"opened": True}, {**found.to_dict(), "aimed": 1}):
        file.write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match="No calibration"):
            Calibration.load(file)
    for damaged in ("{", "[" * 100_000):
        file.write_text(damaged)
        with pytest.raises(ConfigError, match="calibration is damaged"):
            Calibration.load(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        Calibration.load(tmp_path / "none.json")


@pytest.mark.parametrize("wrong", [{"texts": -1}, {"lost": 1.0}, {"level": math.nan}, {"least": 0}])
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError):
        Gate(**wrong)
