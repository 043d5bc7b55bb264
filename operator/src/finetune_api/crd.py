"""CustomResourceDefinitions generated from the pydantic models: `python -m finetune_api.crd FOLDER...`."""

from __future__ import annotations

import math
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from finetune_api.base import GROUP, VERSION, ApiModel, cel
from finetune_api.finetunesweep.schema import with_short_descriptions, without_refused_methods
from finetune_api.kinds import FINE_TUNE_SWEEP, KINDS, Kind

_NAME_RULE = (
    "self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "metadata.name must have at most 63 lower-case letters, digits and '-', because other objects refer to it",
)
_LARGEST_INT32 = 2**31 - 1
_CONDITION_KEYS = ["type"]
_WIDEST = {"integer": "int64", "number": "double"}


def custom_resource_definition(kind: Kind) -> dict[str, Any]:
    """The apiextensions.k8s.io/v1 object of a kind."""
    spec, status = spec_schema(kind), open_schema(structural_schema(kind.status, with_defaults=False))
    if kind is FINE_TUNE_SWEEP:
        with_short_descriptions(spec, status)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["finetune"],
            },
            "scope": kind.scope,
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}, **kind.subresources},
                    "additionalPrinterColumns": [
                        *({"name": name, "type": kind_of, "jsonPath": path} for name, kind_of, path in kind.columns),
                        *(
                            {"name": name, "type": kind_of, "jsonPath": path, "priority": 1}
                            for name, kind_of, path in kind.wide_columns
                        ),
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": spec["description"],
                            "required": ["spec"],
                            **cel(_NAME_RULE),
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status,
                            },
                        }
                    },
                }
            ],
        },
    }


def spec_schema(kind: Kind) -> dict[str, Any]:
    """The structural schema of a kind's spec, without what the kind refuses."""
    spec = structural_schema(kind.spec)
    if kind is FINE_TUNE_SWEEP:
        without_refused_methods(spec)
    return spec


def structural_schema(model: type[ApiModel], *, with_defaults: bool = True) -> dict[str, Any]:
    """The Kubernetes structural schema of a model: references inlined, null and titles dropped."""
    schema = model.model_json_schema(by_alias=True)
    definitions: dict[str, Any] = schema.pop("$defs", {})
    structural = _structural(schema, definitions, with_defaults=with_defaults)
    assert isinstance(structural, dict)
    return structural


def open_schema(node: Any) -> Any:
    """The schema of a status: only types, so that a status of any other version is accepted.

    Unknown fields are preserved; missing fields and unknown values are no errors. Only conditions are validated, like
    metav1.Condition.
    """
    kept = {
        name: node[name]
        for name in (
            "type",
            "description",
            "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-map-type",
        )
        if name in node
    }
    if node.get("type") in _WIDEST:
        kept["format"] = _WIDEST[node["type"]]
    keys = node.get("x-kubernetes-list-map-keys")
    if keys == _CONDITION_KEYS:
        return {**kept, "items": {**node["items"], "x-kubernetes-preserve-unknown-fields": True}}
    if keys is not None:
        return {**kept, "items": {**open_schema(node["items"]), "required": [*keys]}}
    if "properties" in node:
        kept["properties"] = {name: open_schema(child) for name, child in node["properties"].items()}
    children = {name: open_schema(node[name]) for name in ("items", "additionalProperties") if name in node}
    if children.get("additionalProperties", {}).get("type") in _WIDEST:  # another version may count in another way
        del children["additionalProperties"]
    if node.get("type") == "object" and "additionalProperties" not in children:
        kept["x-kubernetes-preserve-unknown-fields"] = True
    return {**kept, **children}


def _structural(node: Any, definitions: dict[str, Any], *, with_defaults: bool) -> Any:
    if isinstance(node, list):
        return [_structural(item, definitions, with_defaults=with_defaults) for item in node]
    if not isinstance(node, dict):
        return node
    node = dict(node)
    if "$ref" in node:
        node = {**definitions[node.pop("$ref").rsplit("/", 1)[-1]], **node}
    if "anyOf" in node and "x-kubernetes-int-or-string" not in node:
        (present,) = [option for option in node.pop("anyOf") if option != {"type": "null"}]
        if "$ref" in present:
            present = definitions[present["$ref"].rsplit("/", 1)[-1]]
        node = {**present, **node}
    if "const" in node:
        node["enum"] = [node.pop("const")]
    for bound, name in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in node:
            node |= {name: node[bound], bound: True}
    node.pop("title", None)
    default = node.pop("default", None)
    result: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            result[key] = {
                name: _structural(child, definitions, with_defaults=with_defaults) for name, child in value.items()
            }
        elif key == "additionalProperties":
            if value is True:
                result["x-kubernetes-preserve-unknown-fields"] = True
            elif value is not False:
                result[key] = _structural(value, definitions, with_defaults=with_defaults)
        elif key in ("items",):
            result[key] = _structural(value, definitions, with_defaults=with_defaults)
        else:
            # A definition that is used twice must not become an anchor and an alias of YAML.
            result[key] = deepcopy(value)
    if result.get("type") == "integer":
        result.setdefault(
            "format", "int32" if result.get("maximum", math.inf) <= _LARGEST_INT32 else _WIDEST["integer"]
        )
    if result.get("type") == "number":
        result["format"] = _WIDEST["number"]
    if result.get("type") == "array":
        result.setdefault("x-kubernetes-list-type", "atomic")
    if with_defaults and default is not None:
        # An object's default is {}: the API server then fills the members' own defaults.
        result["default"] = {} if isinstance(default, dict) else deepcopy(default)  # else YAML has anchors
    return result


def write(folder: Path) -> None:
    """One file per kind, named after the CRD; a field without members is on a line of its own, which keeps it small."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        crd = custom_resource_definition(kind)
        text = "# Generated by `make generate` from finetune_api; do not edit.\n" + yaml.safe_dump(
            crd, sort_keys=False, width=120, default_flow_style=None
        )
        (folder / f"{GROUP}_{kind.plural}.yaml").write_text(text)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        write(Path(argument))
