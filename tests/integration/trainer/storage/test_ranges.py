"""Files over PART_BYTES are read in parts: no other bytes are ever taken for a part, and what sends others is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.outcome import Failure
from finetune_api.sources import StorageLocation, parse_s3
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage import transfers
from finetune_trainer.storage.commits import check_storage
from finetune_trainer.storage.storage import MismatchError, Storage
from tests.integration.trainer.storage.s3_proxy import Answer, Fault, Meanwhile, S3Proxy, Say, Whole, s3_proxy
from tests.integration.trainer_evaluation.buckets import Bucket

PART = 2**20
CONTENT = os.urandom(2 * PART + 1)


class Gateway(NamedTuple):
    """A storage behind a proxy that can be told to lie."""

    storage: Storage
    proxy: S3Proxy
    location: StorageLocation
    output: StorageLocation


@pytest.fixture
def gateway(bucket: Bucket, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr(transfers, "PART_BYTES", PART)
    key = f"ranges/{request.node.name}"
    bucket.put(key, CONTENT)
    with s3_proxy(str(bucket.storage.endpoint)) as proxy:
        config = bucket.storage.model_copy(update={"endpoint": proxy.endpoint, "outage_tolerance_seconds": 2})
        yield Gateway(Storage(config), proxy, parse_s3(bucket.uri(key)), parse_s3(bucket.uri(f"{key}-run")))


def refusal(work: Callable[[], object], proxy: S3Proxy) -> Failure:
    """Why the storage is refused: for good, and without a request being sent anew."""
    with pytest.raises(DiagnosedError) as error:
        work()
    assert (error.value.failure.reason, error.value.failure.retryable) == (Reason.STORAGE_UNSUITABLE, False)
    assert "cache or gateway" in error.value.failure.message
    asked = [(request.kind, request.path, request.headers.get("range")) for request in proxy.requests]
    assert len(set(asked)) == len(asked)
    return error.value.failure


LIES: dict[str, Fault] = {
    "the whole object": Whole(CONTENT),
    "no range": Say({"Content-Range": None}),
    "another range": Say({"Content-Range": f"bytes 1-{PART}/{len(CONTENT)}"}),
    "a range that is too short": Say({"Content-Range": f"bytes 0-{PART - 2}/{len(CONTENT)}"}),
    "a range of which no more is known": Say({"Content-Range": f"bytes 0-{PART - 1}/*"}),
    "no range of bytes": Say({"Content-Range": "chapters 1-2/3"}),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_answer_that_is_not_the_part_is_refused(gateway: Gateway, tmp_path: Path, lie: Fault, at: int) -> None:
    gateway.proxy.arm(lie, at=at)
    said = refusal(lambda: gateway.storage.download(gateway.location, tmp_path / "file"), gateway.proxy)
    assert gateway.location.uri in said.message


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_so_it_is_of_a_single_range(gateway: Gateway, lie: Fault) -> None:
    gateway.proxy.arm(lie)
    refusal(lambda: gateway.storage.read_range(gateway.location, 0, 8), gateway.proxy)


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_a_version_that_has_no_name_is_refused(gateway: Gateway, tmp_path: Path, etag: str | None) -> None:
    gateway.proxy.arm(Say({"ETag": etag}))
    said = refusal(lambda: gateway.storage.download(gateway.location, tmp_path / "file"), gateway.proxy)
    assert "ETag" in said.message


def test_what_is_read_at_once_needs_no_range_and_no_version(gateway: Gateway, bucket: Bucket, tmp_path: Path) -> None:
    """RFC 9110 lets a server send the whole object, and here that is what was asked for."""
    gateway.proxy.arm(Whole(b"small"), times=None)
    gateway.storage.download(gateway.location, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == gateway.storage.read_range(gateway.location, 0, 8) == b"small"


def test_nothing_is_beyond_the_end(gateway: Gateway) -> None:
    assert gateway.storage.read_range(gateway.location, len(CONTENT) - 1, 8) == CONTENT[-1:]
    assert gateway.storage.read_range(gateway.location, len(CONTENT), 8) == b""


def changes(gateway: Gateway, bucket: Bucket) -> dict[str, Fault]:
    """How an object may be another between two parts."""
    key = gateway.location.key
    return {
        "replaced": Meanwhile(lambda: bucket.put(key, CONTENT[::-1])),
        "cut": Meanwhile(lambda: bucket.put(key, CONTENT[:8])),
        "removed": Meanwhile(lambda: gateway.storage.delete([gateway.location])),
        "If-Match is refused": Answer(412, "PreconditionFailed"),
        "If-Match is ignored": Say({"ETag": '"another"'}),
        # Of the part that was asked for: which of the two comes first is not known.
        "another size": Say({"Content-Range": lambda said: said.replace(f"/{len(CONTENT)}", f"/{len(CONTENT) + 1}")}),
    }


@pytest.mark.parametrize("how", ["replaced", "cut", "removed", "If-Match is refused", "If-Match is ignored"])
def test_an_object_that_changes_while_it_is_read_is_reported(
    gateway: Gateway, bucket: Bucket, tmp_path: Path, how: str
) -> None:
    gateway.proxy.arm(changes(gateway, bucket)[how], kind="GetObject", at=2)
    with pytest.raises(DiagnosedError, match="was replaced or removed while it was read") as error:
        gateway.storage.download(gateway.location, tmp_path / "file")
    assert error.value.failure.retryable


@pytest.mark.parametrize("how", ["replaced", "another size"])
def test_one_that_was_to_have_a_digest_is_a_mismatch(
    gateway: Gateway, bucket: Bucket, tmp_path: Path, how: str
) -> None:
    gateway.proxy.arm(changes(gateway, bucket)[how], kind="GetObject", at=2)
    with pytest.raises(MismatchError, match="changed while it was read"):
        gateway.storage.download(gateway.location, tmp_path / "file", size=len(CONTENT))


OTHERS: dict[str, tuple[int, Fault]] = {
    "another object": (1, Whole(b"another object!!!")),
    "the whole for a part": (3, Whole(b"finetune-operator")),
}


@pytest.mark.parametrize(("at", "lie"), OTHERS.values(), ids=OTHERS)
def test_preflight_names_a_storage_that_reads_other_bytes(
    gateway: Gateway, storage: Storage, lie: Fault, at: int
) -> None:
    """The first read is of the whole, the third of a second range."""
    gateway.proxy.arm(lie, kind="GetObject", at=at)
    refusal(lambda: check_storage(gateway.storage, gateway.output), gateway.proxy)
    assert storage.list_objects(gateway.output) == []


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_preflight_names_a_storage_that_has_no_name_for_a_version(
    gateway: Gateway, storage: Storage, etag: str | None
) -> None:
    """Else the first file of more than one part would end the run, with its accelerators."""
    gateway.proxy.arm(Say({"ETag": etag}), kind="GetObject", times=None)
    said = refusal(lambda: check_storage(gateway.storage, gateway.output), gateway.proxy)
    assert "ETag" in said.message
    assert storage.list_objects(gateway.output) == []
