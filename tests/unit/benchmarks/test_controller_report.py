"""The table of the controller benchmark: medians of rounds, one column for each product, our aims."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.controller.__main__ import turns
from benchmarks.controller.cluster import Size
from benchmarks.controller.measure import ColdStart, Idle, Live, Round
from benchmarks.controller.products.kubeflow.product import Kubeflow, reached_here
from benchmarks.controller.products.ours import OnRevisions, Ours
from benchmarks.controller.report import MIB, Machine, Results, cold_start_aim, cpu_ms, products, rows, spread
from benchmarks.controller.statistics import Distribution

MACHINE = Machine(
    time="2026-11-27T04:00:00Z",
    commit="0" * 40,
    changed=False,
    cpu="a CPU",
    cores=2,
    memory=1 << 34,
    load_average=0.5,
    python="3.11.7",
    kubernetes="v1.36.3",
    etcd="v3.6.16",
    kwok="v0.8.0",
    kopf="1.45.2",
    kubeflow_trainer="v2.0.0",
    jobset="v0.8.2",
)
IDLE = Idle(
    seconds=250,
    looks=400,
    writes={},
    lease_writes=25,
    reads=10,
    cpu_seconds=2,
    resident_first=150 * MIB,
    resident_last=151 * MIB,
    resident_peak=160 * MIB,
)


def live(per_second: float, cpu: dict[str, float], train: float) -> Live:
    seconds = Distribution(train / 2, train, train, train)
    return Live(
        per_second=per_second,
        jobs=100,
        behind_seconds=0,
        create_to_child=seconds,
        create_to_train=seconds,
        steps={},
        requests_per_job={"create jobs": 2.0, "get finetunejobs": 0.5},
        reads=0.5,
        writes=5.0,
        refused={},
        cpu_seconds=cpu,
        peak_resident=140 * MIB,
    )


def of_round(product: str, cpu: dict[str, float], *, train: float = 2.0, idle: Idle | None = None) -> Round:
    controllers = ("operator",) if product == Ours.name else ("trainer", "jobset")
    start = ColdStart(objects=3_001, seconds=4.0, cpu_seconds=3, resident=130 * MIB, writes=0, requests=12)
    lives = (live(5.0, cpu, train), live(10.0, cpu, train))
    return Round(product, controllers, 0.5, 140.0, start, lives, idle)


def results(*rounds: Round) -> Results:
    return Results(MACHINE, Size(100, (5.0, 10.0), 3_000, 20, 120.0, 1), rounds)


OURS = of_round(Ours.name, {"kube-apiserver": 10.0, "operator": 2.0}, idle=IDLE)
RIVAL = of_round(Kubeflow.name, {"kube-apiserver": 7.0, "trainer": 0.5, "jobset": 0.5}, idle=IDLE)


def test_cpu_is_per_job_over_all_rates() -> None:
    assert cpu_ms(OURS) == 120
    assert cpu_ms(OURS, OURS.controllers) == 20
    assert cpu_ms(RIVAL, RIVAL.controllers) == 10


def test_products_stand_side_by_side_ours_first() -> None:
    measured = results(RIVAL, OURS)
    assert list(products(measured)) == [Ours.name, Kubeflow.name]
    table = {row.name: row.values for row in rows(measured)}
    assert table["CPU a job: all processes"] == ("120 ms", "80 ms")
    assert table["  the controllers"] == ("20 ms", "10 ms")
    assert table["5/s: create to training Job, p50"] == ("1.00 s", "1.00 s")
    assert table["10/s: create to first child, p99"] == ("2.00 s", "2.00 s")
    assert {len(values) for values in table.values()} == {2}


def test_only_our_own_figures_are_held_against_the_aims() -> None:
    met = {row.name: row.met for row in rows(results(OURS, RIVAL))}
    assert met["CPU a job: all processes"] is True
    assert met["  the controllers"] is False
    slow = of_round(Ours.name, {"operator": 1.0}, train=5.0, idle=IDLE)
    met = {row.name: row.met for row in rows(results(slow, RIVAL))}
    assert met["5/s: create to training Job, p99"] is False
    assert met["10/s: create to training Job, p99"] is True


def test_jobs_on_revisions_of_datasets_are_held_against_the_rivals() -> None:
    name = "  on revisions, more than Kubeflow Trainer"
    cheap = of_round(OnRevisions.name, {"kube-apiserver": 7.0, "operator": 0.9})
    table = {row.name: row for row in rows(results(OURS, cheap, RIVAL))}
    assert (table[name].values, table[name].met) == (("", "-1 ms", ""), True)
    dear = of_round(OnRevisions.name, {"kube-apiserver": 7.0, "operator": 1.3})
    table = {row.name: row for row in rows(results(OURS, dear, RIVAL))}
    assert (table[name].values, table[name].met) == (("", "+3 ms", ""), False)
    assert name not in {row.name for row in rows(results(OURS, dear))}


def test_a_write_without_a_change_misses_the_aim() -> None:
    name = "writes in 250 s without a change"
    assert {row.name: row.met for row in rows(results(OURS))}[name] is True
    busy = dataclasses.replace(OURS, idle=dataclasses.replace(IDLE, writes={"patch finetunejobs/status": 1}))
    assert {row.name: row.met for row in rows(results(busy, RIVAL))}[name] is False


def test_nothing_is_said_of_an_idle_phase_that_was_not() -> None:
    assert not any("without a change" in row.name for row in rows(results(dataclasses.replace(OURS, idle=None))))


def test_rounds_are_reported_by_their_median_and_extremes() -> None:
    assert spread([3.0, 1.0, 2.0], 0) == "2 (1 to 3)"
    assert spread([2.0], 1) == "2.0"
    assert spread([2.01, 2.02], 1) == "2.0"


@pytest.mark.parametrize(("finished", "seconds"), [(3_000, 5.0), (100, 5.0), (11_000, 20.0), (11_001, None)])
def test_the_aim_of_a_cold_start_grows_with_the_objects(finished: int, seconds: float | None) -> None:
    assert cold_start_aim(finished) == seconds


def test_who_begins_changes_from_round_to_round() -> None:
    assert [turns(number, rival=True) for number in range(3)] == [[Ours, Kubeflow], [Kubeflow, Ours], [Ours, Kubeflow]]
    assert turns(1, rival=False) == [Ours]
    both = [Ours, OnRevisions, Kubeflow]
    assert [turns(number, rival=True, datasets=True) for number in range(2)] == [both, both[::-1]]


def test_webhooks_are_reached_on_this_machine() -> None:
    """All else of them is as the product ships it."""
    service = {"name": "webhook-service", "namespace": "jobset-system", "path": "/mutate--v1-pod"}
    webhook = {"name": "mpod.kb.io", "failurePolicy": "Fail", "clientConfig": {"service": service}}
    found = reached_here(
        {"kind": "MutatingWebhookConfiguration", "webhooks": [webhook]}, {"jobset-system": 4711}, "PEM"
    )
    assert found["webhooks"] == [
        {
            "name": "mpod.kb.io",
            "failurePolicy": "Fail",
            "clientConfig": {"url": "https://127.0.0.1:4711/mutate--v1-pod", "caBundle": "UEVN"},
        }
    ]
    assert webhook["clientConfig"] == {"service": service}
