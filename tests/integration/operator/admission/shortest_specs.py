"""The shortest specs that are good, and an API server that keeps nothing."""

from __future__ import annotations

from tests.integration.operator.api import Object

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
