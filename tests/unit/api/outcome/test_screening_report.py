"""What screening found travels in a termination message, whatever the number of findings and files."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.finetunejob import DatasetFindings, FileStatistics, ModelStatus
from finetune_api.pod_contracts.outcome import Failure, PreflightReport, parse_termination_message
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_api.safety.screening import MOST_FINDINGS, SHOWN_LINES, ScreeningFinding, ScreeningStatus

FINDINGS = [
    ScreeningFinding(
        file="training",
        rule=f"Category {number}",
        examples=1000 - number,
        lines=[f"s3://datasets/{'folder/' * 100}part-{line}.jsonl:{line}" for line in range(SHOWN_LINES)],
    )
    for number in range(MOST_FINDINGS)
]
DATASET = DatasetFindings(
    training=FileStatistics(examples=9000, tokens=10**6, max_tokens=900),
    screening=ScreeningStatus(examples=10_000, flagged=1000, findings=FINDINGS),
)


def found(dataset: DatasetFindings | None) -> ScreeningStatus:
    assert dataset is not None
    assert dataset.screening is not None
    return dataset.screening


def test_lines_are_shed_before_findings_and_counts_stay() -> None:
    report = PreflightReport(dataset=DATASET, model=ModelStatus(architecture="LlamaForCausalLM"))
    read = parse_termination_message(to_termination_message(report))
    assert isinstance(read, PreflightReport)
    kept = found(read.dataset)
    assert (kept.examples, kept.flagged) == (10_000, 1000)
    assert [(one.rule, one.examples) for one in kept.findings] == [(one.rule, one.examples) for one in FINDINGS]
    assert read.dataset.training == DATASET.training


def test_short_lines_stay() -> None:
    few = ScreeningStatus(
        examples=9, flagged=2, findings=[ScreeningFinding(file="training", rule="IBAN", examples=2, lines=["4", "9"])]
    )
    report = PreflightReport(
        dataset=DATASET.model_copy(update={"screening": few}), model=ModelStatus(architecture="LlamaForCausalLM")
    )
    assert parse_termination_message(to_termination_message(report)) == report


def test_a_refusal_keeps_its_message_and_findings() -> None:
    failure = Failure(reason=Reason.DATASET_INVALID, message="1000 of 10000 examples", dataset=DATASET)
    read = parse_termination_message(to_termination_message(failure))
    assert isinstance(read, Failure)
    assert read.message == failure.message
    assert len(found(read.dataset).findings) == MOST_FINDINGS
