"""What the documentation names exists: pages, paths, make's targets, reasons, and fields of the kinds."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.conditions import ConditionType, Reason
from tests.unit.docs.pages import PAGES, ROOT, anchors, blocks, commands, inline_code, links

CRDS = [yaml.safe_load(file.read_text()) for file in sorted((ROOT / "crds").glob("*.yaml"))]
SCHEMAS = {crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for crd in CRDS}
TOP_LEVEL = ("benchmarks", "charts", "crds", "docs", "e2e", "examples", "locks", "operator", "tests", "trainer-image")
CAMEL = re.compile(r"^[A-Z][a-z]+(?:[A-Z][a-z]*)+$")
# Names of Kubernetes, of other operators and of libraries that the documentation speaks of.
FOREIGN = frozenset(
    [
        *("AutoPeftModelForCausalLM", "AutoProcessor", "KubeflowCallback"),
        *("ExpiredToken", "NoSuchBucket", "SlowDown"),
        *("FailedCreate", "FailedMount", "FailedScheduling", "RuntimeDefault"),
        *("ConfigMap", "NetworkPolicy", "PersistentVolumeClaim", "PriorityClass", "ResourceQuota", "RuntimeClass"),
        *("PodMonitor", "PrometheusRule", "ServiceMonitor", "StorageClass", "ValidatingAdmissionPolicy"),
    ]
)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_paths_of_the_repository_exist(page: Path) -> None:
    for code in inline_code(page):
        for path in (word.rstrip("/") for word in code.split()):
            if path.split("/")[0] in TOP_LEVEL and "/" in path and not set("<*{$") & set(path):
                assert (ROOT / path.partition("::")[0]).exists(), code


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = [word for command in commands() if command.words[0] == "make" for word in command.words[1:]]
    assert used
    assert {word for word in used if "=" not in word} <= targets


def test_every_yaml_is_a_whole_object() -> None:
    """So that it can be applied, by a reader and by tests/integration/docs."""
    assert all("apiVersion:" in block.text for block in blocks() if block.language == "yaml")


def test_python_is_python() -> None:
    for block in blocks():
        if block.language == "python":
            compile(block.text, str(block), "exec")


def test_images_are_built_from_files_with_arguments_that_exist() -> None:
    built = [command.words for command in commands() if command.words[:2] == ("docker", "build")]
    assert built
    for words in built:
        file = ROOT / (words[words.index("-f") + 1] if "-f" in words else "Dockerfile")
        for number, word in enumerate(words):
            if word == "--build-arg":
                assert f"ARG {words[number + 1].split('=')[0]}" in file.read_text()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_reasons_and_values_are_the_codes(page: Path) -> None:
    known = {
        *(reason.value for reason in Reason),
        *(condition.value for condition in ConditionType),
        *FOREIGN,
        *SCHEMAS,
        *values(SCHEMAS),
    }
    known |= named_in_code()
    unknown = {code for code in inline_code(page) if CAMEL.match(code)} - known
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_fields_are_those_of_a_kind(page: Path) -> None:
    """`spec...` and `status...` in lines, and `{.status...}` in commands."""
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"`((?:spec|status)\.[A-Za-z.\[\]*]+)`", text)
    paths += [path for path in re.findall(r"\{\.((?:spec|status)\.[A-Za-z.]+)", text) if "$" not in path]
    paths += re.findall(r"[A-Z]:\.((?:spec|status)\.[A-Za-z.]+)", text)
    for path in paths:
        names = [name for name in re.sub(r"\[.*?\]", "", path).split(".") if name]
        assert any(has_field(schema, names) for schema in SCHEMAS.values()), path


def has_field(schema: Any, names: list[str]) -> bool:
    """Whether a schema has a field at a path; through lists, and free where it is."""
    while schema.get("type") == "array":
        schema = schema["items"]
    if not names:
        return True
    fields = schema.get("properties", {})
    if names[0] in fields:
        return has_field(fields[names[0]], names[1:])
    return "additionalProperties" in schema or bool(schema.get("x-kubernetes-preserve-unknown-fields"))


def values(schema: Any) -> Iterator[str]:
    """Every value of an enumeration in a schema."""
    if isinstance(schema, dict):
        yield from (value for value in schema.get("enum", []) if isinstance(value, str))
        for inner in schema.values():
            yield from values(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from values(inner)


@functools.cache
def named_in_code() -> frozenset[str]:
    """Words in quotes in our code (reasons of Events, of attempts, of policies), and its classes."""
    sources = [
        file for folder in ("operator/src", "trainer-image/src", "charts") for file in (ROOT / folder).rglob("*")
    ]
    texts = [source.read_text() for source in sources if source.suffix in (".py", ".yaml")]
    return frozenset(word for text in texts for word in re.findall(r"(?:[\"']|class )([A-Z][A-Za-z]+)\b", text))


def test_every_page_installs_the_operator_with_the_same_values() -> None:
    commands = [block.text.replace("\\\n", " ") for block in blocks()]
    lines = [
        line for text in commands for line in text.splitlines() if line.startswith("helm install finetune-operator")
    ]
    values = {frozenset(re.findall(r"--set ([\w.]+)=", line)) for line in lines}
    assert len(lines) >= 3
    assert values == {frozenset({"image.repository", "image.tag", "trainerImage"})}


def test_every_page_calls_the_operators_release_by_the_same_name() -> None:
    """A release has the name it was installed by: an upgrade of another one finds nothing to upgrade."""
    of_helm = [command for command in commands() if command.words[0] == "helm"]
    of_operator = [command for command in of_helm if "charts/finetune-operator" in command.words]
    of_operator += [command for command in of_helm if command.words[1] == "rollback"]
    assert {command.words[1] for command in of_operator} >= {"install", "upgrade", "rollback"}
    others = [str(command) for command in of_operator if command.words[2] != "finetune-operator"]
    assert not others
