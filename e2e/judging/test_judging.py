"""Evaluations on the real cluster: every type of grader, a judge of our own and one that the operator serves."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.conftest import Shown
from e2e.demo import scenario
from e2e.demo.api import Api, Object, condition
from e2e.demo.scenario import BUCKET, DEPLOYMENTS, EVALUATIONS, QUICKSTART, Platform
from e2e.judging import stub_judge
from e2e.s3 import S3, reach
from e2e.steps import StepFailed, step

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAMESPACE = "judging"
FOLDER = Path(__file__).parent
ENDED = ("Passed", "GateFailed", "Inconclusive", "Failed", "Cancelled")
ENDED_SECONDS = 480.0
TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "function": {"name": "search", "arguments": "{}"}}
TASKS: dict[str, tuple[str, str, str, list[dict[str, Any]]]] = {
    "arc_easy": (
        "allenai/ai2_arc",
        "ARC-Easy",
        "train validation test",
        [
            {"id": str(at), "question": f"Which is {at}?", "choices": {"text": ["0", "1"], "label": ["A", "B"]}}
            | {"answerKey": "AB"[at]}
            for at in range(2)
        ],
    ),
    "gsm8k": (
        "openai/gsm8k",
        "main",
        "train test",
        [{"question": f"Ann has {at} pens. How many has she?", "answer": f"{at}\n#### {at}"} for at in range(2)],
    ),
}
"""Dataset, configuration, splits and the two rows of each."""


@pytest.fixture(scope="module")
def judged(platform: Platform, shown: Shown) -> Iterator[dict[str, Object]]:
    """The objects of evaluations.yaml, by name, once both Evaluations have ended."""
    api = platform.api
    with shown():
        scenario.upload(platform)
        with reach(platform.storage) as s3:
            put_data(s3)
        with step("Apply Evaluations with every type of grader"):
            apply(platform)
        try:
            with step("Wait until both have ended"):
                found = {
                    name: wait(api, EVALUATIONS, name, lambda item: item.get("status", {}).get("phase") in ENDED)
                    for name in ("every-grader", "served-judge")
                }
            held = wait(api, DEPLOYMENTS, "held", lambda item: condition(item, "Ready").get("reason") == "Inconclusive")
            yield {**found, "held": held}
        finally:
            with step("Remove the Evaluations"):
                api.remove_namespace(NAMESPACE)
                api.kubectl("delete", "ftc", "judging")


def test_every_type_of_grader_graded_every_output_of_both_models(judged: dict[str, Object]) -> None:
    status = judged["every-grader"]["status"]
    scores = {(one["candidate"], one["grader"]): one for one in status["results"]}
    graders = {"exact", "meaning", "form", "helpful", "tone", "escapes", "overall"}
    assert {grader for candidate, grader in scores if candidate == "baseline"} == graders | {"arc", "maths"}
    assert {grader for candidate, grader in scores if candidate == "tuned"} == graders | {"preferred", "arc", "maths"}
    assert all(score.get("errored", 0) == 0 for score in scores.values()), status.get("errors")
    assert scores["tuned", "helpful"]["score"] == 0.8, "4 of 0 to 5"
    assert scores["tuned", "tone"]["score"] == 1
    assert scores["tuned", "preferred"]["score"] == 0.5, "whatever stands first: a tie"
    assert scores["tuned", "arc"]["examples"] == scores["tuned", "maths"]["examples"] == 2


def test_nothing_of_a_python_grader_gets_out_of_its_sandbox(judged: dict[str, Object]) -> None:
    scores = [one for one in judged["every-grader"]["status"]["results"] if one["grader"] == "escapes"]
    assert [(one["candidate"], one["score"], one["passed"]) for one in scores] == [
        ("baseline", 1, 8),
        ("tuned", 1, 8),
    ]


def test_attacks_were_judged_by_the_classifier(judged: dict[str, Object]) -> None:
    safety = judged["every-grader"]["status"]["safety"]
    rates = {(one["candidate"], one["measure"]): one for one in safety["results"]}
    assert {candidate for candidate, _ in rates} == {"baseline", "tuned"}
    assert rates["tuned", "AttackSuccess"]["rate"] == 0
    assert rates["tuned", "OverRefusal"]["rate"] == 1
    assert [gate["verdict"] for gate in safety["gates"]] == ["Passed"]


def test_a_gain_that_the_examples_do_not_show_is_inconclusive_and_the_deployment_waits(
    judged: dict[str, Object],
) -> None:
    status = judged["every-grader"]["status"]
    assert status["phase"] == "Inconclusive"
    assert condition(judged["every-grader"], "Passed")["status"] == "Unknown"
    assert {gate["grader"]: gate["verdict"] for gate in status["gates"]} == {
        "escapes": "Passed",
        "exact": "Inconclusive",
    }
    assert condition(judged["held"], "Ready")["status"] == "False"


def test_a_model_that_the_operator_serves_grades_outputs_that_exist_already(judged: dict[str, Object]) -> None:
    status = judged["served-judge"]["status"]
    scores = {(one["candidate"], one["grader"]): one for one in status["results"]}
    assert scores["tuned", "calls"]["score"] == 0.5
    assert scores["baseline", "calls"]["score"] == 0
    (usage,) = status["usage"]
    assert usage["model"] == "served"
    assert usage.get("requests", 0) + usage.get("cached", 0) > 8, "each output, and canaries"


def apply(platform: Platform) -> None:
    """Apply the namespace, the class, the stub of a judge and the objects of evaluations.yaml."""
    api = platform.api
    api.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s", timeout=150)
    namespace = yaml.safe_load((QUICKSTART / "1-namespace.yaml").read_text())
    namespace["metadata"]["name"] = NAMESPACE
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(namespace))
    class_ = yaml.safe_load((QUICKSTART / "2-finetuneclass.yaml").read_text())
    class_["metadata"] = {"name": "judging"}
    url = f"http://stub-judge.{NAMESPACE}.svc.cluster.local:{stub_judge.PORT}/v1"
    stubs = [{"name": name, "url": url} for name in ("judge", "guard", "embedder")]
    class_["spec"]["models"] = [*stubs, {"name": "served", "modelDeploymentRef": {"name": "judge"}}]
    documents = list(yaml.safe_load_all((FOLDER / "evaluations.yaml").read_text()))
    for document in documents:
        document["metadata"]["namespace"] = NAMESPACE
    secret = scenario.credentials(platform.storage, NAMESPACE)
    bodies = [class_, secret, *stub_pod(platform.images.operator), *documents]
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(bodies))


def stub_pod(image: str) -> list[Object]:
    """The stub of a judge, with any image that has Python, and its Service."""
    metadata = {"name": "stub-judge", "namespace": NAMESPACE, "labels": {"app": "stub-judge"}}
    container = {
        "name": "stub",
        "image": image,
        "command": ["python", "-c", (FOLDER / "stub_judge.py").read_text()],
        "readinessProbe": {"tcpSocket": {"port": stub_judge.PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": security,
        "containers": [container],
        "terminationGracePeriodSeconds": 1,  # SIGTERM does not end it: it is the first process of its container
    }
    ports = [{"port": stub_judge.PORT}]
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": metadata["labels"], "ports": ports},
        },
    ]


def put_data(s3: S3) -> None:
    """A mirror of two benchmarks with two rows each, and outputs that exist already, with tool calls."""
    for task, (dataset, config, splits, rows) in TASKS.items():
        content = lines(rows)
        folder = f"datasets/benchmarks/{dataset.replace('/', '--')}/made-up"
        s3.put(BUCKET, f"{folder}/rows.json", content)
        file = {"path": "rows.json", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest = {"format": 1, "task": task, "dataset": dataset, "config": config, "revision": "made-up"}
        manifest |= {"reader": "json", "splits": {split: [file] for split in splits.split()}}
        s3.put(BUCKET, f"datasets/benchmarks/{task}.json", json.dumps(manifest).encode())
    asked = {"role": "user", "content": "Who wrote it?"}
    called = {"messages": [asked, {"role": "assistant", "tool_calls": [CALL]}], "tools": [TOOL]}
    s3.put(BUCKET, "datasets/judging/tools.jsonl", lines([called] * 4))
    right, wrong = {"output_text": "", "output_tools": [CALL]}, {"output_text": "I don't know."}
    s3.put(BUCKET, "datasets/judging/tuned.jsonl", lines([right, wrong] * 2))
    s3.put(BUCKET, "datasets/judging/base.jsonl", lines([wrong] * 4))


def lines(values: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(value)}\n" for value in values).encode()


def wait(api: Api, plural: str, name: str, holds: Callable[[Object], bool]) -> Object:
    """The object once this holds. Raises StepFailed."""
    deadline = time.monotonic() + ENDED_SECONDS
    while not holds(item := api.get(plural, NAMESPACE, name)):
        if time.monotonic() > deadline:
            raise StepFailed(f"{name}: {scenario.describe_phase(item)}")
        time.sleep(0.5)
    return item
