"""`suspend`, `resume`, `rerun`: patches of a spec."""

from __future__ import annotations

import json

from kubectl_finetune.cluster.fields import Object
from kubectl_finetune.cluster.kubectl import Kubectl
from kubectl_finetune.cluster.object_view import ObjectView

_GITOPS = (
    ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
    ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("labels", "helm.toolkit.fluxcd.io/name", "Flux"),
)


def patch_spec(kubectl: Kubectl, view: ObjectView, spec: Object) -> None:
    """Change fields of the spec, of this object and of no later one with its name. Raises PluginError."""
    body = {"metadata": {"uid": view.uid}, "spec": spec}
    words = ("--type=merge", "--patch", json.dumps(body), "--field-manager=kubectl-finetune")
    kubectl.run("patch", view.kind.resource, view.name, *words)


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
