"""Every metric has a name as Prometheus's conventions want it, and stands on the page that says what it is.

The rules are those of promtool (`promtool check metrics`): https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from finetune_gateway.metrics import GatewayMetrics
from finetune_gateway.policy import Limits
from finetune_gateway.pool import Pool
from finetune_operator.metrics import reference
from finetune_operator.metrics.operator_metrics import DECLARED
from finetune_trainer.serving.metrics import ServingMetrics
from tests.unit.docs.pages import ROOT

HOW_TO = ROOT / "docs" / "how-to"
TYPES = ("counter", "gauge", "histogram", "summary", "metric")
OTHER_UNITS = (
    *("milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days"),
    *("kilobytes", "megabytes", "gigabytes", "kibibytes", "mebibytes", "gibibytes", "bits"),
    *("ms", "us", "ns", "sec", "secs", "mins", "hrs", "kb", "mb", "gb", "pct"),
)
"""Of which the base units, and their whole names, are wanted."""


@dataclass(frozen=True)
class Metric:
    name: str
    type: str
    help: str


def exposed(text: str) -> list[Metric]:
    """Without those that the library adds to each counter and histogram."""
    families = text_string_to_metric_families(text)
    found = [Metric(one.name, one.type, one.documentation) for one in families if not one.name.endswith("_created")]
    return [Metric(f"{one.name}_total", one.type, one.help) if one.type == "counter" else one for one in found]


def of_gateways() -> list[Metric]:
    metrics = GatewayMetrics(Pool(Limits(in_flight=1, queue=1, queue_seconds=1)))
    metrics.count_connections([])
    metrics.show_share(lambda: 0.0)
    return exposed(metrics.exposition().decode())


def of_servers() -> list[Metric]:
    return exposed(ServingMetrics(lambda: 0, lambda: 0).exposition().decode())


def of_the_operator() -> list[Metric]:
    assert reference.page()
    return [Metric(one.name, one.type, one.help) for one in DECLARED]


ALL = [*of_gateways(), *of_servers(), *of_the_operator()]


@pytest.mark.parametrize("metric", ALL, ids=lambda one: one.name)
def test_its_name_follows_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"finetune_[a-z0-9_]+[a-z0-9]", metric.name)
    assert metric.help.endswith(".") or ":" in metric.help
    words = metric.name.split("_")
    assert (words[-1] == "total") == (metric.type == "counter"), "counters end in _total, and nothing else does"
    assert words[-1] not in ("count", "sum", "bucket", "info") or metric.name.endswith("_build_info")
    assert not set(words) & set(TYPES), "the type is no part of the name"
    assert not set(words) & set(OTHER_UNITS), "base units are wanted"
    if "seconds" in words and "per" not in words:
        assert words[-1] == "seconds" or words[-2:] == ["seconds", "total"], "the unit comes last"
    if metric.type == "histogram":
        assert words[-1] in ("seconds", "bytes"), "a histogram of times or sizes names its unit"


@pytest.mark.parametrize("metric", of_gateways(), ids=lambda one: one.name)
def test_the_gateways_page_has_it(metric: Metric) -> None:
    assert f"`{metric.name}`" in (HOW_TO / "gateway.md").read_text()


@pytest.mark.parametrize("metric", of_servers(), ids=lambda one: one.name)
def test_the_monitoring_page_has_it(metric: Metric) -> None:
    short = metric.name.removeprefix("finetune_serving")
    text = (HOW_TO / "monitor.md").read_text()
    assert f"`{metric.name}`" in text or f"`{short}`" in text


@pytest.mark.parametrize("page", ["gateway.md", "monitor.md"])
def test_no_page_names_one_that_is_not_there(page: str) -> None:
    known = {metric.name for metric in ALL}
    known |= {
        f"{metric.name}_{part}" for metric in ALL if metric.type == "histogram" for part in ("bucket", "sum", "count")
    }
    named = set(re.findall(r"\bfinetune_(?:gateway|serving|operator)_[a-z_]+[a-z]", (HOW_TO / page).read_text()))
    assert named <= known
