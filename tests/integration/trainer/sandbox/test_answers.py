"""What counts as an answer: one number from 0 to 1, to the row that was asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_grading.python_code import sample_of
from finetune_grading.sample import Sample
from finetune_trainer.sandbox.frames import HEADER, MOST_BYTES, to_frame
from tests.integration.trainer.sandbox.sandboxed import RunningSandbox, error_of

FORGING = """
import gc, json, io, os

def write_to_the_server(message):
    body = json.dumps(message).encode()
    for descriptor in range(3, 4096):  # its number is the server's, which has as many as this test's process
        try:
            os.write(descriptor, len(body).to_bytes(4, "big") + body)
        except OSError:
            pass
"""


@pytest.mark.parametrize(
    ("returned", "score"),
    [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1.0000000000000002", 1.0), ("__import__('numpy').float32(0.5)", 0.5)],
)
def test_a_number_from_0_to_1_is_a_score(sandbox: RunningSandbox, returned: str, score: float) -> None:
    (grade,) = sandbox.grade(f"def grade(sample, item):\n    return {returned}\n")
    assert grade.score == score


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        ("None", "grade returned a NoneType; it has to return a number from 0 to 1"),
        ("'1'", "grade returned a str"),
        ("True", "grade returned a bool"),
        ("float('nan')", "grade returned nan"),
        ("float('inf')", "grade returned inf"),
        ("-0.1", "grade returned -0.1"),
        ("5", "grade returned 5"),
        ("10 ** 400", "OverflowError: int too large to convert to float"),
        ("[0.5]", "grade returned a list"),
        ("1j", "grade returned a complex"),
        ("grade", "grade returned a function"),
    ],
)
def test_anything_else_is_an_error(sandbox: RunningSandbox, returned: str, error: str) -> None:
    (grade,) = sandbox.grade(f"def grade(sample, item):\n    return {returned}\n")
    assert error_of(grade).startswith(f"python_grader_runtime_error: {error}")


def test_an_exception_is_reported_with_its_line(sandbox: RunningSandbox) -> None:
    (grade,) = sandbox.grade("""
        def inner(item):
            return item["missing"]

        def grade(sample, item):
            return inner(item)
        """)
    assert error_of(grade) == "python_grader_runtime_error: KeyError: 'missing' (line 3)"


def test_code_that_fails_when_it_is_loaded_fails_each_row_with_its_line(sandbox: RunningSandbox) -> None:
    grades = sandbox.grade("import no_such_package\n\ndef grade(sample, item):\n    return 1\n", {}, {})
    said = "python_grader_runtime_error: ModuleNotFoundError: No module named 'no_such_package' (line 1)"
    assert [error_of(grade) for grade in grades] == [said, said]


def test_it_gets_the_sample_and_the_item_as_openais_graders_do(sandbox: RunningSandbox) -> None:
    (grade,) = sandbox.grade(
        """
        def grade(sample, item):
            assert sample["output_text"] == '{"a": [1, 2]}'
            assert sample["output_json"] == {"a": [1, 2]}
            assert sample["output_tools"] == []
            assert sample["choices"][0]["message"]["content"] == sample["output_text"]
            assert item == {"answer": "größer", "nested": {"list": [1, None]}}
            return 1
        """,
        {"answer": "größer", "nested": {"list": [1, None]}},
        output='{"a": [1, 2]}',
    )
    assert grade.score == 1.0, error_of(grade)


def test_an_output_that_is_no_json_has_no_output_json(sandbox: RunningSandbox) -> None:
    (grade,) = sandbox.grade(
        "def grade(sample, item):\n    return sample['output_json'] is None and 1.0\n", output="no"
    )
    assert grade.score == 1.0


def test_a_row_that_is_too_long_for_the_process_alone_is_reported(sandbox: RunningSandbox) -> None:
    """What the server adds to it counts too."""
    row = to_frame({"sample": sample_of(Sample("")), "item": {"text": ""}})
    item = {"text": "x" * (MOST_BYTES - len(row) + HEADER.size)}
    long, short = sandbox.grade("def grade(sample, item):\n    return 1\n", item, {})
    assert "bytes as JSON, and may have 67,108,864" in error_of(long)
    assert long.error is not None and not long.error.passing
    assert short.score == 1.0


def test_an_answer_in_advance_counts_for_no_row_after_it(sandbox: RunningSandbox) -> None:
    """It may cheat about its own row, as by what it returns, and about no other."""
    code = (
        FORGING
        + """
def grade(sample, item):
    if item["first"]:
        for _ in range(20):
            write_to_the_server({"id": "0" * 32, "score": 1.0})
    return 0
"""
    )
    first, second = sandbox.grade(code, {"first": True}, {"first": False})
    assert error_of(first).endswith("It answered to a row that was not asked, and was killed.")
    assert second.score == 0.0


def test_more_answers_than_one_do_not_reach_the_next_row(sandbox: RunningSandbox) -> None:
    code = (
        FORGING
        + """
seen = []

def grade(sample, item):
    if not item["first"]:
        return 0
    import sys
    frame = sys._getframe()
    while "row" not in frame.f_locals:
        frame = frame.f_back
    for _ in range(3):
        write_to_the_server({"id": frame.f_locals["row"]["id"], "score": 1.0})
    return 0
