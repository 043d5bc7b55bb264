"""The progress endpoint: who may report, what is taken, and how often a job is woken by it.

TokenReview and the Pod come from a fake at the Kube edge; tests/integration/operator has the real ones, over TLS.
"""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from finetune_api.finetunejob import CheckpointStatus, Progress
from finetune_api.progress import PROGRESS_BODY_BYTES, CheckpointLedger
from finetune_operator.core.ownership import Owner
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.errors import ApiError
from finetune_operator.progress import server, tokens
from finetune_operator.progress.endpoint import ProgressEndpoint
from finetune_operator.progress.store import ProgressStore, ShownProgress
from finetune_operator.progress.tokens import TokenAuthenticator
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.pod_objects import controlled_by
from tests.unit.operator.states import merged

REVIEWS, POD_PATH = "POST /apis/authentication.k8s.io/v1/tokenreviews", "GET /api/v1/namespaces/team-a/pods/pod-0"
ATTEMPT, OWNER = "router-train-1", ObjectKey("FineTuneJob", "team-a", "router")
PATH = f"/v1alpha1/namespaces/team-a/finetunejobs/router/attempts/{ATTEMPT}"
ISSUER = "https://kubernetes.default.svc.cluster.local"
CLAIMS = {
    "aud": ["finetune.dev/progress"],
    "iss": ISSUER,
    "exp": 4_000_000_000,
    "sub": "system:serviceaccount:team-a:x",
}


def token(claims: Any = CLAIMS, signature: str = "c2ln") -> str:
    """A JSON Web Token, signed by nobody."""
    return ".".join([part(b'{"alg":"RS256"}'), part(json.dumps(claims).encode()), signature])


def part(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


TOKEN = token()
REVIEW = {
    "status": {
        "authenticated": True,
        "audiences": ["finetune.dev/progress"],
        "user": {
            "username": "system:serviceaccount:team-a:default",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["pod-0"],
                "authentication.kubernetes.io/pod-uid": ["uid-of-pod-0"],
            },
        },
    }
}
POD = {
    "metadata": {
        "name": "pod-0",
        "namespace": "team-a",
        "uid": "uid-of-pod-0",
        "ownerReferences": [controlled_by("Job", ATTEMPT, "uid-of-the-job")],
    }
}
JOBS_PATH = "GET /apis/batch/v1/namespaces/team-a/jobs"
JOB = {
    "metadata": {
        "name": ATTEMPT,
        "namespace": "team-a",
        "uid": "uid-of-the-job",
        "annotations": {"finetune.dev/owner": "FineTuneJob/router"},
        "ownerReferences": [controlled_by("FineTuneJob", "router", "uid-of-router")],
    }
}
SENT = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
REPORT = {
    "trainerStatus": {
        "lastUpdatedTime": SENT.isoformat(),
        "progressPercentage": 40,
        "estimatedRemainingSeconds": 90,
        "metrics": [
            {"name": "current_step", "value": "300"},
            {"name": "total_steps", "value": "750"},
            {"name": "loss", "value": "1.25"},
        ],
    }
}
SHOWN = Progress(
    step=300,
    total_steps=750,
    percent=40,
    loss=1.25,
    estimated_remaining_seconds=90,
    last_updated_time=SENT.replace(microsecond=0),
)


