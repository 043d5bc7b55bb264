"""One save and what is before and after it, with a fault at each of its requests: the claim, the resume, the
uploads, the commit, the removal of what is outdated. Whatever happens, the next attempt resumes from a checkpoint that
is committed and matches, and leaves nothing lying about. (test_save_faults.py has whole trainings, and their losses.)
"""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.manifest import MANIFEST_NAME
from finetune_api.pod_contracts.run import StorageConfig
from finetune_api.sources import StorageLocation, parse_s3
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage import client, retries
from finetune_trainer.storage.storage import Storage
from tests.integration import forked
from tests.integration.trainer.checkpoint.saves import content, read_back, start
from tests.integration.trainer.storage.s3_proxy import (
    Answer,
    CutBody,
    DropAnswer,
    Fault,
    Hang,
    Kill,
    ResetConnection,
    S3Proxy,
    s3_proxy,
)
from tests.integration.trainer_evaluation.buckets import Bucket

BEFORE, STEP, AFTER = (2, 4, 5), 6, 7
LEAST_REQUESTS = 18
"""Fewer than a save has: claims listed, read and written, 4 for the resume, 5 for the commit, 5 for the removal."""
REMOVALS = 5
PASSING = {
    "500": Answer(500, "InternalError"),
    "503": Answer(503, "SlowDown"),
    "403": Answer(403, "AccessDenied"),
    "hangs": Hang(5),
    "short body": CutBody(),
    "connection reset": ResetConnection(),
    "answer lost": DropAnswer(),
}
OUTAGE = (ResetConnection(), Reason.STORAGE_UNREACHABLE)
REFUSALS = (
    (Answer(500, "InternalError"), Reason.STORAGE_UNREACHABLE),
    (Answer(403, "AccessDenied"), Reason.STORAGE_DENIED),
    (Answer(404, "NoSuchBucket"), Reason.BUCKET_NOT_FOUND),
)

forked.preload("tests.integration.trainer.checkpoint.saves")


@dataclass(frozen=True)
class Scene:
    """A run with checkpoints in it, and the storage as it is reached directly and through the proxy."""

    direct: Storage
    proxy: S3Proxy
    config: StorageConfig
    run: StorageLocation
    directory: Path


@pytest.fixture(scope="module")
def proxy(bucket: Bucket) -> Iterator[S3Proxy]:
    with s3_proxy(str(bucket.storage.endpoint)) as proxy:
        yield proxy


