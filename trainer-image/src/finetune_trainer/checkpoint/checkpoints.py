"""Checkpoints as a gang of processes commits them and resumes from them. storage/commits.py is the protocol."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import Best, CheckpointStatus, CorruptCheckpoint
from finetune_api.pod_contracts.manifest import CheckpointKey, Manifest
from finetune_api.pod_contracts.progress import CheckpointReport
from finetune_api.sources import StorageLocation
from finetune_trainer.checkpoint import evaluation_records
from finetune_trainer.checkpoint.evaluation_records import measured
from finetune_trainer.checkpoint.retention import metric_of
from finetune_trainer.checkpoint.shards import refuse_unreadable
from finetune_trainer.checkpoint.training_state import TRAINER_STATE as TRAINER_STATE
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Claim, Committed, CorruptError
from finetune_trainer.storage.storage import Storage

CHECKPOINTS_REPORTED = 100
CORRUPT_CHECKPOINTS_REPORTED = 20

_log = structlog.get_logger()


@dataclass(frozen=True)
class LocalCheckpoint:
    """A checkpoint on this node's disk."""

    committed: Committed
    path: Path


@dataclass(frozen=True)
class Resumed:
    """What an attempt starts from."""

    checkpoint: LocalCheckpoint | None
    """None: from the beginning."""
    kept: tuple[Committed, ...]
    """The valid checkpoints, oldest first; the last one is the one resumed from."""
    corrupt: tuple[CorruptCheckpoint, ...]
    """Those that were skipped."""


def list_committed(storage: Storage, run: StorageLocation) -> list[Committed]:
    """The committed checkpoints, oldest first, with what was measured of them on the validation set."""
    found = commits.list_checkpoints(storage, run)[0]
    if not found:
        return []
    state = storage.find(found[-1].folder.join(TRAINER_STATE))
    with contextlib.suppress(ValueError, KeyError, TypeError):  # resuming from it reports the corruption
        found = found if state is None else with_evaluations(found, evaluations(state))
    newest = evaluation_records.find_record(storage, found[-1])
    return found if newest is None else with_evaluations(found, {found[-1].manifest.step: measured(newest)})


def evaluations(trainer_state: bytes) -> dict[int, dict[str, float]]:
    """What the evaluations in a checkpoint's trainer_state.json measured, by step."""
    log = json.loads(trainer_state)["log_history"]
    return {entry["step"]: measured(entry) for entry in log if evaluation_records.is_evaluation(entry)}


def evaluated_steps(trainer_state: bytes) -> set[int]:
    """The steps whose evaluation is in a checkpoint's trainer_state.json."""
    log = json.loads(trainer_state)["log_history"]
    return {entry["step"] for entry in log if evaluation_records.is_evaluation(entry)}


def with_evaluations(committed: Sequence[Committed], found: Mapping[int, Mapping[str, float]]) -> list[Committed]:
    """Checkpoints with what was measured at their steps, which are evaluated after they are committed."""
    return [_with_metrics(item, found.get(item.manifest.step, {})) for item in committed]


def _with_metrics(committed: Committed, found: Mapping[str, float]) -> Committed:
    metrics = {**committed.manifest.metrics, **found}
    return replace(committed, manifest=committed.manifest.model_copy(update={"metrics": metrics}))


def resume(
    gang: Gang,
    storage: Storage,
    claim: Claim,
    directory: Path,
    *,
    start_over_if_corrupt: bool,
) -> Resumed:
    """Fetch the newest good checkpoint to every node's `directory`.

    A corrupt one is skipped and reported, and stays until a newer one is committed. When none is good, the run starts
    over if that is allowed; otherwise raises DiagnosedError (CheckpointCorrupt).
    """
    found, corrupt = gang.from_leader(lambda: commits.list_checkpoints(storage, claim.run))
    for item in corrupt:
        _log.warning(f"passing over the checkpoint of step {item.step}: {item.message}")
    while found:
        newest = found[-1]
        problem = _fetch_on_every_node(gang, storage, newest, directory)
        if problem is None:
            local = _local(directory, newest)
            _add_evaluation(gang, storage, local)
            return Resumed(local, tuple(found), tuple(corrupt))
        _log.warning(f"passing over the checkpoint of step {problem.step}: {problem.message}")
        corrupt.append(problem)
        found.pop()
    if corrupt and not start_over_if_corrupt:
        raise DiagnosedError(
            Reason.CHECKPOINT_CORRUPT,
            f"None of the run's checkpoints can be resumed from. Step {corrupt[-1].step}: {corrupt[-1].message} "
            f"Restore the objects below {claim.run.uri}/{commits.CHECKPOINTS}, or start over: change spec.runId. With "
            "checkpoints.startOverIfCorrupt a run starts over by itself.",
        )
    return Resumed(None, (), tuple(corrupt))


