"""Every family of reward models, every shape of chat templates and every format of step rewards: scores are
transformers' own of the whole rendering, gradients those of its dense pass, or the reward is refused by
name."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import pytest

from nabla.models.vocabulary import Vocabulary
from nabla.rewards.outcome import OutcomeReward
from nabla.rewards.process import ProcessReward
from tests.families import compare, made
from tests.families.language import SMALL, Family
from tests.families.precise import precise
from tests.families.record import checked, parameters
from tests.families.rewards import OUTCOME, PROCESS
from tests.families.shapes import FORMATS, SHAPES, Format, Shape
from tests.families.table import Row
from tests.rewards import test_formats

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("family", parameters(OUTCOME))
def test_outcome_models(family: Family, record_property: Any) -> None:
    def deviations() -> dict[str, float]:
        tok = made.tokenizer(family.tokenizer)
        settings = {**family.all_settings, "num_labels": 1}
        model = made.build(family.config_class, family.model, tok, settings, seed=7)
        return compare.reward(OutcomeReward(model, tok).bind(Vocabulary(tok)), tok)

    with precise():
        record_property("row", asdict(checked(Row("outcome", family.name), family.refused, deviations)))


@pytest.mark.parametrize("family", parameters(PROCESS))
def test_process_models(family: Family, record_property: Any) -> None:
    def deviations() -> dict[str, float]:
        tok = made.tokenizer(family.tokenizer)
        settings = {**family.all_settings, "num_labels": 2}
        model = made.build(family.config_class, family.model, tok, settings, seed=8)
        reward = ProcessReward(model, tok, aggregation="sum", step_separators=["\n"])
        return compare.reward(reward.bind(Vocabulary(tok)), tok)

    with precise():
        record_property("row", asdict(checked(Row("process", family.name), family.refused, deviations)))


@pytest.mark.parametrize("shape", parameters(SHAPES))
def test_template_shapes(shape: Shape, record_property: Any) -> None:
    tok = shape.words()

    def deviations() -> dict[str, float]:
        pad = {"pad_token_id": tok.eos_token_id} if shape.padding else {}
        settings = {**SMALL, "max_position_embeddings": 1024, "num_labels": 1, **pad}
        model = made.build("LlamaConfig", "LlamaForSequenceClassification", tok, settings, seed=7)
        reward = OutcomeReward(model, tok, answer="raw" if shape.raw else "template").bind(Vocabulary(tok))
        whole = compare.kept_raw if shape.raw else compare.rendered
        return compare.reward(reward, tok, shape.answers, whole)

    with precise():
        record_property("row", asdict(checked(Row("shape", shape.label), shape.refused, deviations)))


@pytest.mark.families
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.label)
def test_step_formats(form: Format, record_property: Any) -> None:
    """As :mod:`tests.rewards.test_formats` has them, for the table."""
    partial(getattr(test_formats, form.check), **form.arguments)()
    record_property("row", asdict(Row("format", form.label, off=compare.TOLERANCE)))
