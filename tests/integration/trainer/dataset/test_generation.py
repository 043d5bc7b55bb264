"""Datasets that a teacher generates: real S3, real HTTP, a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.dataset import PROMPTS, DatasetPart, DatasetSplit, Generate, Revision, RevisionContent
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.finetuneclass import Prices
from finetune_api.pod_contracts.outcome import Failure
from finetune_api.pod_contracts.run import DatasetRun, EndpointConfig, JobIdentity
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_api.sources import parse_s3
from finetune_trainer.dataset import build as command
from finetune_trainer.endpoints import endpoint as endpoint_module
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.stub_api import Body, Respond, StubApi, fails, says, stub_api
from tests.integration.trainer_evaluation.tiny_models import chat

JOB = JobIdentity(namespace="team-a", name="capitals", uid="7f0e", run_id="1")
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
EXACT = {"name": "exact", "type": "StringCheck", "stringCheck": {"reference": "{{item.answer}}"}}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "BACKOFF_SECONDS", 0.0)


def prompt(number: int, **fields: Any) -> dict[str, Any]:
    """A line whose answer is for graders alone."""
    return {"messages": [{"role": "user", "content": f"Say {number}."}], "answer": str(number), **fields}


def asked(body: Body) -> str:
    """The number that a request asks for."""
    found = re.search(r"\d+", body["messages"][-1]["content"])
    assert found is not None
    return found[0]


def right(body: Body) -> Respond:
    return says(asked(body))


def run_of(bucket: Bucket, output: str, api: StubApi | None, lines: list[Any], **settings: Any) -> DatasetRun:
    """A run that lets the API complete these prompts; `settings` are of spec.generate."""
    uri = bucket.put_lines(f"prompts/{output}.jsonl", lines)
    teacher = {"endpoint": {"name": "large"}} if api is not None else {}
    generate = Generate.from_wire({"prompts": {"uri": uri}, "teacher": teacher, **settings})
    endpoints = [] if api is None else [config(api)]
    return DatasetRun(
        job=JOB,
        try_number=1,
        storage=bucket.storage,
        output_uri=bucket.uri(f"datasets/{output}"),
        parts=[DatasetPart(name=PROMPTS, weight=1, uri=uri)],
        generate=generate,
        endpoints=endpoints,
        answers_uri=bucket.uri(f"answers/{output}") if endpoints else None,
        seed=17,
    )


def config(api: StubApi, **changes: Any) -> EndpointConfig:
    settings = {"name": "large", "url": api.url, "model": "large-1", "requests_per_minute": 1_000_000, "concurrency": 2}
    return EndpointConfig(**settings | changes)


def build(run: DatasetRun, directory: Path) -> Revision:
    report = command.build(run, directory / str(run.try_number))
    assert len(to_termination_message(report)) <= 4096
    return report.revision


def failure(run: DatasetRun, directory: Path) -> Failure:
    with pytest.raises(DiagnosedError) as error:
        command.build(run, directory / f"failed-{run.try_number}")
    return error.value.failure


def again(run: DatasetRun, **changes: Any) -> DatasetRun:
    return run.model_copy(update={"try_number": run.try_number + 1, **changes})


def lines_of(bucket: Bucket, revision: Revision) -> list[dict[str, Any]]:
    """The examples of all splits."""
    return [json.loads(line) for split in revision.splits for line in bucket.read(split.uri or "").splitlines()]


def counts(revision: Revision) -> dict[str, int]:
    """Why completions are not kept."""
    assert revision.generated is not None
    found = revision.generated.not_kept
    return {} if found is None else {name: count for name, count in found.to_wire().items() if count}


def test_a_teacher_completes_the_prompts_and_each_line_says_where_it_comes_from(bucket: Bucket, tmp_path: Path) -> None:
    with stub_api(right) as api:
        run = run_of(bucket, "plain", api, [prompt(number, document=f"d{number % 4}") for number in range(20)])
        by = DatasetSplit(test_percent=25, by="{{item.document}}")
        report = command.build(run.model_copy(update={"split": by}), tmp_path)
    revision = report.revision
    found = lines_of(bucket, revision)
    assert sorted(int(one["messages"][1]["content"]) for one in found) == list(range(20))
    for one in found:
        number = int(one["answer"])
        assert one["messages"][0] == {"role": "user", "content": f"Say {number}."}
        uri = f"s3://{bucket.name}/prompts/plain.jsonl"
        assert one["generated"] == {"teacher": "large", "prompt": f"{uri}:{number + 1}", "sample": 0}
    (test,) = (split for split in revision.splits if split.name == "test")
    assert len({json.loads(line)["document"] for line in bucket.read(test.uri or "").splitlines()}) == 1
    assert revision.generated is not None
    status = revision.generated.to_wire()
    assert status == {"teacher": "large", "prompts": 20, "completions": 20, "kept": 20}
    (usage,) = report.usage
    assert (usage.model, usage.requests, usage.prompt_tokens, usage.completion_tokens) == ("large", 20, 2000, 400)
    (source,) = revision.sources
    assert (source.uri, source.part, source.examples, source.taken) == (run.parts[0].uri, "prompts", 20, 20)
    sent = api.requests[0]
    assert (sent["model"], sent["temperature"], sent["max_completion_tokens"]) == ("large-1", 0.7, 1024)
    assert "'generated'" not in " ".join(revision.warnings)


def test_the_last_answer_of_a_line_is_not_sent_and_graders_may_read_it(bucket: Bucket, tmp_path: Path) -> None:
    with stub_api(right) as api:
        grader = {"name": "exact", "type": "StringCheck", "stringCheck": {}}
        lines = [chat(f"Say {number}.", str(number if number < 12 else -1)) for number in range(15)]
        revision = build(run_of(bucket, "answered", api, lines, graders=[grader]), tmp_path)
    assert all(len(body["messages"]) == 1 for body in api.requests)
    assert counts(revision) == {"notPassed": 3}
    assert sorted(int(one["messages"][1]["content"]) for one in lines_of(bucket, revision)) == list(range(12))


def test_only_completions_that_pass_every_grader_are_kept_and_of_each_prompt_the_best(
    bucket: Bucket, tmp_path: Path
) -> None:
    """Sample 0 is wrong; 1 is right and long, 2 right and short, 3 right and as short."""

    def answer(body: Body) -> Respond:
        sample, text = body["seed"] - 17, f"It is {asked(body)}"
        return says(["It is wrong", f"{text}, I am quite sure of that.", f"{text}.", f"{text}!"][sample])

    contains = {
        "name": "right",
        "type": "StringCheck",
        "stringCheck": {"operation": "Like", "reference": "{{item.answer}}"},
    }
    short = {
        "name": "short",
        "type": "TextSimilarity",
        "passThreshold": 0.01,
        "textSimilarity": {"reference": "It is {{item.answer}}."},
    }
    with stub_api(answer) as api:
        settings = {"samplesPerPrompt": 4, "graders": [contains, short]}
        run = run_of(bucket, "all", api, [prompt(number) for number in range(10, 22)], **settings)
        every = build(run, tmp_path / "all")
        best = build(
            run_of(bucket, "best", api, [prompt(number) for number in range(10, 22)], **settings, bestBy="short"),
            tmp_path / "best",
        )
    assert len(api.requests) == 2 * 48
    assert counts(every) == {"notPassed": 12}
    assert every.examples == 36
    assert counts(best) == {"notPassed": 12, "notBest": 24}
    found = lines_of(bucket, best)
    assert {one["messages"][1]["content"] for one in found} == {f"It is {number}." for number in range(10, 22)}
    assert all(one["generated"]["sample"] == 2 and one["generated"]["scores"]["right"] == 1.0 for one in found)
    journal = bucket.read(bucket.uri("datasets/best/generation.jsonl")).splitlines()
    causes = [json.loads(line).get("not_kept") for line in journal[:4]]
    assert causes == ["not_passed", "not_best", None, "not_best"]


def test_what_was_answered_before_an_end_is_not_asked_again_and_the_file_is_the_same(
    bucket: Bucket, tmp_path: Path
) -> None:
    lines = [prompt(number) for number in range(40)]
    left = iter(range(16))

    def until_denied(body: Body) -> Respond:
        return right(body) if next(left, None) is not None else fails(401, "no")

    with stub_api(right) as api:
        undisturbed = build(run_of(bucket, "undisturbed", api, lines), tmp_path / "undisturbed")
    with stub_api(until_denied) as api:
        first = run_of(bucket, "undisturbed", api, lines)
        disturbed = first.model_copy(
            update={"output_uri": bucket.uri("datasets/disturbed"), "answers_uri": bucket.uri("answers/disturbed")}
        )
        assert failure(disturbed, tmp_path).reason is Reason.ENDPOINT_DENIED
        answered = len(api.requests) - 2
        api.answers[:] = [right]
        api.requests.clear()
        revision = build(again(disturbed), tmp_path)
        assert len(api.requests) <= 40 - answered
        assert len({asked(body) for body in api.requests}) == len(api.requests)
    assert revision.digest == undisturbed.digest
    assert revision.uri != undisturbed.uri


@pytest.mark.parametrize(
    ("answer", "reason", "retryable", "told"),
    [
        (fails(401, "Incorrect API key"), Reason.ENDPOINT_DENIED, False, "rejected the key: 401 Incorrect API key"),
        (
            Respond(429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}),
            Reason.ENDPOINT_DENIED,
            False,
            "has no quota left for the key: 429 You exceeded your quota",
        ),
        (fails(404, "no such model"), Reason.MODEL_NOT_FOUND, False, "has no model 'large-1'"),
        (fails(503, "down"), Reason.ENDPOINT_UNREACHABLE, True, "has not answered 20 questions in a row"),
        (Respond(200, b"<html>"), Reason.ENDPOINT_UNREACHABLE, True, "its response is not one of OpenAI's"),
        (fails(400, "too long"), Reason.DATASET_INVALID, False, "None of 30 completions was kept: noAnswer 30."),
        (says("5", finish_reason="length"), Reason.DATASET_INVALID, False, "was kept: truncated 30."),
    ],
)
def test_a_teacher_that_gives_nothing_is_reported_by_kind(
    bucket: Bucket, tmp_path: Path, answer: Respond, reason: Reason, retryable: bool, told: str
) -> None:
    with stub_api(answer) as api:
        run = run_of(bucket, f"nothing-{answer.status}-{reason}", api, [prompt(number) for number in range(30)])
        found = failure(run, tmp_path)
    assert (found.reason, found.retryable) == (reason, retryable)
    assert told in found.message
    keys = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=parse_s3(run.output_uri).key).get("Contents", [])
    assert not [one["Key"] for one in keys if "/result/" in one["Key"]], "no dataset is ever empty"


def test_a_few_prompts_to_an_api_that_is_down_are_tried_again_too(bucket: Bucket, tmp_path: Path) -> None:
    with stub_api(fails(503, "down")) as api:
        found = failure(run_of(bucket, "few", api, [prompt(1), prompt(2)]), tmp_path)
    assert (found.reason, found.retryable) == (Reason.ENDPOINT_UNREACHABLE, True)


CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"of": "x"}'}}


def test_what_a_hostile_or_useless_teacher_says_costs_that_completion_alone(bucket: Bucket, tmp_path: Path) -> None:
    other = {**CALL, "function": {"name": "delete_all", "arguments": "{}"}}
    odd = {**CALL, "function": {"name": "look_up", "arguments": "no JSON"}}
    answers: dict[str, Respond] = {
        "0": says("", refusal="I won't."),
        "1": says("cut", finish_reason="length"),
        "2": says("  "),
        "3": says("", tool_calls=[other]),
        "4": says("", tool_calls=[odd]),
        "5": says("x" * 400_000),
        "6": fails(400, "bad"),
        "7": says("", finish_reason="content_filter"),
    }

    def answer(body: Body) -> Respond:
        number = asked(body)
        return answers.get(number, says("", tool_calls=[CALL]) if number == "8" else says(f"Answer {number}"))

    with stub_api(answer) as api:
        revision = build(
            run_of(bucket, "hostile", api, [prompt(number, tools=[TOOL]) for number in range(20)]), tmp_path
        )
    assert counts(revision) == {"refused": 1, "truncated": 1, "unusable": 3, "noAnswer": 3}
    found = {one["answer"]: one for one in lines_of(bucket, revision)}
    journal = [json.loads(line) for line in bucket.read(bucket.uri("datasets/hostile/generation.jsonl")).splitlines()]
    called = {at: one["output_tools"][0]["function"]["name"] for at, one in enumerate(journal) if "output_tools" in one}
    assert called == {3: "delete_all", 4: "look_up", 8: "look_up"}
    assert sorted(map(int, found)) == list(range(8, 20))
    assert found["8"]["messages"][1]["tool_calls"][0]["function"]["name"] == "look_up"
    assert "content" not in found["8"]["messages"][1]
    assert found["9"]["tools"] == [TOOL]
    assert (
        "completions were not made or graded; the first: the model 'large' answered with 400,000"
        in (revision.warnings[0])
    )


def test_the_budget_is_the_run_s_whatever_ends_a_try_and_the_rest_is_left_out(bucket: Bucket, tmp_path: Path) -> None:
    with stub_api(right) as api:
        run = run_of(bucket, "budget", api, [prompt(number) for number in range(30)], budget={"requests": 12})
        Storage(bucket.storage).write(parse_s3(run.output_uri).join("budget.json"), b'{"requests":2,"tokens":0}')
        revision = build(run, tmp_path)
    assert len(api.requests) == 10
    assert counts(revision) == {"overBudget": 20}
    assert revision.examples == 10
    assert "spec.generate.budget.requests (12) is used up" in revision.warnings[0]


def test_models_that_grade_are_asked_within_the_same_budget_and_their_use_is_reported(
    bucket: Bucket, tmp_path: Path
) -> None:
    judge = {
        "name": "good",
        "type": "ScoreModel",
        "scoreModel": {"model": "judge", "input": [{"content": "Rate {{sample.output_text}}"}]},
    }

    def answer(body: Body) -> Respond:
        if "response_format" not in body:
            return right(body)
        return says(json.dumps({"steps": [], "result": 0.2 if "'1" in repr(body) else 0.9}))

    with stub_api(answer) as api:
        run = run_of(bucket, "judged", api, [prompt(number) for number in range(20)], graders=[judge])
        prices = Prices(prompt_per_million=1, completion_per_million=2)
        run = run.model_copy(update={"endpoints": [*run.endpoints, config(api, name="judge", prices=prices)]})
        report = command.build(run, tmp_path)
    assert [(one.model, one.requests) for one in report.usage] == [("large", 20), ("judge", 20)]
    assert report.usage[1].cost == pytest.approx((2000 + 2 * 400) / 1e6)
    assert all(one["generated"]["scores"] == {"good": 0.9} for one in lines_of(bucket, report.revision))


def test_prompts_are_those_of_the_pinned_revision_and_the_lineage_names_it(
    bucket: Bucket, storage: Storage, tmp_path: Path
) -> None:
    with stub_api(right) as api:
        first = build(run_of(bucket, "upstream", api, [prompt(number) for number in range(20)]), tmp_path / "first")
        pinned = PinnedRevision(name="up", uid="9", split="training", digest=first.digest, uri=first.uri)
        run = run_of(bucket, "downstream", api, [], prompts={"datasetRef": {"name": "up", "split": "training"}})
        part = DatasetPart(name=PROMPTS, weight=1, uri=pinned.file_uri)
        run = run.model_copy(update={"prompts_revision": pinned, "parts": [part]})
        second = build(run, tmp_path / "second")
        altered = pinned.model_copy(update={"digest": "sha256:aa"})
        other = run.model_copy(update={"prompts_revision": altered, "output_uri": bucket.uri("datasets/altered")})
        assert failure(other, tmp_path).reason is Reason.DATASET_INVALID
    assert second.examples == 20
    content = RevisionContent.from_bytes(storage.read(parse_s3(f"{second.uri}/revision.json")))
    assert content.generated is not None
    assert content.generated.prompts_revision == pinned
    assert all(one["generated"]["prompt"].startswith(f"{pinned.file_uri}:") for one in lines_of(bucket, second))


@pytest.mark.parametrize(
    ("lines", "settings", "told"),
    [
        ([prompt(1), {"messages": []}], {}, "Line 2 of"),
        ([prompt(1), {"messages": [{"role": "user", "content": "x"}]}], {"graders": [EXACT]}, "{{item.answer}}"),
        ([prompt(1), {"prompt": "Say"}], {}, "Line 2 of"),
        ([], {}, "The file is empty."),
        ([prompt(1)], {"graders": [{"name": "calls", "type": "ToolCall", "toolCall": {}}]}, "calls"),
    ],
)
def test_prompts_that_can_not_be_completed_are_reported_before_the_teacher_is_asked(
    bucket: Bucket, tmp_path: Path, lines: list[Any], settings: dict[str, Any], told: str
) -> None:
    with stub_api(right) as api:
        assert told in failure(run_of(bucket, "broken", api, lines, **settings), tmp_path).message
        assert not api.requests


def test_more_completions_than_a_pod_holds_are_refused(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.dataset.generation.MOST_COMPLETIONS", 5)
    with stub_api(right) as api:
        found = failure(run_of(bucket, "many", api, [prompt(1), prompt(2)], samplesPerPrompt=3), tmp_path)
        first = run_of(bucket, "some", api, [prompt(number) for number in range(9)])
        some = first.model_copy(update={"generate": _limited(first)})
        assert build(some, tmp_path).examples == 3
    assert found.reason is Reason.INVALID_SPEC
    assert "asks for 6 completions (2 prompts, 3 each)" in found.message
    assert len(api.requests) == 3


def _limited(run: DatasetRun) -> Generate:
    assert run.generate is not None
    prompts = run.generate.prompts.model_copy(update={"max_examples": 3})
    return run.generate.model_copy(update={"prompts": prompts})
