"""The result of a run: `<run>/result/`, a peft adapter or a whole model, with its tokenizer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import Result
from finetune_api.manifest import Manifest
from finetune_api.run import TrainRun
from finetune_api.sources import HubModel, S3Location, parse_model_uri, parse_s3
from finetune_trainer import checkpoints, commits
from finetune_trainer.checkpoints import LocalCheckpoint
from finetune_trainer.commits import Committed
from finetune_trainer.failures import DiagnosedError
from finetune_trainer.model_folders import text_files, weight_files
from finetune_trainer.storage import Storage

FOLDER = "result"
TRAINER_STATE = "trainer_state.json"


def result_folder(run: TrainRun) -> S3Location:
    """Where the result of a run is."""
    return parse_s3(run.output_uri).join(FOLDER)


def find_result(run: TrainRun, storage: Storage) -> Result | None:
    """The committed result, if an earlier attempt got that far. Raises DiagnosedError."""
    try:
        committed = commits.find_committed(storage, result_folder(run))
    except commits.CorruptError as error:
        raise DiagnosedError(Reason.FAILED, f"{error} Remove it to let the run go on.") from error
    return None if committed is None else to_result(run, committed)


def make_result(run: TrainRun, storage: Storage, checkpoint: LocalCheckpoint) -> Result:
    """Commit the model of a checkpoint as the result."""
    paths = [path.relative_to(checkpoint.path).as_posix() for path in checkpoint.path.rglob("*")]
    model = [path for path in [*text_files(paths), *weight_files(paths)] if path != TRAINER_STATE]
    if run.adapter.type == "LoRA":
        _name_base(checkpoint.path / "adapter_config.json", run.model.uri)
    files = commits.upload_files(storage, result_folder(run), checkpoint.path, model)
    manifest = Manifest(
        step=checkpoint.committed.manifest.step,
        attempt=run.attempt,
        created=whole_seconds(datetime.now(UTC)),
        files=files,
        metrics=checkpoint.committed.manifest.metrics,
    )
    return to_result(run, commits.commit(storage, result_folder(run), manifest))


def choose(run: TrainRun, storage: Storage, last: LocalCheckpoint, directory: Path) -> LocalCheckpoint:
    """The checkpoint that becomes the result: the best by the declared metric, else the last."""
    if run.checkpoints.best is None:
        return last
    committed = checkpoints.list_committed(storage, parse_s3(run.output_uri))
    best = checkpoints.best_of(committed, run.checkpoints.best)
    if best is None or best.manifest.step == last.committed.manifest.step:
        return last
    try:
        return checkpoints.fetch(storage, best, directory)
    except commits.CorruptError as error:
        raise DiagnosedError(
            Reason.FAILED,
            f"The best checkpoint, of step {best.manifest.step}, is corrupt: {error}",
            retryable=True,
        ) from error


def to_result(run: TrainRun, committed: Committed) -> Result:
    """The committed result as it stands in a job's status."""
    metrics = committed.manifest.metrics
    tokens = metrics.get("trainedTokens")
    return Result(
        uri=committed.folder.uri,
        base_model_uri=run.model.uri,
        adapter_type=run.adapter.type,
        step=committed.manifest.step,
        digest=committed.digest,
        train_loss=metrics.get("trainLoss"),
        eval_loss=metrics.get("evalLoss"),
        trained_tokens=None if tokens is None else int(tokens),
    )


def _name_base(config_file: Path, uri: str) -> None:
    """peft writes the local path of the base model; elsewhere only its URI means anything."""
    source = parse_model_uri(uri)
    config = json.loads(config_file.read_bytes())
    config["base_model_name_or_path"] = source.repository if isinstance(source, HubModel) else uri
    config["revision"] = source.revision if isinstance(source, HubModel) else None
    config_file.write_text(json.dumps(config, indent=2) + "\n")
