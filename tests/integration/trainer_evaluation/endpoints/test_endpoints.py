"""The class's models over real HTTP, with a real S3 for their answers: case 12 of shared/reference/evaluation.md."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from finetune_api.conditions import Reason
from finetune_api.graders import GraderErrorCode
from finetune_grading.grade import RowError
from finetune_trainer.endpoints import endpoint as endpoint_module
from finetune_trainer.endpoints.asked_model import CHAT
from finetune_trainer.endpoints.asking import usage_of
from finetune_trainer.evaluation.evaluate import hidden_revisions
from finetune_trainer.outputs.endpoint_outputs import is_output
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.endpoints.asking import KEY, Asking, errors
from tests.integration.trainer_evaluation.stub_api import Body, Respond, fails, grades, says, stub_api


@pytest.fixture
def folder() -> str:
    return f"answers/{secrets.token_hex(4)}"


def test_there_is_a_connection_for_each_request_that_the_class_allows(
    bucket: Bucket, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[httpx2.Limits] = []

    class Client(httpx2.AsyncClient):
        def __init__(self, *, limits: httpx2.Limits, **settings: Any) -> None:
            made.append(limits)
            super().__init__(limits=limits, **settings)

    monkeypatch.setattr(httpx2, "AsyncClient", Client)
    with stub_api(grades(5)) as api:
        Asking(bucket, api, tmp_path, folder, concurrency=256).grade("Hello.")
    assert [(one.max_connections, one.max_keepalive_connections) for one in made] == [(256, 256)]


def test_case_12_429_twice_and_then_an_answer_is_one_score(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    with stub_api(fails(429, retry_after="0.2"), fails(429, retry_after="0.2"), grades(5)) as api:
        asking = Asking(bucket, api, tmp_path, folder, prices={"promptPerMillion": 2, "completionPerMillion": 10})
        began = time.monotonic()
        (grade,) = asking.grade("Hello.")
        assert time.monotonic() - began >= 0.4, "Retry-After is kept to"
    assert grade.score == 1.0
    (usage,) = usage_of({"judge": asking.model})
    assert usage.to_wire() == {
        "model": "judge",
        "requests": 3,
        "cached": 0,
        "promptTokens": 100,
        "completionTokens": 20,
        "cost": 0.0004,
    }
    assert api.keys == [f"Bearer {KEY}"] * 3
    assert api.paths == ["/v1/chat/completions"] * 3
    assert api.requests[0]["model"] == "large"
    assert api.requests[0]["response_format"]["json_schema"]["schema"]["required"] == ["steps", "result"]


def test_what_another_revision_answers_is_not_counted_as_that_of_the_one_that_is_asked(
    bucket: Bucket, tmp_path: Path, folder: str
) -> None:
    """A ModelDeployment rolls out another model in the middle of a try."""

    def by(revision: str) -> Respond:
        answered = grades(5 if revision == "sha256:aa" else 1)
        return Respond(body={**answered.body, "system_fingerprint": revision})

    first, second = by("sha256:aa"), by("sha256:bb")
    with stub_api(first, second) as api:
        asking = Asking(bucket, api, tmp_path, folder, concurrency=1, digest="sha256:aa")
        assert [grade.score for grade in asking.grade("one")] == [1.0]
        stopped = asking.stopped("two")
        assert (stopped.failure.reason, stopped.failure.retryable) == (Reason.MODEL_CHANGED, True)
        assert "now answers as revision 'sha256:bb', but was asked as 'sha256:aa'." in stopped.failure.message
    with stub_api(second) as api:
        again = Asking(bucket, api, tmp_path, folder, digest="sha256:bb")
        assert [grade.score for grade in again.grade("one", "two")] == [0.2, 0.2]
        assert len(api.requests) == 2, "neither was answered by this revision before"
        assert not again.endpoint.hides_revision
    with stub_api(grades(5)) as api:
        silent = Asking(bucket, api, tmp_path, folder, digest="sha256:cc")
        silent.grade("one")
    assert hidden_revisions({"judge": silent.model})[0].startswith("RevisionUnknown: the ModelDeployment of the model")


def test_case_12_the_same_again_asks_nothing_and_another_model_does(
    bucket: Bucket, tmp_path: Path, folder: str
) -> None:
    texts = [f"Answer {number}" for number in range(20)]
    with stub_api(grades(4), says("nonsense"), grades(3)) as api:
        first = Asking(bucket, api, tmp_path, folder)
        scores = [grade.score for grade in first.grade(*texts)]
        sent = len(api.requests)
        assert sent == 21, "20 rows, of which one had to be repaired"
        again = Asking(bucket, api, tmp_path, folder, run="another/1")
        assert [grade.score for grade in again.grade(*texts)] == scores
        assert len(api.requests) == sent
        usage = again.endpoint.usage
        assert (usage.requests, usage.cached, usage.prompt_tokens, usage.completion_tokens) == (0, 21, 0, 0)
        for other in ({"model": "larger"}, {"digest": "sha256:bb"}):
            Asking(bucket, api, tmp_path, folder, **other).grade(texts[0])
        assert len(api.requests) == sent + 2, "another model is another judge"


def test_a_wrong_key_ends_the_run_with_the_command_that_mends_it(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    with stub_api(fails(401, f"Incorrect API key provided: {KEY}.")) as api:
        failure = Asking(bucket, api, tmp_path, folder).stopped("a").failure
        assert len(api.requests) == 1
    assert (failure.reason, failure.retryable) == (Reason.ENDPOINT_DENIED, False)
    assert f"The API of the model 'judge' ({api.url}) rejected the key: 401 Incorrect" in failure.message
    assert KEY not in failure.message
    assert "kubectl -n team-a create secret generic openai --from-literal=API_KEY=..." in (failure.suggestion or "")


def test_a_key_that_is_none_is_not_sent(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    with stub_api(grades(1)) as api:
        asking = Asking(bucket, api, tmp_path, folder)
        for text in ("", "two\nlines", "schlüssel"):
            (tmp_path / "judge" / "API_KEY").write_text(text)
            assert asking.stopped("a").failure.reason is Reason.SECRET_NOT_FOUND
        assert api.requests == []
        # The kubelet brings another one.
        (tmp_path / "judge" / "API_KEY").write_text("sk-2")
        asking.grade("a")
        assert api.keys == ["Bearer sk-2"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (fails(404, "The model 'large' does not exist"), "has no model 'large': 404"),
        (Respond(307, {}, {"Location": "http://127.0.0.1:9/elsewhere"}), "redirects, which is not followed: 307"),
    ],
)
def test_a_model_that_is_not_there_ends_the_run(
    bucket: Bucket, tmp_path: Path, folder: str, answer: Respond, message: str
) -> None:
    with stub_api(answer) as api:
        failure = Asking(bucket, api, tmp_path, folder).stopped("a").failure
    assert failure.reason is Reason.MODEL_NOT_FOUND
    assert message in failure.message


def test_an_api_that_is_away_ends_the_run_for_now(
    bucket: Bucket, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "BACKOFF_SECONDS", 0.001)
    with stub_api(fails(500, "oh no")) as api:
        few = Asking(bucket, api, tmp_path, folder).grade("a", "b")
        assert errors(few) == {GraderErrorCode.MODEL_GRADER_SERVER_ERROR}
        assert few[0].error is not None and few[0].error.details.endswith(": 500 oh no")
        assert len(api.requests) == 2 * endpoint_module.TRIES
        many = Asking(bucket, api, tmp_path, folder, requestsPerMinute=1_000_000)
        failure = many.stopped(*(f"Answer {number}" for number in range(100))).failure
    assert (failure.reason, failure.retryable) == (Reason.ENDPOINT_UNREACHABLE, True)
    assert "has not answered 20 questions in a row; the last time: 500 oh no" in failure.message


def test_an_api_that_is_slow_is_not_waited_for_forever(
    bucket: Bucket, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "TRIES", 1)

    def late(_: Any) -> Respond:
        time.sleep(3)
        return grades(5)

    with stub_api(late) as api:
        (grade,) = Asking(bucket, api, tmp_path, folder, timeoutSeconds=1).grade("a")
    assert grade.error is not None
    assert grade.error.code is GraderErrorCode.MODEL_GRADER_SERVER_ERROR
    assert "no answer within 1 s" in grade.error.details


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Welcome</html>",
        [],
        {},
        {"choices": []},
        {"choices": [{"message": "5"}]},
        {"choices": [{"message": {"content": 5}}]},
        b'{"choices": [{"message": {"content": "' + b"x" * (33 * 1024 * 1024) + b'"}}]}',
    ],
    ids=["a page", "a list", "nothing", "no choice", "no message", "no text", "33 MiB"],
)
def test_what_is_no_completion_is_the_rows_error_and_is_not_kept(
    bucket: Bucket, tmp_path: Path, folder: str, body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "TRIES", 1)
    with stub_api(Respond(body=body), grades(5)) as api:
        assert errors(Asking(bucket, api, tmp_path, folder).grade("a")) == {GraderErrorCode.MODEL_GRADER_SERVER_ERROR}
        assert Asking(bucket, api, tmp_path, folder).grade("a")[0].score == 1.0


def test_case_12_refusals_nonsense_and_replies_that_are_cut_off(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    for answer, code in (
        (says("", refusal="I can't help with that."), GraderErrorCode.MODEL_GRADER_REFUSAL_ERROR),
        (says("", finish_reason="content_filter"), GraderErrorCode.MODEL_GRADER_REFUSAL_ERROR),
        (says('{"steps": [', finish_reason="length"), GraderErrorCode.MODEL_GRADER_EXCEEDED_MAX_TOKENS_ERROR),
        (says("N/A"), GraderErrorCode.MODEL_GRADER_PARSE_ERROR),
    ):
        with stub_api(answer) as api:
            assert errors(Asking(bucket, api, tmp_path, folder).grade("a")) == {code}


def test_an_api_without_schemas_is_asked_without(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    refusal = fails(400, "Unknown parameter.", param="response_format.json_schema")
    no_seed = fails(422, "seed is not supported by this model")
    with stub_api(refusal, no_seed, grades(5)) as api:
        asking = Asking(bucket, api, tmp_path, folder, concurrency=1)
        assert [grade.score for grade in asking.grade("a", "b")] == [1.0, 1.0]
    assert ["response_format" in request for request in api.requests] == [True, False, False, False]
    assert ["seed" in request for request in api.requests] == [True, True, False, False]


def test_a_request_that_the_api_refuses_is_the_rows_error(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    def refuses_long_ones(body: Body) -> Respond:
        too_long = "too long" in body["messages"][-1]["content"]
        return fails(400, "maximum context length is 8192 tokens") if too_long else grades(5)

    with stub_api(refuses_long_ones) as api:
        graded = Asking(bucket, api, tmp_path, folder).grade("too long", "fine")
        assert len(api.requests) == 2
    assert graded[0].error is not None
    assert "400 maximum context length" in graded[0].error.details
    assert graded[1].score == 1.0


def test_equal_questions_at_once_are_sent_once_and_no_more_at_once_than_allowed(
    bucket: Bucket, tmp_path: Path, folder: str
) -> None:
    def soon(_: Any) -> Respond:
        time.sleep(0.05)
        return grades(5)

    with stub_api(soon) as api:
        asking = Asking(bucket, api, tmp_path, folder, concurrency=3, requestsPerMinute=100_000)
        asking.grade(*["same"] * 8, *(f"Answer {number}" for number in range(8)))
        assert len(api.requests) == 9
        assert api.most_at_once <= 3
    assert (asking.endpoint.usage.requests, asking.endpoint.usage.cached) == (9, 7)


def test_requests_keep_to_the_rate(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    with stub_api(grades(5)) as api:
        began = time.monotonic()
        Asking(bucket, api, tmp_path, folder, requestsPerMinute=600).grade(*(f"Answer {n}" for n in range(6)))
        assert time.monotonic() - began >= 0.5, "six in a row are five tenths of a second apart"


def test_what_else_lies_where_an_answer_would_is_asked_again(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    with stub_api(grades(5)) as api:
        Asking(bucket, api, tmp_path, folder).grade("a")
        (kept,) = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=folder)["Contents"]
        for body in (b"", b"{", b"[]", b'{"run": 1}', b'{"run": "u/1", "requests": -5, "body": {}}'):
            bucket.put(kept["Key"], body)
            assert Asking(bucket, api, tmp_path, folder).grade("a")[0].score == 1.0
        assert len(api.requests) == 6


def test_embeddings_are_read_by_their_index(bucket: Bucket, tmp_path: Path, folder: str) -> None:
    data = [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0.5]}]
    with stub_api(Respond(body={"data": data, "usage": {"prompt_tokens": 7}})) as api:
        asking = Asking(bucket, api, tmp_path, folder)
        assert asking.run(lambda: asking.model.embed(["a", "b"])) == [[1, 0.5], [0, 1]]
        assert api.paths == ["/v1/embeddings"]
        assert api.requests[0]["input"] == ["a", "b"]
        assert asking.endpoint.usage.prompt_tokens == 7
        for wrong in (["a"], ["a", "b", "c"]):
            with pytest.raises(RowError, match="did not answer with an embedding for each text"):
                asking.run(lambda wrong=wrong: asking.model.embed(wrong))


@pytest.mark.parametrize("data", [[{"index": 0}], [{"index": 0, "embedding": ["1"]}], ["x"], [{"embedding": [1]}]])
def test_what_is_no_embedding_is_an_error(bucket: Bucket, tmp_path: Path, folder: str, data: list[Any]) -> None:
    with stub_api(Respond(body={"data": data})) as api:
        asking = Asking(bucket, api, tmp_path, folder)
        with pytest.raises(RowError, match="did not answer with an embedding"):
            asking.run(lambda: asking.model.embed(["a"]))


def test_numbers_beyond_64_bits_are_asked_about_and_what_is_nested_deeply_is_answered(
    bucket: Bucket, tmp_path: Path, folder: str
) -> None:
    """A dataset's tools may have both a uint64's bounds and an order that the model reads."""
    parameters = {"type": "object", "properties": {"n": {"type": "integer", "exclusiveMaximum": 2**64}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    question = {"messages": [{"role": "user", "content": "Hi."}], "tools": [tool]}
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    answer = {**says("Hello.").body, "debug": deep}
    with stub_api(Respond(body=answer)) as api:
        asking = Asking(bucket, api, tmp_path, folder)
        for _ in range(2):
            found = asking.run(lambda: asking.endpoint.post(CHAT, question, is_output))
            assert found.body == answer
    (asked,) = api.requests
    assert asked["tools"] == [tool], "it is exact"
    assert list(asked["tools"][0]["function"]["parameters"]) == ["type", "properties"]
    assert asking.endpoint.usage.cached == 1
