"""Formulas over graders: cases 8 and 9 of shared/reference/evaluation.md, and what holds for every formula."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.graders import Grader, GraderErrorCode
from finetune_grading.formula import FormulaError, parse_formula
from finetune_grading.grade import Grade, GradeError, Scored
from finetune_grading.graders.interface import InvalidGraderError
from finetune_grading.graders.multi import MultiGrader
from finetune_grading.registered_graders import compile_graders
from tests.unit.grading.graders import grade_all

EXACT = {"name": "exact", "type": "StringCheck"}
MEMBER = {"name": "json-member", "type": "StringCheck", "stringCheck": {"input": "{{sample.output_json.a}}"}}


def multi(formula: str, *names: str, **changes: Any) -> MultiGrader:
    others = [{"name": name, "type": "StringCheck"} for name in names]
    spec = {"name": "both", "type": "Multi", "multi": {"calculateOutput": formula}, **changes}
    found = compile_graders([Grader.from_wire(one) for one in (*others, spec)])[-1]
    assert isinstance(found, MultiGrader)
    return found


def combine(text: str, scores: Mapping[str, float]) -> Grade:
    """The grade by any formula, also one that no spec may have since it is always the same."""
    grades = {name: Grade.of(Scored(score), 1) for name, score in scores.items()}
    names = {name.replace("-", "_"): name for name in scores}
    formula = parse_formula(text, names)
    reads = {name: names[name] for name in formula.names}
    return MultiGrader("both", 0.5, (), formula, reads).combine(grades)


@pytest.mark.parametrize(
    ("formula", "scores", "value"),
    [
        ("(name + email) / 2", {"name": 0.933333, "email": 1}, 0.966667),
        ("min(a,b)^2", {"a": 0.8, "b": 0.6}, 0.36),
        ("2^3^2/512*a", {"a": 1}, 1),
        ("-a^2+1", {"a": 0.5}, 0.75),
        ("floor(a*10)/10", {"a": 0.57}, 0.5),
        ("0.7*bleu + .3*exact", {"bleu": 0.5, "exact": 1}, 0.65),
        ("1e-1 + 2E-1*a", {"a": 1}, 0.3),
        ("max(a, b, 0.1) - min(a, b)", {"a": 0.2, "b": 0.9}, 0.7),
        ("ceil(a) - abs(-a)", {"a": 0.25}, 0.75),
        ("exp(log(a)) * sqrt(a)", {"a": 0.25}, 0.125),
        ("a - 0.1 - 0.1", {"a": 1}, 0.8),
        ("1 / a / 4", {"a": 0.5}, 0.5),
        ("2^-a", {"a": 1}, 0.5),
        ("+a", {"a": 0.5}, 0.5),
        ("- -a", {"a": 0.5}, 0.5),
        ("json_member-exact", {"json-member": 1, "exact": 0.25}, 0.75),
        ("min * min(min, 1)", {"min": 0.5}, 0.25),
        ("0.5*3d + 3d", {"3d": 0.5}, 0.75),
        ("1e_5 + 1e-5", {"1e-5": 0.5}, 0.50001),
        ("1.0*a + 100000*0", {"1": 0.5, "1e5": 0.5, "a": 0.25}, 0.25),
    ],
)
def test_a_formula_has_the_value_of_ordinary_arithmetic(formula: str, scores: dict[str, float], value: float) -> None:
    assert combine(formula, scores).score == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("formula", "code", "place"),
    [
        ("a +", GraderErrorCode.FORMULA_PARSE_ERROR, "character 4: something is missing at the end"),
        ("a + c", GraderErrorCode.INVALID_VARIABLE_ERROR, "character 5: 'c' is not the name of another grader"),
        ("__import__('os')", GraderErrorCode.FORMULA_PARSE_ERROR, 'character 12: "\'" is not expected there'),
        ("__import__(a)", GraderErrorCode.FORMULA_PARSE_ERROR, "'__import__' is not a function"),
        ("a if b else 0", GraderErrorCode.FORMULA_PARSE_ERROR, "character 3: 'if' is not expected there"),
        ("a ** b", GraderErrorCode.FORMULA_PARSE_ERROR, "character 4"),
        ("a.real", GraderErrorCode.FORMULA_PARSE_ERROR, "character 2"),
        ("(a", GraderErrorCode.FORMULA_PARSE_ERROR, "missing at the end"),
        ("a)", GraderErrorCode.FORMULA_PARSE_ERROR, "character 2"),
        ("a b", GraderErrorCode.FORMULA_PARSE_ERROR, "character 3"),
        ("2a", GraderErrorCode.FORMULA_PARSE_ERROR, "character 1"),
        ("1.2.3", GraderErrorCode.FORMULA_PARSE_ERROR, "character 1"),
        ("min(a)", GraderErrorCode.FORMULA_PARSE_ERROR, "min takes two or more values"),
        ("log(a, b)", GraderErrorCode.FORMULA_PARSE_ERROR, "log takes one value"),
        ("abs()", GraderErrorCode.FORMULA_PARSE_ERROR, "character 5"),
        ("both", GraderErrorCode.INVALID_VARIABLE_ERROR, "'both' is not the name of another grader"),
        ("(" * 400 + "a" + ")" * 400, GraderErrorCode.FORMULA_PARSE_ERROR, "nested more than 50"),
        ("-" * 500 + "a", GraderErrorCode.FORMULA_PARSE_ERROR, "nested more than 50"),
        ("^".join("a" * 400), GraderErrorCode.FORMULA_PARSE_ERROR, "nested more than 50"),
        (" ", GraderErrorCode.FORMULA_PARSE_ERROR, "missing at the end"),
        ("a + 1e5", GraderErrorCode.FORMULA_PARSE_ERROR, "character 5: '1e5' is a number and the name of a grader"),
        ("a + 3d", GraderErrorCode.FORMULA_PARSE_ERROR, "character 5: '3d' is not expected there"),
        ("min(1e999, a)", GraderErrorCode.FORMULA_PARSE_ERROR, "character 5: '1e999' is too large a number"),
    ],
)
def test_a_formula_that_can_not_work_is_refused_by_its_place(formula: str, code: GraderErrorCode, place: str) -> None:
    with pytest.raises(InvalidGraderError) as refused:
        multi(formula, "a", "b", "1e5")
    assert refused.value.code is code
    assert str(refused.value).startswith(f"spec.graders: 'both': {code}: multi.calculateOutput: ")
    assert place in str(refused.value)


@pytest.mark.parametrize(
    ("formula", "why"),
    [
        ("a / 0", "it has no value, whatever the graders that it reads say: division by zero."),
        ("a / (0 * b)", "division by zero"),
        ("min(a, 1 / (2 - 2))", "division by zero"),
        ("log(a - 1)", "a logarithm of what is not positive"),
        ("sqrt(-1 - b) + a", "a root of a negative number"),
        ("(a - 2)^0.5", "a root of a negative number"),
        ("(a * 0)^(-1)", "a negative power of zero"),
        ("exp(a + 1000)", "a result is not a finite number"),
        ("a / (b - b)", "with any of the scores that were tried, such as with a=0, b=0: "),
        ("sqrt(a - 1.5 * a - 0.001)", "with any of the scores that were tried, such as with a=0: "),
    ],
)
def test_a_formula_without_a_value_for_any_scores_is_refused(formula: str, why: str) -> None:
    with pytest.raises(InvalidGraderError, match="calculateOutput: it has no value") as refused:
        multi(formula, "a", "b")
    assert why in str(refused.value)


@pytest.mark.parametrize("formula", ["1 / a", "2 + log(a)", "1 - sqrt(a - 1) - b", "1 / floor(a)", "2 + log(a - b)"])
def test_a_formula_with_a_value_for_some_scores_is_taken(formula: str) -> None:
    multi(formula, "a", "b", passThreshold=1)


def test_scores_of_zero_and_one_alone_are_tried_where_there_are_no_others() -> None:
    """A string check is never half right."""
    spec = {"name": "both", "type": "Multi", "multi": {"calculateOutput": "0.1 / (a * (1 - a))"}}
    compile_graders([Grader.from_wire(one) for one in ({"name": "a", "type": "TextSimilarity"}, spec)])
    with pytest.raises(InvalidGraderError, match="it has no value with any"):
        compile_graders([Grader.from_wire(one) for one in ({"name": "a", "type": "StringCheck"}, spec)])


@pytest.mark.parametrize("formula", ["1", "2^3^2/512", "min(1, 0.5) - 0.1"])
def test_a_formula_that_reads_no_grader_is_refused(formula: str) -> None:
    with pytest.raises(InvalidGraderError, match="calculateOutput: it reads no grader"):
        multi(formula, "a", "b")


@pytest.mark.parametrize(
    ("formula", "threshold", "why"),
    [
        ("0 * a", 0.5, "the same value, 0,"),
        ("a + 1", 0.5, "the same value, 1,"),
        ("max(a, 1) * 0.7", 0.5, "the same value, 0.7,"),
        ("a^0", 1, "the same value, 1,"),
        ("-a", 0.5, "the same value, 0,"),
        ("0.3 * a", 0.5, "at most 0.3, and passThreshold 0.5: no output can pass"),
        ("min(a, b) / 2", 0.6, "at most 0.5"),
        ("exp(a) / 10", 0.3, "at most 0.271828"),
        ("0.5 + a / 2", 0.5, "at least 0.5, and passThreshold 0.5: every output passes"),
        ("1 - abs(a - b) / 2", 0.5, "at least 0.5"),
        ("ceil(a + 0.1)", 0.9, "the same value, 1,"),
    ],
)
def test_a_formula_that_passes_all_or_none_is_refused_by_name(formula: str, threshold: float, why: str) -> None:
    with pytest.raises(InvalidGraderError) as refused:
        multi(formula, "a", "b", passThreshold=threshold)
    assert why in str(refused.value)
    assert f"The formula is {formula!r}." in str(refused.value)


@pytest.mark.parametrize(
    ("formula", "threshold"),
    [
        ("0.3 * a", 0.3),
        ("0.5 + a / 2", 0.6),
        ("1 / a / 4", 1),
        ("a - b", 0.01),
        ("log(a) + 1", 1),
        ("sqrt(a - 0.5)", 0.7),
        ("(a - 0.5)^2 * 4", 1),
        ("floor(a)", 1),
        ("0.1 * a + 0.7 * b", 0.8),
    ],
)
def test_a_threshold_that_some_output_may_reach_and_another_miss_is_none_of_those(
    formula: str, threshold: float
) -> None:
    assert multi(formula, "a", "b", passThreshold=threshold).pass_threshold == threshold


def test_a_formula_reads_no_formula() -> None:
    graders = [
        EXACT,
        *({"name": n, "type": "Multi", "multi": {"calculateOutput": f}} for n, f in (("p", "exact"), ("q", "p"))),
    ]
    with pytest.raises(InvalidGraderError, match="'p' is not the name of another grader"):
        compile_graders([Grader.from_wire(one) for one in graders])


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("a/b", "division by zero"),
        ("log(b)", ""),
        ("sqrt(b - a)", ""),
        ("(b-a)^0.5", ""),
        ("b^-1", ""),
        ("exp(1000) + b", ""),
        ("min(a, 1e308 * 10) + 0*b", "not a finite number"),
        ("max(0, 1e308*10 - 1e308*10) + 0*b", "not a finite number"),
        ("a / (1e308 + 1e308) + 0*b", "not a finite number"),
    ],
)
def test_a_row_for_which_a_formula_has_no_value_is_errored(formula: str, value: str) -> None:
    graded = combine(formula, {"a": 1, "b": 0})
    assert (graded.score, graded.verdict) == (None, "Errored")
    assert graded.error is not None
    assert graded.error.code is GraderErrorCode.OTHER_ERROR
    assert "b=0" in graded.error.details
    assert value in graded.error.details


def test_a_tower_of_powers_is_answered_at_once() -> None:
    started = time.process_time()
    assert combine("9^9^9^9 + a", {"a": 1}).verdict == "Errored"
    assert combine("0 * 9^9^9 + a", {"a": 1}).verdict == "Errored"
    assert combine("+".join(["a"] * 500), {"a": 0.001}).score == pytest.approx(0.5)
    assert time.process_time() - started < 1


def test_what_is_beyond_the_scale_counts_as_its_end_and_is_reported() -> None:
    above, below = combine("a + a", {"a": 0.8}), combine("a - 1", {"a": 0.25})
    assert (above.score, above.details) == (1.0, {"value": 1.6})
    assert (below.score, below.details) == (0.0, {"value": -0.75})
    assert combine("a", {"a": 0.8}).details == {}


def test_a_row_that_a_formula_reads_as_errored_is_errored_with_its_cause() -> None:
    graders = compile_graders(
        [
            Grader.from_wire(one)
            for one in (
                EXACT,
                MEMBER,
                {"name": "both", "type": "Multi", "multi": {"calculateOutput": "(exact + json_member) / 2"}},
                {"name": "one", "type": "Multi", "multi": {"calculateOutput": "exact"}, "passThreshold": 1},
            )
        ]
    )
    grades = grade_all(graders, {"reference": "x"}, "x")
    assert list(grades) == ["exact", "json-member", "both", "one"]
    assert grades["both"].error == GradeError(
        GraderErrorCode.SAMPLE_PARSE_ERROR,
        f"json-member: {grades['json-member'].error.details if grades['json-member'].error else ''}",
    )
    assert grades["one"].verdict == "Passed", "a formula that does not read it has its value"


# Every formula.

expressions = st.recursive(
    st.sampled_from(["a", "b"]) | st.floats(0, 10, allow_subnormal=False).map(lambda value: f"{value:.4f}"),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})")
        | inner.map(lambda text: f"abs({text})")
    ),
    max_leaves=8,
)


class Finite(float):
    """Python's numbers, without those that are not finite: also within a formula there is no value then."""

    def __new__(cls, value: float) -> Finite:
        if not math.isfinite(value):
            raise OverflowError
        return super().__new__(cls, value)

    def __add__(self, other: float) -> Finite:
        return Finite(float(self) + other)

    def __sub__(self, other: float) -> Finite:
        return Finite(float(self) - other)

    def __mul__(self, other: float) -> Finite:
        return Finite(float(self) * other)

    def __truediv__(self, other: float) -> Finite:
        return Finite(float(self) / other)

    def __abs__(self) -> Finite:
        return Finite(abs(float(self)))


