from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE, Generation, Score
from finetune_api.graders import Grader
from finetune_api.pod_contracts.outcome import parse_termination_message
from finetune_api.pod_contracts.run import EvaluateRun, JobIdentity, ModelSource, NamedModel
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_grading.statistics.intervals import wilson
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.evaluation.prepared import fetch_held_out
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.tiny_models import CONTEXT, PlainGeneration, chat

MAX_TOKENS = 8
QUESTIONS = [f"Question {number}: {'?' * (number % 7)}" for number in range(20)]
EXACT = Grader.from_wire({"name": "exact", "type": "StringCheck"})
SIMILAR = Grader.from_wire({"name": "similar", "type": "TextSimilarity"})


@pytest.fixture(scope="session")
def base_uri(bucket: Bucket, base: Path) -> str:
    return bucket.put_folder("models/base", base)


@pytest.fixture(scope="session")
def tuned_uri(bucket: Bucket, tuned: Path) -> str:
    return bucket.put_folder("models/tuned", tuned)


@pytest.fixture(scope="session")
def adapter_uri(bucket: Bucket, adapter: Path) -> str:
    return bucket.put_folder("models/adapter", adapter)


def make_run(bucket: Bucket, dataset: str, models: dict[str, ModelSource], **changes: Any) -> EvaluateRun:
    defaults: dict[str, Any] = {
        "job": JobIdentity(namespace="team-a", name="judge", uid="u", run_id="1"),
        "storage": bucket.storage,
        "output_uri": bucket.uri("runs/judge/1"),
        "models": [NamedModel(name=name, model=model) for name, model in models.items()],
        "dataset_uri": dataset,
        "graders": [EXACT],
        "generation": Generation(max_tokens=MAX_TOKENS),
    }
    return EvaluateRun(**{**defaults, **changes})


def by_name(scores: list[Score]) -> dict[tuple[str, str], Score]:
    return {(score.candidate, score.grader): score for score in scores}


def test_a_candidate_is_compared_with_its_baseline(
    bucket: Bucket, base_uri: str, tuned_uri: str, plain_tuned: PlainGeneration
) -> None:
    # The tuned model is right on the first 15 of 20 questions: there the reference is what it says.
    outputs = [plain_tuned.answer(question, MAX_TOKENS) for question in QUESTIONS]
    references = [output if index < 15 else "never said" for index, output in enumerate(outputs)]
    dataset = bucket.put_lines("data/held-out.jsonl", [chat(*pair) for pair in zip(QUESTIONS, references, strict=True)])
    models = {BASELINE: ModelSource(uri=base_uri), "tuned": ModelSource(uri=tuned_uri)}

    report = evaluate(make_run(bucket, dataset, models, graders=[EXACT, SIMILAR]))

    scores = by_name(report.scores)
    expected = wilson(15, 20)
    exact = scores["tuned", "exact"]
    assert (exact.score, exact.examples) == (0.75, 20)
    assert (exact.low, exact.high) == (math.floor(expected.low * 1e4) / 1e4, math.ceil(expected.high * 1e4) / 1e4)
    assert exact.delta == 0.75
    # Newcombe's interval (1998, method 10) of 15 of 20 against 0 of 20: .47835 to .88814, rounded outwards.
    assert (exact.delta_low, exact.delta_high) == (0.4783, 0.8882)
    assert scores[BASELINE, "exact"].score == 0.0
    assert scores[BASELINE, "exact"].delta is None
    assert scores["tuned", "similar"].score > scores[BASELINE, "similar"].score

    stored = json.loads(bucket.read(report.report_uri))
    assert report.report_uri == bucket.uri("runs/judge/1/report.json")
    assert stored["scores"] == [score.to_wire() for score in report.scores]
    assert stored["dataset"] == {"uri": dataset, "examples": 20}

    samples = [json.loads(line) for line in bucket.read(bucket.uri("runs/judge/1/samples.jsonl")).splitlines()]
    assert [sample["outputs"]["tuned"] for sample in samples] == outputs
    assert [sample["reference"] for sample in samples] == references
    assert samples[0]["line"] == 1
    assert samples[0]["prompt"] == [{"role": "user", "content": QUESTIONS[0]}]
    assert samples[0]["scores"]["tuned"] == {"exact": 1.0, "similar": 1.0}
    assert samples[19]["scores"]["tuned"]["exact"] == 0.0

    assert parse_termination_message(to_termination_message(report)) == report


