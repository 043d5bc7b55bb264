"""The jobs that the tests make, and what their Pods are played to answer."""

from __future__ import annotations

from typing import Any

from finetune_api.conditions import Reason
from finetune_api.dataset import Revision, SplitStatus
from finetune_api.evaluation import Score
from finetune_api.finetunejob import (
    CheckpointStatus,
    DatasetError,
    DatasetFindings,
    FileStatistics,
    ModelStatus,
    Result,
)
from finetune_api.pod_contracts.outcome import DatasetReport, EvaluationReport, Failure, PreflightReport, TrainReport
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object

JOB: Object = {
    "className": "cpu",
    "model": {"uri": "s3://models/base"},
    "dataset": {"training": {"uri": "s3://data/train.jsonl"}},
    "parallelism": {"nodes": 2},
}
EVALUATION: Object = {
    "className": "cpu",
    "candidates": [{"name": "tuned", "model": {"fineTuneJobRef": {"name": "router"}}}],
    "dataset": {"uri": "s3://data/test.jsonl"},
    "graders": [{"name": "exact", "type": "StringCheck", "stringCheck": {}}],
    "gates": [{"grader": "exact", "minimumDelta": 0.2}],
}
DATASET: Object = {"className": "cpu", "source": {"uri": "s3://data/tickets.jsonl"}}
DEPLOYMENT: Object = {
    "className": "cpu",
    "model": {"fineTuneJobRef": {"name": "router"}},
    "gate": {"evaluationRef": {"name": "router"}},
}

LINE_7 = Failure(
    reason=Reason.DATASET_INVALID,
    message="s3://data/train.jsonl, line 7: the last message is not the assistant's. Fix the line and upload it again.",
    dataset=DatasetFindings(
        error_count=1, errors=[DatasetError(file="training", line=7, message="the last message is not the assistant's")]
    ),
)
NETWORK_FAILURE = Failure(
    reason=Reason.STORAGE_UNREACHABLE, message="The storage did not answer.", retryable=True, rank=0
)
LOST_PEER = Failure(reason=Reason.FAILED, message="Another process of the gang ended.", retryable=True, lost_peer=True)
PREFLIGHT_REPORT = PreflightReport(
    dataset=DatasetFindings(format="Chat", training=FileStatistics(examples=1500, tokens=90_000, max_tokens=120)),
    model=ModelStatus(architecture="LlamaForCausalLM", context_length=512),
)
RESULT = Result(
    uri="s3://models/finetune/result",
    base_model_uri="s3://models/base",
    adapter_type="LoRA",
    step=750,
    digest="sha256:aa",
    eval_loss=0.5,
)
TRAIN_REPORT = TrainReport(
    result=RESULT, checkpoints=[CheckpointStatus(step=750, uri="s3://models/finetune/checkpoints/step-000750")]
)


def evaluation_report(tuned: float) -> EvaluationReport:
    """The base scores 0.25 and the tuned model what is given."""
    baseline = Score(candidate="baseline", grader="exact", score=0.25, low=0.2, high=0.3, examples=250)
    gain = tuned - baseline.score
    candidate = Score(
        candidate="tuned",
        grader="exact",
        score=tuned,
        low=tuned - 0.05,
        high=min(1.0, tuned + 0.05),
        examples=250,
        delta=gain,
        delta_low=gain - 0.05,
        delta_high=gain + 0.05,
    )
    return EvaluationReport(scores=[baseline, candidate], report_uri="s3://models/finetune/report.json")


DATASET_REPORT = DatasetReport(
    revision=Revision(
        digest="sha256:aa",
        uri="s3://models/finetune/result/claim-000001",
        format="Chat",
        examples=90,
        splits=[
            SplitStatus(
                name="training",
                uri="s3://models/finetune/result/claim-000001/training.jsonl",
                examples=90,
                size=4000,
                sha256="bb",
            )
        ],
    )
)


def preflight_succeeds(api: Api, job: Object) -> Object:
    """Play the preflight; returns the first attempt's Job."""
    (pod,) = api.wait_children(job, "preflight", "Pod")
    played.ends(api, pod, PREFLIGHT_REPORT)
    (train,) = api.wait_children(job, "train", "Job")
    return train


def starts_training(api: Api, job: Object) -> tuple[Object, list[Object]]:
    """Play the preflight and let both Pods run; returns the attempt's Job and its Pods."""
    train = preflight_succeeds(api, job)
    pods = api.wait_children(job, "train", "Pod", 2)
    for pod in pods:
        played.runs(api, pod)
    api.wait_reason("FineTuneJob", job["metadata"]["name"], "Training")
    return train, by_index(pods)


def trains(api: Api, job: Object) -> Object:
    """Play everything up to the result; returns the job."""
    _, pods = starts_training(api, job)
    for pod in pods:
        played.ends(api, pod, TRAIN_REPORT if pod is pods[0] else "")
    return api.wait_reason("FineTuneJob", job["metadata"]["name"], "Succeeded")


def by_index(pods: list[Object]) -> list[Object]:
    def index(pod: Object) -> int:
        annotations: dict[str, Any] = pod["metadata"]["annotations"]
        return int(annotations["batch.kubernetes.io/job-completion-index"])

    return sorted(pods, key=index)
