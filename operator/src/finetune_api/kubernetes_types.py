"""Types with the same validation as in Kubernetes' own objects: names, labels, quantities, list types."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"

SubdomainName = Annotated[str, StringConstraints(pattern=rf"^{_SUBDOMAIN}$", max_length=253)]
"""The name of a Secret, ConfigMap, ServiceAccount, PriorityClass or RuntimeClass (RFC 1123)."""
QueueName = Annotated[str, StringConstraints(pattern=rf"^{_SUBDOMAIN}$", max_length=63)]
"""The name of a LocalQueue, which is also used as a label value."""
ConfigMapKey = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
EnvironmentVariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
LabelKey = Annotated[str, StringConstraints(pattern=rf"^({_SUBDOMAIN}/)?{_QUALIFIED}$", max_length=317)]
LabelValue = Annotated[str, StringConstraints(pattern=rf"^({_QUALIFIED})?$", max_length=63)]
ExtendedResourceName = Annotated[str, StringConstraints(pattern=rf"^{_SUBDOMAIN}/{_QUALIFIED}$", max_length=317)]
"""A resource from a device plugin, always with a domain, such as nvidia.com/gpu."""


def _label_keys(labels: dict[str, str]) -> dict[str, str]:
    wrong = next((key for key in labels if not re.fullmatch(rf"({_SUBDOMAIN}/)?{_QUALIFIED}", key)), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is not a valid label key")
    return labels


Labels = Annotated[
    dict[str, LabelValue],
    Field(max_length=32),
    AfterValidator(_label_keys),
    Field(
        json_schema_extra={
            "x-kubernetes-map-type": "atomic",
            "x-kubernetes-validations": [
                {
                    "rule": f"self.all(key, key.matches('^({_SUBDOMAIN}/)?{_QUALIFIED}$'))".replace("\\", "\\\\"),
                    "message": "each key must be a valid label key, such as zone or example.com/zone",
                }
            ],
        },
    ),
]

_QUANTITY = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"


def _as_text(value: Any) -> Any:
    """`cpu: 4` is a number in YAML."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else value


Quantity = Annotated[
    str,
    BeforeValidator(_as_text),
    StringConstraints(pattern=_QUANTITY, max_length=32),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": _QUANTITY,
            "maxLength": 32,
            "minimum": 0,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
"""resource.Quantity, never negative: 4, "500m", 16Gi, 1.5e3."""

SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
"""`json_schema_extra` of a list without duplicates, to which several writers may apply items."""


def keyed_by(*keys: str) -> dict[str, Any]:
    """`json_schema_extra` of a list of objects with these keys."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
