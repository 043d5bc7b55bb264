"""Termination messages: they always fit what Kubernetes keeps, parse back, and keep what matters most."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.conditions import Reason
from finetune_api.default_hyperparameters import resolve_for
from finetune_api.evaluation import EvaluationStatus, GradingErrors, Score, SliceScore
from finetune_api.finetunejob import (
    CheckpointStatus,
    DatasetError,
    DatasetFindings,
    FileStatistics,
    FineTuneJobSpec,
    ModelStatus,
    Result,
)
from finetune_api.graders import GraderErrorCode
from finetune_api.model_usage import ModelUsage
from finetune_api.pod_contracts.outcome import (
    EvaluationReport,
    Failure,
    PreflightReport,
    TrainReport,
    parse_termination_message,
)
from finetune_api.pod_contracts.termination_message import TERMINATION_MESSAGE_BYTES, to_termination_message

FILE = FileStatistics(examples=1500, tokens=90_000, max_tokens=120)
MODEL = ModelStatus(architecture="LlamaForCausalLM", context_length=512)
LONG_URI = "s3://models/" + "x" * 1000
RESULT = Result(uri=LONG_URI, base_model_uri=LONG_URI, adapter_type="LoRA", step=300, digest="sha256:" + "a" * 64)


SLICE = SliceScore(
    by="{{item.language}}",
    value="de",
    candidate="a",
    grader="b",
    score=0.5,
    low=0.4,
    high=0.6,
    examples=99,
    delta=0.1,
    delta_low=0.0,
    delta_high=0.2,
)


def errors(number: int, message: str = "the last message is not the assistant's") -> list[DatasetError]:
    return [DatasetError(file="training", line=line, message=message) for line in range(1, number + 1)]


def record(kind: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(fields).map(lambda values: kind(**values))


lines, texts = st.text(max_size=1024), st.text(max_size=4096)
names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?", fullmatch=True)
uris = st.integers(0, 1000).map(lambda length: "s3://models/" + "k" * length)
numbers = st.floats(-1, 1)
datasets = record(
    DatasetFindings,
    training=st.none() | st.just(FILE),
    error_count=st.integers(0, 10**9),
    errors=st.lists(
        record(DatasetError, file=st.just("training"), line=st.integers(1, 10**9), message=lines), max_size=20
    ),
    warnings=st.lists(lines, max_size=20),
)
failures = record(
    Failure,
    reason=st.sampled_from(Reason),
    message=texts,
    rank=st.none() | st.integers(0, 10**6),
    retryable=st.booleans(),
    suggestion=st.none() | lines,
    log=st.none() | texts,
    lost_peer=st.booleans(),
    dataset=st.none() | datasets,
)
preflights = record(PreflightReport, dataset=datasets, model=st.just(MODEL))
trainings = record(
    TrainReport,
    result=st.just(RESULT),
    checkpoints=st.lists(record(CheckpointStatus, step=st.integers(0, 10**9), uri=uris), max_size=120),
)
scores = record(
    Score,
    candidate=names,
    grader=names,
    score=numbers,
    low=numbers,
    high=numbers,
    examples=st.integers(0, 10**6),
    delta=st.none() | numbers,
    delta_low=st.none() | numbers,
    delta_high=st.none() | numbers,
    passed=st.none() | st.integers(0, 10**6),
    failed=st.none() | st.integers(0, 10**6),
    errored=st.none() | st.integers(0, 10**6),
    p_value=st.none() | numbers,
    minimum_detectable_delta=st.none() | numbers,
)
grading_errors = record(
    GradingErrors,
    candidate=names,
    grader=names,
    code=st.sampled_from(GraderErrorCode),
    count=st.integers(1, 10**6),
    first_line=st.integers(1, 10**9),
)
evaluations = record(
    EvaluationReport,
    scores=st.lists(scores, max_size=20),
    errors=st.lists(grading_errors, max_size=20),
    report_uri=st.none() | uris,
)


@given(failures | preflights | trainings | evaluations)
def test_a_message_fits_and_parses_back(outcome: Any) -> None:
    message = to_termination_message(outcome)
    assert len(message.encode()) <= TERMINATION_MESSAGE_BYTES
    parsed = parse_termination_message(message)
    assert type(parsed) is type(outcome)


@given(failures)
def test_a_failure_always_keeps_its_reason_and_the_start_of_its_message(outcome: Failure) -> None:
    parsed = parse_termination_message(to_termination_message(outcome))
    assert isinstance(parsed, Failure)
    assert (parsed.reason, parsed.rank, parsed.retryable) == (outcome.reason, outcome.rank, outcome.retryable)
    assert outcome.message.startswith(parsed.message)
    assert len(parsed.message) >= min(len(outcome.message), 150)


def test_of_a_failure_the_log_is_shed_first_and_its_end_last() -> None:
    message, suggestion = "CUDA out of memory. " * 40, "Set hyperparameters.batchSize to 8 (now 16)."
    log = "\n".join(f"step {number} of 2000" for number in range(200))
    parsed = parse_termination_message(
        to_termination_message(
            Failure(reason=Reason.CUDA_OUT_OF_MEMORY, message=message, suggestion=suggestion, log=log)
        )
    )
    assert isinstance(parsed, Failure)
    assert (parsed.message, parsed.suggestion) == (message, suggestion)
    assert parsed.log is not None
    assert log.endswith(parsed.log)
    assert parsed.log.startswith("step ")
    assert len(parsed.log) > 2000


def test_the_largest_evaluation_keeps_every_score() -> None:
    """Three candidates and the baseline by eight graders, all of the longest names, with every number."""
    matrix = [
        Score(
            candidate=f"{candidate}{'c' * 31}",
            grader=f"{grader}{'g' * 31}",
            score=1 / 3,
            low=0.123456789,
            high=0.987654321,
            examples=100_000,
            passed=33_333,
            failed=33_333,
            errored=33_334,
            p_value=1.23e-12,
            minimum_detectable_delta=0.0123456789,
            delta=-1 / 7,
            delta_low=-0.2222222,
            delta_high=-0.1111111,
            over_budget=33_334,
        )
        for candidate in range(4)
        for grader in range(8)
    ]
    errors = [
        GradingErrors(candidate=score.candidate, grader=score.grader, code="other_error", count=9, first_line=9)
        for score in matrix[:20]
    ]
    report = EvaluationReport(
        scores=matrix,
        errors=errors,
        usage=[ModelUsage(model=f"{at}{'m' * 31}", requests=9**9, prompt_tokens=9**9, cost=1.23) for at in range(8)],
        warnings=["w" * 1024] * 16,
        slices=[SLICE] * 48,
        report_uri=LONG_URI,
    )
    message = to_termination_message(report)
    assert len(message.encode()) <= TERMINATION_MESSAGE_BYTES
    parsed = parse_termination_message(message)
    assert isinstance(parsed, EvaluationReport)
    assert [(score.candidate, score.grader) for score in parsed.scores] == [(s.candidate, s.grader) for s in matrix]
    assert all((score.score, score.delta) == (0.3333, -0.1429) for score in parsed.scores)
    assert all((score.passed, score.errored) == (33_333, 33_334) for score in parsed.scores)
    assert all(score.p_value == 1.23e-12 for score in parsed.scores)
    assert all(score.over_budget == 33_334 for score in parsed.scores), "no gate passes because something did not fit"


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"candidates": ["a"], "graders": ["b"], "rows": [[0]]},
        {"candidates": ["a"], "graders": ["b"], "rows": [[0, 1, 0.5, 0, 1, 9]]},
        {"candidates": ["a"], "graders": ["b"], "rows": [[0, 0, "x", 0, 1, 9]]},
        {"candidates": ["a"], "graders": ["b"], "rows": [[0, 0, 0.5, 0, 1]]},
        {"candidates": ["a"], "graders": ["b"], "rows": [7]},
        {"candidates": 7, "graders": ["b"], "rows": [[0, 0, 0.5, 0, 1, 9]]},
    ],
)
def test_a_table_of_scores_that_lacks_something_is_no_outcome(table: dict[str, Any]) -> None:
    assert parse_termination_message(json.dumps({"outcome": "EvaluateSucceeded", "scores": table})) is None


def test_a_column_that_a_newer_trainer_adds_is_left_out() -> None:
    score = Score(candidate="a", grader="b", score=0.5, low=0, high=1, examples=9)
    row = [0, 0, 0.5, 0, 1, 9, *[None] * 10, "new"]
    table = {"candidates": ["a"], "graders": ["b"], "rows": [row]}
    parsed = parse_termination_message(json.dumps({"outcome": "EvaluateSucceeded", "scores": table}))
    assert parsed == EvaluationReport(scores=[score])


@pytest.mark.parametrize(
    "report",
    [
        PreflightReport(dataset=DatasetFindings(training=FILE), model=MODEL),
        TrainReport(result=RESULT),
        EvaluationReport(scores=[Score(candidate="a", grader="b", score=0.5, low=0, high=1, examples=9)]),
        Failure(reason=Reason.DATASET_INVALID, message="x", dataset=DatasetFindings(errors=errors(1))),
    ],
)
def test_fields_that_a_newer_trainer_adds_are_left_out(report: Any) -> None:
    """Its Pods outlive a rollback of the operator, and what they did counts."""

    def with_more(value: Any) -> Any:
        if isinstance(value, list):
            return [with_more(item) for item in value]
        return {key: with_more(item) for key, item in value.items()} | {"new": 1} if isinstance(value, dict) else value

    message = json.dumps(with_more(json.loads(to_termination_message(report))))
    assert parse_termination_message(message) == report


def test_names_that_a_newer_trainer_adds_are_read() -> None:
    result = json.loads(to_termination_message(TrainReport(result=RESULT)).replace('"LoRA"', '"DoRA"'))
    parsed = parse_termination_message(json.dumps(result))
    assert isinstance(parsed, TrainReport)
    assert parsed.result.to_wire()["adapterType"] == "DoRA"
    failure = {"outcome": "Failed", "reason": "LicenseDenied" * 300, "message": "Accept the license."}
    assert parse_termination_message(json.dumps(failure)) == Failure(reason=Reason.FAILED, message=failure["message"])


def test_a_report_with_a_text_that_is_too_long_is_none() -> None:
    report = json.loads(to_termination_message(TrainReport(result=RESULT.model_copy(update={"uri": "s3://b/x"}))))
    report["result"]["uri"] = "s3://b/" + "x" * 1024
    assert parse_termination_message(json.dumps(report)) is None


def test_what_fits_is_left_as_it_is() -> None:
    report = EvaluationReport(
        scores=[Score(candidate="a", grader="b", score=1 / 3, low=0, high=1, examples=9)], report_uri="s3://b/report"
    )
    assert parse_termination_message(to_termination_message(report)) == report


def test_of_too_many_broken_lines_the_first_are_kept_and_warnings_go_before_them() -> None:
    dataset = DatasetFindings(error_count=900, errors=errors(20, "x" * 400), warnings=["w" * 400] * 5)
    failure = Failure(reason=Reason.DATASET_INVALID, message="900 lines are broken.", dataset=dataset)
    parsed = parse_termination_message(to_termination_message(failure))
    assert isinstance(parsed, Failure)
    assert parsed.dataset is not None
    assert (parsed.message, parsed.dataset.error_count) == (failure.message, 900)
    kept = [error.line for error in parsed.dataset.errors]
    assert kept == list(range(1, len(kept) + 1))
    assert len(kept) >= 5


def test_of_too_many_checkpoints_the_newest_are_kept() -> None:
    checkpoints = [CheckpointStatus(step=step, uri=f"{LONG_URI[:200]}/{step}") for step in range(100)]
    parsed = parse_termination_message(to_termination_message(TrainReport(result=RESULT, checkpoints=checkpoints)))
    assert isinstance(parsed, TrainReport)
    assert parsed.result == RESULT
    assert parsed.checkpoints[-1].step == 99
    assert len(parsed.checkpoints) < 100


@given(st.text() | st.sampled_from(["", "null", "[]", "{}", '{"outcome": "Failed"}', '{"outcome": "Exploded"}']))
def test_anything_else_is_no_outcome(message: str) -> None:
    assert parse_termination_message(message) is None


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_a_score_must_be_a_number(value: str) -> None:
    score = f'{{"candidate":"a","grader":"b","score":{value},"low":0,"high":1,"examples":9}}'
    message = f'{{"outcome":"EvaluateSucceeded","scores":[{score}]}}'
    assert parse_termination_message(message) is None
    assert parse_termination_message(message.replace(value, "0.5")) is not None


@pytest.mark.parametrize("number", [10**30, -(10**30), 2**63])
@pytest.mark.parametrize(
    "report",
    [
        PreflightReport(dataset=DatasetFindings(training=FILE, error_count=7), model=MODEL),
        TrainReport(result=RESULT.model_copy(update={"trained_tokens": 7})),
        TrainReport(result=RESULT, checkpoints=[CheckpointStatus(step=7, uri=LONG_URI)]),
        Failure(reason=Reason.FAILED, message="x", rank=7),
    ],
)
def test_a_report_with_a_number_that_no_status_can_hold_is_none(report: Any, number: int) -> None:
    message = to_termination_message(report)
    assert parse_termination_message(message) == report
    assert parse_termination_message(message.replace(":7", f":{number}")) is None


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_how_long_saves_took_is_a_number_or_unknown(number: str) -> None:
    message = to_termination_message(TrainReport(result=RESULT, checkpoint_seconds=7.5))
    parsed = parse_termination_message(message.replace("7.5", number))
    assert isinstance(parsed, TrainReport)
    assert parsed.checkpoint_seconds is None


@pytest.mark.parametrize("field", ["examples", "tokens", "maxTokens", "rows"])
def test_whatever_preflight_counted_hyperparameters_follow_from_it_or_it_is_no_report(field: str) -> None:
    spec = FineTuneJobSpec.from_wire(
        {
            "model": {"uri": "s3://models/base"},
            "dataset": {"training": {"uri": "s3://data/train.jsonl"}},
            "hyperparameters": {"epochs": 1000},
        }
    )
    counts = FILE.to_wire()
    for number in (-(2**63), -1, 0, 1, 10**12, 2**63 - 1, 10**400):
        report = {
            "outcome": "PreflightSucceeded",
            "dataset": {"training": {**counts, field: number}},
            "model": MODEL.to_wire(),
        }
        parsed = parse_termination_message(json.dumps(report))
        assert parsed is None or resolve_for(spec, cast("PreflightReport", parsed)).total_steps >= 1


def test_half_a_surrogate_pair_of_a_dataset_does_not_cost_the_diagnosis() -> None:
    """json.loads takes it, and a message that quotes the line then holds it."""
    half = json.loads('"\\ud83d"')
    dataset = DatasetFindings(errors=errors(1, f"unknown role {half}"))
    parsed = parse_termination_message(
        to_termination_message(Failure(reason=Reason.DATASET_INVALID, message=half, dataset=dataset))
    )
    assert isinstance(parsed, Failure)
    assert parsed.message == "?"


def test_a_failure_is_retried_only_where_it_says_so() -> None:
    assert not Failure(reason=Reason.FAILED, message="x").retryable
    assert not Failure(reason=Reason.FAILED, message="x").lost_peer


def test_a_preflight_report_sheds_warnings_and_keeps_the_counts() -> None:
    report = PreflightReport(dataset=DatasetFindings(training=FILE, warnings=["w" * 1024] * 20), model=MODEL)
    parsed = parse_termination_message(to_termination_message(report))
    assert isinstance(parsed, PreflightReport)
    assert (parsed.dataset.training, parsed.model) == (FILE, MODEL)


def test_a_trainer_of_before_reports_outputs_by_their_earlier_names() -> None:
    """And a status of before is read, which would be unreadable else."""
    before = {"candidate": "tuned", "outputs": 20, "seconds": 0.5, "secondsLow": 0.4, "secondsHigh": 0.61, "timed": 20}
    report = json.loads(to_termination_message(EvaluationReport(scores=[], report_uri="s3://bucket/report.json")))
    found = parse_termination_message(json.dumps({**report, "outputs": [before]}))
    assert isinstance(found, EvaluationReport)
    (outputs,) = found.outputs
    assert (outputs.candidate, outputs.count, outputs.measurements) == ("tuned", 20, 20)
    latencies = (outputs.latency_milliseconds, outputs.latency_low_milliseconds, outputs.latency_high_milliseconds)
    assert latencies == (500, 400, 610)
    status = EvaluationStatus.read({"phase": "Passed", "outputs": [before]})
    assert status.outputs == [outputs]
    assert EvaluationStatus.read(status.to_wire()).outputs == [outputs]
