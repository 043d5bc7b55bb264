"""URIs of models and datasets, and the patterns of a class that allow them."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune_api.finetuneclass import AllowedSources
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.sources import (
    DATASET_URI_PATTERN,
    MODEL_URI_PATTERN,
    ON_A_LAPTOP,
    HubDataset,
    HubModel,
    StorageLocation,
    is_allowed,
    parse_hub_dataset,
    parse_location,
    parse_model_uri,
    parse_s3,
)

segments = st.text("ab.*", min_size=1, max_size=3)
uris = st.lists(segments, min_size=1, max_size=4).map(lambda parts: "s3://" + "/".join(parts))


@given(st.text("ab-.", min_size=1), st.text("ab/.", min_size=1))
def test_a_bucket_and_a_key_come_back(bucket: str, key: str) -> None:
    location = parse_s3(f"s3://{bucket}/{key}")
    assert location == StorageLocation(bucket, key)
    assert parse_s3(location.uri) == location


@pytest.mark.parametrize(
    "uri", ["", "s3://", "s3://bucket", "s3://bucket/", "s3:///key", "hf://org/name", "bucket/key"]
)
def test_what_is_no_s3_uri_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="not of the form s3://bucket/key"):
        parse_s3(uri)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("hf://org/name", HubModel("org/name", None)),
        ("hf://org/name@v1.0", HubModel("org/name", "v1.0")),
        ("hf://org/name@refs/pr/1", HubModel("org/name", "refs/pr/1")),
        ("s3://models/base", StorageLocation("models", "base")),
    ],
)
def test_a_model_uri_is_a_repository_of_a_hub_or_a_folder_of_s3(uri: str, expected: HubModel | StorageLocation) -> None:
    assert parse_model_uri(uri) == expected


HUB_DATASETS = [
    ("hf://datasets/org/name", HubDataset("org/name", None, "")),
    ("hf://datasets/org/name@v1/data/*.parquet", HubDataset("org/name", "v1", "data/*.parquet")),
    ("hf://datasets/org/name/a@b.jsonl", HubDataset("org/name", None, "a@b.jsonl")),
    ("hf://datasets/org/name@refs/convert/parquet/train/", HubDataset("org/name", "refs/convert/parquet", "train/")),
]


@pytest.mark.parametrize(("uri", "expected"), HUB_DATASETS)
def test_a_hub_dataset_has_a_name_a_revision_and_a_path(uri: str, expected: HubDataset) -> None:
    assert parse_hub_dataset(uri) == expected
    assert expected.uri == uri


@pytest.mark.parametrize("uri", ["hf://org/name", "hf://datasets/org", "s3://datasets/org/name"])
def test_what_is_no_dataset_of_a_hub_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="not of the form hf://datasets/org/name@revision/path"):
        parse_hub_dataset(uri)


@pytest.mark.parametrize(
    ("key", "parts", "expected"),
    [("a", ("b", "c"), "a/b/c"), ("a/", ("b",), "a/b"), ("", ("b",), "b")],
)
def test_joining_a_folder_and_a_path_makes_a_key_with_single_slashes(
    key: str, parts: tuple[str, ...], expected: str
) -> None:
    assert StorageLocation("bucket", key).join(*parts).key == expected


@pytest.mark.parametrize(
    ("uri", "patterns", "allowed"),
    [
        ("s3://team-data/a/b.jsonl", ("s3://team-data/*",), True),
        ("s3://team-data-of-others/a", ("s3://team-data/*",), False),
        ("s3://other/a", ("s3://team-data/*", "s3://other/*"), True),
        ("s3://team-data/../other/a", ("s3://team-data/*",), False),
        ("s3://team-data/..", ("s3://team-data/*",), False),
        ("s3://team-data/a..b", ("s3://team-data/*",), True),
        ("S3://team-data/a", ("s3://team-data/*",), False),
        ("hf://org/name@main", ("hf://org/*",), True),
        ("hf://org/name", (), False),
        ("hf://org/name", ("hf://org/name",), True),
        ("hf://org/name@main", ("hf://org/name",), True),
        ("hf://org/name-2@main", ("hf://org/name",), False),
        ("hf://org/name@v2", ("hf://org/name@v1",), False),
        ("hf://org/name", ("hf://org/name@v1",), False),
        ("hf://datasets/org/name@v1/train/a.jsonl", ("hf://datasets/org/name",), True),
        ("hf://datasets/org/name@refs/convert/parquet/a.parquet", ("hf://datasets/org/name",), True),
        ("hf://datasets/org/name@v1/train/a.jsonl", ("hf://datasets/org/name/train/*",), True),
        ("hf://datasets/org/name@v1/test/a.jsonl", ("hf://datasets/org/name/train/*",), False),
        ("hf://datasets/org/name@v1/a.jsonl", ("hf://datasets/org/name@v1",), True),
        ("hf://datasets/org/name@v2/a.jsonl", ("hf://datasets/org/name@v1",), False),
        ("hf://datasets/org/name-2/a.jsonl", ("hf://datasets/org/name",), False),
        ("s3://team-data/a@b", ("s3://team-data/a",), False),
        ("s3://b/model-1", ("s3://b/model-[0-9]",), True),
    ],
)
def test_a_uri_is_allowed_by_a_pattern_and_by_none_that_it_only_resembles(
    uri: str, patterns: tuple[str, ...], allowed: bool
) -> None:
    assert is_allowed(uri, patterns) is allowed


@pytest.mark.parametrize(
    ("kind", "pattern", "good"),
    [
        ("models", "s3://finetune/models/*", True),
        ("models", "s3://*", True),
        ("models", "hf://*", True),
        ("models", "hf://Qwen/Qwen3-0.6B", True),
        ("models", "s3://finetune/models/base", True),
        ("datasets", "hf://datasets/org/*", True),
        ("models", "s3://finetune/models*", False),
        ("models", "s3://finetune*", False),
        ("models", "s3://team-*/data/*", False),
        ("models", "s3://b/model-[0-9]", False),
        ("models", "s3://b/model-?", False),
        ("datasets", "*", False),
        ("images", "https://images.example.com/*", True),
        ("images", "https://images.example.com", True),
        ("images", "https://*.example.com", True),
        ("images", "https://*.example.com/public/*", True),
        ("images", "https://*", True),
        ("images", "https://images.example.com/public*", False),
        ("images", "https://images*.example.com/*", False),
        ("images", "http://images.example.com/*", False),
    ],
)
def test_a_class_allows_what_is_below_a_folder_and_not_what_begins_alike(kind: str, pattern: str, good: bool) -> None:
    """`s3://finetune/models*` matches `models-secret/`."""
    if good:
        assert AllowedSources.from_wire({kind: [pattern]})
        return
    with pytest.raises(ValidationError, match="String should match pattern"):
        AllowedSources.from_wire({kind: [pattern]})


@given(uris, st.lists(uris, max_size=3))
def test_a_path_that_climbs_matches_nothing_and_others_match_as_shells_do(uri: str, patterns: list[str]) -> None:
    expected = ".." not in uri.split("/") and any(fnmatchcase(uri, pattern) for pattern in patterns)
    assert is_allowed(uri, tuple(patterns)) is expected


def test_a_path_is_a_uri_on_a_laptop_only() -> None:
    spec = {"model": {"uri": "file:///models/base"}, "dataset": {"training": {"uri": "file:///data/train.jsonl"}}}
    parsed = FineTuneJobSpec.model_validate(spec, context=ON_A_LAPTOP)
    location = parse_location(parsed.dataset.training.uri)
    assert (location.is_local, location.key, location.uri) == (True, "data/train.jsonl", "file:///data/train.jsonl")
    with pytest.raises(ValidationError, match=r"(?s)model\.uri.*dataset\.training\.uri"):
        FineTuneJobSpec.from_wire(spec)


def test_the_api_server_refuses_paths() -> None:
    schema = json.dumps(FineTuneJobSpec.model_json_schema())
    assert json.dumps(MODEL_URI_PATTERN) in schema
    assert json.dumps(DATASET_URI_PATTERN) in schema
    assert "file:" not in MODEL_URI_PATTERN + DATASET_URI_PATTERN
