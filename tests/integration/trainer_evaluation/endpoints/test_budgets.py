"""spec.budget of an Evaluation: what its requests are counted in, over all tries."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from finetune_api.graders import GraderErrorCode
from finetune_trainer.endpoints import endpoint as endpoint_module
from finetune_trainer.endpoints.answer_cache import Answers
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.endpoints.asking import Asking, errors
from tests.integration.trainer_evaluation.stub_api import Body, Respond, fails, grades, stub_api


@pytest.fixture
def folder() -> str:
    return f"answers/{secrets.token_hex(4)}"


def test_case_12_at_the_limit_of_requests_the_rest_is_errored(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    texts = [f"Answer {number}" for number in range(150)]
    with stub_api(grades(4)) as api:
        asking = Asking(bucket, api, tmp_path, folder, budget={"requests": 100}, requestsPerMinute=1_000_000)
        graded = asking.grade(*texts)
        assert len(api.requests) == 100
        lacking = [grade for grade in graded if grade.error is not None]
        assert (len(lacking), errors(lacking)) == (50, {GraderErrorCode.BUDGET_EXCEEDED})
        # The Pod starts again: what this run has paid for counts, and is not paid for twice.
        again = Asking(bucket, api, tmp_path, folder, budget={"requests": 100}, requestsPerMinute=1_000_000)
        assert [grade.score for grade in again.grade(*reversed(texts))][::-1] == [grade.score for grade in graded]
        assert len(api.requests) == 100
        # Another run has a budget of its own, and what was answered costs it nothing.
        other = Asking(bucket, api, tmp_path, folder, run="u/2", budget={"requests": 50}, requestsPerMinute=1_000_000)
        assert errors(other.grade(*texts)) == {None}
        assert (other.endpoint.usage.requests, other.endpoint.usage.cached) == (50, 100)


def test_requests_that_nobody_answered_are_in_the_budget_of_the_next_try(
    bucket: Bucket, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "BACKOFF_SECONDS", 0.001)
    most = 2 * endpoint_module.TRIES
    with stub_api(fails(500, "oh no")) as api:
        for _ in range(2):  # the second is a Pod that starts again
            graded = Asking(bucket, api, tmp_path, folder, budget={"requests": most}).grade("a", "b", "c")
        assert len(api.requests) == most
        assert errors(graded) == {GraderErrorCode.BUDGET_EXCEEDED}
        other = Asking(bucket, api, tmp_path, folder, run="u/2", budget={"requests": 1})
        assert errors(other.grade("a")) == {GraderErrorCode.BUDGET_EXCEEDED}
        assert len(api.requests) == most + 1, "another run has a budget of its own"


def test_a_request_is_in_the_ledger_before_it_is_sent(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    """Whoever kills the Pod then, its next try knows of it."""
    known: list[tuple[int, int]] = []

    def answer(_: Body) -> Respond:
        ledger = json.loads(bucket.read(bucket.uri(f"{folder}/budgets/u-1.json")))
        known.append((ledger["requests"], ledger["tokens"]))
        return grades(4)

    with stub_api(answer) as api:
        asking = Asking(bucket, api, tmp_path, folder, budget={"requests": 9, "tokens": 10_000}, concurrency=1)
        asking.grade("a", "b", "c")
    assert known == [(1, 0), (2, 120), (3, 240)]


def test_one_after_another_calibration_grading_and_attacks_have_one_budget(
    bucket: Bucket, tmp_path: Path, folder: str
) -> None:
    """Each asks in an event loop of its own, many at once."""
    with stub_api(grades(4)) as api:
        asking = Asking(bucket, api, tmp_path, folder, budget={"requests": 20}, requestsPerMinute=1_000_000)
        for part in ("calibration", "grading"):
            assert errors(asking.grade(*(f"{part} {number}" for number in range(8)))) == {None}
        last = asking.grade(*(f"attack {number}" for number in range(8)))
        assert [grade.error is not None for grade in last].count(True) == 4
        assert len(api.requests) == 20


def test_an_answer_is_looked_up_once_also_with_a_budget(
    bucket: Bucket, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    find = Answers.find
    monkeypatch.setattr(Answers, "find", lambda self, digest: (found.append(digest), find(self, digest))[1])
    with stub_api(grades(4)) as api:
        Asking(bucket, api, tmp_path, folder, budget={"requests": 9}).grade("a", "b", "c")
        assert (len(found), len(set(found)), len(api.requests)) == (3, 3, 3)


def test_what_is_answered_twice_is_in_the_budget_once(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    with stub_api(grades(4)) as api:
        for _ in range(2):  # the second is a Pod that starts again
            asking = Asking(bucket, api, tmp_path, folder, budget={"requests": 3, "tokens": 360})
            for texts in (["a"], ["a", "b"], ["a", "b"], ["a", "b", "c"]):
                assert errors(asking.grade(*texts)) == {None}
            assert errors(asking.grade("d")) == {GraderErrorCode.BUDGET_EXCEEDED}
        assert len(api.requests) == 3


def test_no_request_is_sent_once_the_tokens_are_used(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    with stub_api(grades(4)) as api:
        asking = Asking(bucket, api, tmp_path, folder, budget={"tokens": 300}, concurrency=1)
        graded = asking.grade(*(f"Answer {number}" for number in range(6)))
        assert len(api.requests) == 3, "two have used 240 tokens, three 360"
    assert [grade.score for grade in graded if grade.score is not None] == [0.8] * 3
