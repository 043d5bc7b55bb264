"""The commit protocol: which process may write to a run, and which checkpoints and result of the run exist.

    <run>/claims/000003.json                                            the holder of the run
    <run>/checkpoints/step-000100/claim-000003/{files..., manifest.json}
    <run>/checkpoints/step-000100/claim-000003/evaluation.json          later, by the first process that evaluates it
    <run>/result/claim-000003/{files..., manifest.json}
    <run>/result/manifest.json                                          the same bytes: the result that won

It needs a storage with strong read-after-write consistency, for reads and listings, and `If-None-Match: *`; no clocks,
locks or leases. Nothing is ever overwritten. Each object has one writer, except evaluation.json, which is not part of a
commit and has the same content whoever writes it.

Claims. A starting process writes the claim after the last one (`claim`). The process with the highest claim holds the
run. A process whose claim was followed by another one is a zombie, which may still be alive. An older attempt never
claims the run after a newer one.

Commit. Every process of the gang uploads its files to a folder with the claim's number in its name, to which no other
claim writes. Then the leader writes the manifest (`commit_checkpoint`), last, and looks for a later claim. If there
is none, the commit is acknowledged: it was there before any later claim, so every later holder lists it. If there is
one, FencedError: the process must neither report the checkpoint nor delete anything.

Validity (`valid_checkpoints`). The newest manifest in the order (claim, step) is valid, and so are the existing ones
that it `follows`. So the checkpoints of a run are always one sequence of ascending steps. What a zombie commits after
its successor's first commit is never valid; what it commits before that is a complete checkpoint, which the successor's
first commit supersedes.

Deletion (retention.py), only after an acknowledged commit: everything older than that commit in the order (claim,
step) that is not retained. Every later holder of the run lists that commit, so it would not keep any of these either,
however late a deletion is executed. A manifest is deleted before its files: no manifest ever lacks a file.

The result is the first one committed: <run>/result/manifest.json is written once, and a second process adopts it.
Results of zombies need no fencing: they are as good.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import CorruptCheckpoint
from finetune_api.pod_contracts.manifest import (
    MANIFEST_NAME,
    CheckpointKey,
    ClaimRecord,
    Manifest,
    ManifestFile,
    digest,
)
from finetune_api.sources import StorageLocation
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.storage.storage import MismatchError, Storage, in_parallel

CLAIMS = "claims"
CHECKPOINTS = "checkpoints"
RESULT = "result"
CLAIM_TRIES = 100  # Each failed try means that another process has claimed the run.
MESSAGE_LENGTH = 1000
PROBE = b"finetune-operator"
CLAIM_NAME = re.compile(r"^(\d{6,})\.json$")
CHECKPOINT_PATH = re.compile(r"^step-(\d{6,})/claim-(\d{6,})/(.+)$")


class CorruptError(Exception):
    """The storage differs from the manifest."""


class FencedError(DisruptedError):
    """Another process holds the run now, so this one must end. It is not a failure of the run."""


@dataclass(frozen=True)
class Claim:
    """The right to write to a run, until a higher number is claimed."""

    run: StorageLocation
    number: int
    attempt: int


@dataclass(frozen=True)
class Committed:
    """A committed folder; `digest` identifies it."""

    folder: StorageLocation
    manifest: Manifest
    digest: str


def check_storage(storage: Storage, output: StorageLocation) -> None:
    """List, write, read and delete in the run's folder; ranges are read as they were asked for, of one version, and
    conditional writes never overwrite. Raises DiagnosedError.

    Listing comes first: some servers make a missing bucket.
    """
    probe = output.join(f"preflight-{uuid.uuid4().hex}")
    storage.list_objects(output)
    storage.write(probe, PROBE)
    try:
        storage.require_range_reads(probe, PROBE)
        storage.require_strong_etags(probe)
    finally:
        storage.delete([probe])
    try:
        storage.require_conditional_writes(probe)
    finally:
        storage.delete([probe])


def claim(storage: Storage, run: StorageLocation, attempt: int) -> Claim:
    """Claim the run. Raises FencedError if a later attempt has already claimed it."""
    record = ClaimRecord(attempt=attempt, created=whole_seconds(datetime.now(UTC)), token=secrets.token_hex(8))
    for _ in range(CLAIM_TRIES):
        last = _last_claim(storage, run)
        holder = _attempt_of(storage.read(_claim_location(run, last))) if last else 0
        if holder > attempt:
            raise FencedError(f"attempt {holder} holds the run (claim {last}); attempt {attempt} comes too late")
        if storage.write_if_absent(_claim_location(run, last + 1), record.to_bytes()):
            return Claim(run, last + 1, attempt)
    raise DiagnosedError(
        Reason.FAILED,
        f"{run.uri} could not be claimed: another process was faster {CLAIM_TRIES} times. Stop the other processes.",
        retryable=True,
    )


def refuse_fenced(storage: Storage, claim: Claim) -> None:
    """Raises FencedError if another process holds the run now: claims have no gaps, so it has the next number."""
    later = storage.find(_claim_location(claim.run, claim.number + 1))
    if later is not None:
        raise FencedError(
            f"attempt {_attempt_of(later)} holds the run now (claim {claim.number + 1}); attempt {claim.attempt} "
            f"(claim {claim.number}) stops"
        )


def checkpoint_folder(run: StorageLocation, key: CheckpointKey) -> StorageLocation:
    """The folder of a checkpoint."""
    return run.join(CHECKPOINTS, f"step-{key.step:06d}", claim_folder(key.claim))


def claim_folder(number: int) -> str:
    """The name of the folders that one claim writes to."""
    return f"claim-{number:06d}"


def checkpoint_path(path: str) -> tuple[CheckpointKey, str] | None:
    """The checkpoint of an object below <run>/checkpoints, and the object's path in it; None for other objects."""
    match = CHECKPOINT_PATH.match(path)
    if match is None or int(match[2]) < 1:
        return None
    return CheckpointKey(step=int(match[1]), claim=int(match[2])), match[3]


