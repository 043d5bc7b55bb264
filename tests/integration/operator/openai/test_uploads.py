"""Uploads in parts through OpenAI's own client."""

from __future__ import annotations

import hashlib
import json

import openai
import pytest

from tests.integration.operator.openai.service import BUCKET, Service
from tests.integration.operator.openai.test_jobs import TRAIN

LARGE = TRAIN + b"".join(
    json.dumps({"messages": [{"role": "assistant", "content": str(n) * 1000}]}).encode() + b"\n" for n in range(2000)
)


def parts_of(service: Service, upload: str) -> list[str]:
    prefix = f"finetune/{service.api.namespace}/UPLOADS/{upload}/part_"
    return [
        item["Key"] for item in service.s3.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    ]


def test_the_clients_own_chunked_upload_gives_the_file(service: Service, client: openai.OpenAI) -> None:
    upload = client.uploads.upload_file_chunked(
        file=LARGE,
        filename="large.jsonl",
        bytes=len(LARGE),
        mime_type="application/jsonl",
        purpose="fine-tune",
        part_size=2**20,
        md5=hashlib.md5(LARGE, usedforsecurity=False).hexdigest(),
    )
    assert upload.status == "completed"
    assert upload.file is not None
    assert client.files.content(upload.file.id).read() == LARGE
    assert parts_of(service, upload.id) == []
    job = client.fine_tuning.jobs.create(training_file=upload.file.id, model="qwen3-0.6b")
    assert job.training_file == upload.file.id


def test_parts_are_in_the_order_asked_for_and_completing_again_gives_the_same_file(client: openai.OpenAI) -> None:
    head, tail = TRAIN[:100], TRAIN[100:]
    upload = client.uploads.create(
        bytes=len(TRAIN), filename="a.jsonl", mime_type="application/jsonl", purpose="fine-tune"
    )
    second = client.uploads.parts.create(upload.id, data=tail)
    first = client.uploads.parts.create(upload.id, data=head)
    done, again = (client.uploads.complete(upload.id, part_ids=[first.id, second.id]) for _ in range(2))
    assert done.file is not None
    assert again.file == done.file
    assert client.files.content(done.file.id).read() == TRAIN


def test_what_does_not_fit_together_is_refused_and_can_be_mended(service: Service, client: openai.OpenAI) -> None:
    upload = client.uploads.create(
        bytes=len(TRAIN), filename="a.jsonl", mime_type="application/jsonl", purpose="fine-tune"
    )
    part = client.uploads.parts.create(upload.id, data=TRAIN[:-1])
    whole = client.uploads.parts.create(upload.id, data=TRAIN)
    wrong = client.uploads.parts.create(upload.id, data=b"broken\n" + TRAIN[7:])
    before = service.stored()
    for ids, md5, message in (
        ([part.id], None, f"have {len(TRAIN) - 1} bytes"),
        (["part_" + "0" * 24], None, "No such part"),
        ([whole.id], "0" * 32, "The md5 of the parts is"),
        ([wrong.id], None, "Line 1 is not a valid JSON dictionary"),
    ):
        with pytest.raises(openai.BadRequestError, match=message):
            client.uploads.complete(upload.id, part_ids=ids, **({"md5": md5} if md5 else {}))
    assert (service.stored(), service.uploads()) == (before, [])
    assert client.uploads.complete(upload.id, part_ids=[whole.id]).status == "completed"


def test_a_cancelled_upload_leaves_no_part(service: Service, client: openai.OpenAI) -> None:
    upload = client.uploads.create(
        bytes=len(TRAIN), filename="a.jsonl", mime_type="application/jsonl", purpose="fine-tune"
    )
    client.uploads.parts.create(upload.id, data=TRAIN)
    assert client.uploads.cancel(upload.id).status == "cancelled"
    assert parts_of(service, upload.id) == []
    with pytest.raises(openai.BadRequestError, match="has the status 'cancelled'"):
        client.uploads.parts.create(upload.id, data=TRAIN)
    with pytest.raises(openai.NotFoundError):
        client.uploads.cancel("upload_" + "0" * 24)
