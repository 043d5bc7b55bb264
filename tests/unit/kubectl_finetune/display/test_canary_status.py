"""What `status` says of a canary: how far it is, what was counted, and what each check lacks."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from finetune_view.object_view import object_view
from kubectl_finetune.display.status import status_rows
from kubectl_finetune.display.terminal import print_rows
from tests.unit.kubectl_finetune.cluster_objects import NOW, before_now, condition

CHECKS = [
    {
        "metric": "ErrorRate",
        "stable": 0.001,
        "canary": 0.0143,
        "low": -0.004,
        "high": 0.052,
        "margin": 0.05,
        "share": "Refused",
        "verdict": "NotEnoughData",
        "requestsNeeded": 74,
    },
    {"metric": "OutputTokensMean", "stable": 8, "canary": 9, "low": 0.9, "high": 1.3, "margin": 1.5, "verdict": "Pass"},
    {"metric": "TimeToFirstTokenP95", "margin": 1.3, "verdict": "NotEnoughData"},
]
CANARY = {
    "revision": "sha256:bb",
    "phase": "Analysing",
    "phaseTime": before_now(90),
    "step": 2,
    "percent": 25,
    "verdict": "NotEnoughData",
    "nextLookRequests": 102,
    "stable": {"requests": 280, "errors": 1},
    "canary": {"requests": 73, "refused": 2, "left": 1},
    "checks": CHECKS,
}


def shown(status: dict[str, Any], canary_spec: dict[str, Any] | None = None, reason: str = "CanaryRunning") -> str:
    rollout = {"type": "Canary", **({"canary": canary_spec} if canary_spec else {})}
    conditions = [condition("Ready", "True", reason, "Model 'words' is served.", 9000), *status.pop("more", [])]
    found = {
        "kind": "ModelDeployment",
        "metadata": {"name": "words", "namespace": "team-a", "generation": 1, "uid": "u"},
        "spec": {"replicas": 1, "rollout": rollout},
        "status": {"observedGeneration": 1, "phase": "Canary", "conditions": conditions, **status},
    }
    file = io.StringIO()
    to = Console(file=file, width=160, highlight=False, markup=False, emoji=False)
    print_rows(to, status_rows(object_view(found), NOW))
    return " ".join(file.getvalue().split())


def test_a_canary_is_shown_with_its_counts_and_each_check_beside_its_margin() -> None:
    text = shown({"canary": CANARY}, {"steps": [{"percent": 25, "minimumRequests": 30}, {"percent": 5}]})
    for told in (
        "Phase Canary, CanaryRunning for 90s",
        "Canary sha256:bb step 2 of 2, 25 % of the requests, Analysing for 90s, NotEnoughData",
        "canary: 70 of at least 30 answered (2 refused, 1 left); the checks are looked at next at 102",
        "what serves: 280 answered (1 failed)",
        "ErrorRate (Refused), 1.43 %, what serves 0.1 %, -0.4 to 5.2 points more, 5 allowed: NotEnoughData, 74 "
        "requests needed as it goes",
        "OutputTokensMean, 9, what serves 8, 0.9 to 1.3 times, 1.5 allowed: Pass",
        "TimeToFirstTokenP95, too few samples, 1.3 allowed: NotEnoughData",
    ):
        assert told in text, told


def test_of_a_canary_that_is_omitted_the_steps_are_the_defaults() -> None:
    text = shown({"canary": CANARY})
    assert "step 2 of 3" in text
    assert "70 of at least 300 answered" in text


def test_one_that_was_rolled_back_is_shown_with_its_time_and_why() -> None:
    stalled = condition("Stalled", "True", "RolledBack", "The canary was rolled back.", 20)
    aborted = [{"revision": "sha256:bb", "message": "ErrorRate was 0.1.", "time": before_now(20)}]
    text = shown({"aborted": aborted, "phase": "Blocked", "more": [stalled]}, reason="RolledBack")
    assert "Rolled back sha256:bb, 20s ago: ErrorRate was 0.1." in text
    assert "Phase Blocked, RolledBack for 20s" in text


def test_a_canary_that_another_version_wrote_is_shown_as_far_as_it_can_be_read() -> None:
    hostile = {"step": "x", "percent": None, "phase": 7, "checks": [{"metric": 4, "margin": "wide"}, "?"], "canary": []}
    assert "Canary" in shown({"canary": hostile})
