"""Calibration of graders that ask a model: how well they agree with people on outputs that people have graded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from finetune_api.conditions import Reason
from finetune_api.evaluation import CalibrationStatus
from finetune_api.finetunejob import DatasetSource
from finetune_api.graders import Grader, GraderErrorCode
from finetune_api.pod_contracts.run import EvaluateRun
from finetune_grading.grade import Grade, reaches
from finetune_grading.graders.interface import CompiledGrader, RowsGrader
from finetune_grading.sample import MissingVariableError, Row, Sample
from finetune_grading.scores import Counting, Examples, grading_failure, may_heal, rounded_interval
from finetune_grading.statistics.agreement import Verdicts, agreement, cohens_kappa
from finetune_grading.templates import render
from finetune_trainer.data.read.data_files import fetch_files
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.endpoints.asked_model import AskedModel
from finetune_trainer.endpoints.asking import ask_all
from finetune_trainer.evaluation.outputs_from_files import read_sample
from finetune_trainer.outputs.heldout import HeldOutExample, exact_records, missing_fields, refuse, to_held_out
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage

_ITS_OUTPUTS = "its calibration"
"""Stands where a message has a candidate's name otherwise."""


@dataclass(frozen=True)
class Labelled:
    """An output with a label that people have given it. `line`: counted from 1."""

    line: int
    row: Row
    label: str
    passes: bool
    """Whether it passes by that label."""


@dataclass(frozen=True)
class Calibrated:
    """A grader's grades of the labelled outputs, one for each, in their order."""

    grader: str
    labelled: Sequence[Labelled]
    grades: Sequence[Grade]

    @property
    def status(self) -> CalibrationStatus:
        """Agreement and Cohen's kappa, with their intervals.

        An output that could not be graded counts as a disagreement, so that no gate passes because of it.
        """
        judged = [(self._passes(at), one.passes) for at, one in enumerate(self.labelled)]
        pairs = [(True, True), (True, False), (False, True), (False, False)]
        verdicts = Verdicts(*(judged.count(pair) for pair in pairs))
        agreed, kappa = agreement(verdicts), cohens_kappa(verdicts)
        errors = [grade.error.code for grade in self.grades if grade.error is not None]
        (low, high), (kappa_low, kappa_high) = rounded_interval(agreed), rounded_interval(kappa)
        return CalibrationStatus(
            grader=self.grader,
            examples=verdicts.count,
            agreement=round(agreed.mean, 4),
            agreement_low=low,
            agreement_high=high,
            kappa=round(kappa.mean, 4),
            kappa_low=kappa_low,
            kappa_high=kappa_high,
            errored=len(errors) or None,
            over_budget=errors.count(GraderErrorCode.BUDGET_EXCEEDED) or None,
        )

    def rows(self) -> list[dict[str, Any]]:
        """A record for each output: what people and the grader say about it."""
        return [
            {
                "grader": self.grader,
                "line": one.line,
                "output": one.row.sample.output_text,
                "label": one.label,
                "people": "Passed" if one.passes else "Failed",
                "verdict": grade.verdict,
                "score": grade.score,
                **(
                    {} if grade.error is None else {"error": {"code": grade.error.code, "details": grade.error.details}}
                ),
                **({"details": grade.details} if grade.details else {}),
            }
            for one, grade in zip(self.labelled, self.grades, strict=True)
        ]

    def _passes(self, at: int) -> bool:
        grade = self.grades[at]
        return not self.labelled[at].passes if grade.error is not None else grade.verdict == "Passed"


def fetch_labelled(
    run: EvaluateRun, storage: Storage, graders: Sequence[CompiledGrader], directory: Path
) -> dict[str, list[Labelled]]:
    """The labelled outputs of each grader with a calibration, by its name.

    Raises DiagnosedError (DatasetNotFound, DatasetInvalid).
    """
    compiled = {grader.name: grader for grader in graders}
    found: dict[str, list[Labelled]] = {}
    for grader in run.graders:
        if grader.calibration is None:
            continue
        folder = directory / grader.name
        folder.mkdir()
        source = DatasetSource(uri=grader.calibration.uri)
        files = fetch_files(storage, source, folder, allowed=run.allowed_datasets)
        found[grader.name] = [
            one for file in files for one in read_labelled(file.path, file.uri, grader, compiled[grader.name])
        ]
    return found


def read_labelled(file: Path, uri: str, grader: Grader, compiled: CompiledGrader) -> list[Labelled]:
    """The labelled outputs of a JSON Lines file.

    Raises DiagnosedError (DatasetInvalid) naming the first broken line.
    """
    labelled: list[Labelled] = []
    errors: list[LineError] = []
    for parsed in exact_records(file):
        if isinstance(parsed, LineError):
            errors.append(parsed)
            continue
        line, record = parsed
        try:
            example = to_held_out(record.line, line, record.value)
            labelled.append(_labelled(example, grader, compiled.pass_threshold))
        except (ValueError, MissingVariableError) as error:
            errors.append(LineError(record.line, str(error)))
            continue
        errors += missing_fields(example, [compiled])
    if not labelled and not errors:
        errors.append(LineError(1, "The file is empty."))
    refuse(uri, errors)
    return labelled


def calibrate(
    labelled: Mapping[str, Sequence[Labelled]],
    graders: Sequence[CompiledGrader],
    models: Mapping[str, AskedModel],
    counting: Counting,
) -> list[Calibrated]:
    """Have the graders that ask a model grade the labelled outputs.

    Raises DiagnosedError if a model can't be asked, or GraderFailed if it fails on too many of these outputs.
    """
    calibrated = [grader for grader in graders if grader.name in labelled and isinstance(grader, RowsGrader)]

    async def ask() -> list[Calibrated]:
        return [
            Calibrated(one.name, labelled[one.name], await one.grade([item.row for item in labelled[one.name]]))
            for one in calibrated
        ]

    found = ask_all(ask, models, "calibrating") if calibrated else []
    for one in found:
        grades = {_ITS_OUTPUTS: {one.grader: one.grades}}
        examples = Examples([item.line for item in one.labelled])
        failure = grading_failure(grades, examples, counting)
        if failure is not None:
            raise DiagnosedError(Reason.GRADER_FAILED, failure, retryable=may_heal(grades, examples, counting))
    return found


def to_rows(calibrated: Sequence[Calibrated]) -> bytes:
    """JSON Lines with a record for each labelled output."""
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for one in calibrated for row in one.rows())


def _labelled(example: HeldOutExample, grader: Grader, threshold: float) -> Labelled:
    """Read an output and its label. Raises ValueError, MissingVariableError."""
    assert grader.calibration is not None, "fetch_labelled looks"
    sample = read_sample(example.item)
    label = render(grader.calibration.label, example.item, Sample(""))
    return Labelled(example.line, Row(example.item, sample), label, _passes(label, grader, threshold))


def _passes(label: str, grader: Grader, threshold: float) -> bool:
    """Whether an output with this label passes. Raises ValueError for a label outside the grader's labels or range."""
    if grader.label_model is not None:
        if label not in grader.label_model.labels:
            raise ValueError(f"{label[:80]!r} is not one of the labels of grader {grader.name!r}.")
        return label in grader.label_model.passing_labels
    assert grader.score_model is not None, "no other type has a calibration"
    least, most = grader.score_model.range
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise ValueError(
            f"{label[:80]!r} is not a number from {least:g} to {most:g}, the range of grader {grader.name!r}."
        )
    return reaches((number - least) / (most - least), threshold)
