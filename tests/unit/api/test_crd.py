"""The CRDs: generated from the models and nothing else, small, and in the schema that Kubernetes takes.

That the API server takes and enforces them is seen in tests/integration/operator/admission.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api import reference
from finetune_api.conditions import METAV1_CONDITION
from finetune_api.crd import custom_resource_definition, write
from finetune_api.evaluation.benchmarks import BENCHMARK_TASKS
from finetune_api.finetunesweep import PATHS
from finetune_api.kinds import FINE_TUNE_SWEEP, KINDS, MODEL_DEPLOYMENT, Kind
from finetune_api.pod_contracts.run import ModelSource

ROOT = Path(__file__).parents[3]
IN_CHART = ROOT / "charts" / "finetune-operator" / "files" / "crds"
LARGEST_BYTES = 64 * 1024
"""Of a CRD as compact JSON."""
ROOM_BYTES = {"finetunesweeps": 4 * 1024}
"""What a kind that grows keeps free for the next fields."""


@pytest.mark.parametrize("folder", [ROOT / "crds", IN_CHART], ids=["crds", "chart"])
def test_the_files_are_what_the_models_say(folder: Path, tmp_path: Path) -> None:
    write(tmp_path)
    generated = {file.name: file.read_text() for file in tmp_path.iterdir()}
    stored = {file.name: file.read_text() for file in folder.iterdir()}
    assert stored == generated, "run `make generate`"


@pytest.mark.parametrize("file", sorted(IN_CHART.iterdir()), ids=lambda file: file.name)
def test_nothing_in_a_crd_is_an_alias_of_something_else(file: Path) -> None:
    """Tools that edit YAML by text, and those that forbid aliases, take the files."""
    assert not [event for event in yaml.parse(file.read_text()) if getattr(event, "anchor", None)]


def test_the_reference_pages_are_what_the_models_say() -> None:
    folder = ROOT / "docs" / "reference"
    stored = {name: (folder / name).read_text() for name in reference.pages()}
    assert stored == reference.pages(), "run `make generate`"


@pytest.mark.parametrize("file", sorted((ROOT / "crds").iterdir()), ids=lambda file: file.name)
def test_a_crd_is_small(file: Path) -> None:
    """As compact JSON: so the API server stores and sends it, and client-side `kubectl apply` annotates it.

    The YAML file is larger by its indentation, which nothing stores, sends or limits.
    """
    as_stored = json.dumps(yaml.safe_load(file.read_text()), separators=(",", ":"), ensure_ascii=False)
    plural = file.stem.rpartition("_")[2]
    assert len(as_stored.encode()) < LARGEST_BYTES - ROOM_BYTES.get(plural, 0)


def test_a_sweep_has_nothing_of_a_method_that_it_refuses() -> None:
    """Neither its settings and rules nor its metric, also not in a description: they would take a tenth of the CRD."""
    crd = json.dumps(custom_resource_definition(FINE_TUNE_SWEEP))
    assert [text for text in ("RFT", "rft", "ValidReward", "reward") if text in crd] == []


# https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
NOT_STRUCTURAL = {
    "$ref",
    "$defs",
    "definitions",
    "dependencies",
    "deprecated",
    "discriminator",
    "patternProperties",
    "readOnly",
    "const",
    "examples",
    "title",
}


def schemas(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below this one, with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from schemas(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from schemas(node[key], f"{path}[]")


def of(kind: Kind) -> list[tuple[str, dict[str, Any]]]:
    (version,) = custom_resource_definition(kind)["spec"]["versions"]
    root = version["schema"]["openAPIV3Schema"]["properties"]
    return [*schemas(root["spec"], "spec"), *schemas(root["status"], "status")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_schema_is_structural(kind: Kind) -> None:
    for path, schema in of(kind):
        free = schema.get("x-kubernetes-preserve-unknown-fields") is True
        if schema.get("x-kubernetes-int-or-string"):
            assert schema["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
            continue
        assert schema.get("type") in {"object", "array", "string", "integer", "number", "boolean"}, path
        assert not NOT_STRUCTURAL & schema.keys(), path
        if schema["type"] == "array":
            assert "items" in schema, path
        if schema["type"] == "object" and not free:
            assert ("properties" in schema) != ("additionalProperties" in schema), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_list_and_text_of_a_spec_is_bounded(kind: Kind) -> None:
    """CEL's cost limit, and etcd's, need bounds; texts have them by length, by pattern of a bounded kind or by enum."""
    for path, schema in of(kind):
        if not path.startswith("spec"):
            continue
        if schema.get("type") == "array":
            assert "maxItems" in schema, path
        if schema.get("type", "string") == "string":
            assert "maxLength" in schema or "enum" in schema, path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path
        if schema.get("type") in ("integer", "number"):
            assert "minimum" in schema, path
            assert "maximum" in schema, path


def _refers(schema: dict[str, Any]) -> bool:
    description = schema.get("description", "")
    return "kubectl explain" in description or description.startswith("As lora, ")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_field_is_described(kind: Kind) -> None:
    """For `kubectl explain` and the reference pages: a sentence, that is not only the name in other letters.

    A field that is as another one says so, and which: then only what differs is described below it.
    """
    found = of(kind)
    elsewhere = tuple(f"{path}{end}" for path, schema in found if _refers(schema) for end in (".", "["))
    for path, schema in found:
        if path.endswith("[]"):  # the list itself is described
            continue
        if path.startswith(elsewhere) and "description" not in schema:
            continue
        text, name = schema.get("description", ""), path.rpartition(".")[2]
        assert text.strip(), path
        assert text.lower().strip(".").replace(" ", "") != name.lower(), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_number_has_a_format_that_holds_it(kind: Kind) -> None:
    for path, schema in of(kind):
        if schema.get("type") == "integer":
            assert schema["format"] in ("int32", "int64"), path
            assert schema["format"] == "int64" or schema["maximum"] < 2**31, path
        if schema.get("type") == "number":
            assert schema["format"] == "double", path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_list_says_how_two_writers_are_merged(kind: Kind) -> None:
    """https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy"""
    for path, schema in of(kind):
        if schema.get("type") != "array":
            continue
        kind_of, items = schema["x-kubernetes-list-type"], schema["items"]
        assert kind_of in ("atomic", "set", "map"), path
        if kind_of == "set":
            assert items["type"] == "string", path
        if kind_of == "map":
            assert set(schema["x-kubernetes-list-map-keys"]) <= set(items["required"]), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_names_another_object_is_a_name_of_kubernetes(kind: Kind) -> None:
    """A label (RFC 1123) for our own kinds and for queues, a subdomain for the others."""
    for path, schema in of(kind):
        name = path.rpartition(".")[2]
        if not path.startswith("spec") or not (path.endswith("Ref.name") or name.endswith("Name")):
            continue
        if name != "resourceName":  # that of an extended resource has a domain and a slash
            assert schema["maxLength"] in (63, 253), path
            assert schema["pattern"].startswith("^[a-z0-9]([-a-z0-9]*[a-z0-9])?"), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_rule_names_a_field_that_is_there(kind: Kind) -> None:
    for path, schema in of(kind):
        for rule in schema.get("x-kubernetes-validations", []):
            field: Any = schema
            for part in rule.get("fieldPath", "").split(".")[1:]:
                field = field["properties"][part]
            assert rule["message"][0].islower(), f"{path}: {rule['message']}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_enum_values_are_pascal_case_and_fields_camel_case(kind: Kind) -> None:
    names = {"training", "validation", "test", "source", *PATHS, *BENCHMARK_TASKS}  # fields, splits, lm-eval's tasks
    for path, schema in of(kind):
        name = path.rsplit(".", 1)[-1].removesuffix("[]")
        assert name[0].islower() and "_" not in name, path
        for value in schema.get("enum", []):
            assert value[0].isupper() or value in names, f"{path}: {value}"


def test_the_conditions_are_a_map_by_type() -> None:
    """So that server-side apply of several managers merges them."""
    for kind in KINDS:
        (conditions,) = [schema for path, schema in of(kind) if path == "status.conditions"]
        assert conditions["x-kubernetes-list-type"] == "map"
        assert conditions["x-kubernetes-list-map-keys"] == ["type"]
        assert conditions["items"] == {**METAV1_CONDITION, "x-kubernetes-preserve-unknown-fields": True}


def test_a_status_has_no_defaults() -> None:
    """A default in a status would be written by the API server into what the operator compares."""
    for kind in KINDS:
        assert [path for path, schema in of(kind) if path.startswith("status") and "default" in schema] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_status_takes_any_value_that_another_version_writes(kind: Kind) -> None:
    """Also in the lists that are maps: of their items the keys alone are required."""
    limits = {"enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"}
    for path, schema in of(kind):
        if not path.startswith("status") or path.startswith("status.conditions"):
            continue
        assert not limits & schema.keys(), path
        keys = schema.get("x-kubernetes-list-map-keys")
        assert keys is None or schema["items"]["required"] == keys, path
        assert "required" not in schema or path.endswith("[]"), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_kubectl_shows_is_there(kind: Kind) -> None:
    paths = {path for path, _ in of(kind)}
    for _, _, column in (*kind.columns, *kind.wide_columns):
        if "[?" not in column and not column.startswith(".metadata"):
            assert column.removeprefix(".") in paths


def test_every_kind_shows_its_age_last_and_what_it_says_with_wide() -> None:
    for kind in KINDS:
        assert kind.columns[-1][0] == "Age"
        assert kind.wide_columns[-1][0] == "Message"
        names = [name for name, _, _ in (*kind.columns, *kind.wide_columns)]
        assert len(set(names)) == len(names)


def test_the_wide_list_of_deployments_says_which_adapter_or_checkpoint_of_a_base_model_answers() -> None:
    columns = {name: path for name, _, path in MODEL_DEPLOYMENT.wide_columns}
    served = ModelSource.model_validate(
        {"uri": "s3://base", "adapterUri": "s3://adapter", "checkpoint": {"uri": "s3://step-100", "step": 100}}
    ).to_wire()
    assert columns["Serves"] == ".status.served.uri" and served["uri"] == "s3://base"
    assert columns["Adapter"] == ".status.served.adapterUri" and served["adapterUri"] == "s3://adapter"
    assert columns["Checkpoint"] == ".status.served.checkpoint.uri" and served["checkpoint"]["uri"] == "s3://step-100"