"""
    )
    first, second = sandbox.grade(code, {"first": True}, {"first": False})
    assert first.score == 1.0
    assert second.score in (0.0, None)  # None: the other answers came only after it had been asked


@pytest.mark.parametrize(
    "forged",
    [
        {"score": "1"}, {"score": True}, {"score": 2}, {"score": None}, {"error": 1}, {"score": 1, "error": ""},
        {"score": 1, "padding": "x" * 100_000}, {"error": "x" * 150_000},
    ],
    ids=lambda forged: json.dumps(forged)[:20],
)  # fmt: skip
def test_a_forged_answer_is_worth_no_more_than_a_real_one(sandbox: RunningSandbox, forged: dict[str, object]) -> None:
    code = (
        FORGING
        + f"""
import sys

def grade(sample, item):
    frame = sys._getframe()
    while "row" not in frame.f_locals:
        frame = frame.f_back
    write_to_the_server({{"id": frame.f_locals["row"]["id"], **{forged!r}}})
    return 1
"""
    )
    (grade,) = sandbox.grade(code)
    assert error_of(grade).startswith("python_grader_runtime_error: It sent")


def test_functions_that_it_overrides_change_nothing_outside(sandbox: RunningSandbox) -> None:
    code = """
import builtins, json, sys, traceback

def grade(sample, item):
    json.dumps = lambda *a, **k: '{"id": "x", "score": 1.0}'
    for name in list(sys.modules):
        for one in ("to_frame", "_write", "_number", "_described"):
            if hasattr(sys.modules[name], one):
                setattr(sys.modules[name], one, lambda *a, **k: b"")
    return 0
"""
    first, second = sandbox.grade(code, {}, {})
    assert first.score in (0.0, None)
    assert second.score in (0.0, None)


def test_a_thread_that_is_left_behind_does_not_see_the_next_row(sandbox: RunningSandbox) -> None:
    code = """
import threading, time

count = 0

def grade(sample, item):
    global count
    count += 1
    if item["threads"]:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return count / 10
"""
    grades = sandbox.grade(code, {"threads": False}, {"threads": True}, {"threads": False})
    assert [grade.score for grade in grades] == [0.1, 0.2, 0.1]


def test_what_it_keeps_between_rows_is_of_one_models_outputs(sandbox: RunningSandbox) -> None:
    code = """
import os

def grade(sample, item):
    known = os.path.exists("seen")
    open("seen", "w").close()
    return 1 if known else 0
"""
    assert [grade.score for grade in sandbox.grade(code, {}, {})] == [0.0, 1.0]
    assert [grade.score for grade in sandbox.grade(code, {}, {})] == [0.0, 1.0]


@pytest.mark.parametrize(
    "statement",
    [
        "import numpy; numpy.linalg.svd(numpy.ones((50, 50)))",
        "import rapidfuzz; assert rapidfuzz.fuzz.ratio('a', 'a') == 100",
        "import jsonschema; jsonschema.validate(1, {'type': 'integer'})",
        "import pydantic; pydantic.TypeAdapter(int).validate_python('1')",
        "from rouge_score import rouge_scorer; rouge_scorer.RougeScorer(['rougeL']).score('a b', 'a b')",
        "import nltk.translate.bleu_score",
        "import sacrebleu; sacrebleu.sentence_bleu('a b c d', ['a b c d'])",
        "import pandas; pandas.DataFrame({'a': [1]}).describe()",
        "import sympy; assert sympy.sympify('x + x') == sympy.sympify('2 * x')",
        "import regex, unicodedata, decimal, fractions, statistics, difflib, datetime, zoneinfo",
        "import asyncio, logging, multiprocessing, ssl, urllib.request, urllib.parse",
        "import tempfile; tempfile.NamedTemporaryFile().write(b'x')",
        "import sqlite3; sqlite3.connect(':memory:').execute('select 1')",
        "import dataclasses, typing, enum, collections, itertools, functools, random, hashlib, uuid; uuid.uuid4()",
        "from concurrent.futures import ThreadPoolExecutor; list(ThreadPoolExecutor(2).map(len, ['a']))",
    ],
)  # fmt: skip
def test_libraries_work_as_usual(sandbox: RunningSandbox, statement: str) -> None:
    (grade,) = sandbox.grade(f"def grade(sample, item):\n    {statement}\n    return 1\n")
    assert grade.score == 1.0, error_of(grade)


def test_a_folder_of_its_own_is_all_it_can_write(sandbox: RunningSandbox) -> None:
    (grade,) = sandbox.grade("""
        import os, pathlib, shutil, tempfile

        def grade(sample, item):
            folder = pathlib.Path(tempfile.mkdtemp())
            (folder / "a").write_text("x")
            (folder / "a").rename(folder / "b")
            shutil.copyfile(folder / "b", folder / "c")
            assert sorted(one.name for one in folder.iterdir()) == ["b", "c"]
            shutil.rmtree(folder)
            return 1
        """)
    assert grade.score == 1.0, error_of(grade)
    assert list(Path(sandbox.scratch).iterdir()) == []