@dataclass
class Endpoint:
    """The running endpoint, and what it did."""

    client: TestClient[Any, Any]
    kube: FakeKube
    store: ProgressStore
    notified: list[tuple[ObjectKey, float]] = field(default_factory=list)

    async def post(
        self, body: Any = REPORT, path: str = PATH, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {TOKEN}"} if headers is None else headers
        async with self.client.post(path, data=sent, headers=given) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else {"error": text}

    def shown(self) -> ShownProgress | None:
        return self.store.shown("team-a", ATTEMPT)


@pytest.fixture
async def endpoint(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Endpoint]:
    monkeypatch.setattr(server, "CLOCK_SKEW", timedelta.max)
    kube, store = FakeKube({REVIEWS: REVIEW, POD_PATH: POD, JOBS_PATH: {"items": [JOB]}}), ProgressStore()
    notified: list[tuple[ObjectKey, float]] = []
    app = server.application(
        TokenAuthenticator(kube), store, lambda owner, delay: notified.append((owner, round(delay, 1)))
    )
    async with TestClient(TestServer(app)) as client:
        yield Endpoint(client, kube, store, notified)


async def test_a_report_of_a_jobs_own_pod_is_shown(endpoint: Endpoint) -> None:
    assert await endpoint.post() == (200, {})
    assert endpoint.shown() == ShownProgress(SHOWN)
    assert endpoint.notified == [(OWNER, 0)]
    (review,) = [request.body for request in endpoint.kube.requests if request.method == "POST"]
    assert review is not None
    assert review["spec"] == {"token": TOKEN, "audiences": ["finetune.dev/progress"]}


async def test_a_report_of_a_node_with_a_wrong_clock_is_of_the_moment_of_its_arrival(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By it the operator tells which attempt a step is of."""
    monkeypatch.setattr(server, "CLOCK_SKEW", timedelta(minutes=1))
    assert await endpoint.post() == (200, {})
    shown = endpoint.shown()
    assert shown is not None
    assert shown.progress is not None
    assert datetime.now(UTC) - shown.progress.last_updated_time < timedelta(minutes=10)


LEDGER = {
    "checkpoints": [{"step": 100, "uri": "s3://m/step-000100", "committedTime": "2026-11-22T11:59:00Z"}],
    "checkpointSeconds": 2.5,
}


async def test_the_ledger_of_checkpoints_comes_with_it_and_stays_when_a_report_has_none(endpoint: Endpoint) -> None:
    assert await endpoint.post({**REPORT, "ledger": LEDGER}) == (200, {})
    expected = CheckpointLedger(
        checkpoints=[
            CheckpointStatus(
                step=100, uri="s3://m/step-000100", committed_time=datetime(2026, 11, 22, 11, 59, tzinfo=UTC)
            )
        ],
        checkpoint_seconds=2.5,
    )
    assert endpoint.shown() == ShownProgress(SHOWN, expected)
    assert await endpoint.post() == (200, {})
    assert endpoint.shown() == ShownProgress(SHOWN, expected)
    without_steps = {"trainerStatus": {**REPORT["trainerStatus"], "metrics": []}, "ledger": {"checkpoints": []}}
    assert await endpoint.post(without_steps) == (200, {})
    assert endpoint.store._reports["team-a", ATTEMPT].newest == ShownProgress(SHOWN, CheckpointLedger())


# 401: nobody we know.


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic token-0"}])
async def test_without_a_bearer_token_nothing_is_reviewed(endpoint: Endpoint, headers: dict[str, str]) -> None:
    assert (await endpoint.post(headers=headers))[0] == 401
    assert endpoint.kube.requests == []


LABELLED = {
    "labels": {"batch.kubernetes.io/job-name": ATTEMPT},
    "annotations": {"finetune.dev/owner": "FineTuneJob/router"},
}
EXTRA = {"extra": {"authentication.kubernetes.io/pod-name": None}}


@pytest.mark.parametrize(
    ("status", "pod", "job"),
    [
        ({"authenticated": False}, {}, {}),
        ({"authenticated": None}, {}, {}),
        ({"audiences": ["https://kubernetes.default.svc"]}, {}, {}),
        ({"audiences": None}, {}, {}),
        ({"user": {"username": "system:admin"}}, {}, {}),
        ({"user": {"username": "system:node:worker-1:x"}}, {}, {}),
        ({"user": {"extra": None}}, {}, {}),
        ({"user": EXTRA}, {}, {}),
        ({}, None, {}),
        ({}, {"uid": "uid-of-a-successor"}, {}),
        ({}, {"ownerReferences": None, **LABELLED}, {}),
        ({}, {"ownerReferences": [controlled_by("ReplicaSet", ATTEMPT, "uid-of-the-job")], **LABELLED}, {}),
        ({}, LABELLED, None),
        ({}, LABELLED, {"uid": "uid-of-a-successor"}),
        ({}, LABELLED, {"ownerReferences": None}),
        ({}, LABELLED, {"ownerReferences": [controlled_by("FineTuneJob", "another", "uid-of-another")]}),
        ({}, LABELLED, {"annotations": None}),
        ({}, LABELLED, {"annotations": {"finetune.dev/owner": "Secret/router"}}),
    ],
    ids=[
        "not authenticated",
        "no verdict",
        "another audience",
        "no audience",
        "a user",
        "a node",
        "a token of no Pod",
        "a token that names no Pod",
        "the Pod is gone",
        "the Pod was replaced",
        "a Pod that was made by hand, with every label",
        "a Pod of something else",
        "its Job is gone",
        "its Job was replaced",
        "its Job was made by hand",
        "its Job is another one's",
        "a Job of no owner",
        "a Job of an owner of another kind",
    ],
)
async def test_a_token_that_is_not_a_training_pods_is_refused(
    endpoint: Endpoint, status: dict[str, Any], pod: dict[str, Any] | None, job: dict[str, Any] | None
) -> None:
    endpoint.kube.answers[REVIEWS] = {"status": merged(REVIEW["status"], status)}
    if pod is None:
        del endpoint.kube.answers[POD_PATH]
    else:
        endpoint.kube.answers[POD_PATH] = {"metadata": merged(POD["metadata"], pod)}
    endpoint.kube.answers[JOBS_PATH] = {
        "items": [] if job is None else [{"metadata": merged(JOB["metadata"], job)}],
    }
    code, answer = await endpoint.post()
    assert (code, answer) == (401, {"error": "the token is not valid for this endpoint"})
    assert (endpoint.shown(), endpoint.notified) == (None, [])


ISSUERS = "GET /.well-known/openid-configuration"


@pytest.mark.parametrize(
    "said",
    [
        "nonsense",
        "a.b.c",
        "..",
        token([]),
        token("x" * 4000),
        token({**CLAIMS, "aud": ["https://kubernetes.default.svc"]}),
        token({**CLAIMS, "aud": None}),
        token({**CLAIMS, "exp": 1}),
        token({**CLAIMS, "exp": "later"}),
        token({**CLAIMS, "iss": "https://elsewhere.example.com"}),
        f"{part(b'{}')}.{'[' * 5000}.x",
        f"{part(b'{}')}.{part(b'[' * 5000)}.x",
    ],
)
async def test_what_can_not_be_a_token_for_us_is_refused_unasked(endpoint: Endpoint, said: str) -> None:
    endpoint.kube.answers[ISSUERS] = {"issuer": ISSUER}
    for _ in range(3):
        assert (await endpoint.post(headers={"Authorization": f"Bearer {said}"}))[0] == 401
    assert [request.line for request in endpoint.kube.requests if request.line != ISSUERS] == []
    assert (await endpoint.post())[0] == 200


PARENT_PATH = "GET /apis/finetune.dev/v1alpha1/namespaces/team-a/finetunejobs/router"
POD_OF_OURS = merged(POD, {"metadata": {"annotations": {"finetune.dev/owner": "FineTuneJob/router"}}})


@pytest.mark.parametrize(
    ("attempt", "code"),
    [
        ({"jobName": ATTEMPT, "jobUid": "uid-of-the-job"}, 200),
        ({"jobName": ATTEMPT, "jobUid": "uid-of-a-successor"}, 401),
        ({"jobName": ATTEMPT}, 401),
        ({"jobName": "router-train-2", "jobUid": "uid-of-the-job"}, 401),
        (None, 401),
    ],
)
async def test_a_pod_reports_until_it_ends_though_somebody_deleted_its_job(
    endpoint: Endpoint, attempt: dict[str, Any] | None, code: int
) -> None:
    """By the UID of the Job that the FineTuneJob itself knows its newest attempt by."""
    endpoint.kube.answers |= {POD_PATH: POD_OF_OURS, JOBS_PATH: {"items": []}}
    endpoint.kube.answers[PARENT_PATH] = {"metadata": {"name": "router"}, "status": {"attempt": attempt}}
    assert (await endpoint.post())[0] == code


async def test_a_header_of_any_bytes_is_no_token(endpoint: Endpoint) -> None:
    address = endpoint.client.server
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n".encode())
    writer.write(b"Authorization: Bearer a.\xff.c\r\n\r\n{}")
    assert b" 401 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


async def test_a_refused_token_is_not_asked_about_again_for_a_minute(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("finetune_operator.progress.store.time.monotonic", lambda: now)
    endpoint.kube.answers[REVIEWS] = {"status": {"authenticated": False}}
    for _ in range(5):
        assert (await endpoint.post())[0] == 401
    assert endpoint.kube.writes == [REVIEWS]
    now += 61
    assert (await endpoint.post())[0] == 401
    assert endpoint.kube.writes == [REVIEWS] * 2


async def test_of_many_tokens_only_so_many_are_asked_about(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks like one of this cluster's, and is signed by nobody."""
    monkeypatch.setattr(server, "REPORTS_BURST", 10_000)
    monkeypatch.setattr(tokens, "_TOKENS_KEPT", 50)
    endpoint.kube.answers[REVIEWS] = {"status": {"authenticated": False}}
    authenticator = TokenAuthenticator(endpoint.kube)
    refused = 0
    for number in range(425):
        try:
            assert await authenticator.reporter(token({**CLAIMS, "jti": str(number)}), f"10.0.0.{number}") is None
        except ApiError as error:
            assert error.status == 429
            refused += 1
    assert refused >= 425 - tokens.REVIEWS_BURST - 100
    assert len(endpoint.kube.writes) == 425 - refused
    assert len(authenticator._known) <= 50


async def test_one_address_does_not_use_up_what_the_others_may_ask(endpoint: Endpoint) -> None:
    authenticator = TokenAuthenticator(endpoint.kube)
    endpoint.kube.answers[REVIEWS] = {"status": {"authenticated": False}}
    answers = []
    for number in range(tokens.REVIEWS_BURST * 2):
        try:
            answers.append(await authenticator.reporter(token({**CLAIMS, "jti": str(number)}), "10.0.0.66"))
        except ApiError as error:
            assert error.status == 429
    assert len(answers) <= tokens.REVIEWS_BURST_OF_ONE + 5
    endpoint.kube.answers[REVIEWS] = REVIEW
    reporter = await authenticator.reporter(TOKEN, "10.0.0.1")
    assert reporter is not None
    assert reporter.attempt == ATTEMPT


async def test_one_address_sends_only_so_much(endpoint: Endpoint) -> None:
    answers = [(await endpoint.post())[0] for _ in range(server.REPORTS_BURST + 40)]
    assert answers[: server.REPORTS_BURST] == [200] * server.REPORTS_BURST
    assert 429 in answers


# 403: somebody else's job.


@pytest.mark.parametrize(
    "path",
    [
        PATH.replace("team-a", "team-b"),
        PATH.replace("finetunejobs/router", "finetunejobs/another"),
        PATH.replace(ATTEMPT, "router-train-2"),
    ],
    ids=["another namespace", "another job", "another attempt"],
)
async def test_a_pod_reports_only_for_its_own_attempt(endpoint: Endpoint, path: str) -> None:
    assert await endpoint.post(path=path) == (403, {"error": "a Pod can report only for its own job"})
    assert endpoint.notified == []


# 400 and 413: nothing that can be read.


def report(**trainer_status: Any) -> dict[str, Any]:
    return merged(REPORT, {"trainerStatus": trainer_status})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        {},
        {"trainerStatus": {}},
        {**REPORT, "more": 1},
        report(progressPercentage=101),
        report(estimatedRemainingSeconds=-1),
        report(estimatedRemainingSeconds=10**30),
        report(lastUpdatedTime="yesterday"),
        report(lastUpdatedTime="2026-11-22T12:00:00"),
        report(lastUpdatedTime="0001-01-01T00:00:00+14:00"),
        report(metrics=[{"name": "loss", "value": "1"}] * 129),
        report(metrics=[{"name": "x" * 129, "value": "1"}]),
        report(metrics=[{"name": "loss", "value": 1}]),
    ],
)
async def test_what_is_no_report_is_refused(endpoint: Endpoint, body: Any) -> None:
    code, answer = await endpoint.post(body)
    assert code == 400
    assert answer["error"].startswith("not a progress report")
    assert (endpoint.shown(), endpoint.notified) == (None, [])


