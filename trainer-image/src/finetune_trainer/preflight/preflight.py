"""Preflight: reads and tries everything that a run needs before accelerators are requested."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import structlog

from finetune_api.conditions import Reason
from finetune_api.default_hyperparameters import length_bound, resolve_hyperparameters
from finetune_api.finetunejob import (
    MOST_WARNINGS,
    Checkpoints,
    DatasetFindings,
    MemoryEstimate,
    ModelStatus,
    ResolvedHyperparameters,
)
from finetune_api.pod_contracts.outcome import PREFLIGHT_REPORT_NAME, Failure, PreflightReport
from finetune_api.pod_contracts.run import PreflightRun
from finetune_api.sources import StorageLocation, parse_location
from finetune_trainer.data.encode.chat_template import reads_images
from finetune_trainer.data.encode.vision import NO_SHARDED_VISION
from finetune_trainer.data.images.images import ImageStore
from finetune_trainer.data.select.choice import choose_examples, survey_dataset
from finetune_trainer.data.select.dataset_record import find_record, store_record
from finetune_trainer.data.select.findings import store_findings
from finetune_trainer.data.select.screening import screen
from finetune_trainer.data.select.survey import refuse_invalid, refuse_nothing_left
from finetune_trainer.data.select.token_record import store_tokens
from finetune_trainer.distributed.batches import micro_batch_sizes
from finetune_trainer.endpoints.screening_classifier import classifier_of
from finetune_trainer.methods.method import formats_of, method_of
from finetune_trainer.model import memory
from finetune_trainer.model.loading import InspectedModel, find_model, inspect_model
from finetune_trainer.preflight.calibration import calibrate
from finetune_trainer.preflight.model_checks import CheckedModel, check_model
from finetune_trainer.preflight.packing import choose_packing, with_packed_rows
from finetune_trainer.preflight.teacher import check_teacher, parameters_of, refuse_short_context
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.commits import check_storage
from finetune_trainer.storage.open_storage import open_storage
from finetune_trainer.storage.storage import Storage

_log = structlog.get_logger()


def preflight(run: PreflightRun, directory: Path) -> PreflightReport:
    """Read and try everything. Raises DiagnosedError. The report of success or failure is written to the storage."""
    storage = open_storage(run.storage, reports_unanswered=True)
    output = parse_location(run.output_uri)
    check_storage(storage, output)
    _log.info(f"{output.uri} can be written, read, listed and deleted")
    try:
        report = _examine(run, storage, directory)
    except DiagnosedError as error:
        with contextlib.suppress(DiagnosedError):  # the first failure is the one to report
            _store_report(storage, output, error.failure)
        raise
    _store_report(storage, output, report)
    return report


def _examine(run: PreflightRun, storage: Storage, directory: Path) -> PreflightReport:
    output = parse_location(run.output_uri)
    find_model(run.model, storage)
    if run.teacher is not None:
        find_model(run.teacher, storage)
    formats = formats_of(run.method.type)
    surveyed = survey_dataset(storage, run.dataset, formats, directory, run.allowed_datasets, run.revisions)
    store_findings(storage, output, surveyed.sets)
    refuse_invalid(surveyed.sets)
    images = ImageStore(directory / "images", storage, tuple(run.allowed_images))
    screened = None
    if run.dataset.screening is not None:
        classifier = classifier_of(run, run.dataset.screening, storage)
        screened = screen(surveyed.sets, run.dataset.screening, classifier, images)
        store_findings(storage, output, surveyed.sets, screened=screened)
        screened.refuse_flagged()
    with log_progress(f"reading what {run.model.uri} is"):
        model = inspect_model(run.model, storage, directory / "model")
    _log.info(f"{run.model.uri} is a {model.status.architecture} of {model.status.parameters} parameters")
    with log_progress("comparing the model with the spec"):
        checked = check_model(run, model)
    teacher = check_teacher(run, model, checked, storage, directory / "teacher")
    if surveyed.training.format == "Chat" and not model.tokenizer.chat_template:
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"The tokenizer of {run.model.uri} has no chat template, and the dataset is chat messages. "
            "Use an instruction-tuned model, or prompt/completion pairs.",
        )
    if reads_images(model.tokenizer) and run.parallelism.strategy == "FSDP":
        raise DiagnosedError(Reason.INVALID_SPEC, NO_SHARDED_VISION)
    method = method_of(run.method)
    max_length = _max_length(run, model.status)
    now = _begun(storage, output)
    tokenizer = model.tokenizer
    chosen = choose_examples(
        surveyed, run.dataset, method, run.seed, tokenizer, images, max_length, directory, now, screened
    )
    store_findings(storage, output, surveyed.sets, chosen.issues, screened)
    refuse_invalid(surveyed.sets)
    refuse_nothing_left(chosen.status)
    with log_progress("storing the tokens"):
        dataset_json = store_record(storage, output, chosen.record)
        store_tokens(storage, output, dataset_json, tokenizer, chosen.tokens)
    packing = choose_packing(run, model, chosen)
    dataset = with_packed_rows(run, model, chosen) if packing else chosen.status
    resolved = _resolve(run, model, dataset, packing)
    refuse_short_context(teacher, resolved.max_length)
    estimate, advice = _estimate_memory(run, model, checked, resolved, parameters_of(teacher))
    calibration = calibrate(run, model, chosen, resolved.epochs, dataset_json, storage, directory)
    doubts = [idle_accelerators(run), advice, None if calibration is None else calibration.warning]
    warnings = [*filter(None, doubts), *checked.warnings, *batch_warnings(resolved, dataset), *dataset.warnings]
    dataset = dataset.model_copy(update={"warnings": warnings[:MOST_WARNINGS]})
    for warning in dataset.warnings:
        _log.warning(warning)
    rewards = None if calibration is None else calibration.found
    return PreflightReport(dataset=dataset, model=model.status, memory=estimate, calibration=rewards, packing=packing)


def _max_length(run: PreflightRun, model: ModelStatus) -> int:
    asked = run.hyperparameters.max_length
    if asked is not None and model.context_length is not None and asked > model.context_length:
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            f"hyperparameters.maxLength is {asked}, beyond the model's context of {model.context_length} tokens.",
        )
    return length_bound(asked, model.context_length)


def _begun(storage: Storage, output: StorageLocation) -> datetime | None:
    """The time that templates print: that of an earlier preflight of the run, if there was one."""
    with contextlib.suppress(DiagnosedError):
        found = find_record(storage, output)
        return None if found is None else found.record.rendered_at
    return None


def idle_accelerators(run: PreflightRun) -> str | None:
    """A warning of accelerators that the Pods have and no process uses."""
    present, used = run.accelerators_per_node, run.parallelism.processes_per_node
    if present is None or present <= used:
        return None
    more = f"Set parallelism.processesPerNode to {present}, or use" if run.method.settings.rules.distributes else "Use"
    return (
        f"Each Pod has {present} accelerators, of which training uses {used}, one for each process. {more} a "
        f"FineTuneClass whose accelerator.countPerNode is {used}."
    )


def batch_warnings(resolved: ResolvedHyperparameters, dataset: DatasetFindings) -> Iterator[str]:
    """Warnings about the planned batches."""
    assert dataset.training is not None
    rows = dataset.training.rows or dataset.training.examples
    if resolved.batch_size > rows:
        packed = f" (packed to rows of {resolved.max_length} tokens)" if resolved.packing else ""
        yield (
            f"hyperparameters.batchSize is {resolved.batch_size}, and there are {rows} rows{packed} to train on: each "
            f"epoch is one step of {rows}. Lower batchSize, or leave it out, for more steps."
        )


def _resolve(
    run: PreflightRun, model: InspectedModel, dataset: DatasetFindings, packing: bool
) -> ResolvedHyperparameters:
    assert dataset.training is not None
    return resolve_hyperparameters(
        run.hyperparameters,
        method=run.method,
        adapter=run.adapter.type,
        checkpoints=Checkpoints(),
        examples=dataset.training.examples,
        rows=dataset.training.rows,
        max_tokens=dataset.training.max_tokens,
        context_length=model.status.context_length,
        continued=run.continued,
        processes=run.parallelism.nodes * run.parallelism.processes_per_node,
        packing=packing,
    )


def _estimate_memory(
    run: PreflightRun,
    model: InspectedModel,
    checked: CheckedModel,
    resolved: ResolvedHyperparameters,
    teacher_parameters: int,
) -> tuple[MemoryEstimate | None, str | None]:
    """The memory that training will need (None if the config lacks sizes), and a warning if it may not fit.

    Raises DiagnosedError (InvalidSpec) when the batch can't be divided over the processes.
    """
    processes = run.parallelism.nodes * run.parallelism.processes_per_node
    method = method_of(run.method).memory
    sizes = micro_batch_sizes(resolved.batch_size, processes, method.sequences_per_example * resolved.max_length)
    size = memory.model_size(model.config, checked.shapes, checked.adapter_shapes, run.adapter)
    if size is None:
        return None, None
    size = replace(size, teacher_parameters=teacher_parameters)
    plan = memory.plan_of(run.adapter, run.parallelism, sizes[-1], resolved.max_length, method)
    if run.accelerator_memory is not None:
        plan = memory.plan_micro_batches(size, plan, sizes, run.accelerator_memory)
    estimate = memory.estimate(size, plan, run.accelerator_memory)
    return estimate, memory.advise(size, plan, estimate)


def _store_report(storage: Storage, output: StorageLocation, report: PreflightReport | Failure) -> None:
    storage.write(
        output.join(PREFLIGHT_REPORT_NAME), report.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()
    )
