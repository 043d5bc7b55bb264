"""Statuses of other versions: what this one does not know goes out as it came in."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api.evaluation import EvaluationStatus
from finetune_api.finetuneclass import FineTuneClassStatus
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_api.lifecycle import KindStatus, UnreadableStatusError
from finetune_api.modeldeployment import ModelDeploymentStatus
from tests.unit.api.wire.full_statuses import KINDS, full_status, objects_within, replaced, with_unknown_fields, without
from tests.unit.api.wire.full_statuses import UNKNOWN as LATER

MOMENT = "2026-11-22T12:00:00Z"
CONDITIONS = [
    {
        "type": kind,
        "status": "True",
        "reason": "Valid",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": MOMENT,
    }
    for kind in ("Ready", "Stalled")
]
COMMON: dict[str, Any] = {"observedGeneration": 1, "conditions": CONDITIONS}
FAILURE = {"reason": "Failed", "message": "It failed."}
JOB: dict[str, Any] = {
    **COMMON,
    "phase": "Succeeded",
    "runId": "1",
    "startTime": MOMENT,
    "storageUri": "s3://models/finetune/team-a/router/1-0f3c2a91",
    "preflight": {"try": 1, "jobName": "router-preflight-1", "succeeded": True},
    "dataset": {"format": "Chat", "training": {"examples": 7, "tokens": 70, "maxTokens": 12}, "errorCount": 0},
    "attempt": {"number": 1, "jobName": "router-train-1", "classGeneration": 1, "startTime": MOMENT},
    "progress": {"step": 7, "totalSteps": 7, "percent": 100, "lastUpdatedTime": MOMENT},
    "checkpoints": [{"step": 7, "uri": "s3://models/finetune/team-a/router/1-0f3c2a91/checkpoints/step-7"}],
    "endedAttempts": [{"number": 1, "outcome": "Succeeded", "startTime": MOMENT, "endTime": MOMENT}],
    "history": [{"runId": "0", "phase": "Failed", "reason": "Failed", "completionTime": MOMENT}],
    "usage": {"month": "2026-11", "className": "cpu", "acceleratorSeconds": 7, "countedTime": MOMENT},
    "result": {
        "uri": "s3://models/finetune/team-a/router/1-0f3c2a91/result",
        "baseModelUri": "s3://models/base",
        "adapterType": "LoRA",
        "step": 7,
        "digest": "sha256:aa",
    },
    "failure": FAILURE,
}
SCORE = {"candidate": "tuned", "grader": "exact", "score": 0.5, "low": 0.4, "high": 0.6, "examples": 7}
EVALUATION: dict[str, Any] = {
    **COMMON,
    "phase": "Passed",
    "runId": "1",
    "candidateDigests": {"tuned": "sha256:aa"},
    "results": [SCORE],
    "gates": [{"candidate": "tuned", "grader": "exact", "passed": True, "message": "score 0.500"}],
    "failure": FAILURE,
}
DEPLOYMENT: dict[str, Any] = {**COMMON, "phase": "Available", "url": "http://router", "replicas": 1, "readyReplicas": 1}
STATUSES: list[tuple[type[KindStatus], dict[str, Any]]] = [
    (FineTuneJobStatus, JOB),
    (EvaluationStatus, EVALUATION),
    (ModelDeploymentStatus, DEPLOYMENT),
    (FineTuneClassStatus, COMMON),
]
BY_KIND = pytest.mark.parametrize(("kind", "wire"), STATUSES, ids=[kind.__name__ for kind, _ in STATUSES])
UNKNOWN: dict[str, Any] = {"text": "x", "none": None, "empty": [], "nested": {"deep": [1, {"b": {}}]}}


def objects(wire: Any) -> Iterator[dict[str, Any]]:
    """Every object in a status, itself first; not the maps, whose keys are names."""
    if isinstance(wire, dict):
        yield wire
    for name, value in wire.items() if isinstance(wire, dict) else enumerate(wire) if isinstance(wire, list) else ():
        if name != "candidateDigests":
            yield from objects(value)


def contains(written: Any, stored: Any) -> bool:
    """Whether all that is stored is written, but for defaults that are written beside it."""
    if isinstance(stored, dict):
        return isinstance(written, dict) and all(
            name in written and contains(written[name], value) for name, value in stored.items()
        )
    if isinstance(stored, list):
        return len(written) == len(stored) and all(map(contains, written, stored))
    return bool(written == stored)


@BY_KIND
def test_fields_that_a_newer_version_added_are_kept_at_every_level(
    kind: type[KindStatus], wire: dict[str, Any]
) -> None:
    wire = copy.deepcopy(wire)
    for place in list(objects(wire)):
        place["addedLater"] = UNKNOWN
    assert contains(kind.read(wire).to_wire(), wire)


@BY_KIND
def test_conditions_and_values_that_a_newer_version_knows_are_kept(
    kind: type[KindStatus], wire: dict[str, Any]
) -> None:
    wire = copy.deepcopy(wire)
    for place in objects(wire):
        for name in {"type", "outcome", "adapterType", "format"} & place.keys():
            place[name] = "OfLater"
        if place is not wire and "phase" in place:
            place["phase"] = "OfLater"
    assert contains(kind.read(wire).to_wire(), wire)


@BY_KIND
def test_what_an_older_version_did_not_write_is_not_missed(kind: type[KindStatus], wire: dict[str, Any]) -> None:
    for absent in wire:
        shorter = {name: value for name, value in wire.items() if name != absent}
        assert contains(kind.read(shorter).to_wire(), shorter)
    assert kind.read(None) == kind.read({}) == kind()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rest", [{"addedLater": LATER}, {}], ids=["unknown", "empty"])
def test_what_is_left_of_an_object_that_was_removed_is_read_as_none(kind: type[KindStatus], rest: Any) -> None:
    """Another hand's field may stay where its object was removed: alone it is none of ours, and stops nothing."""
    status = full_status(kind)
    for path in objects_within(status):
        if isinstance(path[-1], int) and rest:
            continue  # A list is written as a whole: what its items are is the test below.
        left = kind.read(replaced(with_unknown_fields(status), path, rest))
        assert left == kind.read(without(with_unknown_fields(status), path)), path


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_that_only_a_newer_version_understands_is_never_dropped(kind: type[KindStatus]) -> None:
    """A used runId may be in it, or a folder whose data is to be kept: it is kept, or nothing starts."""
    status = full_status(kind)
    for path in objects_within(status):
        if isinstance(path[-1], int):
            newer = replaced(status, path, {"addedLater": LATER})
            try:
                assert contains(kind.read(newer).to_wire(), newer), path
            except UnreadableStatusError as error:
                assert f".{path[-1]} has no " in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_no_object_that_this_version_writes_is_read_as_none(kind: type[KindStatus]) -> None:
    status = full_status(kind)
    assert contains(kind.read(status).to_wire(), status)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phase": "Levitating"}, "status.phase is 'Levitating'"),
        ({"startTime": "soon"}, "status.startTime is 'soon'"),
        ({"result": {"uri": 7}}, "status.result.uri is '7'"),
        ({"result": {"uri": "s3://models/a"}}, "status.result has no baseModelUri"),
        ({"endedAttempts": "none"}, "status.endedAttempts is 'none'"),
        (
            {"phase": None, "completionTime": "2026-11-22T12:00:00Z"},
            "status has no phase, though there is a completionTime",
        ),
        ({"phase": "Up", "startTime": True}, "status.phase is 'Up' and status.startTime is true"),
    ],
)
def test_what_can_not_be_read_is_named(change: dict[str, Any], words: str) -> None:
    """An unknown phase too: whether the run is over for good can't be told."""
    with pytest.raises(UnreadableStatusError, match=words):
        FineTuneJobStatus.read({**JOB, **change})