@pytest.mark.parametrize(("extra", "code"), [(0, 400), (1, 413)])
async def test_a_body_that_is_too_large_is_not_read(endpoint: Endpoint, extra: int, code: int) -> None:
    assert (await endpoint.post(b" " * (PROGRESS_BODY_BYTES + extra)))[0] == code


# 503: ask again later.


@pytest.mark.parametrize("line", [REVIEWS, POD_PATH, JOBS_PATH])
async def test_while_the_api_server_does_not_answer_the_pod_is_told_so(endpoint: Endpoint, line: str) -> None:
    endpoint.kube.answers[line] = ApiError(500, "InternalError", "etcd is electing")
    assert (await endpoint.post())[0] == 503
    endpoint.kube.answers |= {REVIEWS: REVIEW, POD_PATH: POD, JOBS_PATH: {"items": [JOB]}}
    assert (await endpoint.post())[0] == 200


# What is taken, and how often.


@pytest.mark.parametrize("body", [report(metrics=[]), report(unknownField=1, metrics=[{"name": "loss", "value": "1"}])])
async def test_a_report_without_a_step_is_taken_and_shows_nothing(endpoint: Endpoint, body: dict[str, Any]) -> None:
    """KubeflowCallback sends such ones, too, at the start."""
    assert (await endpoint.post(body))[0] == 200
    assert (endpoint.shown(), endpoint.notified) == (None, [])


