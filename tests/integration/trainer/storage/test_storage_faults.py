"""The edge to S3 when requests fail: a proxy before a real S3 breaks them."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.cluster.components.certificates import Authority
from finetune_api.conditions import Reason
from finetune_api.finetuneclass import KMS, ServerSideEncryption
from finetune_api.pod_contracts.run import StorageConfig
from finetune_api.sources import StorageLocation, parse_s3
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage import client, retries, transfers
from finetune_trainer.storage.requests import bodies
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.storage.s3_proxy import (
    Answer,
    CutBody,
    DropAnswer,
    Fault,
    Hang,
    Kind,
    Meanwhile,
    ResetConnection,
    S3Proxy,
    Trickle,
    s3_proxy,
)
from tests.integration.trainer_evaluation.buckets import Bucket

MIB = 2**20

PASSING: dict[str, Fault] = {
    "500": Answer(500, "InternalError"),
    "503": Answer(503, "SlowDown"),
    "429": Answer(429, "TooManyRequests"),
    "timeout 400": Answer(400, "RequestTimeout"),
    "reset": ResetConnection(),
    "lost answer": DropAnswer(),
    "short body": CutBody(3),
    "hung": Hang(30),
}


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[S3Proxy]:
    with s3_proxy(bucket.storage.endpoint or "") as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Seconds stand for what are minutes, and parts are as small as S3 takes them.

    Silence is not waited for where it is the fault; elsewhere a busy machine may be silent, too.
    """
    monkeypatch.setattr(transfers, "PART_BYTES", 5 * MIB)
    case = getattr(request.node, "callspec", None)
    if case is not None and isinstance(case.params.get("fault"), Hang):
        monkeypatch.setattr(client, "READ_TIMEOUT_SECONDS", 1)
    monkeypatch.setattr(retries, "DENIED_SECONDS", 1.5)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_SECONDS", 0.3)


def through(proxy: S3Proxy, bucket: Bucket, **changes: object) -> StorageConfig:
    """The storage's configuration, by way of the proxy."""
    return bucket.storage.model_copy(update={"endpoint": proxy.endpoint, "outage_tolerance_seconds": 20, **changes})


def at(bucket: Bucket, key: str) -> StorageLocation:
    return parse_s3(bucket.uri(f"faults/{key}"))


def fails(work: Callable[[], object]) -> DiagnosedError:
    """The failure."""
    with pytest.raises(DiagnosedError) as failed:
        work()
    return failed.value


