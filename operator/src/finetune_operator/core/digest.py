"""Digests of what is applied, rendered or asked for: equal content has an equal digest, in every process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from finetune_api.base import ApiModel
from finetune_operator.kube.resources import Object

DIGEST_ANNOTATION = "finetune.dev/applied-digest"


def digest(content: Any, length: int) -> str:
    """The first characters of the SHA-256 of content that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:length]


def annotated(body: Object, value: str) -> Object:
    """The object, annotated with the digest of what it is made from."""
    meta = body["metadata"]
    return {**body, "metadata": {**meta, "annotations": {**meta["annotations"], DIGEST_ANNOTATION: value}}}


def without(spec: ApiModel, fields: Collection[str]) -> dict[str, Any]:
    """The spec without these fields.

    Without defaults, too, so that a field that a newer operator adds does not make it another spec.
    """
    asked = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {name: value for name, value in asked.items() if name not in fields}
