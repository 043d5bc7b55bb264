"""Who may do what: Kubernetes' accounts and RBAC, and nothing of a namespace is told to those of another."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import socket

import httpx2
import openai
import pytest

from tests.integration.operator.api import Api
from tests.integration.operator.openai.service import Service, account
from tests.integration.operator.openai.test_jobs import TRAIN


@pytest.mark.parametrize("key", ["sk-wrong", "a.b.c", "x" * 4_000])
def test_a_wrong_key_is_refused(service: Service, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        service.client(key, max_retries=0).files.list()
    assert key[:100] not in str(refused.value)


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_a_compressed_body_is_refused_and_never_unpacked(service: Service, encoding: str) -> None:
    """Nobody needs a key to send one, and all others wait while it is unpacked; whoever unpacks this one fails."""
    before = service.log.read_text()
    asked = httpx2.post(f"{service.url}/v1/files", content=b"not packed", headers={"Content-Encoding": encoding})
    assert (asked.status_code, asked.json()["error"]["type"]) == (415, "invalid_request_error")
    assert httpx2.get(f"{service.url}/healthz").is_success
    assert "Error" not in service.log.read_text().removeprefix(before)


def test_clients_that_send_no_request_are_cut_and_reported_in_a_line_of_each_kind(service: Service) -> None:
    """Nobody needs a key to send one. A head has ten seconds."""
    before = service.log.read_text()
    half = socket.create_connection(("127.0.0.1", service.port), timeout=30)
    half.sendall(b"POST /v1/files HTTP/1.1\r\nHost: x\r\n")
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as malformed:
            malformed.sendall(b"GET /v1/files HTTP/1.1\r\nBad Header\x00: 1\r\n\r\n")
            assert malformed.recv(20).startswith(b"HTTP/1.0 400 ")
    with half, contextlib.suppress(ConnectionResetError):
        assert half.recv(1) == b""
    assert httpx2.get(f"{service.url}/healthz").is_success
    lines = service.log.read_text().removeprefix(before).splitlines()
    assert ["malformed requests" in line for line in lines].count(True) == 1
    assert ["slow_head" in line for line in lines].count(True) == 1


def test_a_token_for_something_else_is_refused(service: Service) -> None:
    token = service.token("client", audience="https://kubernetes.default.svc.cluster.local")
    with pytest.raises(openai.AuthenticationError) as refused:
        service.client(token).files.list()
    assert refused.value.code == "invalid_api_key"


def test_an_account_of_another_namespace_sees_nothing(service: Service, client: openai.OpenAI, elsewhere: Api) -> None:
    """Acceptance case E4: not whether an object exists, and no name, also not in the text of a refusal."""
    account(elsewhere, "client", ["get", "list", "create", "update", "delete"])
    stranger = service.client(service.token("client", elsewhere))
    file = client.files.create(file=("ours.jsonl", TRAIN), purpose="fine-tune")
    answers = set()
    for request in (
        lambda: stranger.files.retrieve(file.id),
        lambda: stranger.files.retrieve("file-000000000000000000000000"),
        lambda: stranger.fine_tuning.jobs.retrieve("ftjob-aaaaaaaaaaaaaaaaaaaaaaaa"),
    ):
        with pytest.raises(openai.PermissionDeniedError) as refused:
            request()
        answers.add(str(refused.value))
    (answer,) = answers
    assert service.api.namespace not in answer
    assert elsewhere.namespace not in answer


def test_who_may_only_read_changes_nothing(service: Service, client: openai.OpenAI) -> None:
    reader = service.client(service.token("reader"))
    file = client.files.create(file=("read.jsonl", TRAIN), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="qwen3-0.6b")
    assert reader.files.retrieve(file.id).id == file.id
    assert reader.fine_tuning.jobs.retrieve(job.id).id == job.id
    for request in (
        lambda: reader.files.create(file=("a.jsonl", TRAIN), purpose="fine-tune"),
        lambda: reader.files.delete(file.id),
        lambda: reader.fine_tuning.jobs.create(training_file=file.id, model="qwen3-0.6b"),
        lambda: reader.fine_tuning.jobs.cancel(job.id),
    ):
        with pytest.raises(openai.PermissionDeniedError):
            request()


def test_a_job_that_the_api_did_not_make_is_not_its_own(service: Service, client: openai.OpenAI) -> None:
    spec = {"model": {"uri": "s3://models/base"}, "dataset": {"training": {"uri": "s3://data/a.jsonl"}}}
    name = "ftjob-bbbbbbbbbbbbbbbbbbbbbbbb"
    service.api.create("FineTuneJob", name, {**spec, "suspend": True})
    with pytest.raises(openai.NotFoundError) as refused:
        client.fine_tuning.jobs.retrieve(name)
    assert refused.value.code == "fine_tune_not_found"
    assert name not in [job.id for job in client.fine_tuning.jobs.list(limit=100)]


def test_a_key_is_its_service_account_and_only_its_digest_is_stored(service: Service) -> None:
    keys = {name: f"sk-ft-{name}-{secrets.token_hex(24)}" for name in ("reader", "expired", "unbound")}
    digests = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in keys.items()}
    (service.keys / "reader").write_text(
        f"not a digest\n{digests['reader']} 2099-01-01T00:00:00Z\n{digests['expired']} 2026-01-01T00:00:00Z\n"
    )
    (service.keys / "default").write_text(digests["unbound"])
    reader = service.client(keys["reader"])
    assert reader.fine_tuning.jobs.list().object == "list"
    with pytest.raises(openai.PermissionDeniedError):
        reader.files.create(file=("a.jsonl", TRAIN), purpose="fine-tune")
    with pytest.raises(openai.PermissionDeniedError):
        service.client(keys["unbound"]).files.list()
    for wrong in (keys["expired"], digests["reader"], keys["reader"][:-1], "sk-ft-"):
        with pytest.raises(openai.AuthenticationError):
            service.client(wrong).files.list()