def commit(
    gang: Gang,
    storage: Storage,
    claim: Claim,
    files: Mapping[str, Path | memoryview],
    *,
    step: int,
    metrics: Mapping[str, float],
    kept: Sequence[Committed],
) -> Committed:
    """Upload every process's files of a checkpoint, and commit it as the successor of `kept`. One at a time.

    If the step is that of the last of `kept`, it is committed already and returned. After an exception the same claim
    must not commit this step again: the attempt ends. Raises FencedError on every process when another attempt holds
    the run.
    """
    if kept and kept[-1].manifest.step == step:
        return kept[-1]
    gang.from_leader(lambda: commits.refuse_fenced(storage, claim))
    folder = commits.checkpoint_folder(claim.run, CheckpointKey(step=step, claim=claim.number))
    uploaded = gang.gather(lambda: commits.upload_files(storage, folder, files))
    manifest = Manifest(
        step=step,
        claim=claim.number,
        attempt=claim.attempt,
        created=whole_seconds(datetime.now(UTC)),
        files=[file for files in uploaded for file in files],
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        follows=[committed.manifest.key for committed in kept],
    )
    return gang.from_leader(lambda: commits.commit_checkpoint(storage, claim, manifest))


def fetch(
    storage: Storage, committed: Committed, directory: Path, only: Callable[[str], bool] | None = None
) -> LocalCheckpoint:
    """Fetch a checkpoint to `directory`; only files for which `only(path)` holds. Raises CorruptError."""
    local = _local(directory, committed)
    try:
        commits.download(storage, committed, local.path, only)
        for folder in sorted({file.parent for file in local.path.glob("*/*.safetensors")}):
            refuse_unreadable(folder)
    except CorruptError:
        shutil.rmtree(local.path, ignore_errors=True)
        raise
    except ValueError as error:
        shutil.rmtree(local.path, ignore_errors=True)
        raise CorruptError(f"{committed.folder.uri}: {error}") from error
    return local


def to_status(committed: Committed, best: Best | None) -> CheckpointStatus:
    """The checkpoint as shown in a job's status."""
    manifest = committed.manifest
    return CheckpointStatus(
        step=manifest.step,
        uri=committed.folder.uri,
        metric=metric_of(committed, best),
        size=sum(file.size for file in manifest.files),
        committed_time=manifest.created,
        digest=committed.digest,
    )


def to_report(
    kept: Sequence[Committed],
    corrupt: Sequence[CorruptCheckpoint],
    best: Best | None,
    checkpoint_seconds: float | None,
) -> CheckpointReport:
    """What is reported to the operator: the newest checkpoints, and the oldest, which is the best if more are kept."""
    shown = kept if len(kept) <= CHECKPOINTS_REPORTED else [kept[0], *kept[-CHECKPOINTS_REPORTED + 1 :]]
    return CheckpointReport(
        checkpoints=[to_status(committed, best) for committed in shown],
        corrupt=list(corrupt[-CORRUPT_CHECKPOINTS_REPORTED:]),
        checkpoint_seconds=checkpoint_seconds,
    )


def metrics_at(log_history: Sequence[Mapping[str, float]], step: int, trained_tokens: int) -> dict[str, float]:
    """A checkpoint's metrics, from the Trainer's log: newest training loss and reward, and its own evaluation."""
    metrics: dict[str, float] = {"trainedTokens": float(trained_tokens)}
    for entry in log_history:
        if "loss" in entry:
            metrics["trainLoss"] = entry["loss"]
        if "reward_mean" in entry and math.isfinite(entry["reward_mean"]):
            metrics["trainReward"] = entry["reward_mean"]
        if entry["step"] == step:
            metrics |= measured(entry)
    return metrics


def _fetch_on_every_node(
    gang: Gang, storage: Storage, committed: Committed, directory: Path
) -> CorruptCheckpoint | None:
    """Fetch a checkpoint to all nodes at once. Returns to all of them what any of them found wrong with it."""

    def try_to_fetch() -> CorruptCheckpoint | None:
        if gang.leads_node:
            try:
                fetch(storage, committed, directory)
            except CorruptError as error:
                return commits.corrupt_checkpoint(committed.manifest.step, error)
        return None

    problem = next((problem for problem in gang.gather(try_to_fetch) if problem is not None), None)
    if problem is not None and gang.leads_node:
        shutil.rmtree(_local(directory, committed).path, ignore_errors=True)  # it may be good here, but not elsewhere
    return problem


def _add_evaluation(gang: Gang, storage: Storage, checkpoint: LocalCheckpoint) -> None:
    """Add the evaluation of the checkpoint's step to its log, if it was completed."""
    measured = gang.from_leader(lambda: evaluation_records.find_record(storage, checkpoint.committed))
    if measured is not None:
        gang.on_each_node(lambda: evaluation_records.add_to_log(checkpoint.path, measured))


def _local(directory: Path, committed: Committed) -> LocalCheckpoint:
    """Where `fetch` puts a checkpoint."""
    key = committed.manifest.key
    return LocalCheckpoint(committed, directory / f"step-{key.step:06d}-{commits.claim_folder(key.claim)}")
