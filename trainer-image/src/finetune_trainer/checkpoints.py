"""The checkpoints of a run: `<run>/checkpoints/step-000100/`, each committed as commits.py tells.

The files of a checkpoint are below a folder named after the attempt that wrote them, so that an attempt that
lost the race for a step, or died before its commit, never writes over the files of another.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import Best, CheckpointStatus
from finetune_api.manifest import MANIFEST_NAME, Manifest, ManifestFile
from finetune_api.sources import S3Location
from finetune_trainer import commits
from finetune_trainer.commits import Committed, CorruptError
from finetune_trainer.failures import DiagnosedError
from finetune_trainer.gang import Gang
from finetune_trainer.storage import Storage

FOLDER = "checkpoints"
STEP_MANIFEST = re.compile(rf"^(step-\d{{6,}})/{re.escape(MANIFEST_NAME)}$")
NOT_STORED = frozenset({"training_args.bin", "README.md"})  # a pickle; a template of a model card

_log = structlog.get_logger()


@dataclass(frozen=True)
class LocalCheckpoint:
    """A checkpoint on this node's disk, as the Hugging Face Trainer wrote it."""

    committed: Committed
    path: Path


def step_folder(output: S3Location, step: int) -> S3Location:
    """Where the checkpoint of a step is."""
    return output.join(FOLDER, _step_name(step))


def to_status(committed: Committed) -> CheckpointStatus:
    """The checkpoint as it stands in a job's status."""
    return CheckpointStatus(step=committed.manifest.step, uri=committed.folder.uri)


def list_committed(storage: Storage, output: S3Location) -> list[Committed]:
    """Every committed checkpoint, oldest first. A manifest that can't be read is reported and left out."""
    found: list[Committed] = []
    for item in storage.list_objects(output.join(FOLDER)):
        if match := STEP_MANIFEST.match(item.path):
            try:
                found.append(commits.read_committed(storage, output.join(FOLDER, match[1])))
            except CorruptError as error:
                _log.warning(f"skipping a checkpoint: {error}")
    return sorted(found, key=lambda committed: committed.manifest.step)


def commit(gang: Gang, storage: Storage, output: S3Location, local: Path, manifest: Manifest) -> Committed:
    """Upload what every node has of a checkpoint, and commit it. All processes get what is committed.

    `manifest` has everything but the files. Another attempt's commit of the same step is adopted.
    """
    folder = step_folder(output, manifest.step)
    earlier = gang.from_leader(lambda: commits.find_committed(storage, folder))
    if earlier is not None:
        return earlier
    attempt = _attempt_folder(manifest.attempt)

    def upload() -> list[ManifestFile]:
        if not gang.leads_node:
            return []
        files = commits.upload_files(storage, folder.join(attempt), local, _files(local))
        return [file.model_copy(update={"path": f"{attempt}/{file.path}"}) for file in files]

    files = [file for uploaded in gang.gather(upload) for file in uploaded]
    complete = manifest.model_copy(update={"files": files, "created": whole_seconds(datetime.now(UTC))})
    return gang.from_leader(lambda: commits.commit(storage, folder, complete))


def fetch(storage: Storage, committed: Committed, directory: Path) -> LocalCheckpoint:
    """Bring a checkpoint to `directory`. Raises CorruptError."""
    target = directory / _step_name(committed.manifest.step)
    try:
        commits.download(storage, committed, target)
    except CorruptError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return _in(directory, committed)


def fetch_newest(storage: Storage, output: S3Location, directory: Path) -> LocalCheckpoint | None:
    """The newest checkpoint whose files are what its manifest says; None when there is none.

    One that is corrupt is reported, and its manifest removed, so that its step can be committed again.
    """
    for committed in reversed(list_committed(storage, output)):
        try:
            return fetch(storage, committed, directory)
        except CorruptError as error:
            _log.warning(f"skipping the checkpoint of step {committed.manifest.step}: {error}")
            _uncommit(storage, committed)
    return None


def fetch_on_every_node(gang: Gang, storage: Storage, output: S3Location, directory: Path) -> LocalCheckpoint | None:
    """The newest good checkpoint, chosen by the leader and brought to every node's `directory`."""

    def choose() -> Committed | None:
        newest = fetch_newest(storage, output, directory)
        return None if newest is None else newest.committed

    chosen = gang.from_leader(choose)
    if chosen is None:
        return None

    def fetch_chosen() -> None:
        if not gang.leads:
            try:
                fetch(storage, chosen, directory)
            except CorruptError as error:
                raise DiagnosedError(Reason.FAILED, str(error), retryable=True) from error

    gang.on_each_node(fetch_chosen)
    return _in(directory, chosen)


def best_of(checkpoints: Sequence[Committed], best: Best) -> Committed | None:
    """The one with the best metric, the earlier of two equals; None when none has the metric."""
    measured = [committed for committed in checkpoints if best.metric in committed.manifest.metrics]
    sign = 1 if best.goal == "Minimize" else -1
    return min(
        measured,
        key=lambda committed: (sign * committed.manifest.metrics[best.metric], committed.manifest.step),
        default=None,
    )


def outdated(checkpoints: Sequence[Committed], keep: int, best: Best | None) -> list[Committed]:
    """Those to remove, given all, oldest first: not among the newest `keep`, and not the best."""
    chosen = best_of(checkpoints, best) if best is not None else None
    return [committed for committed in checkpoints[:-keep] if committed is not chosen]


def remove(storage: Storage, committed: Committed) -> None:
    """Remove a checkpoint, its manifest first, so that what is left of a removal cut short is no checkpoint.

    A failure is reported, and harms nothing but the bill.
    """
    if not _uncommit(storage, committed):
        return
    try:
        storage.delete([committed.folder.join(item.path) for item in storage.list_objects(committed.folder)])
    except DiagnosedError as error:
        _log.warning(f"files of an old checkpoint could not be removed: {error}")


def metrics_at(log_history: Sequence[Mapping[str, float]], step: int, trained_tokens: int) -> dict[str, float]:
    """A checkpoint's metrics, from the Trainer's log: the newest training loss and this step's evaluation."""
    metrics: dict[str, float] = {"trainedTokens": float(trained_tokens)}
    for entry in log_history:
        if "loss" in entry:
            metrics["trainLoss"] = entry["loss"]
        if "eval_loss" in entry and entry["step"] == step:
            metrics["evalLoss"] = entry["eval_loss"]
    return metrics


def _uncommit(storage: Storage, committed: Committed) -> bool:
    """Remove the manifest. Whether that could be done: a failure is reported."""
    try:
        storage.delete([committed.folder.join(MANIFEST_NAME)])
    except DiagnosedError as error:
        _log.warning(f"the checkpoint of step {committed.manifest.step} could not be removed: {error}")
        return False
    return True


def _in(directory: Path, committed: Committed) -> LocalCheckpoint:
    """Where `fetch` puts a checkpoint."""
    manifest = committed.manifest
    return LocalCheckpoint(committed, directory / _step_name(manifest.step) / _attempt_folder(manifest.attempt))


def _step_name(step: int) -> str:
    return f"step-{step:06d}"


def _attempt_folder(attempt: int) -> str:
    return f"attempt-{attempt:04d}"


def _files(local: Path) -> list[str]:
    return [
        path.relative_to(local).as_posix()
        for path in local.rglob("*")
        if path.is_file() and path.name not in NOT_STORED
    ]
