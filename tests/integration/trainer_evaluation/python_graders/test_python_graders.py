"""`finetune-trainer evaluate` with Python graders, and `finetune-trainer python-sandbox` beside it, as in their Pod."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE
from finetune_api.graders import Grader
from finetune_api.pod_contracts.outcome import Failure
from finetune_api.pod_contracts.run import EvaluateRun, NamedModel
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.process.failures import DiagnosedError
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.test_evaluate import by_name, make_run
from tests.integration.trainer_evaluation.tiny_models import chat

QUESTIONS = [f"Question {number}" for number in range(20)]
SOURCE = """import re

def grade(sample, item):
    numbers = re.findall("[0-9]+", sample["output_text"])
    assert len(numbers) == 1, "no number"
    return float(numbers[0] == item["reference"])
"""
CODE = Grader.from_wire({"name": "code", "type": "Python", "passThreshold": 1, "python": {"source": SOURCE}})
BOTH = Grader.from_wire({"name": "both", "type": "Multi", "multi": {"calculateOutput": "0.9 * code"}})


@pytest.fixture(scope="module")
def socket() -> Iterator[str]:
    """The Unix socket of the command that runs in the container."""
    with TemporaryDirectory(prefix="sandbox-") as folder:
        path = Path(folder, "s")
        (scratch := Path(folder, "tmp")).mkdir()
        command = [sys.executable, "-m", "finetune_trainer", "python-sandbox", str(path)]
        with subprocess.Popen(command, env={"TMPDIR": str(scratch)}) as process:
            try:
                yield str(path)
            finally:
                process.terminate()
                assert process.wait(60) == 0


def python_run(bucket: Bucket, tuned: list[str], socket: str | None, *graders: Grader, **changes: Any) -> EvaluateRun:
    lines = [chat(question, str(number)) for number, question in enumerate(QUESTIONS)]
    before = ["It is 0." for _ in QUESTIONS]
    models = [
        NamedModel(name=name, outputs_uri=bucket.put_lines(f"python/{name}.jsonl", [{"output_text": x} for x in said]))
        for name, said in ((BASELINE, before), ("tuned", tuned))
    ]
    dataset = bucket.put_lines("python/held-out.jsonl", lines)
    defaults = {"graders": [CODE, BOTH, *graders], "python_sandbox": socket}
    return make_run(bucket, dataset, {}, **{**defaults, **changes}).model_copy(update={"models": models})


def failure_of(run: EvaluateRun) -> Failure:
    with pytest.raises(DiagnosedError) as caught:
        evaluate(run)
    return caught.value.failure


def test_an_exception_that_can_not_be_written_costs_its_own_output_alone(bucket: Bucket, socket: str) -> None:
    """Half of a character, as of an output that is cut within one: JSON can escape it, and UTF-8 has none."""
    source = f"""{SOURCE}
compare = grade

def grade(sample, item):
    if item["reference"] == "3":
        raise ValueError("half of it: \\ud83d")
    return compare(sample, item)
"""
    odd = Grader.from_wire({"name": "odd", "type": "Python", "passThreshold": 1, "python": {"source": source}})
    run = python_run(bucket, [f"It is {number}." for number in range(20)], socket, odd)
    scores = by_name(evaluate(run).scores)
    assert (scores["tuned", "odd"].errored, scores["tuned", "code"].errored) == (1, 0)
    rows = [json.loads(line) for line in bucket.read(f"{run.output_uri}/samples.jsonl").splitlines()]
    assert "ValueError: half of it: ? (line 12)" in json.dumps(rows[3])


def test_code_grades_the_outputs_of_each_model(bucket: Bucket, socket: str) -> None:
    tuned = [f"It is {number if number < 15 else 99}." for number in range(19)] + ["I don't know."]
    report = evaluate(python_run(bucket, tuned, socket))
    scores = by_name(report.scores)
    code = scores["tuned", "code"]
    assert (code.score, code.passed, code.failed, code.errored) == (0.75, 15, 4, 1)
    assert (scores[BASELINE, "code"].score, code.delta) == (0.05, 0.7)
    assert scores["tuned", "both"].score == 0.675
    (errors,) = [one for one in report.errors if one.grader == "code"]
    assert (errors.candidate, errors.code, errors.count) == ("tuned", "python_grader_runtime_error", 1)
    last = json.loads(bucket.read(bucket.uri("runs/judge/1/samples.jsonl")).splitlines()[-1])
    assert last["verdicts"]["tuned"]["code"] == "Errored"
    assert last["errors"]["tuned"]["code"] == {
        "code": "python_grader_runtime_error",
        "details": "AssertionError: no number (line 5)",
    }


def test_too_many_outputs_that_it_can_not_grade_end_the_run(bucket: Bucket, socket: str) -> None:
    failure = failure_of(python_run(bucket, ["none"] * 20, socket))
    assert (failure.reason, failure.retryable) == (Reason.GRADER_FAILED, False)
    assert "python_grader_runtime_error: AssertionError: no number (line 5)" in failure.message


def test_code_that_wants_out_scores_nothing(bucket: Bucket, socket: str) -> None:
    source = "import urllib.request\n\ndef grade(s, i):\n    urllib.request.urlopen('http://169.254.169.254')\n"
    escape = Grader.from_wire({"name": "escape", "type": "Python", "python": {"source": source}})
    failure = failure_of(python_run(bucket, ["It is 0."] * 20, socket, escape, graders=[escape]))
    assert failure.reason is Reason.GRADER_FAILED
    assert "Operation not permitted" in failure.message


def test_without_a_sandbox_nothing_is_read_or_graded(bucket: Bucket) -> None:
    run = python_run(bucket, ["It is 0."] * 20, None, dataset_uri=bucket.uri("python/not-there.jsonl"))
    assert failure_of(run).reason is Reason.SANDBOX_UNAVAILABLE
