"""Every example is accepted by a real API server with our CRDs, and is what its README says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from e2e.cluster.components.control_plane import ControlPlane
from tests.integration.operator.api import PLURALS, Api, Object, RefusedError

EXAMPLES = Path(__file__).parents[3] / "examples"
CAPABILITIES = EXAMPLES / "capabilities"
FILES = sorted([*CAPABILITIES.glob("*.yaml"), *EXAMPLES.glob("quickstart/*.yaml")])
PATHS = {"Namespace": "/api/v1/namespaces", **PLURALS}


@pytest.fixture(scope="module")
def api(cluster: ControlPlane) -> Api:
    """The API server, with the namespaces that the examples are made in."""
    api = Api(cluster, "")
    for file in FILES:
        for document in documents(file):
            if document["kind"] == "Namespace":
                api.request("POST", PATHS["Namespace"], document)
    return api


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_example_is_accepted(api: Api, file: Path) -> None:
    for document in documents(file):
        dry_run(api, document)


def test_dry_run_refuses_what_is_wrong(api: Api) -> None:
    """The test above would see a mistake."""
    (document,) = documents(CAPABILITIES / "sft-lora.yaml")
    with pytest.raises(RefusedError, match="epoch"):
        dry_run(api, {**document, "spec": {**document["spec"], "hyperparameters": {"epoch": 1}}})


def test_readme_lists_every_example_and_no_other() -> None:
    listed = re.findall(r"\]\(([\w-]+\.yaml)\)", (CAPABILITIES / "README.md").read_text())
    assert sorted(listed) == sorted(file.name for file in CAPABILITIES.glob("*.yaml") if file.name != "namespace.yaml")


def test_examples_are_named_after_their_files() -> None:
    for file in CAPABILITIES.glob("*.yaml"):
        for document in documents(file):
            name = document["metadata"]["name"]
            if document["kind"] == "Namespace":
                assert name == "examples"
            else:
                assert name == file.stem.removeprefix("class-")
                assert document["metadata"].get("namespace") == (None if is_class(document) else "examples")


def documents(file: Path) -> list[Object]:
    """The objects in a file."""
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def dry_run(api: Api, document: Object) -> None:
    """`kubectl apply --server-side --dry-run=server`. Raises RefusedError."""
    metadata = document["metadata"]
    path = f"{PATHS[document['kind']].format(metadata.get('namespace', ''))}/{metadata['name']}"
    query = "fieldManager=test&force=true&dryRun=All&fieldValidation=Strict"
    api.request("PATCH", f"{path}?{query}", document, "application/apply-patch+yaml")


def is_class(document: Object) -> bool:
    return bool(document["kind"] == "FineTuneClass")
