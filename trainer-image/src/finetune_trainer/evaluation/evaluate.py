"""The `evaluate` command: every model answers every held-out example, and every grader scores every answer."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.evaluation import MOST_WARNINGS
from finetune_api.evaluation.safety import MOST_SAFETY_SCORES
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import EvaluateRun, ModelSource
from finetune_api.sources import parse_s3
from finetune_grading.graders.interface import CompiledGrader
from finetune_grading.safety_gates import reported as reported_rates
from finetune_grading.scores import (
    Counting,
    Examples,
    Graded,
    grading_errors,
    grading_failure,
    may_heal,
    scores_of,
)
from finetune_trainer.benchmarks.kept import Measured
from finetune_trainer.benchmarks.measuring import measure_all, scores_of_benchmarks, to_lines, truncations
from finetune_trainer.endpoints.asked_model import AskedModel
from finetune_trainer.endpoints.asking import usage_of
from finetune_trainer.evaluation.calibration import calibrate, fetch_labelled, to_rows
from finetune_trainer.evaluation.grading import grade, try_graders
from finetune_trainer.evaluation.nodes.shard import shard_of, wait_for_shards
from finetune_trainer.evaluation.nodes.worker import generate_shard, work
from finetune_trainer.evaluation.outputs_from_files import Wanted, fetch_outputs
from finetune_trainer.evaluation.prepared import Prepared, prepare
from finetune_trainer.evaluation.report import MOST_ERRORS, to_output_items, to_page, to_report, to_samples
from finetune_trainer.evaluation.safety.attack import ROWS_NAME
from finetune_trainer.evaluation.safety.attack import to_rows as to_attack_rows
from finetune_trainer.evaluation.safety.attacking import try_safety
from finetune_trainer.evaluation.slices import Slice, found_of_gated, labels, reported, slices_of
from finetune_trainer.outputs.endpoint_outputs import ask_model
from finetune_trainer.outputs.heldout import HeldOutExample
from finetune_trainer.outputs.loaded_outputs import Load, generate_outputs, loaded_once
from finetune_trainer.outputs.output import Output, Outputs, outputs_status
from finetune_trainer.outputs.shard import WHOLE, Shard
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.report.evaluation.page import PAGE_NAME
from finetune_trainer.report.evaluation_progress import (
    EvaluationReporter,
    FurtherOutputs,
    progress_sender,
)
from finetune_trainer.report.progress import ProgressSender
from finetune_trainer.storage.storage import Storage
from finetune_trainer.supervision.report_delivery import deliver

REPORT_NAME = "report.json"
SAMPLES_NAME = "samples.jsonl"
CALIBRATION_NAME = "calibration.jsonl"
OUTPUT_ITEMS = "output-items"
"""The folder with each model's outputs in the form of OpenAI's Evals API."""
BENCHMARKS = "benchmarks"
"""The folder with the rows of each benchmark."""


def evaluate_in_pod(run: EvaluateRun) -> EvaluationReport | None:
    """The report for the termination message; None of a Pod that only generates its shard. Raises DiagnosedError."""
    shard = shard_of(run, os.environ)
    if shard.index > 0:
        work(run, shard)
        return None
    return deliver(evaluate(run, shard), run.progress)


def evaluate(run: EvaluateRun, shard: Shard = WHOLE) -> EvaluationReport:
    """Evaluate, and write report.json, report.html, samples.jsonl and output-items/ to output_uri.

    `shard`: what this Pod generates before it waits for the others; it has the first one.
    Raises DiagnosedError: InvalidSpec, DatasetNotFound, DatasetInvalid, BenchmarkNotFound, BenchmarkInvalid,
    ModelNotFound, ModelInvalid, EndpointDenied, EndpointUnreachable, SandboxUnavailable, GraderFailed, or one of the
    storage's.
    """
    with prepare(run) as prepared:
        return _evaluate(prepared, shard)


def _evaluate(prepared: Prepared, shard: Shard) -> EvaluationReport:
    run, storage, examples, graders = prepared.run, prepared.storage, prepared.examples, prepared.graders
    models, attacks = prepared.models, prepared.attacks
    with tempfile.TemporaryDirectory(prefix="labelled-") as scratch:
        labelled = fetch_labelled(run, storage, graders, Path(scratch))
    there = ready_outputs(run, examples, storage)
    warnings = [*try_graders(examples, graders, models), *try_safety(run.safety, models)]
    counting = Counting(run.on_error, run.max_errored_percent, run.generation.reducer)
    calibrated = calibrate(labelled, graders, models, counting)
    with progress_sender(run.progress) as sender:
        progress = _reporter(prepared, sender)
        of_attacks = FurtherOutputs(progress)
        measured: dict[str, dict[str, Measured]] = {}

        def measure(name: str, model: ModelSource, load: Load) -> None:
            measured[name] = measure_all(
                prepared.benchmarks, name, model, load, run.outputs_uri, storage, progress.answered
            )
            attacks.put_to_loaded(name, model, load, of_attacks)

        outputs = answers(prepared, shard, there, progress, measure)
        grades = grade(examples, outputs, graders, models, run.generation.samples_per_example, progress)
        attacked = attacks.judged(models, of_attacks)
        progress.report()
    folder = parse_s3(run.output_uri)
    # Written before the gates are judged, so that graded rows are never lost.
    storage.write(folder.join(SAMPLES_NAME), to_samples(examples, outputs, grades))
    for name in outputs:
        items = to_output_items(run, name, examples, outputs, grades, int(time.time()))
        storage.write(folder.join(OUTPUT_ITEMS, f"{name}.jsonl"), items)
    if calibrated:
        storage.write(folder.join(CALIBRATION_NAME), to_rows(calibrated))
    for one in run.benchmarks:
        storage.write(folder.join(BENCHMARKS, f"{one.name}.jsonl"), to_lines(measured, one.name))
    if attacked is not None:
        storage.write(folder.join(ROWS_NAME), to_attack_rows(attacked))
    report, slices = judge(run, graders, examples, grades)
    rates = [] if attacked is None else attacked.scores
    update = {
        "scores": [*report.scores, *scores_of_benchmarks(measured)],
        "safety": reported_rates(rates, run.safety_gates, MOST_SAFETY_SCORES) or None,
        "report_uri": folder.join(REPORT_NAME).uri,
        "usage": usage_of(models),
        "outputs": outputs_status(outputs),
        "calibrations": [one.status for one in calibrated],
        "warnings": [*warnings, *model_warnings(run, outputs), *truncations(measured), *hidden_revisions(models)][
            :MOST_WARNINGS
        ],
    }
    report = report.model_copy(update=update)
    storage.write(
        folder.join(REPORT_NAME), to_report(run, report, len(examples), slices, grades, prepared.benchmarks, rates)
    )
    storage.write(folder.join(PAGE_NAME), to_page(run, report, examples, slices, outputs, grades, rates))
    return report


def _reporter(prepared: Prepared, sender: ProgressSender | None) -> EvaluationReporter:
    run = prepared.run
    total = len(prepared.examples) * run.generation.samples_per_example
    asks = any(one.asks is not None for one in run.graders)
    further = sum(one.examples for one in prepared.benchmarks) + prepared.attacks.steps
    names = [model.name for model in run.models]
    return EvaluationReporter(sender, names, total, len(run.graders), asks=asks, further=further)


def ready_outputs(run: EvaluateRun, examples: Sequence[HeldOutExample], storage: Storage) -> dict[str, list[Output]]:
    """The outputs that are read from files. Raises DiagnosedError, before any model is asked, if some are missing."""
    wanted = Wanted(examples, run.generation.samples_per_example, is_part=run.limit_examples is not None)
    found: dict[str, list[Output]] = {}
    for model in run.models:
        if model.outputs_uri is not None:
            with tempfile.TemporaryDirectory(prefix="outputs-") as directory:
                found[model.name] = fetch_outputs(
                    storage, model.outputs_uri, wanted, Path(directory), allowed=run.allowed_datasets
                )
    return found


def answers(
    prepared: Prepared,
    shard: Shard,
    there: Mapping[str, list[Output]],
    progress: EvaluationReporter,
    measure: Callable[[str, ModelSource, Load], None],
) -> Outputs:
    """Every model's outputs, including those that exist already. Raises DiagnosedError.

    APIs are asked first, so that one that does not answer is noticed before a model is fetched. `measure` is called for
    each model that is loaded here, while it is, once the other Pods have generated their shards.
    """
    run, storage, examples = prepared.run, prepared.storage, prepared.examples
    found = dict(there)
    for name, outputs in there.items():
        progress.found(name, len(outputs))
    for model in run.models:
        if model.endpoint is not None:
            asked = prepared.models[model.endpoint]
            found[model.name] = ask_model(model.name, asked, run, examples, storage, progress)
    if shard.nodes > 1:
        generate_shard(prepared, shard, progress)
        wait_for_shards(run, shard, storage)
    for model in run.models:
        if model.model is not None:
            with loaded_once(model.name, model.model, storage) as load:
                found[model.name] = generate_outputs(model.name, model.model, run, examples, storage, progress, load)
                measure(model.name, model.model, load)
    return {model.name: found[model.name] for model in run.models}


def model_warnings(run: EvaluateRun, outputs: Outputs) -> list[str]:
    """Warnings about the models that make the scores doubtful."""
    judges = {grader.asks: grader.name for grader in run.graders if grader.asks is not None}
    found = []
    for model in run.models:
        if model.endpoint in judges:
            found.append(
                f"JudgesItself: by grader {judges[model.endpoint]!r}, the model {model.endpoint!r} grades the outputs "
                f"of {model.name!r}, which are its own, and models prefer their own. Use another model as the judge."
            )
        without = dict.fromkeys(option for one in outputs[model.name] for option in one.without)
        if without:
            found.append(
                f"OptionRefused: the API of the model {model.endpoint!r} refuses {', '.join(without)}: {model.name!r} "
                "answers without, by the API's own settings."
            )
        truncated = sum(one.truncated for one in outputs[model.name])
        if truncated:
            found.append(
                f"OutputsTruncated: {truncated} of {len(outputs[model.name])} outputs of {model.name!r} end at "
                f"spec.generation.maxTokens ({run.generation.max_tokens}): raise it, and change spec.runId."
            )
    return found


def hidden_revisions(models: Mapping[str, AskedModel]) -> list[str]:
    """The ModelDeployments whose answers do not say which revision gave them."""
    return [
        f"RevisionUnknown: the ModelDeployment of the model {name!r} does not say which revision answers "
        "(system_fingerprint), so a rollout during the evaluation could not be detected: serve by a trainer image of "
        "this version."
        for name, model in models.items()
        if model.endpoint.hides_revision
    ]


def judge(
    run: EvaluateRun, graders: Sequence[CompiledGrader], examples: Sequence[HeldOutExample], grades: Graded
) -> tuple[EvaluationReport, list[Slice]]:
    """The scores of all examples and of each slice. Raises DiagnosedError (GraderFailed)."""
    counting = Counting(run.on_error, run.max_errored_percent, run.generation.reducer)
    thresholds = {grader.name: grader.pass_threshold for grader in graders}
    graded = Examples(
        lines=[example.line for example in examples],
        clusters=None if run.cluster_by is None else labels(run.cluster_by, examples),
        samples=run.generation.samples_per_example,
    )
    failure = grading_failure(grades, graded, counting)
    if failure is not None:
        # An API may answer next time what it failed to answer now; its answers so far are kept and used again.
        raise DiagnosedError(Reason.GRADER_FAILED, failure, retryable=may_heal(grades, graded, counting))
    slices = slices_of(run.slices, examples, grades, thresholds, graded, counting, run.gated_slices)
    report = EvaluationReport(
        scores=scores_of(grades, thresholds, graded, counting),
        slices=reported(slices, run.gated_slices),
        gated_slices=found_of_gated(slices, run.gated_slices),
        errors=grading_errors(grades, graded, MOST_ERRORS),
    )
    return report, slices
