"""The result of a run: `<run>/result/claim-000003/`, a peft adapter or a whole model, with its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import CorruptCheckpoint, Result
from finetune_api.pod_contracts.manifest import MANIFEST_NAME, Manifest
from finetune_api.pod_contracts.run import TrainRun
from finetune_api.sources import HubModel, StorageLocation, parse_location, parse_model_uri
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.checkpoint.checkpoints import LocalCheckpoint
from finetune_trainer.checkpoint.retention import ranked
from finetune_trainer.model.export import MODEL_CARD
from finetune_trainer.model.folders import text_files, weight_files
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.report.report import REPORT_NAME
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Claim, Committed, CorruptError
from finetune_trainer.storage.local_folders import local_path
from finetune_trainer.storage.storage import Storage

_log = structlog.get_logger()


@dataclass(frozen=True)
class Chosen:
    """The checkpoint that becomes the result, and the corrupt ones that would have been preferred."""

    checkpoint: LocalCheckpoint
    corrupt: tuple[CorruptCheckpoint, ...]


def find_result(run: TrainRun, storage: Storage) -> Result | None:
    """The committed result, if an earlier attempt got that far. Raises DiagnosedError."""
    output = parse_location(run.output_uri)
    try:
        committed = commits.find_result(storage, output)
    except CorruptError as error:
        raise DiagnosedError(
            Reason.FAILED, f"{error} Remove everything below {output.join(commits.RESULT).uri} to let the run go on."
        ) from error
    return None if committed is None else to_result(run, committed)


def fetch_chosen(
    run: TrainRun,
    storage: Storage,
    kept: Sequence[Committed],
    directory: Path,
    only: Callable[[str], bool] | None = None,
) -> Chosen:
    """Fetch the checkpoint that becomes the result to `directory`; only files for which `only(path)` holds.

    It is the best by the declared metric, else the last one; if that is corrupt, the next best. Raises DiagnosedError
    (CheckpointCorrupt) when none is good.
    """
    corrupt: list[CorruptCheckpoint] = []
    for committed in ranked(kept, run.checkpoints.best):
        try:
            return Chosen(checkpoints.fetch(storage, committed, directory, only), tuple(corrupt))
        except CorruptError as error:
            _log.warning(f"the checkpoint of step {committed.manifest.step} can't become the result: {error}")
            corrupt.append(commits.corrupt_checkpoint(committed.manifest.step, error))
    said = corrupt[0].message if corrupt else "there is none"
    raise DiagnosedError(Reason.CHECKPOINT_CORRUPT, f"No checkpoint can become the result: {said}.")


def make_result(run: TrainRun, storage: Storage, claim: Claim, checkpoint: Committed, folder: Path) -> Result:
    """Commit the model in the local `folder`, which was made from `checkpoint`, as the result. Raises FencedError.

    If another process committed a result first, that one is returned.
    """
    commits.refuse_fenced(storage, claim)
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    model = [path for path in [*text_files(paths), *weight_files(paths)] if path != checkpoints.TRAINER_STATE]
    pages = [path for path in (MODEL_CARD, REPORT_NAME) if path in paths]
    if is_adapter(run):
        _name_base(folder / "adapter_config.json", run.model.uri)
    manifest = Manifest(
        step=checkpoint.manifest.step,
        claim=claim.number,
        attempt=claim.attempt,
        created=whole_seconds(datetime.now(UTC)),
        files=commits.upload_files(
            storage, commits.result_folder(claim.run, claim.number), {path: folder / path for path in [*model, *pages]}
        ),
        metrics=checkpoint.manifest.metrics,
    )
    committed = commits.commit_result(storage, claim.run, manifest)
    _sweep(storage, claim.run, committed)
    return to_result(run, committed)


def is_adapter(run: TrainRun) -> bool:
    """Whether the result is an adapter on the run's model, or a whole model."""
    merged = run.model.adapter_uri is not None and run.adapter.inherited == "Merge"
    return run.adapter.type != "Full" and not merged


def to_result(run: TrainRun, committed: Committed) -> Result:
    """The committed result as shown in a job's status."""
    metrics = committed.manifest.metrics
    tokens = metrics.get("trainedTokens")
    has_report = any(file.path == REPORT_NAME for file in committed.manifest.files)
    return Result(
        uri=committed.folder.uri,
        base_model_uri=run.model.uri,
        adapter_type="LoRA" if is_adapter(run) else "Full",
        step=committed.manifest.step,
        digest=committed.digest,
        train_loss=metrics.get("trainLoss"),
        train_reward=metrics.get("trainReward"),
        eval_loss=metrics.get("evalLoss"),
        valid_reward=metrics.get("validReward"),
        trained_tokens=None if tokens is None else int(tokens),
        report_uri=committed.folder.join(REPORT_NAME).uri if has_report else None,
    )


def _name_base(config_file: Path, uri: str) -> None:
    """Replace the local path of the base model, which peft wrote, by the location it was fetched from."""
    source = parse_model_uri(uri)
    config = json.loads(config_file.read_bytes())
    if isinstance(source, HubModel):
        config["base_model_name_or_path"] = source.repository
    else:
        config["base_model_name_or_path"] = str(local_path(source)) if source.is_local else uri
    config["revision"] = source.revision if isinstance(source, HubModel) else None
    config_file.write_text(json.dumps(config, indent=2) + "\n")


def _sweep(storage: Storage, run: StorageLocation, result: Committed) -> None:
    """Remove uncommitted results of other processes. A failure is only logged: it costs storage and nothing else."""
    folder = run.join(commits.RESULT)
    winner = commits.claim_folder(result.manifest.claim)

    def is_doomed(path: str) -> bool:
        return path != MANIFEST_NAME and not path.startswith(f"{winner}/")

    try:
        storage.delete(folder.join(item.path) for item in storage.list_objects(folder) if is_doomed(item.path))
        storage.abort_uploads(folder, is_doomed)
    except DiagnosedError as error:
        _log.warning(f"what is left of other results could not be removed: {error}")
