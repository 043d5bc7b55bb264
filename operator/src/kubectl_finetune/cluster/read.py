"""Reads an object, its Pods and its Events through kubectl."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_view.children import Event, Pod, selector, sorted_events, sorted_pods
from finetune_view.fields import Object
from finetune_view.object_view import ObjectView, object_view
from finetune_view.resource import Resource
from kubectl_finetune.cluster.kubectl import Kubectl


def read_object(kubectl: Kubectl, wanted: Resource) -> ObjectView:
    """Read an object from the cluster. Raises PluginError."""
    return object_view(kubectl.get(wanted.kind.resource, wanted.name))


def pods_of(kubectl: Kubectl, view: ObjectView) -> list[Pod]:
    """The Pods, oldest first. Raises PluginError."""
    return sorted_pods(kubectl.items("pods", "-l", selector(view)))


def events_of(kubectl: Kubectl, view: ObjectView, children: Sequence[Object] = ()) -> list[Event]:
    """The Events about the object and its Jobs and Pods (also gone ones), oldest first. Raises PluginError."""
    return sorted_events(kubectl.items("events"), view, children)
