"""The grader Python, before any of its code runs: what a source can't be, and what becomes of what its runner says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from finetune_api.graders import MOST_SOURCE_BYTES, Grader, GraderErrorCode
from finetune_grading.grade import RowError
from finetune_grading.graders.interface import InvalidGraderError
from finetune_grading.graders.python import MOST_TIMEOUTS, CodeTimeoutError, PythonGrader
from finetune_grading.python_code import MOST_CHECKED_BYTES, RunningCode, code_problem
from finetune_grading.registered_graders import check_graders, compile_graders
from finetune_grading.sample import Row, Sample

GRADE = "def grade(sample, item):\n    return 1.0\n"


def python(source: str, **changes: Any) -> Grader:
    return Grader.from_wire({"name": "code", "type": "Python", "python": {"source": source}, **changes})


class Told:
    """A runner that says of an item what the item says."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    @asynccontextmanager
    async def run(self, source: str, timeout_seconds: int) -> AsyncIterator[RunningCode]:
        yield self

    async def grade(self, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
        self.asked.append(sample)
        match item["says"]:
            case "late":
                raise CodeTimeoutError(120)
            case "error":
                raise RowError(GraderErrorCode.PYTHON_GRADER_RUNTIME_ERROR, "ValueError (line 1)")
            case score:
                return float(score)


def grades(*says: object, threshold: float = 0.5) -> tuple[list[tuple[float | None, str]], Told]:
    runner = Told()
    (grader,) = compile_graders([python(GRADE, passThreshold=threshold)], runner=runner)
    assert isinstance(grader, PythonGrader)
    found = asyncio.run(grader.grade([Row({"says": one}, Sample("out")) for one in says]))
    return [(grade.score, grade.verdict) for grade in found], runner


@pytest.mark.parametrize(
    "source",
    [
        GRADE,
        "def grade(output, row, strict=False): return 1\n",
        "def grade(*values): return 1\n",
        "from statistics import mean as grade\n",
        "grade = lambda sample, item: 1\n",
        "if True:\n    def grade(sample, item): return 1\n",
        "def grade(a): ...\ndef grade(sample, item): return 1\n",
    ],
)
def test_a_source_that_may_define_the_function_is_accepted(source: str) -> None:
    assert code_problem(source) is None


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("x = 1\ndef grade(sample, item)\n    return 1\n", "line 2: expected ':'."),
        ("def grade(sample):\n    return 1\n", "line 1: grade must take (sample, item)."),
        ("def grade(a, b, c): return 1\n", "line 1: grade must take (sample, item)."),
        ("def grade(a, b, *, c): return 1\n", "line 1: grade must take (sample, item)."),
        ("\n\nasync def grade(sample, item): return 1\n", "line 3: grade is async; define it with `def`."),
        ("def score(sample, item): return 1\n", "it defines no function grade(sample, item)."),
        ("x = '\0'\n", "source code string cannot contain null bytes."),
        ("(" * 1000, "line 1: too many nested parentheses."),
        ("-" * 100_000 + "1", "it is nested too deeply."),
        (f"{GRADE}#{'x' * MOST_SOURCE_BYTES}", "it is 262,185 bytes long, and may be 262,144."),
        (f"{GRADE}#{'ä' * (MOST_SOURCE_BYTES // 2)}", "it is 262,185 bytes long, and may be 262,144."),
    ],
    ids=lambda value: value[:20],
)
def test_a_source_that_can_not_work_is_refused_with_its_line(source: str, problem: str) -> None:
    assert code_problem(source) == problem


def test_it_is_never_executed_to_find_out() -> None:
    assert code_problem(f"raise SystemExit('executed')\n{GRADE}") is None


def test_the_grader_and_the_place_are_named() -> None:
    with pytest.raises(InvalidGraderError, match=r"spec.graders: 'code': python.source: line 1: "):
        check_graders([python("def grade(:")])


def test_where_nothing_may_run_code_it_is_refused() -> None:
    check_graders([python(GRADE)])
    with pytest.raises(InvalidGraderError, match="'code': its code is run in the sandbox of an Evaluation only"):
        compile_graders([python(GRADE)])


def test_its_score_is_held_against_the_threshold() -> None:
    found, runner = grades(0.8, 0.5, 0.4, threshold=0.8)
    assert found == [(0.8, "Passed"), (0.5, "Failed"), (0.4, "Failed")]
    assert [one["output_text"] for one in runner.asked] == ["out"] * 3


def test_a_row_that_has_no_score_is_errored_and_the_next_one_graded() -> None:
    assert grades("error", 1, "late", 0.5)[0] == [(None, "Errored"), (1, "Passed"), (None, "Errored"), (0.5, "Passed")]


def test_after_ten_outputs_that_take_too_long_no_more_are_tried() -> None:
    found, runner = grades(*["late"] * (MOST_TIMEOUTS + 5), 1)
    assert found == [(None, "Errored")] * (MOST_TIMEOUTS + 6)
    assert len(runner.asked) == MOST_TIMEOUTS == 10


def test_half_a_character_is_no_code() -> None:
    assert "surrogates not allowed" in (code_problem(f"{GRADE}x = '\ud800'\n") or "")


def test_a_long_source_is_parsed_by_the_pod_that_runs_it_and_not_where_specs_are_checked() -> None:
    """A tree of a source of the greatest size takes more memory than the operator has."""
    broken = "a\n" * (MOST_CHECKED_BYTES // 2) + "def grade(:"
    assert code_problem(broken, MOST_CHECKED_BYTES) is None
    check_graders([python(broken)])
    with pytest.raises(InvalidGraderError, match="line 16385"):
        compile_graders([python(broken)], runner=Told())
    with pytest.raises(InvalidGraderError, match="line 2"):
        check_graders([python("a\ndef grade(:")])