@pytest.fixture
def scenes(
    bucket: Bucket,
    storage: Storage,
    proxy: S3Proxy,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Iterator[Scene]]:
    """A new one for each request that is to fail."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(retries, "DENIED_SECONDS", 0.5)
    case = getattr(request.node, "callspec", None)
    if case is not None and case.params.get("fault") == PASSING["hangs"]:  # a busy machine may be silent, too
        monkeypatch.setattr(client, "READ_TIMEOUT_SECONDS", 0.5)

    def make() -> Iterator[Scene]:
        for number in itertools.count(1):
            run = parse_s3(bucket.uri(f"faults/{request.node.name}/{number}"))
            config = bucket.storage.model_copy(update={"endpoint": proxy.endpoint, "outage_tolerance_seconds": 0})
            first = start(storage, run, tmp_path)
            for step in BEFORE:
                first.commit(step)
            proxy.disarm()
            proxy.forget()
            yield Scene(storage, proxy, config, run, tmp_path / str(number))

    yield make()
    proxy.disarm()


def resume_and_save(config: StorageConfig, run: StorageLocation, directory: Path) -> None:
    """What the second attempt does."""
    start(Storage(config, proven=True), run, directory, attempt=2).save(STEP)


def check(scene: Scene, *, saved: bool | None) -> None:
    """The third attempt resumes from the newest good checkpoint (STEP if it is known to be `saved`), and saves."""
    third = start(scene.direct, scene.run, scene.directory / "after", attempt=3)
    assert third.corrupt == ()
    assert third.resumed is not None
    key = third.resumed.committed.manifest.key
    assert key.step in {BEFORE[-1], STEP}
    assert saved is None or saved == (key.step == STEP)
    assert read_back(third.resumed) == content(key.step, key.claim)
    third.save(AFTER)
    listed = checkpoints.list_committed(scene.direct, scene.run)
    assert [item.manifest.step for item in listed] == [BEFORE[0], key.step, AFTER]
    paths = {item.path for item in scene.direct.list_objects(scene.run.join("checkpoints"))}
    assert paths == {
        f"step-{item.manifest.step:06d}/claim-{item.manifest.claim:06d}/{name}"
        for item in listed
        for name in (*(file.path for file in item.manifest.files), MANIFEST_NAME)
    }


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_that_passes_costs_nothing_but_time(scenes: Iterator[Scene], fault: Fault) -> None:
    """Every request of the whole save is broken once. (test_storage_faults.py has each kind alone.)"""
    scene = next(scenes)
    scene.proxy.arm_first_tries(fault)
    resume_and_save(scene.config, scene.run, scene.directory)
    # A removal that is refused is not tried again, and the others are left to the next attempt.
    unsent = REMOVALS - 1 if fault == PASSING["403"] else 0
    assert sum(request.fault is not None for request in scene.proxy.requests) >= LEAST_REQUESTS - unsent
    check(scene, saved=True)


def test_an_answer_that_is_lost_at_any_one_request_costs_nothing_but_time(scenes: Iterator[Scene]) -> None:
    """The fault that leaves something behind."""
    for nth, scene in enumerate(scenes, start=1):
        scene.proxy.arm(DropAnswer(), at=nth)
        resume_and_save(scene.config, scene.run, scene.directory)
        if not any(request.fault for request in scene.proxy.requests):
            break
        check(scene, saved=True)
    assert nth > LEAST_REQUESTS


@pytest.mark.parametrize("others", [False, True], ids=["outage", "refusals"])
def test_a_fault_that_lasts_ends_the_attempt_with_its_reason(scenes: Iterator[Scene], others: bool) -> None:
    """From any request on: the outage, and by turns one of the others."""
    turns = itertools.cycle(REFUSALS if others else [OUTAGE])
    for nth, (scene, (fault, reason)) in enumerate(zip(scenes, turns, strict=False), start=1):
        scene.proxy.arm(fault, at=nth, times=None)
        try:
            resume_and_save(scene.config, scene.run, scene.directory)
        except DiagnosedError as error:
            assert error.failure.reason is reason
            saved = None  # the answer to the commit may be what was lost
        else:
            saved = True
        if not any(request.fault for request in scene.proxy.requests):
            break
        check(scene, saved=saved)
    assert nth > LEAST_REQUESTS


def test_a_process_killed_before_and_after_any_request_loses_no_commit(scenes: Iterator[Scene]) -> None:
    """Before the first request, and after each: that is before the next one, as far as the storage is concerned."""
    points = itertools.chain([(1, False)], ((nth, True) for nth in itertools.count(1)))
    for (nth, done), scene in zip(points, scenes, strict=False):
        ours, theirs = forked.context.Pipe()
        process = forked.start_forked(_resume_and_save_when_told, theirs, scene.config, scene.run, scene.directory)
        scene.proxy.arm(Kill(process.pid or 0, forward=done), at=nth)
        ours.send("go")
        process.join(60)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        written = any(
            request.kind == "PutObject" and f"step-{STEP:06d}" in request.path and MANIFEST_NAME in request.path
            for request in scene.proxy.requests[: None if done else -1]
        )
        check(scene, saved=written)
    assert nth > LEAST_REQUESTS


def _resume_and_save_when_told(told: Connection, config: StorageConfig, run: StorageLocation, directory: Path) -> None:
    with contextlib.suppress(EOFError):
        told.recv()
    resume_and_save(config, run, directory)