def test_a_model_does_not_differ_from_itself(bucket: Bucket, tuned_uri: str) -> None:
    dataset = bucket.put_lines("data/same.jsonl", [chat(question, "some answer") for question in QUESTIONS])
    models = {BASELINE: ModelSource(uri=tuned_uri), "same": ModelSource(uri=tuned_uri)}

    report = evaluate(make_run(bucket, dataset, models, graders=[SIMILAR]))

    same = by_name(report.scores)["same", "similar"]
    assert same.score > 0
    assert same.delta == 0.0
    assert same.delta_low is not None and same.delta_high is not None
    assert same.delta_low < 0 < same.delta_high, "so few examples do not show that there is none"


def test_of_a_small_nucleus_only_the_likeliest_token_is_drawn(
    bucket: Bucket, tuned_uri: str, plain_tuned: PlainGeneration
) -> None:
    """The sampled outputs are the greedy ones then, and others without topP."""
    asked = QUESTIONS[:4]
    dataset = bucket.put_lines("data/nucleus.jsonl", [chat(question, "x") for question in asked])
    said = []
    for top_p in (1e-6, None):
        sampled = Generation(max_tokens=MAX_TOKENS, temperature=1.0, top_p=top_p)
        evaluate(make_run(bucket, dataset, {"tuned": ModelSource(uri=tuned_uri)}, generation=sampled))
        rows = bucket.read(bucket.uri("runs/judge/1/samples.jsonl")).splitlines()
        said.append([json.loads(row)["outputs"]["tuned"] for row in rows])
    assert said[0] == [plain_tuned.answer(question, MAX_TOKENS) for question in asked]
    assert said[1] != said[0]


def test_an_adapter_is_judged_upon_its_base_and_fields_of_an_example_are_there_for_graders(
    bucket: Bucket, base: Path, adapter: Path, base_uri: str, adapter_uri: str
) -> None:
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    plain = PlainGeneration(adapted, AutoTokenizer.from_pretrained(adapter))
    prompts = ["import ", "def main(", "class "]
    lines = [{"prompt": p, "completion": "x", "meta": {"expected": plain.complete(p, MAX_TOKENS)}} for p in prompts]
    dataset = bucket.put_lines("data/completions.jsonl", lines)
    grader = Grader.from_wire(
        {"name": "field", "type": "StringCheck", "stringCheck": {"reference": "{{item.meta.expected}}"}}
    )
    models = {"adapted": ModelSource(uri=base_uri, adapter_uri=adapter_uri), BASELINE: ModelSource(uri=base_uri)}

    report = evaluate(make_run(bucket, dataset, models, graders=[grader], limit_examples=2))

    scores = by_name(report.scores)
    assert (scores["adapted", "field"].score, scores["adapted", "field"].examples) == (1.0, 2)
    assert scores[BASELINE, "field"].score == 0.0


def test_outputs_that_can_not_be_graded_fail_the_run_and_every_row_is_kept(bucket: Bucket, tuned_uri: str) -> None:
    """The tiny model writes no JSON: case 10 of shared/reference/evaluation.md, in the Pod's own command."""
    dataset = bucket.put_lines("data/no-json.jsonl", [chat(question, "x") for question in QUESTIONS[:4]])
    member = Grader.from_wire(
        {"name": "member", "type": "StringCheck", "stringCheck": {"input": "{{sample.output_json.x}}"}}
    )
    models = {"tuned": ModelSource(uri=tuned_uri)}
    with pytest.raises(DiagnosedError) as caught:
        evaluate(make_run(bucket, dataset, models, graders=[member, EXACT]))
    failure = caught.value.failure
    assert (failure.reason, failure.retryable) == (Reason.GRADER_FAILED, False)
    assert "'member' could not grade 4 of 4 outputs of 'tuned' (100 %; maxErroredPercent is 5)" in failure.message
    assert "line 1: sample_parse_error" in failure.message
    rows = [json.loads(line) for line in bucket.read(bucket.uri("runs/judge/1/samples.jsonl")).splitlines()]
    assert [row["scores"]["tuned"]["member"] for row in rows] == [None] * 4
    assert [row["verdicts"]["tuned"] for row in rows] == [{"member": "Errored", "exact": "Failed"}] * 4
    assert rows[0]["errors"]["tuned"]["member"]["code"] == "sample_parse_error"

    allowed = make_run(bucket, dataset, models, graders=[member, EXACT], max_errored_percent=100)
    report = evaluate(allowed)
    scores = by_name(report.scores)
    assert (scores["tuned", "member"].score, scores["tuned", "member"].errored) == (0.0, 4)
    assert [(one.grader, one.code, one.count, one.first_line) for one in report.errors] == [
        ("member", "sample_parse_error", 4, 1)
    ]


