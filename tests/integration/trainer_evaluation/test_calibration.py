"""`finetune-trainer evaluate` with a calibration: a judge of the test's own is held against labels of people."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE
from finetune_api.graders import Grader
from finetune_api.model_usage import Budget
from finetune_api.pod_contracts.outcome import parse_termination_message
from finetune_api.pod_contracts.run import EndpointConfig, EvaluateRun, NamedModel
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.process.failures import DiagnosedError
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.stub_api import Body, Respond, StubApi, fails, grades, stub_api
from tests.integration.trainer_evaluation.test_evaluate import make_run
from tests.integration.trainer_evaluation.test_judges import quoted
from tests.integration.trainer_evaluation.tiny_models import chat

ASK = [{"content": "Is {{sample.output_text}} right about {{item.reference}}?"}]


def kind(uri: str) -> Grader:
    settings = {"labels": ["good", "fair", "bad"], "passingLabels": ["good", "fair"], "input": ASK}
    return Grader.from_wire(
        {
            "name": "kind",
            "type": "LabelModel",
            "labelModel": {
                "model": "judge",
                **settings,
                "calibration": {"uri": uri, "label": "{{item.human.verdict}}"},
            },
        }
    )


def tone(uri: str) -> Grader:
    settings = {"model": "judge", "range": [0, 5], "input": ASK, "calibration": {"uri": uri}}
    return Grader.from_wire({"name": "tone", "type": "ScoreModel", "passThreshold": 0.6, "scoreModel": settings})


def labelled(output: str, label: object, **fields: Any) -> dict[str, Any]:
    return {**chat("What?", "That."), "output_text": output, "label": label, "human": {"verdict": label}, **fields}


def says_what_it_reads(body: Body) -> Respond:
    """The judge's verdict is the output itself."""
    (text,) = quoted(body).values()
    number = body["response_format"]["json_schema"]["schema"]["properties"]["result"] == {"type": "number"}
    if text == "broken":
        return fails(400, "no")
    return grades((float(text) if text.isdecimal() else 0) if number else (text if text in ("good", "fair") else "bad"))


def run_of(bucket: Bucket, api: StubApi, *graders: Grader, **changes: Any) -> EvaluateRun:
    """The outputs are there already: nothing is loaded."""
    dataset = bucket.put_lines("calibration/test.jsonl", [chat("What?", "That.")])
    outputs = bucket.put_lines("calibration/outputs.jsonl", [{"output_text": "fine"}])
    defaults: dict[str, Any] = {
        "graders": list(graders),
        "endpoints": [EndpointConfig(name="judge", url=api.url, model="judge-1")],
        "answers_uri": bucket.uri(f"calibration/answers-{secrets.token_hex(4)}"),
    }
    run = make_run(bucket, dataset, {}, **{**defaults, **changes})
    return run.model_copy(update={"models": [NamedModel(name=BASELINE, outputs_uri=outputs)]})


def test_agreement_and_kappa_are_about_which_outputs_pass(bucket: Bucket) -> None:
    """`fair` passes as `good` does: judge and people differ in one of ten."""
    lines = [
        *[labelled("good", "good")] * 4,
        labelled("fair", "good"),
        *[labelled("no", "bad")] * 4,
        labelled("good", "bad"),
    ]
    with stub_api(says_what_it_reads) as api:
        report = evaluate(run_of(bucket, api, kind(bucket.put_lines("calibration/ten.jsonl", lines))))
    (found,) = report.calibrations
    assert (found.grader, found.examples, found.agreement, found.kappa, found.errored) == ("kind", 10, 0.9, 0.8, None)
    # Clopper and Pearson's interval of 9 of 10.
    assert (found.agreement_low, found.agreement_high) == (
        pytest.approx(0.5549, abs=2e-4),
        pytest.approx(0.9975, abs=2e-4),
    )
    assert found.kappa_low < 0.8 < found.kappa_high
    assert parse_termination_message(to_termination_message(report)) == report
    written = json.loads(bucket.read(str(report.report_uri)))["calibrations"]
    assert written == [found.to_wire()]
    rows = [json.loads(row) for row in bucket.read(bucket.uri("runs/judge/1/calibration.jsonl")).splitlines()]
    assert [row["line"] for row in rows if row["people"] != row["verdict"]] == [10]
    assert (rows[9]["output"], rows[9]["label"]) == ("good", "bad")


def test_numbers_of_people_pass_at_the_same_threshold(bucket: Bucket) -> None:
    """3 of [0, 5] is a score of 0.6."""
    lines = [labelled("3", 3), labelled("5", "4.5"), labelled("2", 3), labelled("1", 0)]
    with stub_api(says_what_it_reads) as api:
        (found,) = evaluate(
            run_of(bucket, api, tone(bucket.put_lines("calibration/numbers.jsonl", lines)))
        ).calibrations
    assert (found.examples, found.agreement) == (4, 0.75)


def test_what_the_judge_can_not_grade_is_no_agreement(bucket: Bucket) -> None:
    lines = [*[labelled("good", "good")] * 3, labelled("broken", "bad")]
    with stub_api(says_what_it_reads) as api:
        run = run_of(bucket, api, kind(bucket.put_lines("calibration/broken.jsonl", lines)), max_errored_percent=25)
        (found,) = evaluate(run).calibrations
        assert (found.agreement, found.errored, found.over_budget) == (0.75, 1, None)
        with pytest.raises(DiagnosedError, match="could not grade 1 of 4 outputs of 'its calibration'") as caught:
            evaluate(run.model_copy(update={"max_errored_percent": 20}))
    assert caught.value.failure.reason is Reason.GRADER_FAILED


def test_what_the_budget_left_open_is_reported(bucket: Bucket) -> None:
    lines = [labelled(f"good {at}", "bad") for at in range(6)]
    with stub_api(says_what_it_reads) as api:
        run = run_of(bucket, api, kind(bucket.put_lines("calibration/many.jsonl", lines)), budget=Budget(requests=4))
        (found,) = evaluate(run).calibrations
    assert found.over_budget == found.errored
    assert 0 < (found.over_budget or 0) <= 6


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (labelled("good", "great"), "'great' is not one of the labels of grader 'kind'"),
        ({**chat("What?", "That."), "output_text": "good"}, "{{item.human.verdict}}: the example has no 'human' there"),
        ({**chat("What?", "That."), "human": {"verdict": "good"}}, "`output_text` must be a string"),
        ({"output_text": "good", "human": {"verdict": "good"}}, "expected either prompt/completion pairs or chat"),
    ],
)
def test_a_line_that_people_have_not_graded_is_reported_before_anybody_is_asked(
    bucket: Bucket, line: dict[str, Any], told: str
) -> None:
    uri = bucket.put_lines("calibration/bad.jsonl", [labelled("good", "good"), line])
    with stub_api(says_what_it_reads) as api, pytest.raises(DiagnosedError) as caught:
        evaluate(run_of(bucket, api, kind(uri)))
    assert caught.value.failure.reason is Reason.DATASET_INVALID
    assert "Line 2 of " in caught.value.failure.message
    assert told in caught.value.failure.message
    assert not api.requests


@pytest.mark.parametrize("label", ["6", "-1", "nan", "good", "true", ""])
def test_a_number_that_is_not_in_the_range_is_refused(bucket: Bucket, label: str) -> None:
    uri = bucket.put_lines("calibration/range.jsonl", [labelled("3", label)])
    with stub_api(says_what_it_reads) as api, pytest.raises(DiagnosedError, match="is not a number from 0 to 5"):
        evaluate(run_of(bucket, api, tone(uri)))
