"""screening.images: a classifier that sees, played over real HTTP, is shown the images of a Dataset's examples."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from finetune_api.conditions import Reason
from finetune_api.dataset.revision import Revision
from finetune_api.pod_contracts.run import DatasetRun, EndpointConfig
from finetune_api.safety.screening import Screening
from finetune_trainer.dataset import build as command
from finetune_trainer.process.failures import DiagnosedError
from tests.integration.trainer.dataset.test_build import build, run_of, source
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.stub_api import Body, Respond, StubApi, fails, says, stub_api
from tests.integration.trainer_evaluation.tiny_models import chat
from tests.integration.trainer_evaluation.tiny_vision_models import data_uri, png, seen

POLICY = {"model": "eye", "format": "Policy", "policy": "No red image."}


def parts_of(body: Body) -> list[dict[str, Any]]:
    (content,) = (
        [body["input"]] if "input" in body else [one["content"] for one in body["messages"] if one["role"] == "user"]
    )
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def image_of(body: Body) -> Image.Image | None:
    """What the API is shown, read from the request alone."""
    urls = [part["image_url"]["url"] for part in parts_of(body) if part["type"] == "image_url"]
    assert len(urls) <= 1
    if not urls:
        return None
    head, _, encoded = urls[0].partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")


def is_red(body: Body) -> bool:
    image = image_of(body)
    if image is None:
        return False
    red, green, blue = image.getpixel((0, 0))  # type: ignore[misc]
    return bool(red > 200 and green < 60 and blue < 60)


def sees(body: Body) -> Respond:
    return says(json.dumps({"violates": is_red(body)}))


def looks(two: str, *more: str) -> dict[str, Any]:
    """A line with several images."""
    line = seen(two, "yes")
    content = line["messages"][0]["content"]
    content[:0] = [{"type": "image_url", "image_url": {"url": url}} for url in more]
    return line


def screened(bucket: Bucket, name: str, lines: list[dict[str, Any]], api: StubApi, **changes: Any) -> DatasetRun:
    settings = {"rules": [], "action": "Drop", "images": True, "classifier": POLICY, **changes}
    return run_of(
        bucket,
        f"seen-{name}",
        source(bucket, f"seen-{name}", lines),
        screening=Screening.from_wire(settings),
        classifier=EndpointConfig.from_wire({"name": "eye", "url": api.url, "model": "eye", "concurrency": 2}),
        answers_uri=bucket.uri(f"seen-{name}-answers"),
        allowed_images=[bucket.uri("images/*")],
    )


def lines_of(revision: Revision) -> dict[str, list[str]]:
    assert revision.screening is not None
    return {one.rule: one.lines for one in revision.screening.findings}


def test_an_example_is_flagged_by_any_of_its_images_wherever_they_are(bucket: Bucket, tmp_path: Path) -> None:
    stored = bucket.put("images/screened-red.png", png("red"))
    lines = [
        seen(data_uri(png("green")), "green"),
        seen(data_uri(png("red")), "red"),
        looks(stored, data_uri(png("blue"))),
        chat("Which colour is this?", "I see no image."),
    ]
    with stub_api(sees) as api:
        revision = build(screened(bucket, "policy", lines, api), tmp_path)
        assert lines_of(revision) == {"Policy": ["2", "3"]}
        assert len(api.requests) == 1 + 5, "one to try it, one for each image, and one for the line without"
        assert image_of(api.requests[0]) is not None, "it is tried with an image, too"
        rules = api.requests[1]["messages"][0]
        assert (rules["role"], "No red image." in rules["content"]) == ("system", True)
        build(screened(bucket, "policy", lines, api).model_copy(update={"output_uri": bucket.uri("again")}), tmp_path)
        assert len(api.requests) == 1 + 5, "what was answered is not asked again"


def test_a_large_image_is_shown_in_a_size_that_models_take(bucket: Bucket, tmp_path: Path) -> None:
    with stub_api(sees) as api:
        build(screened(bucket, "large", [seen(data_uri(png("blue", (3000, 1500))), "blue")], api), tmp_path)
        shown = image_of(api.requests[-1])
    assert shown is not None
    assert shown.size == (1024, 512)


def test_without_images_true_no_image_leaves_the_pod(bucket: Bucket, tmp_path: Path) -> None:
    with stub_api(sees) as api:
        revision = build(screened(bucket, "off", [seen(data_uri(png("red")), "red")], api, images=False), tmp_path)
        assert lines_of(revision) == {}
        assert [image_of(body) for body in api.requests] == [None, None]


@pytest.mark.parametrize(
    ("format_", "reply", "rule"),
    [
        ("LlamaGuard", lambda red: says("unsafe\nS12" if red else "safe"), "S12"),
        (
            "OpenAIModeration",
            lambda red: Respond(body={"results": [{"flagged": red, "categories": {"violence/graphic": red}}]}),
            "violence/graphic",
        ),
    ],
)
def test_each_format_that_sees_is_asked_in_its_own_form(
    bucket: Bucket, tmp_path: Path, format_: str, reply: Any, rule: str
) -> None:
    lines = [seen(data_uri(png("red")), "red"), seen(data_uri(png("blue")), "blue")]
    with stub_api(lambda body: reply(is_red(body))) as api:
        run = screened(bucket, format_.lower(), lines, api, classifier={"model": "eye", "format": format_})
        assert lines_of(build(run, tmp_path)) == {rule: ["1"]}
        assert [part["type"] for part in parts_of(api.requests[-1])] == ["text", "image_url"]


def test_an_image_that_can_not_be_read_is_never_taken_for_harmless(bucket: Bucket, tmp_path: Path) -> None:
    lines = [
        seen(data_uri(png("blue")), "blue"),
        seen(data_uri(png("red")[:60]), "broken"),
        seen(bucket.uri("elsewhere/red.png"), "not allowed"),
        seen(bucket.uri("images/not-there.png"), "not there"),
    ]
    with stub_api(sees) as api:
        assert lines_of(build(screened(bucket, "broken", lines, api), tmp_path)) == {"Unclassified": ["2", "3", "4"]}


def test_a_model_that_reads_no_images_is_found_at_the_first_question(bucket: Bucket, tmp_path: Path) -> None:
    def blind(body: Body) -> Respond:
        return fails(400, "image_url is not supported") if image_of(body) is not None else sees(body)

    with stub_api(blind) as api:
        run = screened(bucket, "blind", [seen(data_uri(png("red")), "red")], api)
        with pytest.raises(
            DiagnosedError, match=r"image_url is not supported.* Correct spec\.screening\.classifier"
        ) as told:
            command.build(run, tmp_path)
    assert told.value.failure.reason is Reason.INVALID_SPEC
    assert len(api.requests) == 1


def test_more_images_than_may_be_asked_about_are_refused_at_once(bucket: Bucket, tmp_path: Path) -> None:
    red = data_uri(png("red"))
    with stub_api(sees) as api:
        run = screened(bucket, "slow", [looks(red, red, red) for _ in range(101)], api)
        assert run.classifier is not None
        slow = run.classifier.model_copy(update={"requests_per_minute": 1})
        with pytest.raises(DiagnosedError, match="for 303 requests that takes 5 hours") as told:
            command.build(run.model_copy(update={"classifier": slow}), tmp_path)
    assert told.value.failure.reason is Reason.LIMIT_EXCEEDED
    assert api.requests == []
