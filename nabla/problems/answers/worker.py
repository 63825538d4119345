"""What the grading process runs: reads and compares mathematical answers with math-verify.

A program of ``child.py``; it imports nothing of nabla. A request ``{"left": ..., "right": ...}`` gives
``{"value": ...}``: true, false, or null for what cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any

try:
    import sympy  # type: ignore[import-untyped]
except ImportError:  # math-verify, which needs it, is then missing too, and that is reported
    sympy = None

#: Address space of the process, bytes.
MEMORY = 2 << 30


class Reader:
    """math-verify with its own timeouts off: they are wall time, and SIGALRM cannot stop C code.

    Its verdict is checked by numbers, for it calls equal what differs by less than an absolute 1e-15, and
    decimal numbers that agree in 6 places: numbers are compared exactly where they are rational and to 1000
    digits where they are not; a decimal number may stand for one that it does not equal only as its
    rounding, to 6 places and 6 digits or more; formulas that differ at a point are not the same.
    """

    def __init__(self) -> None:
        import logging

        from latex2sympy2_extended.math_normalization import (  # type: ignore[import-untyped]
            NormalizationConfig,
        )
        from math_verify import LatexExtractionConfig, parse, verify  # type: ignore[import-untyped]

        logging.disable(logging.CRITICAL)
        # Units are taken off before, by their names: here the variable t would be one.
        writing = NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
        )
        # No expressions: those would find a 1 in any prose.
        configs = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=writing)]

        @lru_cache(maxsize=4096)
        def read(answer: str) -> list[Any]:
            found: list[Any] = parse(
                f"\\boxed{{{answer}}}", configs, parsing_timeout=None, extraction_mode="first_match"
            )
            return [part.doit() if isinstance(part, sympy.Intersection) else part for part in found]

        def equal(left: str, right: str) -> bool:
            gold, answer = read(left), read(right)
            same = decided(gold[0], answer[0]) if gold and answer else None
            if same is not None:
                return same
            same = verify(
                gold, answer, numeric_precision=100, allow_set_relation_comp=True, timeout_seconds=None
            )
            return bool(same) and not (gold[0] != answer[0] and refuted(gold[0], answer[0]))

        self.equal = equal


#: Digits to which irrational numbers are compared.
DIGITS = 1000


def exact(value: Any) -> Any:
    """An expression with decimal numbers as the fractions they are, and i as the imaginary unit."""
    replaced = {number: sympy.Rational(str(number)) for number in value.atoms(sympy.Float)}
    replaced.update({s: sympy.I for s in value.free_symbols if s.name == "i"})
    value = value.xreplace(replaced)
    return value.replace(lambda part: isinstance(part, sympy.UnevaluatedExpr), lambda part: part.args[0])


def is_number(value: Any) -> bool:
    """Whether all that is to do to know an expression's value is arithmetic."""
    lazy = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative)
    return isinstance(value, sympy.Expr) and not value.free_symbols and not value.has(*lazy)


def is_zero(difference: Any) -> bool | None:
    """Whether a number is 0 as far as DIGITS show; None if it has no finite value."""
    if difference.is_Rational:
        return bool(difference == 0)
    value = difference.evalf(15, maxn=DIGITS)
    if value.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo) or not value.is_number:
        return None
    parts = value.as_real_imag()
    if not all(part.is_Float or part.is_Rational for part in parts):
        return None
    # sympy gives one bit to a Float of which it could not make out a digit.
    return all(part == 0 or (part.is_Float and part._prec == 1) for part in parts)


def decided(left: Any, right: Any) -> bool | None:
    """Whether two numbers are the same; None if they are not numbers."""
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    a, b = exact(left), exact(right)
    if not (is_number(a) and is_number(b)):
        return None
    same = is_zero(a.doit() - b.doit())
    if same is False:
        if left.is_Float and not right.has(sympy.Float):
            return rounds(left, b)
        if right.is_Float and not left.has(sympy.Float):
            return rounds(right, a)
    return same


def rounds(decimal: Any, value: Any) -> bool:
    """Whether a decimal number is another number rounded to its own last place, the 6th or later."""
    places = -int(Decimal(str(decimal)).normalize().as_tuple().exponent)
    error = abs(value - exact(decimal))
    near = sympy.Rational(1, 2 * 10**places), abs(value) / 999_999
    return places >= 6 and all(bool(error <= bound) for bound in near)


def refuted(left: Any, right: Any) -> bool:
    """Whether numbers show that what math-verify calls the same is not."""
    if isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase):
        return left.shape != right.shape or any(map(refuted, left.flat(), right.flat()))
    if isinstance(left, sympy.Interval) and isinstance(right, sympy.Interval):
        return refuted(left.start, right.start) or refuted(left.end, right.end)
    if isinstance(left, sympy.Tuple) and isinstance(right, sympy.Tuple) and len(left) == len(right):
        return any(map(refuted, left, right))
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return False
    same = decided(left, right)
    if same is not None:
        return not same
    a, b = exact(left), exact(right)
    names = {s.name for s in a.free_symbols}
    if not names or names != {s.name for s in b.free_symbols}:
        return False
    for start in (3, 11):  # positive: what holds only there is for math-verify to judge
        at = {name: sympy.Rational(start + 7 * k, 5 + 2 * k) for k, name in enumerate(sorted(names))}
        x, y = (value.xreplace({s: at[s.name] for s in value.free_symbols}) for value in (a, b))
        if is_number(x) and is_number(y) and is_zero(x - y) is False:
            return True
    return False


def start() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What compares two answers. Raises ImportError without math-verify."""
    reader = Reader()

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"value": reader.equal(request["left"], request["right"])}
        except MemoryError:
            raise
        except Exception:  # text that sympy chokes on is no answer; RecursionError included
            return {"value": None}

    return answer
