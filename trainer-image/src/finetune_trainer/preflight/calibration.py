"""What a method measures with the starting model before accelerators are asked for, and its record."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import structlog
from pydantic import Field, ValidationError

from finetune_api.base import RunFile
from finetune_api.finetunejob import RewardCalibration
from finetune_api.pod_contracts.manifest import Sha256
from finetune_api.pod_contracts.outcome import Failure
from finetune_api.pod_contracts.run import PreflightRun
from finetune_api.sources import StorageLocation, parse_location
from finetune_trainer.data.encode.token_files import read_rows
from finetune_trainer.data.select.choice import Chosen
from finetune_trainer.methods.method import Machine, Measured, Start, method_of
from finetune_trainer.model import memory
from finetune_trainer.model.folders import content_version
from finetune_trainer.model.loading import InspectedModel, fetch_model
from finetune_trainer.process.cpu import available_cpus
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.memory import available_memory
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.storage import Storage

RECORD_NAME = "calibration.json"

_log = structlog.get_logger()


class CalibrationRecord(RunFile):
    """What was measured, so that another try of preflight takes it from here."""

    key: Sha256 = Field(description="Of what it was measured on.")
    found: RewardCalibration
    warning: str | None = None
    failure: Failure | None = Field(None, description="Why the run can't begin.")


def calibrate(
    run: PreflightRun,
    model: InspectedModel,
    chosen: Chosen,
    epochs: float,
    dataset: str,
    storage: Storage,
    directory: Path,
) -> Measured | None:
    """None where the method has nothing to measure. `dataset`: the SHA-256 of dataset.json.

    Raises DiagnosedError where the run can't begin with what was measured.
    """
    calibration = method_of(run.method).calibration()
    if calibration is None:
        return None
    start = _start(run, model, chosen, epochs, storage, directory)
    reason = calibration.why_not(start, Machine(available_memory(), available_cpus()))
    if reason is not None:
        _log.info(f"rewards are not calibrated here: {reason}")
        return Measured(RewardCalibration(not_measured=reason))
    output = parse_location(run.output_uri)
    key = _key(run, epochs, dataset, storage)
    record = _find(storage, output, key)
    if record is None:
        with log_progress("answering prompts with the starting model"):
            measured = calibration.measure(start)
        record = CalibrationRecord(key=key, **vars(measured))
        storage.write(output.join(RECORD_NAME), record.to_bytes())
    _log.info("rewards of the starting model", **record.found.to_wire())
    if record.failure is not None:
        raise DiagnosedError.of(record.failure)
    return Measured(record.found, record.warning)


def _start(
    run: PreflightRun, model: InspectedModel, chosen: Chosen, epochs: float, storage: Storage, directory: Path
) -> Start:
    assert chosen.status.training is not None
    examples = chosen.status.training.rows or chosen.status.training.examples
    return Start(
        size=memory.model_size(model.config, model.shapes, {}, run.adapter),
        download_bytes=sum(tensor.data_offsets[1] - tensor.data_offsets[0] for tensor in model.tensors.values()),
        examples=examples,
        prompts=int(examples * epochs),
        rows=lambda numbers: read_rows(chosen.tokens["training"], numbers),
        fetch=lambda: fetch_model(run.model, storage, directory / "calibration"),
        seed=run.seed,
    )


def _key(run: PreflightRun, epochs: float, dataset: str, storage: Storage) -> str:
    """Identifies the model's files, the prompts, and how they are answered and graded."""
    places = [run.model.uri, *([run.model.adapter_uri] if run.model.adapter_uri is not None else [])]
    versions = [content_version(uri, storage) for uri in places]
    measured = [versions, dataset, run.method.to_wire(), run.seed, epochs]
    return hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()


def _find(storage: Storage, output: StorageLocation, key: str) -> CalibrationRecord | None:
    """None also for what another version wrote and this one can't read."""
    body = storage.find(output.join(RECORD_NAME))
    try:
        found = None if body is None else CalibrationRecord.from_bytes(body)
    except ValidationError:
        return None
    return found if found is not None and found.key == key else None