def test_a_report_of_a_pod_is_read_strictly_as_ever() -> None:
    with pytest.raises(ValueError, match="addedLater"):
        FineTuneJobStatus.from_wire({**JOB, "addedLater": 1})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_over", [True, False])
def test_the_way_out_of_an_unreadable_status_leads_out(kind: type[KindStatus], *, is_over: bool) -> None:
    """Every field, broken alone, and the phase of a run that is over: what the message says to do makes it readable."""
    status = full_status(kind)
    if not is_over:
        status.pop("completionTime", None)
    for place in [(name,) for name in status] + [(*path, "uri") for path in objects_within(status)]:
        for wrong in ({"not": "this"}, 1.5, None):
            broken = replaced(status, place, wrong)
            try:
                kind.read(broken)
            except UnreadableStatusError as error:
                kind.read(followed(broken, error.way_out))


@pytest.mark.parametrize("kind", [FineTuneJobStatus, FineTuneSweepStatus])
@pytest.mark.parametrize("phase", ["Exploding", None, 7])
def test_a_run_that_is_over_has_to_be_told_how_it_ended(kind: type[KindStatus], phase: Any) -> None:
    """Without a phase it would start again: to remove it is no way out."""
    broken = {"completionTime": MOMENT, "phase": phase}
    with pytest.raises(UnreadableStatusError) as caught:
        kind.read(broken)
    assert caught.value.way_out == "set status.phase to Succeeded, Failed or Cancelled, whichever it was"
    assert kind.read(followed(broken, caught.value.way_out)).to_wire()["phase"] == "Succeeded"


def followed(status: dict[str, Any], way_out: str) -> dict[str, Any]:
    """The status after what the message says to do."""
    for change in re.split(r", (?=set|remove)|,? and (?=set|remove)", way_out):
        verb, path, *rest = change.split()
        place = tuple(int(part) if part.isdigit() else part for part in path.split(".")[1:])
        status = without(status, place) if verb == "remove" else replaced(status, place, rest[1].removesuffix(","))
    return status
