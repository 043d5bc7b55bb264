"""The gateway counts as the operator reads it: it imports nothing else of the project, so that both say it."""

from __future__ import annotations

from finetune_api import modeldeployment as api
from finetune_gateway.canary import traffic
from finetune_operator.modeldeployment.canary import statistics


def test_both_mean_the_same_buckets_and_the_same_highest_count() -> None:
    assert traffic.GROWTH == statistics.GROWTH
    assert traffic.MOST_COUNT == api.MOST_COUNT


def test_the_operator_takes_every_bucket_that_the_gateway_has() -> None:
    buckets = {traffic.bucket(seconds) for seconds in (0, 1e-9, 1e-4, 1, 3600, 1e9)}
    assert max(buckets) - min(buckets) < api.MOST_BUCKETS
