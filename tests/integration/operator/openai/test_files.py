"""Files through OpenAI's own client: what is stored, what is refused, and what breaks off."""

from __future__ import annotations

import hashlib
import json
import os
import socket

import openai
import pytest

from tests.integration.operator.api import wait_for
from tests.integration.operator.openai.service import Service
from tests.integration.operator.openai.test_jobs import TRAIN


def test_a_file_is_kept_listed_read_and_deleted(client: openai.OpenAI) -> None:
    file = client.files.create(file=("../../etc/train.jsonl", TRAIN), purpose="fine-tune")
    assert (file.filename, file.bytes, file.status) == ("train.jsonl", len(TRAIN), "processed")
    assert client.files.content(file.id).read() == TRAIN
    assert client.files.list().data[0].id == file.id, "the newest first"
    assert client.files.list(purpose="fine-tune-results").data == []
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_pages_have_every_file_once(client: openai.OpenAI) -> None:
    made = [client.files.create(file=(f"{n}.jsonl", TRAIN), purpose="fine-tune").id for n in range(3)]
    listed = [file.id for file in client.files.list(limit=2)]
    assert listed[:3] == made[::-1]
    assert len(listed) == len(set(listed))


def test_a_large_file_arrives_whole_by_a_multipart_upload(service: Service, client: openai.OpenAI) -> None:
    message = {"role": "assistant", "content": os.urandom(20 * 2**20).hex()}
    large = TRAIN + json.dumps({"messages": [message]}).encode()
    file = client.files.create(file=("large.jsonl", large), purpose="fine-tune")
    assert file.bytes == len(large)
    digest = hashlib.sha256(client.files.content(file.id).read()).hexdigest()
    assert digest == hashlib.sha256(large).hexdigest()
    client.files.delete(file.id)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The file is empty"),
        (TRAIN + b"{broken\n", "Line 13 is not a valid JSON dictionary (line starts with: '{broken')"),
        (b"[1]\n", "Line 1 is not a valid JSON dictionary"),
        (b'{"messages": []}\n', "Line 1 has 'messages' that are not a list of at least one message"),
        (b'{"text": "a"}\n', "Line 1 has neither 'messages', nor"),
        (b"\xff\xfe{\n", "Line 1 is not"),
    ],
)
def test_a_broken_file_is_refused_at_once_and_leaves_nothing(
    service: Service, client: openai.OpenAI, content: bytes, message: str
) -> None:
    before = service.stored()
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("broken.jsonl", content), purpose="fine-tune")
    assert message in str(refused.value)
    assert (refused.value.param, refused.value.type) == ("file", "invalid_request_error")
    assert (service.stored(), service.uploads()) == (before, [])


def test_another_purpose_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"'assistants' is not one of \['fine-tune'\] - 'purpose'"):
        client.files.create(file=("a.jsonl", TRAIN), purpose="assistants")


def test_a_client_that_goes_in_the_middle_of_an_upload_leaves_nothing(service: Service) -> None:
    before = service.stored()
    line = TRAIN.splitlines(keepends=True)[0]
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.token('client')}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(head.encode())
        connection.sendall(line * (20 * 2**20 // len(line)))
        wait_for(lambda: service.uploads() != [], "an upload in the storage")
    wait_for(lambda: service.uploads() == [], "the end of the upload in the storage")
    assert service.stored() == before


def test_a_killed_process_loses_no_file_that_was_answered(service: Service, client: openai.OpenAI) -> None:
    file = client.files.create(file=("kept.jsonl", TRAIN), purpose="fine-tune")
    service.kill()
    service.start()
    assert client.files.content(file.id).read() == TRAIN
    job = client.fine_tuning.jobs.create(training_file=file.id, model="qwen3-0.6b")
    service.kill()
    service.start()
    assert client.fine_tuning.jobs.retrieve(job.id).training_file == file.id
