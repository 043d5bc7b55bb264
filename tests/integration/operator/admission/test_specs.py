"""Good specs and names are taken; names that nothing could refer to are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finetune_api.base import GROUP
from tests.integration.operator.admission.shortest_specs import DRY_RUN, GOOD
from tests.integration.operator.api import Api, Object, RefusedError

EXAMPLES = Path(__file__).parents[4] / "examples"


@pytest.mark.parametrize("kind", GOOD)
def test_the_shortest_spec_is_taken(api: Api, kind: str) -> None:
    assert api.create(kind, "good", GOOD[kind], query=DRY_RUN)["spec"]


def example_documents() -> list[Object]:
    documents = [
        document
        for file in sorted(EXAMPLES.rglob("*.yaml"))
        if file.parent.name != "laptop"  # its paths are of no cluster
        for document in yaml.safe_load_all(file.read_text())
        if document["apiVersion"].startswith(GROUP)
    ]
    assert documents
    return documents


@pytest.mark.parametrize("document", example_documents(), ids=lambda item: f"{item['kind']}-{item['metadata']['name']}")
def test_every_example_is_taken(api: Api, document: Object) -> None:
    assert api.create(document["kind"], document["metadata"]["name"], document["spec"], query=DRY_RUN)


@pytest.mark.parametrize("name", ["has.a.dot", "x" * 64])
@pytest.mark.parametrize("kind", GOOD)
def test_a_name_that_nothing_could_refer_to_is_refused(api: Api, kind: str, name: str) -> None:
    with pytest.raises(RefusedError, match=r"metadata\.name must have at most 63"):
        api.create(kind, name, GOOD[kind], query=DRY_RUN)


@pytest.mark.parametrize("kind", GOOD)
def test_a_name_that_begins_with_a_digit_is_taken(api: Api, kind: str) -> None:
    assert api.create(kind, "7b-chat", GOOD[kind], query=DRY_RUN)
