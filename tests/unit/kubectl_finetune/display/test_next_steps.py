"""What to do next about a ModelDeployment whose next model proves itself."""

from __future__ import annotations

import pytest

from finetune_view.next_step import next_steps
from finetune_view.object_view import object_view
from tests.unit.kubectl_finetune.cluster_objects import condition


def test_an_approval_of_an_earlier_canary_has_to_be_removed_first() -> None:
    ready = condition("Ready", "True", "WaitingForApproval", "Model 'router' is served.")
    canary = {"revision": "sha256:bb", "ignoresApproval": True}
    metadata = {"name": "router", "namespace": "team-a", "generation": 1, "uid": "u"}
    status = {"observedGeneration": 1, "phase": "Canary", "conditions": [ready], "canary": canary}
    found = object_view({"kind": "ModelDeployment", "metadata": metadata, "spec": {"replicas": 1}, "status": status})
    assert '{"spec": {"rollout": {"canary": {"approvedRevision": null}}}}' in next_steps(found)[0]


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("CanaryRunning", "Follow it: kubectl finetune watch mdep/router -n team-a"),
        ("WaitingForApproval", '{"spec": {"rollout": {"canary": {"approvedRevision": "sha256:bb"}}}}'),
        ("RolledBack", "Roll out another model (a new run of its FineTuneJob)"),
        ("Available", "Call it with the openai client"),
    ],
)
def test_what_to_do_about_a_canary_comes_before_how_to_call_what_serves(reason: str, advice: str) -> None:
    ready = condition("Ready", "True", reason, "Model 'router' is served.")
    status = {"observedGeneration": 1, "phase": "Canary", "conditions": [ready]}
    if reason != "Available":
        status["canary"] = {"revision": "sha256:bb"}
    metadata = {"name": "router", "namespace": "team-a", "generation": 1, "uid": "u"}
    found = object_view({"kind": "ModelDeployment", "metadata": metadata, "spec": {"replicas": 1}, "status": status})
    assert advice in next_steps(found)[0]
