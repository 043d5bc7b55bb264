"""What the operator tells of itself."""

from __future__ import annotations

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.operator.api import Api, wait_for
from tests.integration.operator.jobs import JOB
from tests.integration.operator.process import OperatorProcess


def samples(operator: OperatorProcess) -> dict[tuple[str, str, str], float]:
    """Every sample, by name, kind and result."""
    text = urllib3.request("GET", operator.metrics_url, timeout=10).data.decode()
    return {
        (sample.name, sample.labels.get("kind", ""), sample.labels.get("result", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_reconciliations_are_counted_by_kind_and_result(api: Api, operator: OperatorProcess) -> None:
    ok = ("finetune_operator_reconciliations_total", "FineTuneJob", "ok")
    before = samples(operator).get(ok, 0)
    api.create("FineTuneJob", "router", JOB)
    api.wait_reason("FineTuneJob", "router", "Validating")
    wait_for(lambda: samples(operator)[ok] > before, "a reconciliation is counted")
    found = samples(operator)
    assert ("finetune_operator_queue_depth", "", "") in found
    assert found["finetune_operator_queue_latency_seconds_count", "FineTuneJob", ""] > 0
    assert found["finetune_operator_reconcile_seconds_count", "FineTuneJob", ""] > 0
