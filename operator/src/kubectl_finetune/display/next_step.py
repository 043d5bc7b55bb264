"""What a person can do next about an object: pure advice from what its status says."""

from __future__ import annotations

from kubectl_finetune.cluster.resource import EVALUATION, FINE_TUNE_JOB, MODEL_DEPLOYMENT
from kubectl_finetune.cluster.seen import Seen

OPERATOR_NAMESPACE = "finetune-system"
_CONTINUES = "It continues by itself once the cause is gone; nothing has to be restarted."


def next_steps(seen: Seen) -> list[str]:
    """The advice, most important first."""
    if seen.deleting:
        return ["The object is being deleted. `kubectl describe` shows the finalizers that it waits for."]
    if not seen.current:
        return [
            "The operator has not looked at this object since its last change. If that lasts, see whether it runs: "
            f"kubectl -n {OPERATOR_NAMESPACE} get pods"
        ]
    if seen.outcome == "Failed" and seen.phase == "Cancelled":
        return [f"Run again: {command(seen, 'rerun')}"]
    if seen.outcome == "Failed":
        return _after_failure(seen)
    if seen.outcome == "Succeeded":
        return _after_success(seen)
    if seen.stalled:
        return [*_suggestion(seen), _CONTINUES, f"Where it happened: {command(seen, 'events')}"]
    if seen.phase == "Suspended":
        return [f"Resume from the newest checkpoint: {command(seen, 'resume')}"]
    if seen.phase == "Retrying":
        return [*_suggestion(seen), f"Nothing: the next try starts by itself. Why it is one: {command(seen, 'events')}"]
    return [f"Follow it: {command(seen, 'watch')}", f"Its log: {command(seen, 'logs')}"]


def command(seen: Seen, verb: str, *words: str) -> str:
    """The command of this plugin for the object, ready to be copied."""
    return " ".join(["kubectl finetune", verb, seen.resource.argument, f"-n {seen.namespace}", *words])


def _suggestion(seen: Seen) -> list[str]:
    suggestion = seen.status.text("failure", "suggestion")
    return [suggestion] if suggestion else []


def _after_failure(seen: Seen) -> list[str]:
    steps = _suggestion(seen)
    if seen.kind is EVALUATION and seen.phase in ("GateFailed", "Inconclusive"):
        more = "more examples" if seen.phase == "Inconclusive" else "a better model"
        return [f"The gates need {more}; they may also be changed at any time, without a new run."]
    return [
        *steps,
        f"Fix the cause, then run again: {command(seen, 'rerun')}",
        f"Everything for a colleague, without secrets: {command(seen, 'diagnose')}",
    ]


def _after_success(seen: Seen) -> list[str]:
    if seen.kind is FINE_TUNE_JOB:
        return [
            "Compare it with its base: an Evaluation (docs/explanation/evaluating-and-serving.md).",
            "Load or download it: docs/how-to/read-results.md.",
        ]
    if seen.kind is MODEL_DEPLOYMENT:
        port = f"kubectl -n {seen.namespace} port-forward svc/{seen.name} 8000:80"
        return [f"Call it with the openai client at status.url; from outside the cluster: {port}"]
    return []