def test_several_samples_clusters_and_slices(bucket: Bucket, tuned_uri: str) -> None:
    lines = [
        chat(question, "x", topic="odd" if at % 2 else "even", ticket=at // 2) for at, question in enumerate(QUESTIONS)
    ]
    dataset = bucket.put_lines("data/sliced.jsonl", lines)
    run = make_run(
        bucket,
        dataset,
        {BASELINE: ModelSource(uri=tuned_uri), "tuned": ModelSource(uri=tuned_uri)},
        graders=[
            SIMILAR,
            Grader.from_wire({"name": "words", "type": "TextSimilarity", "textSimilarity": {"metric": "BLEU"}}),
        ],
        generation=Generation(max_tokens=MAX_TOKENS, temperature=1.0, samples_per_example=3, reducer="Max"),
        cluster_by="{{item.ticket}}",
        slices=["{{item.topic}}"],
    )
    report = evaluate(run)
    similar = by_name(report.scores)["tuned", "similar"]
    assert (similar.examples, similar.passed, similar.failed, similar.errored) == (
        20,
        similar.passed,
        60 - (similar.passed or 0),
        0,
    )
    rows = [json.loads(line) for line in bucket.read(bucket.uri("runs/judge/1/samples.jsonl")).splitlines()]
    assert [(row["line"], row["sample"]) for row in rows[:4]] == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert len({row["outputs"]["tuned"] for row in rows[:3]}) > 1, "each sample is one of its own"
    best = [max(row["scores"]["tuned"]["similar"] for row in rows[at : at + 3]) for at in range(0, 60, 3)]
    assert similar.score == pytest.approx(sum(best) / 20, abs=1e-4)
    stored = json.loads(bucket.read(report.report_uri))
    assert [(one["by"], one["value"]) for one in stored["slices"]] == [
        ("{{item.topic}}", "even"),
        ("{{item.topic}}", "odd"),
    ]
    of_even = next(s for s in stored["slices"][0]["scores"] if (s["candidate"], s["grader"]) == ("tuned", "similar"))
    assert of_even["score"] == pytest.approx(sum(best[::2]) / 10, abs=1e-4)
    assert stored["clusterBy"] == "{{item.ticket}}"
    assert len(report.slices) == 4, "two slices by two graders, of the candidate"
    (in_status,) = [one for one in report.slices if (one.value, one.grader) == ("even", "similar")]
    assert (in_status.by, in_status.candidate, in_status.examples) == ("{{item.topic}}", "tuned", 10)
    assert (in_status.score, in_status.delta) == (of_even["score"], of_even["delta"])


def test_a_field_that_clusters_or_slices_read_is_looked_for_before_a_model_is_fetched(bucket: Bucket) -> None:
    dataset = bucket.put_lines("data/no-topic.jsonl", [chat("a", "b", topic="x"), chat("a", "b")])
    models = {"m": ModelSource(uri=bucket.uri("no/model"))}
    for change in ({"cluster_by": "{{item.topic}}"}, {"slices": ["{{item.topic}}"]}):
        with pytest.raises(DiagnosedError) as caught:
            evaluate(make_run(bucket, dataset, models, **change))
        assert caught.value.failure.reason is Reason.DATASET_INVALID
        assert "Line 2 of" in caught.value.failure.message
        assert "spec.dataset reads {{item.topic}}" in caught.value.failure.message


def test_sampling_gives_the_same_outputs_again(bucket: Bucket, tuned_uri: str) -> None:
    dataset = bucket.put_lines("data/sampled.jsonl", [chat(question, "answer") for question in QUESTIONS[:4]])
    run = make_run(
        bucket,
        dataset,
        {"tuned": ModelSource(uri=tuned_uri)},
        generation=Generation(max_tokens=MAX_TOKENS, temperature=1.0),
    )

    def outputs() -> list[str]:
        evaluate(run)
        samples = bucket.read(bucket.uri("runs/judge/1/samples.jsonl")).splitlines()
        return [json.loads(line)["outputs"]["tuned"] for line in samples]

    assert outputs() == outputs()


def test_a_prompt_that_nearly_fills_the_context_gets_what_is_left_of_it(
    bucket: Bucket, tuned_uri: str, plain_tuned: PlainGeneration
) -> None:
    prompts = ["y" * (CONTEXT - 3), "short"]
    references = [plain_tuned.complete(prompts[0], 3), plain_tuned.complete(prompts[1], MAX_TOKENS)]
    lines = [{"prompt": p, "completion": r} for p, r in zip(prompts, references, strict=True)]
    dataset = bucket.put_lines("data/long.jsonl", lines)

    report = evaluate(make_run(bucket, dataset, {"tuned": ModelSource(uri=tuned_uri)}))

    assert report.scores[0].score == 1.0


def test_a_models_own_generation_config_can_not_change_what_is_measured(
    bucket: Bucket, tuned: Path, plain_tuned: PlainGeneration
) -> None:
    greedy = bucket.put_folder("models/tricky", tuned)
    tricky = {"num_beams": 4, "num_return_sequences": 3, "return_dict_in_generate": True, "max_new_tokens": 100_000}
    bucket.put("models/tricky/generation_config.json", json.dumps(tricky).encode())
    lines = [{"prompt": p, "completion": plain_tuned.complete(p, MAX_TOKENS)} for p in ("import ", "class ")]
    dataset = bucket.put_lines("data/tricky.jsonl", lines)

    report = evaluate(make_run(bucket, dataset, {"tricky": ModelSource(uri=greedy)}))

    assert report.scores[0].score == 1.0


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        (None, Reason.DATASET_NOT_FOUND, "data/broken.jsonl"),
        ([], Reason.DATASET_INVALID, "The file is empty."),
        ([chat("a", "b"), {"messages": []}], Reason.DATASET_INVALID, "Line 2 of"),
        ([chat("a", "b"), chat("a", "b", reference="c")], Reason.DATASET_INVALID, "'reference' is taken"),
        ([{"messages": [{"role": "assistant", "content": "b"}]}], Reason.DATASET_INVALID, "nothing to answer to"),
        ([chat("a" * 200, "b")], Reason.DATASET_INVALID, "fills the model's context of 128"),
    ],
)
def test_a_dataset_that_can_not_be_used_is_named_with_its_line(
    bucket: Bucket, tuned_uri: str, body: list[object] | None, reason: Reason, message: str
) -> None:
    uri = bucket.uri("data/broken.jsonl")
    bucket.client.delete_object(Bucket=bucket.name, Key="data/broken.jsonl")
    if body is not None:
        bucket.put_lines("data/broken.jsonl", body)
    with pytest.raises(DiagnosedError) as caught:
        evaluate(make_run(bucket, uri, {"tuned": ModelSource(uri=tuned_uri)}))
    assert caught.value.failure.reason is reason
    assert message in caught.value.failure.message


