"""The whole report of an evaluation, which no termination message has room for."""

from __future__ import annotations

import json

import pytest

from finetune_api.evaluation import (
    MOST_SCORES,
    MOST_SLICE_SCORES,
    SENT_REPORT_BYTES,
    GatedSliceStatus,
    Score,
    SliceScore,
)
from finetune_api.pod_contracts.outcome import EvaluationReport, parse_termination_message
from finetune_api.pod_contracts.sent_report import (
    STATUS_BYTES,
    bounded,
    bytes_in_status,
    digest_of,
    read_report,
    write_report,
)
from finetune_api.pod_contracts.termination_message import to_termination_message

BY = "{{item.language}}"
CANDIDATES = tuple(f"c{at}" for at in range(4))
GRADERS = tuple(f"g{at}" for at in range(8))
NUMBERS = {"score": 1 / 3, "low": 1 / 7, "high": 2 / 3, "examples": 250}
GAIN = {"delta": 0.1, "delta_low": -1 / 30, "delta_high": 7 / 30}


def large(*values: str) -> EvaluationReport:
    """8 graders x 4 candidates and a baseline x slices."""
    return EvaluationReport(
        scores=[
            Score(candidate=name, grader=grader, passed=80, failed=160, errored=10, **NUMBERS)
            for name in ("baseline", *CANDIDATES)
            for grader in GRADERS
        ],
        slices=[
            SliceScore(by=BY, value=value, candidate=name, grader=grader, **NUMBERS, **GAIN)
            for value in values
            for name in CANDIDATES
            for grader in GRADERS
        ],
    )


def test_what_was_sent_is_read_as_it_was() -> None:
    report = large(*"abcdefghijklmnop")
    assert (len(report.scores), len(report.slices)) == (40, MOST_SLICE_SCORES)
    sent = bounded(report)
    assert sent == report
    assert read_report(write_report(sent)) == report


def test_the_message_of_the_end_has_the_digest_and_what_there_is_room_for() -> None:
    report = large("a", "b")
    digest = digest_of(write_report(report))
    said = parse_termination_message(to_termination_message(report.model_copy(update={"sent_digest": digest})))
    assert isinstance(said, EvaluationReport)
    assert (said.sent_digest, len(said.scores)) == (digest, 40)
    assert len(said.slices) < len(report.slices)
    many = report.scores * 4
    assert len(many) > MOST_SCORES
    fewer = report.model_copy(update={"scores": many[:MOST_SCORES], "sent_digest": digest})
    assert parse_termination_message(to_termination_message(fewer)) == EvaluationReport(scores=[], sent_digest=digest)
    with pytest.raises(ValueError, match="can't be made to fit"):
        to_termination_message(fewer.model_copy(update={"sent_digest": None}))


def test_a_status_gets_no_more_than_etcd_takes_and_what_is_left_out_is_reported() -> None:
    values = [f"{at}{'x' * 1000}" for at in range(16)]
    gated = [GatedSliceStatus(by=BY, value=value, grader="g7", examples=250) for value in (values[0], values[-1])]
    report = large(*values).model_copy(update={"gated_slices": gated})
    assert bytes_in_status(report) > 2 * STATUS_BYTES
    sent = bounded(report)
    assert bytes_in_status(sent) <= STATUS_BYTES < bytes_in_status(sent) + 2000, "no more is left out than must be"
    assert sent.slices == report.slices[: len(sent.slices)]
    assert [one.left_out for one in sent.gated_slices or []] == [None, True]
    assert read_report(write_report(sent)) == sent


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "not the report of an evaluation"),
        ("[]", "not the report of an evaluation"),
        ('{"outcome": "Failed", "reason": "Failed", "message": "no"}', "not the report of an evaluation"),
        (json.dumps({"scores": [], "x": "y" * SENT_REPORT_BYTES}), "too large"),
        (write_report(large(*(f"{at}{'x' * 1000}" for at in range(16)))), "too large"),
    ],
    ids=["nothing", "a list", "a failure", "padding", "more than a status may hold"],
)
def test_what_is_no_report_or_too_large_is_refused(content: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_report(content)


def test_a_report_of_a_newer_trainer_is_read_without_what_is_not_known_here() -> None:
    report = large("a")
    newer = json.dumps(json.loads(write_report(report)) | {"new": [1]})
    assert read_report(newer) == report
