"""What a change of a running object needs, and who may set it back."""

from __future__ import annotations

from finetune_view.object_view import ObjectView
from finetune_view.resource import FINE_TUNE_JOB

_GITOPS = (
    ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
    ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("labels", "helm.toolkit.fluxcd.io/name", "Flux"),
)


def warning_of_gitops(view: ObjectView) -> str:
    """What sets the spec back, if a tool applies it from git; "" if none does."""
    metadata = view.fields.at("metadata")
    for where, key, tool in _GITOPS:
        if metadata.text(where, key):
            return f"{tool} manages this object and may set it back: change it in git too."
    return ""


def next_run_id(view: ObjectView) -> str:
    """A runId that was not used: the next number, or the present one with a number."""
    used = {view.run_id, view.status.text("runId")} | {run.text("runId") for run in view.status.at("history")}
    if view.run_id.isascii() and view.run_id.isdecimal():
        numbers = [int(one) for one in used if one.isascii() and one.isdecimal() and len(one) < 19]
        return str(max(numbers, default=0) + 1)
    stem = view.run_id[:55].rstrip("-_.")
    return next(name for number in range(2, 1_000_000) if (name := f"{stem}-{number}") not in used)


def refused_run_id(view: ObjectView, run_id: str) -> str:
    """Why nothing runs again with this runId; "" if something does."""
    if run_id in (view.run_id, view.status.text("runId")):
        why = "is that of the present run"
    elif view.kind is FINE_TUNE_JOB and any(run.text("runId") == run_id for run in view.status.at("history")):
        why = "was used by an earlier run (status.history) and can't be used again"
    else:
        return ""
    return f"runId {run_id!r} of {view.resource} {why}. Use a new one: {next_run_id(view)} is free."
