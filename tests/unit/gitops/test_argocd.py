"""What Argo CD shows of our kinds, and offers to do with them: Lua 5.1 runs on each state that the operator writes."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import yaml

from finetune_api.base import ApiModel
from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationSpec
from finetune_api.evaluation import Phase as EvaluationPhase
from finetune_api.finetunejob import FineTuneJobSpec, Phase
from finetune_api.kinds import KINDS
from finetune_operator.core.conditions import Readiness, conditions, failed, progressing, ready, stalled
from finetune_operator.evaluation.plan import FINISHED as FINISHED_EVALUATIONS
from finetune_operator.finetunejob.plan import PHASES
from gitops.argocd import config_map
from tests.unit.gitops.argo_lua import ARGOCD, run
from tests.unit.operator.evaluation_states import evaluation_spec
from tests.unit.operator.states import NOW, job_spec

HEALTH = (ARGOCD / "health.lua").read_text()
SUSPENDED = {"status": "Suspended", "message": "it is over"}


def object_with(readiness: Readiness, generation: int = 3, **metadata: Any) -> dict[str, Any]:
    """An object whose status the operator wrote at generation 3."""
    found = conditions(readiness, (), generation=3, now=NOW)
    status = {"observedGeneration": 3, "conditions": [one.to_wire() for one in found]}
    return {"metadata": {"generation": generation, **metadata}, "spec": {}, "status": status}


@pytest.mark.parametrize("reason", Reason)
def test_health_follows_the_conditions(reason: Reason) -> None:
    waits = "Suspended" if reason == Reason.SUSPENDED else "Progressing"
    over = {"status": "Degraded", "message": f"{reason}: it is over"}
    expected = {
        ready(reason, "it is there"): {"status": "Healthy", "message": "it is there"},
        progressing(reason, "on its way"): {"status": waits, "message": "on its way"},
        stalled(reason, "do this"): {"status": "Degraded", "message": f"{reason}: do this"},
        failed(reason, "it is over"): over if reason != Reason.CANCELLED else SUSPENDED,
    }
    for readiness, health in expected.items():
        assert run(HEALTH, object_with(readiness)) == health


@pytest.mark.parametrize(
    "obj",
    [
        {"metadata": {"generation": 1}, "spec": {}},
        {"metadata": {"generation": 1}, "spec": {}, "status": {}},
        {"metadata": {"generation": 1}, "spec": {}, "status": {"observedGeneration": 1}},
        object_with(ready(Reason.SUCCEEDED, "of the spec before"), generation=4),
        object_with(stalled(Reason.INVALID_SPEC, "of the spec before"), generation=4),
        object_with(ready(Reason.SUCCEEDED, "it is there"), deletionTimestamp="2026-01-01T00:00:00Z"),
    ],
)
def test_what_the_operator_has_not_seen_or_is_going_is_in_progress(obj: dict[str, Any]) -> None:
    assert run(HEALTH, obj)["status"] == "Progressing"


def test_conditions_of_a_newer_version_change_nothing() -> None:
    obj = object_with(ready(Reason.SUCCEEDED, "it is there"))
    obj["status"]["conditions"].append({"type": "Entangled", "status": "True", "reason": "New", "message": ""})
    assert run(HEALTH, obj)["status"] == "Healthy"


def actions(kind: str, phase: str | None, **spec: Any) -> set[str]:
    """The actions that Argo CD offers."""
    obj = {"metadata": {}, "spec": spec, **({} if phase is None else {"status": {"phase": phase}})}
    found = run((ARGOCD / "actions" / kind / "discovery.lua").read_text(), obj)
    return {name for name, settings in found.items() if not settings["disabled"]}


RUNS = [
    *(("FineTuneJob", phase, phase in (PHASES.failed, "Succeeded", "Cancelled")) for phase in (None, *get_args(Phase))),
    *(("Evaluation", phase, phase in FINISHED_EVALUATIONS) for phase in (None, *get_args(EvaluationPhase))),
]


@pytest.mark.parametrize(("kind", "phase", "is_over"), RUNS)
def test_a_run_that_is_over_can_only_run_again(kind: str, phase: str | None, is_over: bool) -> None:
    assert actions(kind, phase) == ({"rerun"} if is_over else {"suspend", "cancel"})
    assert actions(kind, phase, suspend=True) == ({"rerun"} if is_over else {"resume", "cancel"})
    assert actions(kind, phase, cancel=True) == ({"rerun"} if is_over else {"suspend"})


def without_empty(spec: dict[str, Any]) -> dict[str, Any]:
    """In Lua an empty list is an empty table; Argo CD itself restores them from the object before."""
    return {
        key: without_empty(value) if isinstance(value, dict) else value
        for key, value in spec.items()
        if value not in ({}, [])
    }


@pytest.mark.parametrize(
    ("action", "spec", "changed"),
    [
        ("suspend", {}, {"suspend": True}),
        ("resume", {"suspend": True}, {"suspend": False}),
        ("cancel", {}, {"cancel": True}),
    ],
)
@pytest.mark.parametrize("kind", ["FineTuneJob", "Evaluation"])
def test_an_action_changes_one_field(kind: str, action: str, spec: dict[str, Any], changed: dict[str, Any]) -> None:
    shortest: ApiModel = {"FineTuneJob": job_spec(), "Evaluation": evaluation_spec()}[kind]
    before = without_empty({**shortest.to_wire(), **spec})
    after = run((ARGOCD / "actions" / kind / f"{action}.lua").read_text(), {"metadata": {}, "spec": before})["spec"]
    assert after == {**before, **changed}
    assert type(shortest).from_wire(after)


@pytest.mark.parametrize("kind", ["FineTuneJob", "Evaluation"])
def test_a_rerun_is_another_run_and_nobody_cancelled_it(kind: str) -> None:
    model, before = {
        "FineTuneJob": (FineTuneJobSpec, {**job_spec().to_wire(), "cancel": True}),
        "Evaluation": (EvaluationSpec, {**evaluation_spec().to_wire(), "cancel": True}),
    }[kind]
    before = without_empty(before)
    obj = {"metadata": {}, "spec": before}
    after = run((ARGOCD / "actions" / kind / "rerun.lua").read_text(), obj)["spec"]
    assert after["runId"] != before["runId"]
    assert "cancel" not in after
    assert {**after, "runId": "", "cancel": ""} == {**before, "runId": "", "cancel": ""}
    assert model.from_wire(after)


def test_the_config_map_holds_every_kind_and_the_scripts_as_they_are() -> None:
    assert (ARGOCD / "argocd-cm.yaml").read_text() == config_map.text(), "run `make generate`"
    data = yaml.safe_load(config_map.text())["data"]
    for kind in KINDS:
        assert data[f"resource.customizations.health.finetune.dev_{kind.name}"] == HEALTH
    for folder in (ARGOCD / "actions").iterdir():
        stored = yaml.safe_load(data[f"resource.customizations.actions.finetune.dev_{folder.name}"])
        named = {definition["name"] for definition in stored["definitions"]}
        assert named == {*run(stored["discovery.lua"], {"metadata": {}, "spec": {}})}
        for definition in stored["definitions"]:
            assert definition["action.lua"] == (folder / f"{definition['name']}.lua").read_text()
