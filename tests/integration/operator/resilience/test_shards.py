"""Two operators that share the namespaces of a real API server: each works in its own, and none beside an old one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import urllib3

from e2e.cluster.components.control_plane import ControlPlane, control_plane
from finetune_operator.runtime.sharding import Shard
from tests.integration.crds import install_crds
from tests.integration.operator.api import Api, namespace, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.jobs import JOB
from tests.integration.operator.process import OperatorProcess
from tests.integration.operator.resilience.test_high_availability import OPTIONS, TAKEN_OVER_SECONDS, leads

SHARDS = [["--shard=0/2"], ["--shard=1/2"]]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane without the other tests' operator, which knows of no election."""
    with control_plane() as plane:
        install_crds(plane)
        Api(plane, "").create("FineTuneClass", "cpu", CLASS)
        yield plane


@pytest.fixture
def operators(plane: ControlPlane, tmp_path: Path) -> Iterator[list[OperatorProcess]]:
    """Shard 0, shard 1, and one without shards that is not started yet."""
    options = [*SHARDS, []]
    folders = [tmp_path / str(number) for number in range(len(options))]
    for folder in folders:
        folder.mkdir()
    made = [OperatorProcess(plane, folder, [*OPTIONS, *flags]) for folder, flags in zip(folders, options, strict=True)]
    for one in made[:2]:
        one.start()
    wait_for(lambda: all(leads(one) == 1 for one in made[:2]), "both lead", TAKEN_OVER_SECONDS)
    yield made
    for one in made:
        if one.is_running():
            one.stop()


@pytest.fixture
def apis(plane: ControlPlane) -> Iterator[list[Api]]:
    """A namespace of each shard."""
    with ExitStack() as stack:
        found: dict[int, Api] = {}
        while len(found) < 2:
            api = stack.enter_context(namespace(plane))
            found[0 if Shard(0, 2).owns(api.namespace) else 1] = api
        yield [found[0], found[1]]


def reconciled(operator: OperatorProcess) -> set[str]:
    """The kinds of which it has reconciled an object."""
    text = urllib3.request("GET", operator.metrics_url, timeout=10).data.decode()
    prefix = 'finetune_operator_reconciliations_total{kind="'
    return {line.removeprefix(prefix).split('"')[0] for line in text.splitlines() if line.startswith(prefix)}


def test_each_works_in_its_own_namespaces(apis: list[Api], operators: list[OperatorProcess]) -> None:
    first, second, _ = operators
    assert second.stop() == 0, second.log.read_text()
    for api in apis:
        api.create("FineTuneJob", "router", JOB)
    apis[0].wait_reason("FineTuneJob", "router", "Validating")
    wait_for(lambda: {"FineTuneClass", "FineTuneJob"} <= reconciled(first), "the first has a class and a job")
    assert "status" not in apis[1].get("FineTuneJob", "router"), "nobody works in the other's namespace"
    assert apis[1].items("Job") == [] == apis[1].items("Pod")
    second.start()
    apis[1].wait_reason("FineTuneJob", "router", "Validating", TAKEN_OVER_SECONDS)
    assert reconciled(second) == {"FineTuneJob"}, "classes are the first's"


def test_an_operator_without_shards_waits_until_both_have_let_go(
    apis: list[Api], operators: list[OperatorProcess]
) -> None:
    first, second, whole = operators
    whole.start()
    assert whole.answers("/readyz"), "it stands by, or a rolling update would not go on"
    assert first.stop() == 0
    for api in apis:
        api.create("FineTuneJob", "router", JOB)
    apis[1].wait_reason("FineTuneJob", "router", "Validating")
    assert leads(whole) == 0
    assert "status" not in apis[0].get("FineTuneJob", "router")
    assert second.stop() == 0
    wait_for(lambda: leads(whole) == 1, "the one without shards leads", TAKEN_OVER_SECONDS)
    apis[0].wait_reason("FineTuneJob", "router", "Validating", TAKEN_OVER_SECONDS)