def test_a_field_that_no_example_has_is_found_before_a_model_is_fetched(bucket: Bucket) -> None:
    dataset = bucket.put_lines("data/no-label.jsonl", [chat("a", "b", label="x"), chat("a", "b"), chat("a", "b")])
    grader = Grader.from_wire({"name": "label", "type": "StringCheck", "stringCheck": {"reference": "{{item.label}}"}})
    with pytest.raises(DiagnosedError) as caught:
        evaluate(make_run(bucket, dataset, {"m": ModelSource(uri=bucket.uri("no/model"))}, graders=[grader]))
    assert caught.value.failure.reason is Reason.DATASET_INVALID
    assert "Line 2 of" in caught.value.failure.message
    assert "{{item.label}}" in caught.value.failure.message
    assert "1 more line(s)" in caught.value.failure.message


def test_a_model_that_is_not_there_is_reported_before_another_one_generates(
    bucket: Bucket, tuned_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = bucket.put_lines("data/one.jsonl", [chat("a", "b")])
    models = {"tuned": ModelSource(uri=tuned_uri), "none": ModelSource(uri=bucket.uri("no/model"))}
    monkeypatch.setattr(
        "finetune_trainer.evaluation.evaluate.generate_outputs", lambda *_: pytest.fail("a model was fetched")
    )
    with pytest.raises(DiagnosedError, match="no/model") as caught:
        evaluate(make_run(bucket, dataset, models))
    assert caught.value.failure.reason is Reason.MODEL_NOT_FOUND


def test_several_files_are_one_held_out_set(bucket: Bucket, tmp_path: Path) -> None:
    for name, numbers in {"b": range(3, 6), "a": range(3)}.items():
        bucket.put_lines(f"held-out/{name}.jsonl", [chat(f"Q{number}", "A") for number in numbers])
    for limit, asked in ((None, 6), (4, 4), (3, 3)):
        run = make_run(bucket, bucket.uri("held-out/*.jsonl"), {}, limit_examples=limit)
        examples = fetch_held_out(run, Storage(bucket.storage), [], tmp_path / str(limit))
        assert [example.prompt.content[0]["content"] for example in examples] == [
            f"Q{number}" for number in range(asked)
        ]
