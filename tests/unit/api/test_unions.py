"""Unions have one of two forms, and Python refuses what the API server refuses, in the same words."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from finetune_api.base import ApiModel
from finetune_api.crd import structural_schema
from finetune_api.evaluation import Gate
from finetune_api.finetuneclass import ServerSideEncryption, Storage
from finetune_api.finetunejob import Adapter, Limit, Method, Model, TrainingData, ValidationData
from finetune_api.graders import Grader
from finetune_api.kinds import KINDS
from finetune_api.unions import OneOf, TypedUnion
from tests.unit.api.test_crd import schemas


@pytest.mark.parametrize(
    ("union", "wire", "message"),
    [
        (Adapter, {"type": "Full", "lora": {}}, "lora is only allowed with type LoRA"),
        (Adapter, {"qlora": {}}, "qlora is only allowed with type QLoRA"),
        (Adapter, {"lora": {}, "full": {}}, "full is only allowed with type Full"),
        (Method, {"dpo": {}}, "dpo is only allowed with type DPO"),
        (Grader, {"name": "a", "type": "JsonSchema"}, "jsonSchema is required with type JsonSchema"),
        (Grader, {"name": "a", "type": "StringCheck", "toolCall": {}}, "toolCall is only allowed with type ToolCall"),
        (ServerSideEncryption, {"type": "S3", "kms": {}}, "kms is only allowed with type KMS"),
        (Model, {}, "set exactly one of uri and fineTuneJobRef"),
        (Limit, {"examples": 1, "percent": 1}, "set exactly one of examples and percent"),
        (TrainingData, {}, "set exactly one of uri, uris, configMapRef and datasetRef"),
        (ValidationData, {}, "set exactly one of uri, uris, configMapRef, datasetRef and splitPercent"),
        (
            Gate,
            {"grader": "a", "minimum": 0.5, "minimumDelta": 0},
            "set exactly one of minimum, minimumDelta, maximum and maximumDelta",
        ),
        (Storage, {"bucket": "abc"}, "set exactly one of credentialsSecretName and serviceAccountName"),
    ],
)
def test_what_a_union_does_not_allow_is_refused(union: type[ApiModel], wire: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        union.from_wire(wire)
    assert message in {error["msg"] for error in refused.value.errors()}
    rules = structural_schema(union)["x-kubernetes-validations"]
    assert message in {rule["message"] for rule in rules}, "the API server says the same"


@pytest.mark.parametrize(
    ("union", "wire"),
    [
        (Adapter, {}),
        (Adapter, {"type": "Full"}),
        (Adapter, {"lora": {"rank": 8}}),
        (Adapter, {"type": "QLoRA", "qlora": {"rank": 8}}),
        (Grader, {"name": "a", "type": "TextSimilarity"}),
        (Gate, {"grader": "a", "minimumDelta": 0}),
        (ValidationData, {"splitPercent": 10}),
    ],
)
def test_what_a_union_allows_is_taken(union: type[ApiModel], wire: dict[str, Any]) -> None:
    assert union.from_wire(union.from_wire(wire).to_wire()) == union.from_wire(wire)


def test_what_another_version_wrote_is_read_all_the_same() -> None:
    assert Model.from_another_version({"uriOfLater": "x"}).uri is None


def test_every_field_of_a_typed_union_is_a_member_of_one_of_its_types() -> None:
    """Its name is the type's, in the case of a field: a reader of the one knows the other."""
    for union in TypedUnion.__subclasses__():
        members = set(union.members().values())
        assert members == set(union.model_fields) - {"type", "name", "pass_threshold"}, union.__name__
        assert members, union.__name__
        for kind, field in union.members().items():
            assert kind in get_args(union.model_fields["type"].annotation)
            assert field.replace("_", "") == kind.lower()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_looks_like_a_union_is_one(kind: Any) -> None:
    """A `type` beside objects is a TypedUnion, and words of `exactly one` are a OneOf's."""
    for path, schema in schemas(structural_schema(kind.spec), "spec"):
        properties, rules = schema.get("properties", {}), schema.get("x-kubernetes-validations", [])
        members = [name for name, child in properties.items() if child.get("type") == "object"]
        if "type" in properties and members:
            paths = {rule["fieldPath"] for rule in rules}
            assert {f".{name}" for name in members} <= paths, path
            assert set(members) == {place.split(".")[1] for place in paths}, path
        for rule in rules:
            if "exactly one" in rule["message"]:
                assert rule["rule"].endswith(".exists_one(given, given)"), path
    assert OneOf.__subclasses__()
