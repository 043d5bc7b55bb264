"""What `finetune-trainer delete` removes from a real S3, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import DeleteRun, JobIdentity
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.delete import delete
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer_evaluation.buckets import Bucket

UID = "0f3c2a91-5d0c-4bb1-9d2e-7a4f1c86e3d5"
MINE = (
    "1-0f3c2a91/checkpoints/step-000100/model/shard-00001.safetensors",
    "1-0f3c2a91/checkpoints/step-000100/manifest.json",
    "1-0f3c2a91/result/adapter_model.safetensors",
    "1-0f3c2a91/events.jsonl",
    "again-0f3c2a91/events.jsonl",
)
OTHERS = (
    "1-deadbeef/events.jsonl",  # another object of this name, before or after it
    "0f3c2a91/events.jsonl",
    "0f3c2a91-deadbeef/events.jsonl",
    "1-0f3c2a91x/events.jsonl",
    "notes.txt",
)


def run(bucket: Bucket, *folders: str) -> DeleteRun:
    job = JobIdentity(namespace="team-a", name="router", uid=UID, run_id="1")
    return DeleteRun(job=job, storage=bucket.storage, folder_uris=[bucket.uri(folder) for folder in folders])


def keys(bucket: Bucket, prefix: str) -> set[str]:
    listed = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=prefix).get("Contents", [])
    return {item["Key"] for item in listed}


def test_the_runs_of_this_object_go_and_nothing_else(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("finetune", "earlier"):
        for path in (*MINE, *OTHERS):
            bucket.put(f"{place}/team-a/router/{path}", b"1")
    bucket.put("finetune/team-a/router-2/1-0f3c2a91/events.jsonl", b"1")
    delete(run(bucket, "finetune/team-a/router", "earlier/team-a/router"))
    left = {f"{place}/team-a/router/{path}" for place in ("finetune", "earlier") for path in OTHERS}
    neighbour = "finetune/team-a/router-2/1-0f3c2a91/events.jsonl"
    assert keys(bucket, "finetune/team-a/") | keys(bucket, "earlier/team-a/") == {*left, neighbour}
    assert f"{len(MINE)} objects removed" in capsys.readouterr().out


def test_nothing_to_remove_is_no_failure(bucket: Bucket) -> None:
    delete(run(bucket, "nothing/team-a/router"))
    gone = run(replace(bucket, name="no-such-bucket"), "finetune/team-a/router")
    delete(gone)


def test_uploads_that_were_begun_are_ended(bucket: Bucket) -> None:
    folder = "begun/team-a/router"
    bucket.put(f"{folder}/1-0f3c2a91/events.jsonl", b"1")
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key=f"{folder}/1-0f3c2a91/result/model.safetensors")
    delete(run(bucket, folder))
    begun = bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix=folder)
    assert begun.get("Uploads", []) == []


def test_a_place_that_is_not_the_jobs_own_is_refused(bucket: Bucket) -> None:
    bucket.put("finetune/team-b/router/1-0f3c2a91/events.jsonl", b"1")
    with pytest.raises(DiagnosedError, match="nothing is removed") as failed:
        delete(run(bucket, "finetune/team-b/router"))
    assert failed.value.failure.reason is Reason.INVALID_SPEC
    assert keys(bucket, "finetune/team-b/")


def test_what_comes_while_it_removes_is_removed_too(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "late/team-a/router/1-0f3c2a91/checkpoints/step-000200/manifest.json"
    bucket.put("late/team-a/router/1-0f3c2a91/events.jsonl", b"1")
    original, late = Storage.delete, [key]

    def while_deleting(storage: Storage, locations: object) -> None:
        original(storage, locations)  # type: ignore[arg-type]
        if late:
            bucket.put(late.pop(), b"1")

    monkeypatch.setattr(Storage, "delete", while_deleting)
    delete(run(bucket, "late/team-a/router"))
    assert keys(bucket, "late/") == set()
