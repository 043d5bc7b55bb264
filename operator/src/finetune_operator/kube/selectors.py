"""Label selectors of the watches, as a query parameter and as a predicate on objects."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_operator.kube.resources import Object

Selector = Mapping[str, frozenset[str]]
"""The labels of a watched object, each with its accepted values."""


def label_selector(selector: Selector) -> str:
    """The query parameter `labelSelector`."""
    terms = []
    for name, values in selector.items():
        listed = ",".join(sorted(values))
        terms.append(f"{name}={listed}" if len(values) == 1 else f"{name} in ({listed})")
    return ",".join(terms)


def matches(body: Object, selector: Selector) -> bool:
    """Whether the selector selects the object."""
    labels = body["metadata"].get("labels") or {}
    return all(labels.get(name) in values for name, values in selector.items())


def has_labels(body: Object, labels: Mapping[str, str]) -> bool:
    """Whether the object has all of these labels."""
    found = body["metadata"].get("labels") or {}
    return all(found.get(name) == value for name, value in labels.items())
