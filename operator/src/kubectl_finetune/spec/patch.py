"""`suspend`, `resume`, `rerun`: patches of a spec."""

from __future__ import annotations

import json

from kubectl_finetune.cluster.fields import Object
from kubectl_finetune.cluster.kubectl import Kubectl
from kubectl_finetune.cluster.seen import Seen

_GITOPS = (
    ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
    ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("labels", "helm.toolkit.fluxcd.io/name", "Flux"),
)


def patch_spec(kubectl: Kubectl, seen: Seen, spec: Object) -> None:
    """Change fields of the spec, of this object and of no later one with its name. Raises PluginError."""
    body = {"metadata": {"uid": seen.uid}, "spec": spec}
    words = ("--type=merge", "--patch", json.dumps(body), "--field-manager=kubectl-finetune")
    kubectl.run("patch", seen.kind.resource, seen.name, *words)


def warning_of_gitops(seen: Seen) -> str:
    """What sets the spec back, if a tool applies it from git; "" if none does."""
    metadata = seen.fields.at("metadata")
    for where, key, tool in _GITOPS:
        if metadata.text(where, key):
            return f"{tool} manages this object and may set it back: change it in git too."
    return ""


def next_run_id(seen: Seen) -> str:
    """A runId that was not used: the next number, or the present one with a number."""
    used = {seen.run_id, seen.status.text("runId")} | {run.text("runId") for run in seen.status.at("history")}
    if seen.run_id.isascii() and seen.run_id.isdecimal():
        numbers = [int(one) for one in used if one.isascii() and one.isdecimal() and len(one) < 19]
        return str(max(numbers, default=0) + 1)
    stem = seen.run_id[:55].rstrip("-_.")
    return next(name for number in range(2, 1_000_000) if (name := f"{stem}-{number}") not in used)
