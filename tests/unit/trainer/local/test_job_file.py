"""A FineTuneJob's YAML on a laptop: which file it is, its local paths, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.conditions import Reason
from finetune_api.sources import is_allowed, parse_location
from finetune_trainer.local.job_file import is_job_file, read_job
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.local_folders import local_path

ROOT = Path(__file__).parents[4]


def job(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "router", "namespace": "team-a"},
        "spec": {"model": {"uri": "models/base"}, "dataset": {"training": {"uri": "train.jsonl"}}} | spec,
    }


def write(folder: Path, *documents: Any) -> Path:
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    return file


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    dataset = {"training": {"uri": "./train.jsonl"}, "validation": {"uri": "/data/valid.jsonl"}}
    found = read_job(write(tmp_path, {"kind": "Namespace"}, job(dataset=dataset)))
    assert (found.namespace, found.name) == ("team-a", "router")
    assert found.spec.model.uri == f"file://{tmp_path}/models/base"
    assert found.spec.dataset.training.uri == f"file://{tmp_path}/train.jsonl"
    assert found.spec.dataset.validation is not None
    assert found.spec.dataset.validation.uri == "file:///data/valid.jsonl"


def test_the_example_is_a_job_whose_files_are_there() -> None:
    spec = read_job(ROOT / "examples" / "laptop" / "job.yaml").spec
    assert spec.dataset.validation is not None
    for uri in (spec.model.uri, spec.dataset.training.uri, spec.dataset.validation.uri):
        assert local_path(parse_location(str(uri))).exists()
        assert is_allowed(str(uri), ("*",))  # the trainer opens no path that climbs


@pytest.mark.parametrize("uri", ["s3://models/base", "hf://org/name@main", "file:///models/base"])
def test_what_has_a_scheme_stays(tmp_path: Path, uri: str) -> None:
    assert read_job(write(tmp_path, job(model={"uri": uri}))).spec.model.uri == uri


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ([], "has no FineTuneJob."),
        ([job(), job()], "has 2 FineTuneJobs. Give each one a file of its own."),
        ([job() | {"apiVersion": "v1"}], "apiVersion is 'v1', not finetune.dev/v1alpha1."),
        ([job() | {"metadata": {}}], "metadata.name is missing."),
        ([job() | {"spec": None}], "spec is missing."),
        ([job(model={"fineTuneJobRef": {"name": "x"}})], "spec.model.fineTuneJobRef needs a cluster."),
        ([job(hyperparameters={"epochs": -1})], "spec.hyperparameters.epochs: Input should be greater than 0"),
        ([job(method={"dpo": {}})], "spec.method: dpo is only allowed with type DPO"),
        ([job(model={})], "spec.model: set exactly one of uri and fineTuneJobRef"),
        ([job(modle={})], "spec.modle: Extra inputs are not permitted"),
        ([job(model={"uri": "https://x/y"})], "spec.model.uri: Value error, should match pattern"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, documents: list[Any], words: str) -> None:
    file = write(tmp_path, *documents)
    with pytest.raises(DiagnosedError) as raised:
        read_job(file)
    assert raised.value.failure.reason is Reason.INVALID_SPEC
    assert words in raised.value.failure.message
    assert str(file) in raised.value.failure.message


def test_broken_yaml_is_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("spec: {model: [")
    with pytest.raises(DiagnosedError, match=r"job\.yaml is no YAML"):
        read_job(file)


@pytest.mark.parametrize(
    ("name", "content", "is_job"),
    [
        ("job.yaml", yaml.safe_dump(job()), True),
        ("job.json", json.dumps(job()), True),
        ("job.yaml", "spec: {model: [", True),
        ("run.json", json.dumps({"command": "Train", "attempt": 1}), False),
        ("run.json", '{"command": "Tr', False),
    ],
    ids=["yaml", "a job as json", "broken yaml", "a Pod's", "a Pod's, broken"],
)
def test_a_job_is_distinguished_from_what_a_pod_gets_by_its_content(
    tmp_path: Path, name: str, content: str, is_job: bool
) -> None:
    (tmp_path / name).write_text(content)
    assert is_job_file(tmp_path / name) is is_job
