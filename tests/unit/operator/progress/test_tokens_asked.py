"""The progress endpoint: who may report. TokenReview and the Pod are played at the Kube edge."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from finetune_operator.kube.errors import ApiError
from finetune_operator.progress import server, tokens
from finetune_operator.progress.tokens import TokenAuthenticator
from tests.unit.operator.pod_objects import controlled_by
from tests.unit.operator.progress.reporting import (
    ATTEMPT,
    CLAIMS,
    ISSUER,
    JOB,
    JOBS_PATH,
    PATH,
    POD,
    POD_PATH,
    REVIEW,
    REVIEWS,
    TOKEN,
    Endpoint,
    part,
    token,
)
from tests.unit.operator.states import merged

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


# 503: ask again later.


@pytest.mark.parametrize("line", [REVIEWS, POD_PATH, JOBS_PATH])
async def test_the_pod_is_answered_503_while_the_api_server_does_not_answer(endpoint: Endpoint, line: str) -> None:
    endpoint.kube.answers[line] = ApiError(500, "InternalError", "etcd is electing")
    assert (await endpoint.post())[0] == 503
    endpoint.kube.answers |= {REVIEWS: REVIEW, POD_PATH: POD, JOBS_PATH: {"items": [JOB]}}
    assert (await endpoint.post())[0] == 200


# What is taken, and how often.


async def test_a_token_is_reviewed_once_in_five_minutes(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("finetune_operator.progress.store.time.monotonic", lambda: now)
    for _ in range(3):
        assert (await endpoint.post())[0] == 200
    assert endpoint.kube.writes == [REVIEWS]
    now += 301
    endpoint.kube.answers[REVIEWS] = {"status": {"authenticated": False}}
    assert (await endpoint.post())[0] == 401
