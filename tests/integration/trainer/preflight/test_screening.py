"""dataset.screening in preflight, on a real S3, with a classifier of the test's own over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import TrainingData
from finetune_api.pod_contracts.outcome import PreflightReport
from finetune_api.pod_contracts.run import EndpointConfig, PreflightRun
from finetune_api.safety.screening import Screening
from finetune_trainer.data.select.dataset_record import DatasetRecord
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.train.training_data import load_sequences
from tests.integration.trainer.runs import Workplace, question, train_here
from tests.integration.trainer_evaluation.stub_api import Body, Respond, StubApi, fails, says, stub_api
from tests.integration.trainer_evaluation.tiny_models import chat

SECRET = "AKIAIOSFODNN7EXAMPLE"
EMAIL = "jane.doe@acme-corp.de"
LINES = [
    *(question(number) for number in range(12)),
    chat("Which key?", f"It is {SECRET}."),
    chat("Whom do I ask?", f"{EMAIL}, or {SECRET}."),
    chat("Shall we rob it?", "Yes, with a weapon."),
]


def run_of(workplace: Workplace, output: str, screening: dict[str, Any], **changes: Any) -> PreflightRun:
    uri = workplace.bucket.put_lines(f"data/{output}.jsonl", LINES)
    dataset = workplace.dataset(training=TrainingData(uri=uri), screening=Screening.from_wire(screening))
    return workplace.preflight_run(output, dataset=dataset, **changes)


def classified_run(workplace: Workplace, output: str, api: StubApi, **changes: Any) -> PreflightRun:
    classifier = {"model": "guard", "format": "Qwen3Guard", **changes.pop("classifier", {})}
    screening = {"rules": [], "action": "Drop", "classifier": classifier, **changes.pop("screening", {})}
    config = {"name": "guard", "url": api.url, "model": "qwen3guard", "concurrency": 4, **changes}
    return run_of(
        workplace,
        output,
        screening,
        classifier=EndpointConfig.from_wire(config),
        answers_uri=workplace.bucket.uri(f"{output}-answers"),
    )


def guards(body: Body) -> Respond:
    assert [message["role"] for message in body["messages"]] == ["user", "assistant"]
    harmful = "weapon" in body["messages"][-1]["content"]
    return says(f"Safety: {'Unsafe' if harmful else 'Safe'}\nCategories: {'Violent' if harmful else 'None'}")


def flagged(report: PreflightReport) -> dict[str, tuple[int, list[str]]]:
    assert report.dataset.screening is not None
    return {one.rule: (one.examples, one.lines) for one in report.dataset.screening.findings}


def findings_of(workplace: Workplace, output: str) -> list[dict[str, Any]]:
    text = workplace.bucket.read(workplace.bucket.uri(f"{output}/dataset-findings.jsonl")).decode()
    return [json.loads(line) for line in text.splitlines()]


def test_flagged_lines_are_reported_and_no_flagged_text_is(
    workplace: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = preflight(run_of(workplace, "reported", {}), tmp_path)
    assert flagged(report) == {"Secret": (2, ["13", "14"]), "EmailAddress": (1, ["14"])}
    assert report.dataset.screening is not None
    assert (report.dataset.screening.examples, report.dataset.screening.flagged) == (15 + 8, 2)
    assert report.dataset.training is not None
    assert report.dataset.training.examples == 15, "nothing is left out"
    (warning,) = [one for one in report.dataset.warnings if "screening" in one]
    assert warning == (
        "2 of 15 training examples are flagged by dataset.screening: Secret 2 (line 13, 14), EmailAddress 1 (line 14)."
    )
    found = findings_of(workplace, "reported")
    assert [(one["kind"], one["set"], one["line"], one["rule"], one["dropped"]) for one in found] == [
        ("screening", "training", 13, "Secret", False),
        ("screening", "training", 14, "Secret", False),
        ("screening", "training", 14, "EmailAddress", False),
    ]
    output = capsys.readouterr()
    told = [report.model_dump_json(), json.dumps(found), output.out, output.err]
    assert not [text for text in told if SECRET in text or EMAIL in text]


def test_dropped_examples_are_in_no_count_no_selection_and_no_token(workplace: Workplace, tmp_path: Path) -> None:
    report = preflight(run_of(workplace, "dropped", {"action": "Drop"}), tmp_path / "preflight")
    training, dropped = report.dataset.training, report.dataset.dropped
    assert training is not None
    assert dropped is not None
    assert (training.examples, training.rows, dropped.screening) == (13, 13, 2)
    record = DatasetRecord.from_bytes(workplace.bucket.read(workplace.bucket.uri("dropped/dataset.json")))
    assert record.training.mask().tolist() == [*[True] * 12, False, False, True]
    run = workplace.train_run(
        "dropped",
        {"total_steps": 4},
        dataset=run_of(workplace, "dropped", {"action": "Drop"}).dataset,
    )
    train_here(run, tmp_path / "train")
    (folder,) = {file.parent for file in (tmp_path / "train").rglob("dataset.json")}
    assert len(load_sequences(folder).training) == 13


def test_a_training_without_preflights_choice_does_not_train_on_flagged_lines(
    workplace: Workplace, tmp_path: Path
) -> None:
    dataset = run_of(workplace, "unchosen", {"action": "Drop"}).dataset
    with pytest.raises(DiagnosedError, match=r"has no dataset\.json") as refused:
        train_here(workplace.train_run("unchosen", dataset=dataset), tmp_path)
    assert refused.value.failure.reason is Reason.DATASET_INVALID


def test_fail_names_the_lines_and_stores_them(workplace: Workplace, tmp_path: Path) -> None:
    with pytest.raises(DiagnosedError) as refused:
        preflight(run_of(workplace, "failing", {"action": "Fail", "rules": ["EmailAddress"]}), tmp_path)
    failure = refused.value.failure
    assert failure.reason is Reason.DATASET_INVALID
    assert "EmailAddress 1 (line 14)" in failure.message
    assert "action Drop" in failure.message
    assert EMAIL not in failure.model_dump_json()
    assert failure.dataset is not None
    assert failure.dataset.screening is not None
    assert failure.dataset.screening.findings[0].lines == ["14"]
    assert [one["line"] for one in findings_of(workplace, "failing")] == [14]


def test_a_clean_dataset_passes_with_fail(workplace: Workplace, tmp_path: Path) -> None:
    dataset = workplace.dataset(screening=Screening(action="Fail"))
    report = preflight(workplace.preflight_run("clean", dataset=dataset), tmp_path)
    assert report.dataset.screening is not None
    assert (report.dataset.screening.flagged, report.dataset.screening.findings) == (0, [])


def test_a_classifier_flags_by_category_and_is_asked_once(workplace: Workplace, tmp_path: Path) -> None:
    with stub_api(guards) as api:
        run = classified_run(workplace, "guarded", api)
        report = preflight(run, tmp_path / "1")
        assert flagged(report) == {"Violent": (1, ["15"])}
        assert report.dataset.training is not None
        assert report.dataset.training.examples == 14
        asked = len(api.requests)
        assert asked == 1 + len(LINES) + 8, "one question to try it, and one for each example of both sets"
        again = preflight(run, tmp_path / "2")
        assert len(api.requests) == asked, "a preflight that starts again goes on from the answers"
        assert again.dataset.training == report.dataset.training
        assert report.dataset.screening is not None
        assert report.dataset.screening.usage is not None
        assert report.dataset.screening.usage.requests == asked


def test_only_the_categories_that_count_flag(workplace: Workplace, tmp_path: Path) -> None:
    with stub_api(guards) as api:
        run = classified_run(workplace, "counted", api, classifier={"categories": ["PII"]})
        assert flagged(preflight(run, tmp_path)) == {}


def test_an_example_without_a_verdict_is_never_taken_for_harmless(workplace: Workplace, tmp_path: Path) -> None:
    def stutters(body: Body) -> Respond:
        return says("Well ...") if "weapon" in body["messages"][-1]["content"] else guards(body)

    with stub_api(stutters) as api:
        report = preflight(classified_run(workplace, "stuttered", api), tmp_path)
        assert flagged(report) == {"Unclassified": (1, ["15"])}
        assert report.dataset.training is not None
        assert report.dataset.training.examples == 14, "Drop leaves it out, too"


def test_a_wrong_format_is_found_at_the_first_question(workplace: Workplace, tmp_path: Path) -> None:
    with stub_api(guards) as api:
        run = classified_run(workplace, "misread", api, classifier={"format": "LlamaGuard"})
        with pytest.raises(DiagnosedError, match="did not reply as the format LlamaGuard has it") as refused:
            preflight(run, tmp_path)
        assert refused.value.failure.reason is Reason.INVALID_SPEC
        assert len(api.requests) == 1


def test_a_wrong_key_is_reported_by_its_secret(workplace: Workplace, tmp_path: Path) -> None:
    with stub_api(fails(401, "no such key")) as api:
        with pytest.raises(DiagnosedError) as refused:
            preflight(classified_run(workplace, "denied", api), tmp_path)
        assert refused.value.failure.reason is Reason.ENDPOINT_DENIED


def test_what_fails_by_chance_does_not_decide_what_is_trained_on(workplace: Workplace, tmp_path: Path) -> None:
    def fails_sometimes(body: Body) -> Respond:
        return fails(503) if "weapon" in body["messages"][-1]["content"] else guards(body)

    with stub_api(fails_sometimes) as api:
        with pytest.raises(DiagnosedError) as refused:
            preflight(classified_run(workplace, "flaky", api), tmp_path)
        failure = refused.value.failure
        assert (failure.reason, failure.retryable) == (Reason.ENDPOINT_UNREACHABLE, True)


def test_more_examples_than_the_rate_allows_are_refused_before_the_first(workplace: Workplace, tmp_path: Path) -> None:
    with stub_api(guards) as api:
        run = classified_run(workplace, "slow", api, requestsPerMinute=1)
        lines = [chat(f"What is {number}?", "A number.") for number in range(301)]
        uri = workplace.bucket.put_lines("data/many.jsonl", lines)
        dataset = run.dataset.model_copy(update={"training": TrainingData(uri=uri)})
        with pytest.raises(DiagnosedError, match="raise its requestsPerMinute") as refused:
            preflight(run.model_copy(update={"dataset": dataset}), tmp_path)
        assert refused.value.failure.reason is Reason.LIMIT_EXCEEDED
        assert api.requests == []


def test_openais_moderation_and_a_policy_of_ones_own(workplace: Workplace, tmp_path: Path) -> None:
    def answers(body: Body) -> Respond:
        if "input" in body:
            harmful = "weapon" in body["input"]
            result = {"flagged": harmful, "categories": {"violence": harmful, "hate": False}}
            return Respond(body={"results": [result]})
        data = json.loads(body["messages"][-1]["content"])
        assert "No weapons." in body["messages"][0]["content"]
        return says(json.dumps({"violates": "weapon" in data["answer"]}))

    with stub_api(answers) as api:
        moderated = classified_run(workplace, "moderated", api, classifier={"format": "OpenAIModeration"})
        assert flagged(preflight(moderated, tmp_path / "1")) == {"violence": (1, ["15"])}
        assert {path.rpartition("/")[2] for path in api.paths} == {"moderations"}
        by_policy = {"format": "Policy", "policy": "No weapons."}
        own = classified_run(workplace, "own", api, classifier=by_policy)
        assert flagged(preflight(own, tmp_path / "2")) == {"Policy": (1, ["15"])}


def test_a_budget_that_is_used_up_ends_the_run_and_what_was_answered_is_kept(
    workplace: Workplace, tmp_path: Path
) -> None:
    with stub_api(guards) as api:
        run = classified_run(workplace, "limited", api, screening={"budget": {"requests": 10}})
        with pytest.raises(DiagnosedError, match=r"dataset\.screening\.budget\.requests \(10\) is used up") as refused:
            preflight(run, tmp_path / "first")
        assert (refused.value.failure.reason, refused.value.failure.retryable) == (Reason.LIMIT_EXCEEDED, False)
        assert len(api.requests) == 10
        # Another run pays only for the rest.
        larger = classified_run(workplace, "limited", api, screening={"budget": {"requests": 14}})
        job = larger.job.model_copy(update={"run_id": "2"})
        report = preflight(larger.model_copy(update={"job": job}), tmp_path / "second")
        assert flagged(report)["Violent"] == (1, ["15"])
        assert 10 < len(api.requests) <= 24