@given(expressions, st.floats(0, 1), st.floats(0, 1))
def test_a_formula_has_pythons_value(text: str, a: float, b: float) -> None:
    formula = parse_formula(text, {"a", "b"})
    try:
        known = {"a": Finite(a), "b": Finite(b), "min": min, "max": max, "abs": abs, "Finite": Finite}
        checked = re.sub(r"\d+\.\d+", r"Finite(\g<0>)", text)
        expected = eval(checked, {"__builtins__": {}}, known)  # noqa: S307
    except ArithmeticError:
        with pytest.raises(ArithmeticError):
            formula({"a": a, "b": b})
    else:
        assert formula({"a": a, "b": b}) == expected


@given(expressions, st.floats(0, 1), st.floats(0, 1))
def test_no_value_of_a_formula_is_beyond_its_bounds(text: str, a: float, b: float) -> None:
    """Also of functions that rise, and of powers; to a computer's digits."""
    for outer in ("{}", "exp(min({}, 9))", "floor({})", "ceil({})", "sqrt(abs({}))", "log(abs({}))", "abs({})^2"):
        formula = parse_formula(outer.format(text), {"a", "b"})
        try:
            least, most = formula.bounds(0.0, 1.0)
        except (ArithmeticError, ValueError):
            with pytest.raises((ArithmeticError, ValueError)):
                formula({"a": a, "b": b})
            continue
        with contextlib.suppress(ArithmeticError, ValueError):
            value = formula({"a": a, "b": b})
            assert least - 1e-9 * (1 + abs(value)) <= value <= most + 1e-9 * (1 + abs(value))


@given(st.text("ab01.+-*/^(), minlogexp_'[]{}\n\x00é", max_size=60))
def test_any_text_is_a_formula_or_refused_with_words(text: str) -> None:
    try:
        formula = parse_formula(text, {"a", "b"})
    except FormulaError as error:
        assert str(error)
        return
    with contextlib.suppress(ArithmeticError, ValueError):
        assert math.isfinite(formula({"a": 0.5, "b": 0.25}))
