"""What the controller benchmark makes of an audit log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.controller.audit import (
    BENCHMARK,
    JOBSET,
    KUBEFLOW,
    KWOK,
    OPERATOR,
    OURS,
    SCHEDULER,
    TRAINER,
    AuditLog,
    Milestones,
    Role,
    milestones,
    parse,
)
from benchmarks.controller.controllers import summed
from benchmarks.controller.load import moved
from benchmarks.controller.statistics import Distribution, distribution, per_job

START = datetime(2026, 11, 22, 12, tzinfo=UTC)


def line(user: str, verb: str, resource: str, name: str, second: float, *, took: float = 0.25, code: int = 200) -> str:
    """One line of the log, for a request that arrived at this second and was answered a moment later."""
    main, _, subresource = resource.partition("/")
    received = START + timedelta(seconds=second)
    return json.dumps(
        {
            "kind": "Event",
            "stage": "ResponseComplete",
            "verb": verb,
            "user": {"username": user},
            "objectRef": {"resource": main, "name": name} | ({"subresource": subresource} if subresource else {}),
            "responseStatus": {"code": code},
            "requestReceivedTimestamp": f"{received:%Y-%m-%dT%H:%M:%S.%fZ}",
            "stageTimestamp": f"{received + timedelta(seconds=took):%Y-%m-%dT%H:%M:%S.%fZ}",
        }
    )


LIFE = [
    line(BENCHMARK, "create", "finetunejobs", "live-00001", 0, code=201),
    line(OPERATOR, "create", "pods", "live-00001-preflight-0a1b2c3d", 1, code=201),
    line(SCHEDULER, "create", "pods/binding", "live-00001-preflight-0a1b2c3d", 2, code=201),
    line(KWOK, "patch", "pods/status", "live-00001-preflight-0a1b2c3d", 3),
    line(KWOK, "patch", "pods/status", "live-00001-preflight-0a1b2c3d", 4),
    line(OPERATOR, "create", "jobs", "live-00001-train-0a1b2c3d", 6, code=201),
    line(KWOK, "patch", "pods/status", "live-00001-train-0a1b2c3d-0-x7k2p", 7),
]


def test_request_is_parsed_with_its_subresource_and_times() -> None:
    request = parse(LIFE[2])
    assert (request.user, request.verb, request.resource, request.code) == (SCHEDULER, "create", "pods/binding", 201)
    assert request.received == (START + timedelta(seconds=2)).timestamp()
    assert request.answered - request.received == pytest.approx(0.25)
    assert OURS.child(request.name) == ("live-00001", Role.FIRST)


def test_milestones_are_the_times_of_a_jobs_writes_in_the_audit_log() -> None:
    (found,) = milestones(map(parse, LIFE), OURS).values()
    zero = START.timestamp()
    assert found == Milestones(
        asked=zero,
        child_created=zero + 1.25,
        child_bound=zero + 2.25,
        child_exited=zero + 4.25,
        train_created=zero + 6.25,
        train_running=zero + 7.25,
    )


def test_a_child_whose_request_was_answered_before_its_jobs_counts_all_the_same() -> None:
    """The watch tells of an object before the answer to its create is logged."""
    (found,) = milestones(map(parse, [LIFE[1], LIFE[0], *LIFE[2:]]), OURS).values()
    assert found.child_created == START.timestamp() + 1.25


def test_milestones_of_kubeflow_are_those_of_its_trainjob_and_jobset() -> None:
    """Its controller applies the JobSet at each look, which makes it the first time."""
    life = [
        line(BENCHMARK, "create", "trainjobs", "live-0-00001", 0, code=201),
        line(TRAINER, "patch", "jobsets", "live-0-00001", 1, code=201),
        line(TRAINER, "patch", "jobsets", "live-0-00001", 2),
        line(JOBSET, "create", "jobs", "live-0-00001-node-0", 3, code=201),
        line(SCHEDULER, "create", "pods/binding", "live-0-00001-node-0-0-x7k2p", 4, code=201),
        line(KWOK, "patch", "pods/status", "live-0-00001-node-0-0-x7k2p", 5),
    ]
    (found,) = milestones(map(parse, life), KUBEFLOW).values()
    zero = START.timestamp()
    assert found == Milestones(
        asked=zero, child_created=zero + 1.25, train_created=zero + 3.25, train_running=zero + 5.25
    )


def test_jobs_of_the_other_product_are_not_counted() -> None:
    assert milestones(map(parse, LIFE), KUBEFLOW) == {}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(line(OPERATOR, "create", "jobs", "live-00001-train-0a1b2c3d", 1, code=409), id="refused"),
        pytest.param(line(OPERATOR, "create", "jobs", "other-train-0a1b2c3d", 1), id="of another job"),
        pytest.param(line(OPERATOR, "create", "events", "live-00001.17", 1), id="no Job"),
        pytest.param(line("somebody", "create", "jobs", "live-00001-train-0a1b2c3d", 1), id="of somebody else"),
    ],
)
def test_other_requests_are_no_milestones(other: str) -> None:
    assert milestones(map(parse, [LIFE[0], other]), OURS) == {"live-00001": Milestones(asked=START.timestamp())}


def test_a_half_written_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(LIFE[0] + "\n" + LIFE[1][:40])
    audit = AuditLog(log)
    assert [one.name for one in audit.read()] == ["live-00001"]
    with log.open("a") as file:
        file.write(LIFE[1][40:] + "\n")
    assert [one.name for one in audit.read()] == ["live-00001-preflight-0a1b2c3d"]
    assert len(audit.requests) == 2


def test_looks_are_counted_by_the_operator_itself() -> None:
    """It reads from memory: the audit log does not tell."""
    name = "finetune_operator_reconciliations_total"
    text = "".join(
        f'{name}{{kind="{kind}",result="{result}"}} {count}\n'
        for kind, result, count in [("FineTuneJob", "ok", 7), ("FineTuneJob", "error", 2), ("Evaluation", "ok", 5)]
    )
    assert summed(f"# TYPE {name} counter\n{text}", name, {"kind": "FineTuneJob", "result": "ok"}) == 7
    assert summed(text, "finetune_operator_queue_depth", {}) is None


def test_requests_per_job_leave_out_watches_and_leases() -> None:
    names = ["a", "b"]
    lines = [line(OPERATOR, "get", "finetunejobs", name, 1) for name in names]
    lines += [line(OPERATOR, "watch", "jobs", "", 1), line(OPERATOR, "update", "leases", "x", 1)]
    lines += [line(OPERATOR, "patch", "finetunejobs/status", "a", 1)]
    assert per_job(map(parse, lines), 2) == {"get finetunejobs": 1.0, "patch finetunejobs/status": 0.5}


def test_percentiles_are_values_that_were_measured() -> None:
    assert distribution([float(value) for value in range(100, 0, -1)]) == Distribution(50.0, 90.0, 99.0, 100.0)
    assert distribution([7.0]) == Distribution(7.0, 7.0, 7.0, 7.0)


def test_the_times_of_a_copied_status_move_with_its_creation() -> None:
    """An end before the creation is a wrong clock's: the operator would correct each copy while it is measured."""
    ended = {"conditions": [{"lastTransitionTime": "2026-11-22T12:00:59Z", "message": "ended at 12:00:59Z"}], "step": 7}
    assert moved({"endTime": "2026-11-22T12:00:59Z", **ended}, timedelta(seconds=61)) == {
        "endTime": "2026-11-22T12:02:00Z",
        "conditions": [{"lastTransitionTime": "2026-11-22T12:02:00Z", "message": "ended at 12:00:59Z"}],
        "step": 7,
    }