class Pauses:
    """Stands for the module `time` where only the pauses between tries take any, and those are not waited for."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    pauses = Pauses()
    monkeypatch.setattr(retries, "time", pauses)
    return pauses


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])  # create, three parts, complete
def test_an_upload_in_parts_survives_a_fault_at_every_request(
    bucket: Bucket, proxy: S3Proxy, tmp_path: Path, fault: Fault, nth: int
) -> None:
    content = os.urandom(10 * MIB + 1)
    (tmp_path / "file").write_bytes(content)
    proxy.arm(fault, at=nth)
    Storage(through(proxy, bucket)).upload(tmp_path / "file", at(bucket, "large"))
    assert any(request.fault for request in proxy.requests)
    assert bucket.read(at(bucket, "large").uri) == content


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_download_in_ranges_survives_a_fault_at_every_request(
    bucket: Bucket, proxy: S3Proxy, tmp_path: Path, fault: Fault, nth: int
) -> None:
    content = os.urandom(10 * MIB + 1)
    bucket.put("faults/down", content)
    proxy.arm(fault, at=nth)
    Storage(through(proxy, bucket)).download(at(bucket, "down"), tmp_path / "file", size=len(content))
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_every_other_operation_survives_a_fault(bucket: Bucket, proxy: S3Proxy, fault: Fault) -> None:
    storage, location = Storage(through(proxy, bucket)), at(bucket, "operations/key")
    for kind, work in {
        "PutObject": lambda: storage.write(location, b"content"),
        "GetObject": lambda: storage.read(location) == b"content" or pytest.fail("other content"),
        "ListObjects": lambda: len(storage.list_objects(at(bucket, "operations"))) == 1 or pytest.fail("not listed"),
        "DeleteObject": lambda: storage.delete([location]),
        "ListMultipartUploads": lambda: storage.abort_uploads(at(bucket, "operations")),
    }.items():
        proxy.forget()
        proxy.arm(fault)
        work()
        broken = not (isinstance(fault, CutBody) and kind in ("PutObject", "DeleteObject"))  # these answer no body
        assert proxy.count() >= (2 if broken else 1), kind


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_conditional_write_knows_its_own_earlier_try(
    bucket: Bucket, proxy: S3Proxy, fault: Fault, request: pytest.FixtureRequest
) -> None:
    location = at(bucket, f"once/{request.node.name}")
    proxy.arm(fault, kind="PutObject")
    assert Storage(through(proxy, bucket)).write_if_absent(location, b"mine")
    assert not Storage(through(proxy, bucket)).write_if_absent(location, b"another's")


def test_a_body_that_only_trickles_is_read_again(
    bucket: Bucket, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "READ_TIMEOUT_SECONDS", 1)
    bucket.put("faults/trickled", b"x" * 1000)
    proxy.arm(Trickle(0.05))
    assert Storage(through(proxy, bucket)).read(at(bucket, "trickled")) == b"x" * 1000
    assert proxy.count("GetObject") == 2


def test_an_outage_shorter_than_the_tolerance_only_delays(
    bucket: Bucket, proxy: S3Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = Storage(through(proxy, bucket))
    proxy.arm(Answer(503, "ServiceUnavailable"), times=6)
    storage.write(at(bucket, "late"), b"late")
    assert proxy.count() == 7
    assert bucket.read(at(bucket, "late").uri) == b"late"
    said = capsys.readouterr().out
    assert f"retrying {proxy.endpoint}" in said
    assert "since" in said
    assert "seconds_left" in said


def test_an_outage_longer_than_the_tolerance_ends_with_its_length(
    bucket: Bucket, proxy: S3Proxy, pauses: Pauses
) -> None:
    proxy.arm(ResetConnection(), times=None)
    storage = Storage(through(proxy, bucket, outage_tolerance_seconds=2))
    error = fails(lambda: storage.list_objects(at(bucket, "any")))
    assert (error.failure.reason, error.failure.retryable) == (Reason.STORAGE_UNREACHABLE, True)
    assert " tries in " in error.failure.message
    assert pauses.seconds == pytest.approx(2)


def test_an_endpoint_that_never_answered_is_reported_in_half_a_minute_and_one_that_did_is_waited_for(
    bucket: Bucket, proxy: S3Proxy, pauses: Pauses
) -> None:
    storage = Storage(through(proxy, bucket, outage_tolerance_seconds=600), reports_unanswered=True)
    proxy.arm(ResetConnection(), times=None)
    error = fails(lambda: storage.list_objects(at(bucket, "any")))
    assert (error.failure.reason, error.failure.retryable) == (Reason.STORAGE_UNREACHABLE, True)
    assert pauses.seconds == pytest.approx(retries.UNANSWERED_SECONDS)
    proxy.disarm()
    storage.list_objects(at(bucket, "any"))
    pauses.seconds = 0
    proxy.arm(ResetConnection(), times=None)
    fails(lambda: storage.list_objects(at(bucket, "any")))
    assert pauses.seconds == pytest.approx(600)


REFUSALS: dict[str, tuple[Answer, Reason]] = {
    "denied": (Answer(403, "AccessDenied"), Reason.STORAGE_DENIED),
    "expired": (Answer(400, "ExpiredToken"), Reason.STORAGE_DENIED),
    "unknown key": (Answer(403, "InvalidAccessKeyId"), Reason.STORAGE_DENIED),
    "no bucket": (Answer(404, "NoSuchBucket"), Reason.BUCKET_NOT_FOUND),
}


@pytest.mark.parametrize(("refusal", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_from_the_start_ends_at_once(bucket: Bucket, proxy: S3Proxy, refusal: Answer, reason: Reason) -> None:
    storage = Storage(through(proxy, bucket))
    proxy.arm(refusal, times=None)
    error = fails(lambda: storage.write(at(bucket, "key"), b""))
    assert (error.failure.reason, error.failure.retryable) == (reason, False)
    assert proxy.count() == 1


@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize(("refusal", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_of_what_worked_before_ends_with_its_own_reason_not_with_the_tolerance(
    bucket: Bucket, proxy: S3Proxy, pauses: Pauses, refusal: Answer, reason: Reason, proven: bool
) -> None:
    storage = Storage(through(proxy, bucket, outage_tolerance_seconds=600), proven=proven)
    if not proven:
        storage.write(at(bucket, "key"), b"")
    proxy.arm(refusal, times=None)
    error = fails(lambda: storage.write(at(bucket, "key"), b""))
    assert (error.failure.reason, error.failure.retryable) == (reason, False)
    assert " tries in " in error.failure.message
    assert pauses.seconds == pytest.approx(retries.DENIED_SECONDS)


@pytest.mark.parametrize(("refusal", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_that_passes_only_delays(bucket: Bucket, proxy: S3Proxy, refusal: Answer, reason: Reason) -> None:
    storage = Storage(through(proxy, bucket))
    storage.write(at(bucket, "key"), b"")
    proxy.arm(refusal, times=2)
    storage.write(at(bucket, "key"), b"again")
    assert bucket.read(at(bucket, "key").uri) == b"again"


def test_an_operation_that_was_never_allowed_is_refused_at_once(bucket: Bucket, proxy: S3Proxy) -> None:
    storage = Storage(through(proxy, bucket))
    storage.list_objects(at(bucket, "any"))
    proxy.arm(Answer(403, "AccessDenied"), kind="DeleteObject", times=None)
    fails(lambda: storage.delete([at(bucket, "key")]))
    assert proxy.count("DeleteObject") == 1


def test_removals_give_up_soon_for_nothing_depends_on_them(bucket: Bucket, proxy: S3Proxy) -> None:
    storage = Storage(through(proxy, bucket, outage_tolerance_seconds=600), proven=True)
    proxy.arm(ResetConnection(), times=None)
    for work in (lambda: storage.delete([at(bucket, "key")]), lambda: storage.abort_uploads(at(bucket, "any"))):
        proxy.forget()
        fails(work)
        assert proxy.count() == retries.MIN_TRIES
    proxy.disarm()
    proxy.arm(Answer(403, "AccessDenied"), times=None)
    proxy.forget()
    fails(lambda: storage.delete([at(bucket, "key")]))
    assert proxy.count() == 1


def test_rotated_keys_are_read_again(bucket: Bucket, proxy: S3Proxy, tmp_path: Path) -> None:
    """The new keys come into the mounted Secret a moment after the storage has dropped the old ones."""
    right = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}

    def mount(keys: dict[str, str]) -> None:
        for name, value in keys.items():
            (tmp_path / name).write_text(value)

    mount(right)
    storage = Storage(through(proxy, bucket), tmp_path)
    storage.write(at(bucket, "rotated"), b"before")
    mount(dict.fromkeys(right, "dropped"))
    proxy.arm(Meanwhile(lambda: mount(right)), kind="PutObject", at=2)
    storage.write(at(bucket, "rotated"), b"after")
    assert bucket.read(at(bucket, "rotated").uri) == b"after"
    assert proxy.count("PutObject") == 4, "before, twice with what was dropped, and with what is right"


def tls(directory: Path) -> tuple[ssl.SSLContext, str]:
    """A server's TLS, and the certificate of the authority that it is trusted by."""
    authority = Authority(directory)
    issued = authority.issue("s3", "s3", hosts=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    return context, authority.certificate.read_text()


def test_the_classes_certificates_are_trusted_and_no_others(bucket: Bucket, tmp_path: Path) -> None:
    context, authority = tls(tmp_path)
    with s3_proxy(bucket.storage.endpoint or "", tls=context) as proxy:
        trusting = Storage(through(proxy, bucket, ca_bundle=authority))
        trusting.write(at(bucket, "trusted"), b"content")
        assert trusting.read(at(bucket, "trusted")) == b"content"
        error = fails(lambda: Storage(through(proxy, bucket)).read(at(bucket, "trusted")))
    assert error.failure.reason is Reason.STORAGE_UNREACHABLE
    assert "presents a certificate that is not trusted" in error.failure.message
    assert "storage.caBundle" in error.failure.message
    assert "tries" not in error.failure.message, "it ends at once"


ENCRYPTION: dict[str, tuple[ServerSideEncryption | None, dict[str, str]]] = {
    "none": (None, {}),
    "S3": (ServerSideEncryption(type="S3"), {"x-amz-server-side-encryption": "AES256"}),
    "KMS": (ServerSideEncryption(type="KMS"), {"x-amz-server-side-encryption": "aws:kms"}),
    "KMS key": (
        ServerSideEncryption(type="KMS", kms=KMS(key_id="key-1")),
        {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "key-1"},
    ),
}


@pytest.mark.parametrize(("encryption", "headers"), ENCRYPTION.values(), ids=ENCRYPTION)
def test_every_request_that_begins_an_object_asks_for_its_encryption(
    bucket: Bucket, proxy: S3Proxy, tmp_path: Path, encryption: ServerSideEncryption | None, headers: dict[str, str]
) -> None:
    """SeaweedFS has no keys here, so the proxy answers for it."""
    storage = Storage(through(proxy, bucket, server_side_encryption=encryption))
    proxy.arm(Answer(200, ""), kind="PutObject", times=None)
    storage.write(at(bucket, "key"), b"content")
    storage.write_if_absent(at(bucket, "key"), b"content")
    (tmp_path / "large").write_bytes(bytes(6 * MIB))
    proxy.arm(Answer(400, "InvalidRequest"), kind="CreateMultipartUpload")
    fails(lambda: storage.upload(tmp_path / "large", at(bucket, "large")))
    kinds: list[Kind] = ["PutObject", "PutObject", "CreateMultipartUpload"]
    assert [request.kind for request in proxy.requests] == kinds
    for request in proxy.requests:
        sent = {name: value for name, value in request.headers.items() if "encryption" in name}
        assert sent == headers


def test_no_secret_is_ever_shown(
    bucket: Bucket,
    proxy: S3Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Not even by a storage that repeats what it was sent."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-session-token")
    keys = [os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
    storage = Storage(through(proxy, bucket, outage_tolerance_seconds=0))
    proxy.arm(Answer(403, "AccessDenied", " ".join(keys)), times=None)
    said = [fails(lambda: storage.write(at(bucket, "key"), b"")).failure.message]
    proxy.disarm()
    proxy.arm(Answer(503, "SlowDown", " ".join(keys)), times=None)
    said.append(fails(lambda: storage.read(at(bucket, "key"))).failure.message)
    said.append(repr(storage.__dict__) + str(through(proxy, bucket)))
    said.extend(capfd.readouterr())
    for text in said:
        assert not any(key in text for key in keys[1:])
    assert f"{keys[0]} [hidden] [hidden]" in said[0]
    assert "SlowDown" in said[3], "the log tells of it"
