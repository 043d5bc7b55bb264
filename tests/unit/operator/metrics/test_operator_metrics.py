"""The operator's metrics: the words of Kubernetes, and a reference page that says what there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.registry import Collector

from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.cache import Cache
from finetune_operator.kube.resources import PODS
from finetune_operator.metrics import operator_metrics, reference
from finetune_operator.metrics.dataset_metrics import DatasetMetrics
from finetune_operator.metrics.evaluation_metrics import EvaluationMetrics
from finetune_operator.metrics.job_metrics import JobMetrics
from finetune_operator.metrics.object_metrics import ObjectMetrics
from finetune_operator.metrics.sweep_metrics import SweepMetrics

PAGE = Path(__file__).parents[4] / "docs" / "reference" / reference.FILE


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/api/v1/namespaces/team-a/pods/p", ("get", "pods")),
        ("GET", "/api/v1/namespaces/team-a/pods", ("list", "pods")),
        ("GET", "/api/v1/pods", ("list", "pods")),
        ("GET", "/api/v1/namespaces/team-a", ("get", "namespaces")),
        ("POST", "/apis/batch/v1/namespaces/team-a/jobs", ("create", "jobs")),
        ("DELETE", "/apis/batch/v1/namespaces/team-a/jobs/a", ("delete", "jobs")),
        (
            "PATCH",
            "/apis/finetune.dev/v1alpha1/namespaces/a/finetunejobs/b/status",
            ("patch", "finetunejobs/status"),
        ),
        ("GET", "/apis/finetune.dev/v1alpha1/finetuneclasses/gpu", ("get", "finetuneclasses")),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/b", ("update", "leases")),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", ("create", "tokenreviews")),
        ("GET", "/.well-known/openid-configuration", ("get", "/.well-known/openid-configuration")),
    ],
)
def test_a_request_in_kubernetes_words(method: str, path: str, words: tuple[str, str]) -> None:
    assert operator_metrics.verb_and_resource(method, path) == words


def test_requests_are_counted_without_names() -> None:
    labels = {"verb": "get", "resource": "pods", "code": "404"}
    name = "finetune_operator_api_requests_total"
    before = REGISTRY.get_sample_value(name, labels) or 0
    operator_metrics.request_answered("GET", "/api/v1/namespaces/team-a/pods/p", 404, 0.01)
    operator_metrics.request_answered("GET", "/api/v1/namespaces/team-b/pods/q", 404, 0.01)
    assert REGISTRY.get_sample_value(name, labels) == before + 2


def operator_collector(waiting: list[ObjectKey], cache: Cache | None = None) -> Collector:
    return operator_metrics.OperatorCollector(
        kinds=["FineTuneJob", "Evaluation"],
        waiting=lambda: waiting,
        oldest_seconds=lambda: 1.5,
        longest_seconds=lambda: 2.5,
        leads=lambda: False,
        last_success={"FineTuneJob": 1e9},
        cache=cache or Cache({}, "owner"),
    )


def test_the_cache_tells_how_old_it_is_and_why_it_was_not_enough() -> None:
    now = [100.0]
    cache = Cache({PODS: {}}, "owner", clock=lambda: now[0])
    cache.begin_list(PODS)
    cache.end_list(PODS, "5")
    cache.record_write(PODS, {"metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}})
    cache.counts.expired["pods"] += 2
    cache.counts.live_reads["pods", "stale"] += 3
    now[0] = 104.0
    registry = CollectorRegistry()
    registry.register(operator_collector([], cache))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"finetune_operator_cache_{name}", {"resource": "pods", **labels})

    assert (value("age_seconds"), value("overdue_seconds")) == (4, 4)
    assert (value("lists_total"), value("expired_watches_total")) == (1, 2)
    assert value("live_reads_total", cause="stale") == 3


def test_what_is_known_at_the_moment_of_a_scrape() -> None:
    registry = CollectorRegistry()
    registry.register(operator_collector([ObjectKey("FineTuneJob", "a", "x"), ObjectKey("FineTuneJob", "b", "y")]))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"finetune_operator_{name}", labels)

    assert value("queue_depth", kind="FineTuneJob") == 2
    assert value("queue_depth", kind="Evaluation") == 0
    assert value("queue_oldest_seconds") == 1.5
    assert value("longest_running_reconcile_seconds") == 2.5
    assert value("leader") == 0
    assert value("last_successful_reconcile_timestamp_seconds", kind="FineTuneJob") == 1e9


async def test_prometheus_is_answered_in_the_format_that_it_asks_for() -> None:
    registry = CollectorRegistry()
    registry.register(operator_collector([]))
    async with TestClient(TestServer(operator_metrics.application(registry))) as client:
        async with client.get("/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert "finetune_operator_leader 0.0" in await answer.text()
        async with client.get("/metrics", headers={"Accept": "application/openmetrics-text"}) as answer:
            assert (await answer.text()).endswith("# EOF\n")


def test_the_reference_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == reference.page(), "run `make generate`"


def test_every_metric_is_declared_as_it_is_served() -> None:
    declared = {one.name.removesuffix("_total"): one.type for one in operator_metrics.DECLARED}
    of_kinds = (DatasetMetrics(), JobMetrics(), EvaluationMetrics(), SweepMetrics(), ObjectMetrics())
    served: list[Metric] = [*operator_collector([]).collect(), *(one for found in of_kinds for one in found.collect())]
    served += [one for one in REGISTRY.collect() if one.name.startswith("finetune_")]
    assert {one.name: one.type for one in served} == declared
