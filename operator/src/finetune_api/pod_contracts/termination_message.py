"""An outcome as a termination message: Kubernetes truncates it at 4096 bytes, so everything in it is bounded.

`to_termination_message` drops the least important parts until it fits.
"""

from __future__ import annotations

from typing import TypeVar

from finetune_api.base import ApiModel
from finetune_api.evaluation import Score, SliceScore
from finetune_api.evaluation.safety import SafetyScore
from finetune_api.pod_contracts.outcome import (
    AnyReport,
    DatasetReport,
    EvaluationReport,
    Failure,
    PreflightReport,
    TrainReport,
    gated_by,
)
from finetune_api.safety.screening import ScreeningStatus

TERMINATION_MESSAGE_BYTES = 4096
SCORE_DIGITS = 4


def to_termination_message(outcome: AnyReport) -> str:
    """JSON of at most TERMINATION_MESSAGE_BYTES; errors, warnings and text are shortened until it fits."""
    encoded = _encode(outcome)
    while len(encoded.encode()) > TERMINATION_MESSAGE_BYTES:
        shorter = _shed(outcome)
        if shorter is None:
            raise ValueError(f"{type(outcome).__name__} can't be made to fit a termination message")
        outcome = shorter
        encoded = _encode(outcome)
    return encoded


def _encode(outcome: ApiModel) -> str:
    return outcome.model_dump_json(by_alias=True, exclude_none=True)


def _shed(outcome: AnyReport) -> AnyReport | None:
    """The same outcome with one part less, or None if nothing is left to drop."""
    if isinstance(outcome, EvaluationReport):
        return _shed_scores(outcome)
    if isinstance(outcome, DatasetReport):
        return _shed_details(outcome)
    if isinstance(outcome, TrainReport) and outcome.checkpoints:
        return outcome.model_copy(update={"checkpoints": outcome.checkpoints[1:]})
    if isinstance(outcome, Failure) and outcome.log:
        return outcome.model_copy(update={"log": _later_part(outcome.log)})
    if isinstance(outcome, (Failure, PreflightReport)) and outcome.dataset is not None:
        for field in ("warnings", "errors"):
            items: list[object] = getattr(outcome.dataset, field)
            if items:
                dataset = outcome.dataset.model_copy(update={field: items[:-1]})
                return outcome.model_copy(update={"dataset": dataset})
        if (screening := _shed_screening(outcome.dataset.screening)) is not None:
            dataset = outcome.dataset.model_copy(update={"screening": screening})
            return outcome.model_copy(update={"dataset": dataset})
    if isinstance(outcome, Failure) and len(outcome.message) > 200:
        return outcome.model_copy(update={"message": outcome.message[: len(outcome.message) * 3 // 4]})
    if isinstance(outcome, Failure) and outcome.suggestion:
        return outcome.model_copy(update={"suggestion": None})
    return None


def _shed_details(report: DatasetReport) -> DatasetReport | None:
    """Without the last source, then warnings, lines that screening flags, and usage: the splits always stay."""
    revision = report.revision
    for field in ("sources", "warnings"):
        items: list[object] = getattr(revision, field)
        if items:
            return report.model_copy(update={"revision": revision.model_copy(update={field: items[:-1]})})
    screening = _shed_screening(revision.screening)
    if screening is None:
        return report.model_copy(update={"usage": report.usage[:-1]}) if report.usage else None
    return report.model_copy(update={"revision": revision.model_copy(update={"screening": screening})})


def _shed_screening(found: ScreeningStatus | None) -> ScreeningStatus | None:
    """With fewer lines of each finding, then with fewer findings; None if nothing is left to drop."""
    if found is None or not found.findings:
        return None
    most = max(len(one.lines) for one in found.findings)
    if most:
        findings = [one.model_copy(update={"lines": one.lines[: most // 2]}) for one in found.findings]
        return found.model_copy(update={"findings": findings})
    return found.model_copy(update={"findings": found.findings[:-1]})


def _later_part(log: str) -> str | None:
    """A log without its first line, or the end of its only line; None if too little is left to be useful."""
    _, _, rest = log.partition("\n")
    if not rest and len(log) > 200:
        rest = log[len(log) // 4 :]
    return rest or None


def _shed_scores(report: EvaluationReport) -> EvaluationReport | None:
    """Drops slices that no gate is about, then errors, warnings, digits, the report's URI, usage, outputs, slices that
    gates are about, what is known of these, the gains' intervals, calibrations, and at last rates of attacks.

    Every score stays, unless the operator has the whole report.
    """
    gated = {one.about for one in report.gated_slices or []}
    others = [at for at, score in enumerate(report.slices) if gated_by(score) not in gated]
    if others:
        return report.model_copy(update={"slices": [*report.slices[: others[-1]], *report.slices[others[-1] + 1 :]]})
    if report.errors:
        return report.model_copy(update={"errors": report.errors[:-1]})
    if report.warnings:
        return report.model_copy(update={"warnings": report.warnings[:-1]})
    for slimmer in (
        report.model_copy(
            update={"scores": list(map(_rounded, report.scores)), "slices": list(map(_rounded, report.slices))}
            | ({"safety": list(map(_rounded, report.safety))} if report.safety else {})
        ),
        report.model_copy(update={"report_uri": None}),
        report.model_copy(update={"usage": []}),
        report.model_copy(update={"outputs": []}),
        without_last_slice(report),
        report.model_copy(update={"gated_slices": None}),
        report.model_copy(update={"scores": [_without_gain_interval(score) for score in report.scores]}),
        report.model_copy(update={"calibrations": []}),
        report.model_copy(update={"safety": (report.safety or [])[:-1] or None}),
        report if report.sent_digest is None else report.model_copy(update={"scores": []}),
    ):
        if slimmer != report:
            return slimmer
    return None


def without_last_slice(report: EvaluationReport) -> EvaluationReport:
    """Says which gate will find no score."""
    if not report.slices:
        return report
    lost = gated_by(report.slices[-1])
    known = report.gated_slices or []
    gated = [one.model_copy(update={"left_out": True}) if one.about == lost else one for one in known]
    return report.model_copy(update={"slices": report.slices[:-1], "gated_slices": gated})


S = TypeVar("S", Score, SliceScore, SafetyScore)


def _rounded(score: S) -> S:
    # Of a p-value, which may be 1e-12, digits are significant ones.
    numbers = {name: value for name, value in score if isinstance(value, float) and name != "p_value"}
    return score.model_copy(update={name: round(value, SCORE_DIGITS) for name, value in numbers.items()})


def _without_gain_interval(score: Score) -> Score:
    return score.model_copy(update={"delta_low": None, "delta_high": None})
