"""What a person can do next about an object: pure advice from what its status says."""

from __future__ import annotations

import json
from collections.abc import Callable

from finetune_view.changes import next_run_id
from finetune_view.object_view import ObjectView
from finetune_view.resource import DATASET, EVALUATION, FINE_TUNE_JOB, FINE_TUNE_SWEEP, MODEL_DEPLOYMENT, WITH_PODS

OPERATOR_NAMESPACE = "finetune-system"
Spelling = Callable[[ObjectView, str], str]
"""How a user asks for a verb (rerun, resume, watch, logs, events, diagnose) of an object."""
_OF_SPEC = {
    "ClassNotFound": "create that FineTuneClass",
    "InvalidSpec": "",
    "LimitExceeded": "raise the limits of the FineTuneClass",
    "ModelNotFound": "put the model where the spec says",
    "ModelNotListed": "list the model in spec.models of the FineTuneClass",
    "ReferenceNotFound": "create what the spec names, or run again the sweep whose job is gone",
    "SourceNotAllowed": "allow the URI in spec.sources of the FineTuneClass",
    "WaitingForModel": "run again what it refers to (a new spec.runId there)",
}
"""The reasons for which the spec may have to change, and what else may."""
_CONTINUES = "It continues by itself once the cause is gone; nothing has to be restarted."


def command(view: ObjectView, verb: str, *words: str) -> str:
    """The command of the kubectl plugin for the object, ready to be copied."""
    return " ".join(["kubectl finetune", verb, view.resource.argument, f"-n {view.namespace}", *words])


def next_steps(view: ObjectView, spell: Spelling = command) -> list[str]:
    """The advice, most important first."""
    if view.deleting:
        return ["The object is being deleted. `kubectl describe` shows the finalizers that it waits for."]
    if not view.current:
        return [
            "The operator has not looked at this object since its last change. If that lasts, see whether it runs: "
            f"kubectl -n {OPERATOR_NAMESPACE} get pods"
        ]
    if view.condition("Stalled").reason == "StatusUnreadable" and view.condition("Stalled").status == "True":
        return [f"Nothing is done until its status can be read. Where it happened: {spell(view, 'events')}"]
    if (sweep := view.owning_sweep) and view.outcome == "Failed":
        return [_change_the_sweep(sweep)]
    if (
        view.kind is MODEL_DEPLOYMENT
        and view.fields.whole("spec", "replicas") != 0
        and (canary := _of_canary(view, spell))
    ):
        return canary
    if view.outcome == "Failed" and view.phase == "Cancelled":
        return [f"Run again: {spell(view, 'rerun')}"]
    if view.outcome == "Failed":
        return _after_failure(view, spell)
    if view.outcome == "Succeeded":
        return _after_success(view)
    if view.stalled:
        return [*_suggestion(view), *_once_mended(view), f"Where it happened: {spell(view, 'events')}"]
    if view.phase == "Suspended":
        return [f"Resume from what is saved: {spell(view, 'resume')}"]
    if view.phase == "Retrying":
        return [*_suggestion(view), f"Nothing: the next try starts by itself. Why it is one: {spell(view, 'events')}"]
    has_log = view.kind in WITH_PODS and not view.waits_for_first_pod
    log = [f"Its log: {spell(view, 'logs')}"] if has_log else []
    return [f"Follow it: {spell(view, 'watch')}", *log]


def _suggestion(view: ObjectView) -> list[str]:
    suggestion = view.status.text("failure", "suggestion")
    return [suggestion] if suggestion else []


def _once_mended(view: ObjectView) -> list[str]:
    """What ends a stall: a spec that can't work has to be changed, with runId where the kind has one."""
    other = _OF_SPEC.get(view.condition("Stalled").reason)
    if other is None:
        return [_CONTINUES]
    steps = [_change_the_sweep(sweep)] if (sweep := view.owning_sweep) else [_change_the_spec(view)]
    return [*steps, f"Or {other}: it then continues by itself."] if other else steps


