"""The shortest specs that are good, and what becomes of them with changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.operator.api import Api, Object, RefusedError

DRY_RUN = "&dryRun=All"
JOB: Object = {"model": {"uri": "s3://models/base"}, "dataset": {"training": {"uri": "s3://data/train.jsonl"}}}
CLASS: Object = {"storage": {"bucket": "models", "credentialsSecretName": "s3"}}
REFERENCE: Object = {"fineTuneJobRef": {"name": "router"}}
CANDIDATE: Object = {"name": "tuned", "model": REFERENCE}
GRADER: Object = {"name": "exact", "type": "StringCheck", "stringCheck": {}}
EVALUATION: Object = {
    "candidates": [CANDIDATE],
    "dataset": {"uri": "s3://data/test.jsonl"},
    "graders": [GRADER],
}
DEPLOYMENT: Object = {"model": REFERENCE}
SWEEP: Object = {
    "template": {"spec": {**JOB, "dataset": {**JOB["dataset"], "validation": {"splitPercent": 10}}}},
    "search": {"parameters": [{"path": "adapter.lora.rank", "numbers": [8, 16]}]},
}
GOOD = {
    "FineTuneJob": JOB,
    "FineTuneClass": CLASS,
    "Evaluation": EVALUATION,
    "ModelDeployment": DEPLOYMENT,
    "FineTuneSweep": SWEEP,
    "Dataset": {"source": {"uri": "s3://data/tickets.jsonl"}},
}


def assert_refused(api: Api, kind: str, changes: dict[str, Any], told: list[str]) -> None:
    """The shortest spec with these changes (None: without the field) is refused, in a message with all these texts."""
    spec = {name: value for name, value in {**GOOD[kind], **changes}.items() if value is not None}
    with pytest.raises(RefusedError) as refused:
        api.create(kind, "bad", spec, query=DRY_RUN)
    assert refused.value.code in (400, 422)
    assert all(part in refused.value.message for part in told), refused.value.message
