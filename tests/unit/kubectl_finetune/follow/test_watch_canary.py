"""A watch of a ModelDeployment follows its canary until the model is rolled out, or rolled back."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_client.errors import RunFailedError
from finetune_client.kinds import MODEL_DEPLOYMENTS
from finetune_client.waiting import Waiting
from finetune_view.object_view import object_view
from finetune_view.resource import MODEL_DEPLOYMENT, Resource
from kubectl_finetune.cluster.kubectl import Kubectl
from kubectl_finetune.errors import ExitCode
from kubectl_finetune.follow.watch import Watcher
from tests.unit.kubectl_finetune.cluster_objects import Object, condition
from tests.unit.kubectl_finetune.follow.test_watch_order import Played


def deployment(reason: str, ready: str = "True", *, phase: str, canary: Object | None = None, **status: Any) -> Object:
    """What the operator writes while another model serves."""
    stalled = "True" if reason == "RolledBack" else "False"
    conditions = [condition("Ready", ready, reason, "Why."), condition("Stalled", stalled, reason, "Why.")]
    found = {"observedGeneration": 1, "phase": phase, "conditions": conditions, **status}
    return {
        "kind": "ModelDeployment",
        "metadata": {"name": "words", "namespace": "team-a", "generation": 1, "uid": "u"},
        "spec": {"replicas": 1, "rollout": {"type": "Canary"}},
        "status": found | ({"canary": canary} if canary else {}),
    }


def canary(**changes: Any) -> Object:
    found = {"revision": "sha256:bb", "phase": "Analysing", "step": 1, "percent": 5, "verdict": "NotEnoughData"}
    return {**found, "canary": {"requests": 20}, "looks": 1, **changes}


STARTS = deployment("CanaryRunning", phase="Canary", canary=canary(phase="Starting", percent=0))
RUNS = deployment("CanaryRunning", phase="Canary", canary=canary())
LOOKED = deployment("CanaryRunning", phase="Canary", canary=canary(looks=2, canary={"requests": 30}))
APPROVAL = deployment("WaitingForApproval", phase="Canary", canary=canary(phase="WaitingForApproval"))
GATEWAY_GONE = deployment("GatewayUnavailable", "False", phase="RollingOut", canary=canary())
PROMOTING = deployment("CanaryRunning", phase="Canary", canary=canary(phase="Promoting", percent=0))
WITHDRAWN = deployment("Available", phase="Available", canary=canary(phase="Ending", percent=0))
ROLLING_OUT = deployment("RollingOut", "False", phase="RollingOut")
AVAILABLE = deployment("Available", phase="Available", url="http://words")
ROLLED_BACK = deployment("RolledBack", phase="Blocked", canary=canary(phase="Ending", percent=0))


def followed(*states: Object) -> tuple[ExitCode, list[str]]:
    """One state after another, each before the next look."""
    lines: list[str] = []
    left = list(states)
    watches = Played()

    def look() -> None:
        if left:
            watches.add(("object", left.pop(0)))

    watcher = Watcher(Kubectl(), Resource(MODEL_DEPLOYMENT, "words"), lines.append)
    code = watcher.follow(watches, None, False, look)  # type: ignore[arg-type]
    assert not left, f"it ended before {left}"
    return code, lines


def test_it_goes_on_until_the_model_is_rolled_out() -> None:
    code, lines = followed(STARTS, RUNS, GATEWAY_GONE, APPROVAL, PROMOTING, ROLLING_OUT, AVAILABLE)
    assert code is ExitCode.SUCCEEDED
    assert lines[-1].startswith("Available")
    assert "step 1 of 3, 5 % of the requests, Analysing, NotEnoughData, 20 answered" in lines[1]


def test_each_look_at_the_checks_has_a_line_and_what_is_counted_between_has_none() -> None:
    between = deployment("CanaryRunning", phase="Canary", canary=canary(canary={"requests": 25}))
    _, lines = followed(RUNS, between, LOOKED, AVAILABLE)
    assert [line.rpartition(", ")[2] for line in lines[:-1]] == ["20 answered", "30 answered"]


def test_rolled_back_it_ends_at_once_with_1() -> None:
    code, lines = followed(RUNS, ROLLED_BACK)
    assert code is ExitCode.FAILED
    assert "RolledBack" in lines[-1]


def test_one_that_is_withdrawn_has_ended_once_it_is_gone() -> None:
    assert followed(RUNS, WITHDRAWN, AVAILABLE)[0] is ExitCode.SUCCEEDED


def test_the_python_client_waits_for_the_same_end() -> None:
    waiting = Waiting(MODEL_DEPLOYMENTS, "u", "Succeeded", 300)
    assert [waiting.is_over(object_view(one), 0) for one in (RUNS, PROMOTING, ROLLING_OUT, AVAILABLE)] == [
        *(False, False, False),
        True,
    ]
    with pytest.raises(RunFailedError, match="RolledBack") as raised:
        waiting.is_over(object_view(ROLLED_BACK), 0)
    assert "Roll out another model" in raised.value.next_steps[0]
    assert Waiting(MODEL_DEPLOYMENTS, "u", "Started", 300).is_over(object_view(RUNS), 0), "its Pods run"
