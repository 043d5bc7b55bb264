"""Datasets that a teacher generates, on a real API server: the real command asks a real HTTP API."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.operator.api import Api, Object, RefusedError, condition, stalled
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.datasets.test_datasets import another_pod, class_of, lines, runs_for_real, starts
from tests.integration.trainer_evaluation.buckets import Bucket, bucket_in_real_s3
from tests.integration.trainer_evaluation.stub_api import Body, Respond, StubApi, fails, says, stub_api

pytestmark = pytest.mark.usefixtures("operator")
EXACT: Object = {"name": "exact", "type": "StringCheck", "stringCheck": {"reference": "{{item.answer}}"}}
GENERATE: Object = {"prompts": {"uri": "s3://data/prompts.jsonl"}, "teacher": {"endpoint": {"name": "large"}}}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with bucket_in_real_s3("generated") as bucket:
        yield bucket


def class_with(api: Api, bucket: Bucket, teacher: StubApi) -> str:
    """A class that lists the API as the model `large`."""
    name = class_of(api, bucket)
    models = [{"name": "large", "url": teacher.url, "requestsPerMinute": 1_000_000}]
    api.patch("FineTuneClass", name, {"spec": {"models": models}})
    return name


def prompts(count: int) -> list[Object]:
    return [
        {"messages": [{"role": "user", "content": f"Say {number}."}], "answer": str(number)} for number in range(count)
    ]


def answers(body: Body) -> Respond:
    """Right, but for every fourth."""
    found = re.search(r"\d+", body["messages"][-1]["content"])
    assert found is not None
    return says(found[0] if int(found[0]) % 4 else "wrong")


def test_a_teacher_s_answers_become_a_revision_with_counts_and_usage(api: Api, bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.put_lines("data/prompts.jsonl", prompts(40))
    generate = {**GENERATE, "prompts": {"uri": uri}, "graders": [EXACT]}
    with stub_api(answers) as teacher:
        _, pod = starts(api, source=None, className=class_with(api, bucket, teacher), generate=generate)
        runs_for_real(api, pod, tmp_path)
    found = api.wait_reason("Dataset", "tickets", "Succeeded")
    revision = found["status"]["revision"]
    generated = revision["generated"]
    assert [generated[name] for name in ("teacher", "prompts", "completions", "kept")] == ["large", 40, 40, 30]
    assert generated["notKept"]["notPassed"] == 10
    (usage,) = found["status"]["usage"]
    assert (usage["model"], usage["requests"]) == ("large", 40)
    (training,) = revision["splits"]
    examples = [json.loads(line) for line in bucket.read(training["uri"]).splitlines()]
    assert len(examples) == 30
    assert all(one["messages"][1]["content"] == one["answer"] for one in examples)


def test_an_api_that_denies_ends_the_run_and_the_next_one_pays_for_nothing_twice(
    api: Api, bucket: Bucket, tmp_path: Path
) -> None:
    uri = bucket.put_lines("data/denied.jsonl", prompts(20))
    left = iter(range(8))

    def denies(body: Body) -> Respond:
        return says("fine") if next(left, None) is not None else fails(401, "Incorrect API key")

    with stub_api(denies) as teacher:
        generate = {**GENERATE, "prompts": {"uri": uri}}
        dataset, pod = starts(api, source=None, className=class_with(api, bucket, teacher), generate=generate)
        runs_for_real(api, pod, tmp_path / "first")
        over = api.wait_reason("Dataset", "tickets", "EndpointDenied")
        assert (over["status"]["phase"], condition(over, "Failed")["status"]) == ("Failed", "True")
        assert "Incorrect API key" in stalled(over)[1]
        teacher.answers[:] = [says("fine")]
        asked = len(teacher.requests)
        api.patch("Dataset", "tickets", {"spec": {"runId": "2"}})
        second = another_pod(api, dataset, pod)
        runs_for_real(api, second, tmp_path / "second")
        built = api.wait_reason("Dataset", "tickets", "Succeeded")
    assert built["status"]["usage"][0]["cached"] == 8
    assert len(teacher.requests) - asked == 12


def test_prompts_of_another_dataset_are_waited_for_and_pinned(api: Api, bucket: Bucket, tmp_path: Path) -> None:
    with stub_api(says("fine")) as teacher:
        name = class_with(api, bucket, teacher)
        generate = {**GENERATE, "prompts": {"datasetRef": {"name": "tickets", "split": "training"}}}
        api.create("Dataset", "answers", {"className": name, "generate": generate})
        missing = api.wait_reason("Dataset", "answers", "ReferenceNotFound")
        assert stalled(missing)[1].startswith("Dataset 'tickets' does not exist")
        uri = bucket.put_lines("data/source.jsonl", lines(20))
        _, pod = starts(api, className=name, source={"uri": uri})
        runs_for_real(api, pod, tmp_path / "source")
        source = api.wait_reason("Dataset", "tickets", "Succeeded")["status"]["revision"]
        answers_now = api.wait("Dataset", "answers", lambda found: "promptsRevision" in found["status"])
        pinned = answers_now["status"]["promptsRevision"]
        assert (pinned["name"], pinned["digest"]) == ("tickets", source["digest"])
        (second,) = api.wait_children(answers_now, "dataset", "Pod")
        runs_for_real(api, second, tmp_path / "answers")
        built = api.wait_reason("Dataset", "answers", "Succeeded")["status"]
    assert built["promptsRevision"] == pinned
    assert built["revision"]["examples"] == 20


def test_a_loaded_teacher_asks_for_the_resources_of_evaluations(api: Api) -> None:
    name = f"gpus-{secrets.token_hex(4)}"
    accelerators = {"accelerator": {"countPerNode": 8}, "evaluation": {"accelerator": {"countPerNode": 1}}}
    api.create("FineTuneClass", name, {**CLASS, **accelerators})
    generate = {**GENERATE, "teacher": {"uri": "s3://models/large"}}
    dataset = api.create("Dataset", "tickets", {"className": name, "generate": generate})
    (pod,) = api.wait_children(dataset, "generate", "Pod")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"teacher": {}}, "set exactly one of endpoint and uri"),
        ({"prompts": {}}, "set exactly one of uri, uris, configMapRef and datasetRef"),
        ({"samplesPerPrompt": 4, "temperature": 0}, "greedy completions are all the same"),
        ({"bestBy": "exact"}, "bestBy names one of the graders"),
        (
            {"graders": [{"name": "x", "type": "Pairwise", "pairwise": {"model": "large", "criteria": "better"}}]},
            "a Pairwise grader compares with a baseline, and there is none",
        ),
        ({"maxTokens": 0}, "spec.generate.maxTokens"),
    ],
)
def test_what_can_not_be_generated_is_refused_by_the_api_server(api: Api, changes: Object, told: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(told)):
        api.create("Dataset", "bad", {"generate": {**GENERATE, **changes}})


def test_one_source_and_no_format_of_its_own(api: Api) -> None:
    with pytest.raises(RefusedError, match="set exactly one of source, merge and generate"):
        api.create("Dataset", "bad", {"generate": GENERATE, "source": {"uri": "s3://data/x"}})
    with pytest.raises(RefusedError, match="has the format of its prompts"):
        api.create("Dataset", "bad", {"generate": GENERATE, "format": "Chat"})
