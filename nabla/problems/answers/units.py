r"""The unit behind an answer's number: ``5\text{ cm}``, ``18 dollars``, ``90^\circ``, ``3 million``.

Units that are both written must mean the same: ``5 cm`` is not ``5 m``, and neither ``5 apples`` nor ``5`` is
``5 million``. Units of one dimension are converted, so that ``5 cm`` is ``50 mm``. One that only one of two
answers writes is passed over, for the problem says what is asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

Dimension = tuple[tuple[str, int], ...]

#: Of each base quantity: the names of a unit, and how many of the quantity's first unit it is.
_TABLE = {
    "length": {
        "m meter metre": "1",
        "km kilometer kilometre": "1000",
        "dm decimeter decimetre": "1/10",
        "cm centimeter centimetre": "1/100",
        "mm millimeter millimetre": "1/1000",
        "in inch": "254/10000",
        "ft foot feet": "3048/10000",
        "yd yard": "9144/10000",
        "mi mile": "1609344/1000",
    },
    "mass": {
        "kg kilogram": "1",
        "g gm gram": "1/1000",
        "mg milligram": "1/1000000",
        "lb pound": "45359237/100000000",
        "oz ounce": "45359237/1600000000",
    },
    "time": {
        "s sec second": "1",
        "ms millisecond": "1/1000",
        "min minute": "60",
        "h hr hour": "3600",
        "day": "86400",
        "wk week": "604800",
    },
    "months": {"month": "1", "yr year": "12", "decade": "120", "century centuries": "1200"},
    "dollars": {"dollar usd $": "1", "cent ¢": "1/100"},
    "euros": {"euro eur €": "1"},
    "pounds": {"gbp £": "1"},
    "rupees": {"rupee ₹": "1"},
    "yen": {"yen ¥": "1"},
    "angle": {"degree deg °": "1"},
    "radians": {"radian rad": "1"},
    "celsius": {"celsius °c": "1"},
    "fahrenheit": {"fahrenheit °f": "1"},
    "kelvin": {"kelvin": "1"},
    "forenoon": {"am a.m. a.m": "1"},
    "afternoon": {"pm p.m. p.m": "1"},
    "watts": {"watt": "1", "kilowatt": "1000"},
    "joules": {"joule": "1", "kilojoule": "1000"},
    "newtons": {"newton": "1"},
    "volts": {"volt": "1"},
    "amperes": {"ampere amp": "1"},
    "ohms": {"ohm": "1"},
    "hertz": {"hertz hz": "1"},
    "moles": {"mole mol": "1"},
}

#: Units made of others: names, the power of each base quantity, the factor.
_MADE = (
    ("l liter litre", (("length", 3),), "1/1000"),
    ("ml milliliter millilitre cc", (("length", 3),), "1/1000000"),
    ("gal gallon", (("length", 3),), "3785411784/1000000000000"),
    ("qt quart", (("length", 3),), "946352946/1000000000000"),
    ("ha hectare", (("length", 2),), "10000"),
    ("mph", (("length", 1), ("time", -1)), "1609344/3600000"),
    ("kmh kph kmph", (("length", 1), ("time", -1)), "1000/3600"),
)

_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}

_SIGNS = {"$": "dollar", "¢": "cent", "€": "euro", "£": "gbp", "₹": "rupee", "¥": "yen"}
_MONEY = frozenset({"dollars", "euros", "pounds", "rupees", "yen"})

#: Words that raise the unit behind them to a power.
_FORMS = {"per": 1, "square": 2, "sq": 2, "cubic": 3, "cu": 3}

#: Words that say nothing about the unit.
_EMPTY = frozenset({"of", "the", "a", "an", "total", "unit", "in", "all"})

#: What may as well be variables: units only in a text group, or after a number and a space.
_SHORT = frozenset({"m", "g", "s", "h", "l", "in", "mi", "ha", "ms", "cc", "rad"})

#: Words that change what a number means, so that they are no unit.
CHANGING = re.compile(
    r"\b(?:or|and|not|nor|no|to|if|unless|except|than|about|plus|minus|negative|less|more|least|most|times|twice|thrice"
    r"|squared|cubed|factorial|percent|hal(?:f|ves)|thirds?|quarters?|is|isn|was|are|wrong|incorrect|false"
    r"|(?:four|fif|six|seven|eigh|nin|ten|hundred|thousand)ths?|dozen|hundred|thousand|million|billion|trillion)\b"
)

_TEXT = r"\\(?:text(?:bf|it|rm|normal)?|mbox|mathrm|hbox)\s*\{[^{}]*\}"
_POWER = r"(?:\s*\^\s*(?:\{\s*-?[0-9]\s*\}|-?[0-9])|[²³])"
_TAIL = re.compile(
    rf"(.*?[^\s/*^_+\-=({{,])((?:\s*(?:(?:/|\*|\\cdot|·)\s*)?{_TEXT}{_POWER}?)+)\s*", re.DOTALL
)
_DEGREES = re.compile(
    r"(.*[^\s^])\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°|\\degree)\s*(?:\\(?:text|mathrm)\s*\{)?\s*([CF]?)\s*\}?"
)
_CURRENCY = re.compile(r"([+-]?)\s*(\\?\$|€|£|¥|₹|\\(?:pounds|text\{\s*(?:\$|€|£)\s*\}))\s*(.*)", re.DOTALL)
_PLAIN = re.compile(
    r"([+-]?\s*(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:\s*/\s*[0-9]+)?|.*(?:[0-9})\]]|\\pi))(\s*)"
    rf"([A-Za-z][A-Za-z.]*(?:{_POWER})?(?:(?:\s*[/*]\s*|\s+)[A-Za-z][A-Za-z.]*(?:{_POWER})?)*)"
)
_NAMELESS = re.compile(
    r"(.*[^\s\\{,=+*/-])\s+(?:(?:square|sq\.?|cubic|cu\.?)\s+)?units?(?:\s*\^\s*[23])?", re.DOTALL
)
_TOKEN = re.compile(rf"(/|\bper\b)|([A-Za-z°$€£¥₹¢][A-Za-z.]*)\s*({_POWER})?")
#: Words that are mathematics.
FUNCTIONS = frozenset(
    {
        "sqrt",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "log",
        "ln",
        "exp",
        "pi",
        "theta",
        "alpha",
        "beta",
        "gamma",
        "lambda",
        "phi",
        "mod",
        "inf",
        "infinity",
    }
)


@dataclass(frozen=True)
class Unit:
    """What stands behind a number.

    Args:
        dimension: powers of base quantities, sorted; empty if no unit is known.
        factor: how many of the dimension's own unit it is.
        scale: 10**6 for "million".
        words: what is no known unit, e.g. what is counted, in the singular.
    """

    dimension: Dimension = ()
    factor: Fraction = Fraction(1)
    scale: int = 1
    words: frozenset[str] = frozenset()

    def like(self, other: Unit) -> bool:
        """Whether the two may stand for the same thing."""
        if not (self.named and other.named):
            return True
        if self.dimension or other.dimension:
            rates = [{word for word in unit.words if word.startswith("per ")} for unit in (self, other)]
            return self.dimension == other.dimension and (rates[0] <= rates[1] or rates[1] <= rates[0])
        return self.words <= other.words or other.words <= self.words

    @property
    def named(self) -> bool:
        """Whether anything is counted or measured."""
        return bool(self.dimension or self.words)


def _known() -> dict[str, tuple[Dimension, Fraction]]:
    found: dict[str, tuple[Dimension, Fraction]] = {}
    for quantity, units in _TABLE.items():
        for names, factor in units.items():
            found |= {name: (((quantity, 1),), Fraction(factor)) for name in names.split()}
    for names, dimension, factor in _MADE:
        found |= {name: (dimension, Fraction(factor)) for name in names.split()}
    return found


_KNOWN = _known()


def split(answer: str, *, short: bool = False) -> tuple[str, Unit]:
    """The answer without its unit, and that; the answer itself and an empty unit if it has none.

    Args:
        short: whether a letter right behind a number is a unit, as in ``5m``.
    """
    if answer[-1:] in _SIGNS and len(answer) > 1:
        return answer[:-1].strip(), Unit(*_KNOWN[answer[-1]])
    money = _CURRENCY.fullmatch(answer)
    if money is not None and re.search(r"\bper\b", money[3]):
        name = next((_SIGNS[c] for c in money[2] if c in _SIGNS), "gbp")
        return split(money[1] + re.sub(r"\bper\b", f"{name} per", money[3], count=1), short=short)
    if money is not None:
        value, unit = split(money[1] + money[3], short=short)
        symbol = next((c for c in money[2] if c in "$€£¥₹"), "£")
        if dict(_KNOWN[symbol][0]).keys() <= dict(unit.dimension).keys():
            return value, unit  # "$5 dollars"
        return value, replace(unit, **_product(unit, *_KNOWN[symbol]))
    degrees = _DEGREES.fullmatch(answer)
    if degrees is not None:
        return degrees[1], Unit(*_KNOWN["°" + degrees[2].lower()])
    nameless = _NAMELESS.fullmatch(answer)
    if nameless is not None:
        return nameless[1], Unit()
    tail = _TAIL.fullmatch(answer)
    if tail is not None:
        unit_ = _read(re.sub(r"\\cdot|\\[a-z]+\s*\{([^{}]*)\}", lambda m: m[1] or "*", tail[2]))
        return (answer, Unit()) if unit_ is None else (tail[1].strip(), unit_)
    plain = _PLAIN.fullmatch(answer)
    if plain is not None:
        value, space, text = plain.groups()
        unit_ = _read(text)
        if unit_ is not None and _meant(value, space or short, text):
            return value.strip(), unit_
    return answer, Unit()


def _meant(value: str, apart: object, text: str) -> bool:
    """Whether letters behind a value, in no text group, are a unit and not variables."""
    names = [token[2] for token in _TOKEN.finditer(text) if token[2]]
    if all(_singular(name.lower()) in _KNOWN or name.lower() in _FORMS for name in names):
        if not any(name.lower() in _SHORT for name in names) or (len(names) > 1 and "/" in text):
            return True
        variables = re.search("[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", value))
        return bool(apart) and len(names) == 1 and names[0] not in "MGSH" and not variables
    return (
        bool(apart)
        and not re.search("[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", value))
        and len(names) <= 4
        and len(names[0]) > 2
        and not FUNCTIONS.intersection(names)
    )


def _singular(name: str) -> str:
    if name in _KNOWN:
        return name
    for ending, replaced in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("s", "")):
        if name.endswith(ending) and len(name) > len(ending) + 1:
            return name[: -len(ending)] + replaced
    return name


def _product(unit: Unit, dimension: Dimension, factor: Fraction, power: int = 1) -> dict[str, Any]:
    """Dimension and factor of a unit times a power of another."""
    powers = dict(unit.dimension)
    for quantity, n in dimension:
        powers[quantity] = powers.get(quantity, 0) + n * power
    return {
        "dimension": tuple(sorted((quantity, n) for quantity, n in powers.items() if n)),
        "factor": unit.factor * factor**power,
    }


def _read(text: str) -> Unit | None:
    """The unit of a text; None if it is none."""
    numbers = re.search("[0-9]", re.sub(_POWER, "", text))
    if numbers or re.search(r"[^A-Za-z0-9°$€£¥₹¢^{}/*·².³'’,()\s-]", text):
        return None
    unit, sign, power = Unit(), 1, 1
    last: tuple[Dimension, Fraction] | None = None  # what "squared" refers to
    for token in _TOKEN.finditer(text):
        if token[1]:
            sign = -1
            continue
        name = _singular(token[2].lower())
        name = name if name in _KNOWN else name.rstrip(".")
        digits = re.search("-?[0-9]", token[3] or "")
        exponent = {"²": 2, "³": 3}.get(token[3]) or (1 if digits is None else int(digits[0]))
        if name in ("squared", "cubed") and last is not None:
            unit = replace(unit, **_product(unit, *last, 1 if name == "squared" else 2))
        elif name in _FORMS:
            power = _FORMS[name]
        elif name in _SCALES and not unit.named:
            unit = replace(unit, scale=unit.scale * _SCALES[name])
        elif sign < 0 and name in _KNOWN and _MONEY.intersection(dict(unit.dimension)):
            unit = replace(unit, words=unit.words | {f"per {name}"})  # a price, whatever it is for
            sign = power = 1
        elif name in _KNOWN:
            last = _KNOWN[name][0], _KNOWN[name][1] ** sign
            last = tuple((quantity, n * sign) for quantity, n in last[0]), last[1]
            unit = replace(unit, **_product(unit, *last, exponent * power))
            sign = power = 1
        elif len(name) == 1 or name in FUNCTIONS or (CHANGING.fullmatch(token[2]) and name != "time"):
            return None
        elif name not in _EMPTY:
            unit = replace(unit, words=unit.words | {name})
            sign = power = 1
    return unit
