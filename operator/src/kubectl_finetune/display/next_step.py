"""What a person can do next about an object: pure advice from what its status says."""

from __future__ import annotations

from kubectl_finetune.cluster.object_view import ObjectView
from kubectl_finetune.cluster.resource import EVALUATION, FINE_TUNE_JOB, MODEL_DEPLOYMENT

OPERATOR_NAMESPACE = "finetune-system"
_CONTINUES = "It continues by itself once the cause is gone; nothing has to be restarted."


def next_steps(view: ObjectView) -> list[str]:
    """The advice, most important first."""
    if view.deleting:
        return ["The object is being deleted. `kubectl describe` shows the finalizers that it waits for."]
    if not view.current:
        return [
            "The operator has not looked at this object since its last change. If that lasts, see whether it runs: "
            f"kubectl -n {OPERATOR_NAMESPACE} get pods"
        ]
    if view.outcome == "Failed" and view.phase == "Cancelled":
        return [f"Run again: {command(view, 'rerun')}"]
    if view.outcome == "Failed":
        return _after_failure(view)
    if view.outcome == "Succeeded":
        return _after_success(view)
    if view.stalled:
        return [*_suggestion(view), _CONTINUES, f"Where it happened: {command(view, 'events')}"]
    if view.phase == "Suspended":
        return [f"Resume from what is saved: {command(view, 'resume')}"]
    if view.phase == "Retrying":
        return [*_suggestion(view), f"Nothing: the next try starts by itself. Why it is one: {command(view, 'events')}"]
    return [f"Follow it: {command(view, 'watch')}", f"Its log: {command(view, 'logs')}"]


def command(view: ObjectView, verb: str, *words: str) -> str:
    """The command of this plugin for the object, ready to be copied."""
    return " ".join(["kubectl finetune", verb, view.resource.argument, f"-n {view.namespace}", *words])


def _suggestion(view: ObjectView) -> list[str]:
    suggestion = view.status.text("failure", "suggestion")
    return [suggestion] if suggestion else []


def _after_failure(view: ObjectView) -> list[str]:
    steps = _suggestion(view)
    if view.kind is EVALUATION and view.phase in ("GateFailed", "Inconclusive"):
        more = "more examples" if view.phase == "Inconclusive" else "a better model"
        return [f"The gates need {more}; they may also be changed at any time, without a new run."]
    return [
        *steps,
        f"Fix the cause, then run again: {command(view, 'rerun')}",
        f"Everything for a colleague, without secrets: {command(view, 'diagnose')}",
    ]


def _after_success(view: ObjectView) -> list[str]:
    if view.kind is FINE_TUNE_JOB:
        return [
            "Compare it with its base: an Evaluation (docs/explanation/evaluating-and-serving.md).",
            "Load or download it: docs/how-to/read-results.md.",
        ]
    if view.kind is MODEL_DEPLOYMENT and view.fields.whole("spec", "replicas") == 0:
        scale = f"kubectl -n {view.namespace} scale mdep/{view.name} --replicas=1"
        return [f"Serve it again: {scale}"]
    if view.kind is MODEL_DEPLOYMENT:
        port = f"kubectl -n {view.namespace} port-forward svc/{view.name} 8000:80"
        return [f"Call it with the openai client at status.url; from outside the cluster: {port}"]
    return []