def upload_files(
    storage: Storage, folder: StorageLocation, files: Mapping[str, Path | memoryview]
) -> list[ManifestFile]:
    """Upload files, from disk or memory, to `folder/<path>`; returns their manifest entries."""
    described: dict[str, ManifestFile] = {}

    def upload(path: str) -> None:
        stored = storage.upload(files[path], folder.join(path))
        described[path] = ManifestFile(path=path, size=stored.size, sha256=stored.sha256)

    in_parallel(upload, sorted(files))
    return [described[path] for path in sorted(files)]


def commit(storage: Storage, folder: StorageLocation, manifest: Manifest) -> Committed:
    """Write the folder's manifest. Returns the committed one: this, or the one that was written before."""
    body = manifest.to_bytes()
    if storage.write_if_absent(folder.join(MANIFEST_NAME), body):
        return Committed(folder, manifest, digest(body))
    return read_committed(storage, folder)


def commit_checkpoint(storage: Storage, claim: Claim, manifest: Manifest) -> Committed:
    """Commit a checkpoint whose files are all uploaded. Raises FencedError if it can't be acknowledged."""
    committed = commit(storage, checkpoint_folder(claim.run, manifest.key), manifest)
    refuse_fenced(storage, claim)
    return committed


def commit_result(storage: Storage, run: StorageLocation, manifest: Manifest) -> Committed:
    """Commit a result whose files are all uploaded. Returns the run's result: this one, or an earlier one."""
    commit(storage, result_folder(run, manifest.claim), manifest)
    won = commit(storage, run.join(RESULT), manifest)
    return Committed(result_folder(run, won.manifest.claim), won.manifest, won.digest)


def find_result(storage: Storage, run: StorageLocation) -> Committed | None:
    """The run's result, or None. Raises CorruptError if its manifest is malformed."""
    won = find_committed(storage, run.join(RESULT))
    if won is None:
        return None
    return Committed(result_folder(run, won.manifest.claim), won.manifest, won.digest)