def _change_the_sweep(sweep: str) -> str:
    return f"It is a trial of FineTuneSweep {sweep}, which decides what runs: change that one, not this."


def _change_the_spec(view: ObjectView) -> str:
    edit = f"kubectl -n {view.namespace} edit {view.kind.short_name}/{view.name}"
    again = "" if view.kind is MODEL_DEPLOYMENT else f", and in it runId to a new one, such as {next_run_id(view)!r}"
    return f"Change the spec{again}: {edit}"


def _after_failure(view: ObjectView, spell: Spelling) -> list[str]:
    steps = _suggestion(view)
    if view.kind is EVALUATION and view.phase in ("GateFailed", "Inconclusive"):
        more = "more examples" if view.phase == "Inconclusive" else "a better model"
        return [f"The gates need {more}; they may also be changed at any time, without a new run."]
    other = _OF_SPEC.get(view.status.text("failure", "reason") or view.condition("Stalled").reason)
    cause = "Fix the cause" if other is None else f"Or {other}"
    return [
        *steps,
        *([] if other is None else [_change_the_spec(view)]),
        *([] if other == "" else [f"{cause}, then run again: {spell(view, 'rerun')}"]),
        f"Everything for a colleague, without secrets: {spell(view, 'diagnose')}",
    ]


def _after_success(view: ObjectView) -> list[str]:
    if view.kind is FINE_TUNE_JOB:
        return [
            "Compare it with its base: an Evaluation (docs/explanation/evaluating-and-serving.md).",
            "Load or download it: docs/how-to/read-results.md.",
        ]
    if view.kind is FINE_TUNE_SWEEP:
        best = view.status.text("best", "fineTuneJobName")
        use = f"Evaluate and serve it: model: {{sweepRef: {{name: {view.name}}}}} (docs/how-to/sweeps.md)."
        return [f"The best model is that of FineTuneJob {best}.", use] if best else []
    if view.kind is DATASET:
        use = f"dataset: {{training: {{datasetRef: {{name: {view.name}, split: training}}}}}}"
        return [f"Train on its splits: {use} (docs/how-to/datasets.md)."]
    if view.kind is MODEL_DEPLOYMENT and view.fields.whole("spec", "replicas") == 0:
        scale = f"kubectl -n {view.namespace} scale mdep/{view.name} --replicas=1"
        return [f"Serve it again: {scale}"]
    if view.kind is MODEL_DEPLOYMENT:
        port = f"kubectl -n {view.namespace} port-forward svc/{view.name} 8000:80"
        return [f"Call it with the openai client at status.url; from outside the cluster: {port}"]
    return []


def _of_canary(view: ObjectView, spell: Spelling) -> list[str]:
    """While the next model proves itself, or once it was rolled back; the other one serves meanwhile."""
    found = f"kubectl -n {view.namespace} get mdep/{view.name} -o jsonpath='{{.status.canary}}'"
    reason = view.condition("Ready").reason
    if reason == "WaitingForApproval":
        is_ignored = view.status.at("canary", "ignoresApproval").value is True
        field = {"approvedRevision": None if is_ignored else view.status.text("canary", "revision")}
        approved = json.dumps({"spec": {"rollout": {"canary": field}}})
        patch = f"kubectl -n {view.namespace} patch mdep/{view.name} --type merge -p '{approved}'"
        if is_ignored:
            return [f"Remove the approval that an earlier canary left, then look again for how to approve: {patch}"]
        return [
            f"Approve the canary: {patch}",
            f"What was found: {found}",
        ]
    if reason == "CanaryRunning":
        return [f"Nothing: the checks promote the canary or roll it back. Follow it: {spell(view, 'watch')}"]
    if reason == "RolledBack":
        edit = f"kubectl -n {view.namespace} edit mdep/{view.name}"
        return [f"Roll out another model (a new run of its FineTuneJob), or change spec.rollout.canary: {edit}"]
    return []