async def test_a_token_is_reviewed_once_in_five_minutes(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("finetune_operator.progress.store.time.monotonic", lambda: now)
    for _ in range(3):
        assert (await endpoint.post())[0] == 200
    assert endpoint.kube.writes == [REVIEWS]
    now += 301
    endpoint.kube.answers[REVIEWS] = {"status": {"authenticated": False}}
    assert (await endpoint.post())[0] == 401


async def test_a_job_is_woken_when_the_report_can_be_shown(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("finetune_operator.progress.store.time.monotonic", lambda: now)
    for step, moment in enumerate((1000.0, 1004.0, 1009.0)):
        now = moment
        metrics = [{"name": "current_step", "value": str(step)}, {"name": "total_steps", "value": "750"}]
        assert (await endpoint.post(report(metrics=metrics)))[0] == 200
    assert [delay for _, delay in endpoint.notified] == [0, 6, 1]


@pytest.mark.parametrize(
    ("reported", "looked", "steps"),
    [
        ([0], [0, 5, 500], [0, 0, 0]),
        ([0, 4, 9], [1, 9.9, 10, 15], [0, 0, 9, 9]),
        (range(40), range(40), [0] * 10 + [10] * 10 + [20] * 10 + [30] * 10),
        ([0, 100], [0, 100], [0, 100]),
    ],
    ids=["one report", "the newest after ten seconds", "reports all the time", "after a long silence"],
)
def test_what_is_shown_changes_at_most_every_ten_seconds(
    reported: Iterable[float], looked: Iterable[float], steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a Pod reports, and however often the job is looked at: each change is a write of its status."""
    now = 0.0
    monkeypatch.setattr("finetune_operator.progress.store.time.monotonic", lambda: now)
    store, seen = ProgressStore(), []
    moments = sorted([*((moment, 0) for moment in reported), *((moment, 1) for moment in looked)])
    for now, look in moments:
        if look:
            shown = store.shown("team-a", ATTEMPT)
            assert shown is not None and shown.progress is not None
            seen.append(shown.progress.step)
        else:
            store.put("team-a", ATTEMPT, SHOWN.model_copy(update={"step": int(now)}))
    assert seen == steps


def test_the_store_forgets_the_attempt_that_was_silent_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.progress.store._ATTEMPTS_KEPT", 2)
    store = ProgressStore()
    for attempt in ("a", "b", "a", "c"):
        store.put("team-a", attempt, SHOWN)
    assert [store.shown("team-a", attempt) is not None for attempt in "abc"] == [True, False, True]
    assert store.shown("team-b", "a") is None


def test_pods_are_told_an_address_that_names_namespace_job_and_attempt() -> None:
    owner = Owner("FineTuneJob", "team-a", "router", "uid-1")
    assert (
        ProgressEndpoint("https://finetune.svc:8443/", "PEM").url_for(owner, ATTEMPT)
        == f"https://finetune.svc:8443{PATH}"
    )
