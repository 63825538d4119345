"""Every family of language models: log-probabilities of written and of given texts, and gradients, are
transformers' own, alone and with neighbours, or the model is refused and the error says why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from tests.families import compare, made
from tests.families.language import LANGUAGE, Family
from tests.families.precise import precise
from tests.families.record import checked, parameters
from tests.families.table import Row

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("family", parameters(LANGUAGE))
def test_language_models(family: Family, record_property: Any) -> None:
    def deviations() -> dict[str, float]:
        tok = made.tokenizer(family.tokenizer)
        model = made.build(family.config_class, family.model, tok, family.all_settings)
        return compare.language(model, tok)

    with precise():
        record_property("row", asdict(checked(Row("language", family.name), family.refused, deviations)))


def test_there_are_enough_families() -> None:
    assert len({family.config_class for family in LANGUAGE}) >= 60
    assert len({family.name for family in LANGUAGE}) == len(LANGUAGE)
    assert len([family for family in LANGUAGE if family.fast]) >= 10
