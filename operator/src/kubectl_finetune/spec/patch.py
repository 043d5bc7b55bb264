"""Patches a spec, for `suspend`, `resume`, `cancel` and `rerun`."""

from __future__ import annotations

import json

from finetune_view.fields import Object
from finetune_view.object_view import ObjectView
from kubectl_finetune.cluster.kubectl import Kubectl


def patch_spec(kubectl: Kubectl, view: ObjectView, spec: Object) -> None:
    """Change fields of the spec, of this object and of no later one with its name. Raises PluginError."""
    body = {"metadata": {"uid": view.uid}, "spec": spec}
    words = ("--type=merge", "--patch", json.dumps(body), "--field-manager=kubectl-finetune")
    kubectl.run("patch", view.kind.resource, view.name, *words)