def result_folder(run: StorageLocation, claim: int) -> StorageLocation:
    """The folder of the result written under a claim."""
    return run.join(RESULT, claim_folder(claim))


def list_checkpoints(storage: Storage, run: StorageLocation) -> tuple[list[Committed], list[CorruptCheckpoint]]:
    """The valid checkpoints, oldest first, and those with an unreadable manifest."""
    keys = [
        place[0]
        for item in storage.list_objects(run.join(CHECKPOINTS))
        if (place := checkpoint_path(item.path)) is not None and place[1] == MANIFEST_NAME
    ]
    committed: list[Committed] = []
    unreadable: list[CorruptCheckpoint] = []

    def read(key: CheckpointKey) -> None:
        try:
            found = find_committed(storage, checkpoint_folder(run, key))
            if found is not None and found.manifest.key != key:
                raise CorruptError(f"{found.folder.join(MANIFEST_NAME).uri} is the manifest of another checkpoint")
        except CorruptError as error:
            unreadable.append(corrupt_checkpoint(key.step, error))
        else:
            committed.extend([found] if found is not None else [])

    in_parallel(read, keys)
    return valid_checkpoints(committed), sorted(unreadable, key=lambda item: item.step)


def corrupt_checkpoint(step: int, error: CorruptError) -> CorruptCheckpoint:
    """A corrupt checkpoint, as the job's status shows it."""
    return CorruptCheckpoint(step=step, message=str(error)[:MESSAGE_LENGTH])


def valid_checkpoints(committed: Iterable[Committed]) -> list[Committed]:
    """The valid checkpoints, oldest first: the newest one, and those that it follows."""
    by_age = sorted(committed, key=lambda item: (item.manifest.claim, item.manifest.step))
    if not by_age:
        return []
    newest = by_age[-1]
    return [item for item in by_age if item is newest or item.manifest.key in newest.manifest.follows]


def read_committed(storage: Storage, folder: StorageLocation, missing: Reason | None = None) -> Committed:
    """The folder's manifest. Raises CorruptError if it is malformed, DiagnosedError if there is none."""
    location = folder.join(MANIFEST_NAME)
    return _parse(folder, storage.read(location, missing))


def find_committed(storage: Storage, folder: StorageLocation) -> Committed | None:
    """The folder's manifest, or None if it has none. Raises CorruptError as `read_committed` does."""
    body = storage.find(folder.join(MANIFEST_NAME))
    return None if body is None else _parse(folder, body)


def download(
    storage: Storage, committed: Committed, directory: Path, only: Callable[[str], bool] | None = None
) -> None:
    """Download the files of a committed folder to `directory`; only those for which `only(path)` holds.

    Raises CorruptError if a file is missing or differs from the manifest.
    """

    def fetch(file: ManifestFile) -> None:
        location = committed.folder.join(file.path)
        try:
            storage.download(location, directory / file.path, size=file.size, sha256=file.sha256)
        except MismatchError as error:
            raise CorruptError(str(error)) from error

    in_parallel(fetch, [file for file in committed.manifest.files if only is None or only(file.path)])


def _last_claim(storage: Storage, run: StorageLocation) -> int:
    """The highest claim; 0 if there is none."""
    names = (CLAIM_NAME.match(item.path) for item in storage.list_objects(run.join(CLAIMS)))
    return max((int(name[1]) for name in names if name is not None), default=0)


def _claim_location(run: StorageLocation, number: int) -> StorageLocation:
    return run.join(CLAIMS, f"{number:06d}.json")


def _attempt_of(record: bytes) -> int:
    """The attempt of a claim; 0 if its record is corrupt."""
    try:
        return ClaimRecord.from_bytes(record).attempt
    except ValidationError:
        return 0


def _parse(folder: StorageLocation, body: bytes) -> Committed:
    try:
        return Committed(folder, Manifest.from_bytes(body), digest(body))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise CorruptError(f"{folder.join(MANIFEST_NAME).uri} is not a manifest: {problem}") from error
