"""Prometheus metrics of the operator itself."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

QUEUE_DEPTH = Gauge("finetune_operator_queue_depth", "Objects that wait to be reconciled.")
QUEUE_LATENCY = Histogram(
    "finetune_operator_queue_latency_seconds", "Seconds that an object waited to be reconciled.", ["kind"]
)
RECONCILE_SECONDS = Histogram("finetune_operator_reconcile_seconds", "Seconds of a reconciliation.", ["kind"])
RECONCILIATIONS = Counter(
    "finetune_operator_reconciliations_total",
    "Reconciliations by result: ok, error (tried again) or bug.",
    ["kind", "result"],
)
