"""Benchmarks in an evaluation: every task of the list, the same examples for every model, and what a mirror lacks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE, Score
from finetune_api.evaluation.benchmarks import BENCHMARK_TASKS, Benchmark
from finetune_api.pod_contracts.outcome import EvaluationReport, parse_termination_message
from finetune_api.pod_contracts.run import EvaluateRun, ModelSource
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_api.sources import parse_s3
from finetune_grading.statistics.intervals import newcombe
from finetune_trainer.benchmarks import kept, language_model
from finetune_trainer.benchmarks.language_model import AskedModel
from finetune_trainer.benchmarks.mirroring import mirror_benchmark
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer_evaluation.benchmarks.copies import COPIES, write_copy
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.test_evaluate import make_run
from tests.integration.trainer_evaluation.tiny_models import chat

TUNED = "tuned"
METALS = [
    {
        "id": str(at),
        "question": f"Which word has {at} in it?",
        "choices": {"text": [f"the {at}", "many", f"a {chr(97 + at)}", "none of these words"], "label": list("ABCD")},
        "answerKey": "ABCD"[at % 4],
    }
    for at in range(24)
]
"""A benchmark on which two models with random weights differ."""


def benchmark(task: str, mirror: str, **changes: Any) -> Benchmark:
    return Benchmark.from_wire({"name": task.replace("_", "-"), "task": task, "mirror": {"uri": mirror}, **changes})


def run_of(bucket: Bucket, benchmarks: Sequence[Benchmark], models: dict[str, ModelSource], name: str) -> EvaluateRun:
    dataset = bucket.put_lines("data/one.jsonl", [chat("Hello?", "yes")])
    return make_run(
        bucket,
        dataset,
        models,
        benchmarks=list(benchmarks),
        output_uri=bucket.uri(f"runs/{name}/1"),
        outputs_uri=bucket.uri(f"runs/{name}/outputs"),
    )


def score_of(report: EvaluationReport, candidate: str, name: str) -> Score:
    return next(one for one in report.scores if (one.candidate, one.grader) == (candidate, name))


def lines_of(bucket: Bucket, run: EvaluateRun, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in bucket.read(f"{run.output_uri}/benchmarks/{name}.jsonl").splitlines()]


def likeliest(model: Any, tokenizer: Any, prompt: str, choices: Sequence[str]) -> int:
    """The choice with the highest log-probability for each of its characters, by one pass over each."""
    found = []
    for choice in choices:
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        tokens = tokenizer(f" {choice}", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([before + tokens])).logits[0, len(before) - 1 : -1]
        logprobs = logits.log_softmax(dim=-1)
        found.append(sum(float(row[token]) for row, token in zip(logprobs, tokens, strict=True)) / len(choice))
    return max(range(len(choices)), key=found.__getitem__)


@pytest.fixture
def compared(long_base_uri: str, long_adapter_uri: str) -> dict[str, ModelSource]:
    return {
        BASELINE: ModelSource(uri=long_base_uri),
        TUNED: ModelSource(uri=long_base_uri, adapter_uri=long_adapter_uri),
    }


@pytest.fixture(scope="session")
def metals(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A mirror of arc_easy whose rows two models with random weights answer differently."""
    uri = bucket.uri("mirror/metals")
    copy = write_copy(tmp_path_factory.mktemp("metals"), "arc_easy", METALS)
    mirror_benchmark("arc_easy", Storage(bucket.storage), parse_s3(uri), copy, "made-up")
    return uri


def test_every_task_of_the_list_is_answered_from_the_mirror_alone(
    bucket: Bucket, mirror: str, compared: dict[str, ModelSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("the hub was asked")

    monkeypatch.setattr("huggingface_hub.utils._http.http_backoff", refuse)
    monkeypatch.setattr("huggingface_hub.hf_api.HfApi.repo_info", refuse)
    monkeypatch.setattr("huggingface_hub.hf_api.HfApi.dataset_info", refuse)
    monkeypatch.setattr("nltk.download", refuse)
    for first in range(0, len(BENCHMARK_TASKS), 7):
        tasks = BENCHMARK_TASKS[first : first + 7]
        few = {"gsm8k": {"fewShot": 1}, "ifeval": {"maxTokens": 16}}
        run = run_of(bucket, [benchmark(task, mirror, **few.get(task, {})) for task in tasks], compared, f"all-{first}")
        report = evaluate(run)
        for task in tasks:
            tuned = score_of(report, TUNED, task.replace("_", "-"))
            assert (tuned.examples, tuned.errored) == (2, 0), task
            assert tuned.delta is not None and tuned.delta_low is not None and tuned.delta_high is not None
            assert tuned.low < tuned.high and tuned.delta_low < tuned.delta_high, "of two examples nothing is sure"
            rows = lines_of(bucket, run, task.replace("_", "-"))
            assert len(rows) == 2
            assert {*rows[0]["scores"]} == {BASELINE, TUNED}
            assert rows[0]["answers"][BASELINE] != rows[0]["answers"][TUNED] or task == "gsm8k"


def test_the_gain_on_a_benchmark_compares_the_models_example_by_example(
    bucket: Bucket,
    metals: str,
    compared: dict[str, ModelSource],
    long_base: Path,
    long_adapter_uri: str,
    tmp_path: Path,
) -> None:
    for item in bucket.client.list_objects_v2(Bucket=bucket.name, Prefix="models/long-adapter/")["Contents"]:
        (tmp_path / item["Key"].rpartition("/")[2]).write_bytes(bucket.read(bucket.uri(item["Key"])))
    tokenizer = AutoTokenizer.from_pretrained(long_base)
    plain = {BASELINE: AutoModelForCausalLM.from_pretrained(long_base)}
    plain[TUNED] = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(long_base), tmp_path)
    right = {
        name: [
            likeliest(model, tokenizer, f"Question: {row['question']}\nAnswer:", row["choices"]["text"])
            == "ABCD".index(row["answerKey"])
            for row in METALS
        ]
        for name, model in plain.items()
    }
    run = run_of(bucket, [benchmark("arc_easy", metals)], compared, "gain")

    report = evaluate(run)

    rows = lines_of(bucket, run, "arc-easy")
    assert {name: [row["scores"][name] == 1 for row in rows] for name in plain} == right
    assert right[BASELINE] != right[TUNED], "or this test shows nothing"
    pairs = list(zip(right[TUNED], right[BASELINE], strict=True))
    expected = newcombe(*(pairs.count(pair) for pair in [(True, True), (True, False), (False, True), (False, False)]))
    tuned = score_of(report, TUNED, "arc-easy")
    assert tuned.delta == pytest.approx(expected.mean, abs=1e-4)
    assert (tuned.delta_low, tuned.delta_high) == pytest.approx((expected.low, expected.high), abs=1.1e-4)
    assert tuned.p_value is not None
    assert rows[0]["prompt"] == "Question: Which word has 0 in it?\nAnswer:"
    stored = json.loads(bucket.read(report.report_uri or ""))
    assert stored["scores"] == [score.to_wire() for score in report.scores]
    (described,) = stored["benchmarks"]
    assert (described["dataset"], described["revision"]) == ("allenai/ai2_arc", "made-up")
    assert (described["metric"], described["fewShot"], described["examples"]) == ("acc_norm", 0, 24)
    page = bucket.read(f"{run.output_uri}/report.html").decode()
    assert "<h2>Benchmarks</h2>" in page and "arc-easy (arc_easy)" in page
    assert parse_termination_message(to_termination_message(report)) == report


def test_examples_are_limited_and_solved_ones_precede_them_in_the_models_own_template(
    bucket: Bucket, metals: str, compared: dict[str, ModelSource]
) -> None:
    plain = benchmark("arc_easy", metals, name="plain", maxExamples=3, fewShot=2)
    chatty = benchmark("arc_easy", metals, name="chat", maxExamples=3, fewShot=2, chatTemplate=True)
    run = run_of(bucket, [plain, chatty], compared, "shots")

    report = evaluate(run)

    assert score_of(report, TUNED, "plain").examples == 3
    prompts = {name: lines_of(bucket, run, name)[0]["prompt"] for name in ("plain", "chat")}
    assert prompts["plain"].count("Question: ") == 3
    assert prompts["plain"].endswith("Question: Which word has 0 in it?\nAnswer:")
    assert prompts["chat"].count("<|im_start|>user") == 3
    assert prompts["chat"].count("<|im_start|>assistant") == 3


def test_a_prompt_that_does_not_fit_is_told(bucket: Bucket, metals: str, base: Path) -> None:
    """The model's context is 128 characters."""
    models = {TUNED: ModelSource(uri=bucket.put_folder("models/short", base))}
    report = evaluate(run_of(bucket, [benchmark("arc_easy", metals, maxExamples=1, fewShot=4)], models, "short"))
    assert [one for one in report.warnings if one.startswith("PromptsTruncated: 4 prompts of the benchmark 'arc-easy'")]


def test_outputs_that_are_cut_at_max_tokens_are_told(bucket: Bucket, mirror: str, long_base_uri: str) -> None:
    models = {TUNED: ModelSource(uri=long_base_uri)}
    run = run_of(bucket, [benchmark("gsm8k", mirror, fewShot=1, maxTokens=4)], models, "cut")
    cut = "OutputsTruncated: 2 of 2 outputs of 'tuned' for the benchmark 'gsm8k'"
    assert [one for one in evaluate(run).warnings if one.startswith(cut)]


class Asked:
    """The requests that a try sends to the model; after `most` calls the Pod is told to stop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[int] = []
        self.most: int | None = None
        ask = language_model.HFLM.loglikelihood

        def counted(model: Any, requests: Any, **options: Any) -> Any:
            if len(self.requests) == self.most:
                raise DisruptedError("told to stop")
            self.requests.append(len(requests))
            return ask(model, requests, **options)

        monkeypatch.setattr(language_model.HFLM, "loglikelihood", counted)
        monkeypatch.setattr(language_model, "AT_ONCE", 16)
        monkeypatch.setattr(kept, "KEEP_SECONDS", 0.0)


def test_another_try_asks_only_what_was_not_answered_and_loads_no_model_for_nothing(
    bucket: Bucket, metals: str, long_base_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {TUNED: ModelSource(uri=long_base_uri)}
    asked = Asked(monkeypatch)
    run = run_of(bucket, [benchmark("arc_easy", metals)], models, "resumed")
    asked.most = 2
    with pytest.raises(DisruptedError):
        evaluate(run)
    assert asked.requests == [16, 16]
    asked.requests, asked.most = [], None

    resumed = evaluate(run)

    assert sum(asked.requests) == 4 * 24 - 32
    whole = evaluate(run_of(bucket, [benchmark("arc_easy", metals)], models, "whole"))
    assert score_of(resumed, TUNED, "arc-easy") == score_of(whole, TUNED, "arc-easy")
    monkeypatch.setattr(
        "finetune_trainer.outputs.loaded_outputs.load_generator", lambda *_: pytest.fail("the model was loaded")
    )
    assert evaluate(run).scores == resumed.scores


def test_prompts_that_do_not_fit_are_counted_once_whichever_try_asks_them_and_however_often(
    bucket: Bucket, metals: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {TUNED: ModelSource(uri=bucket.put_folder("models/counted", base))}
    asked = Asked(monkeypatch)
    run = run_of(bucket, [benchmark("arc_easy", metals, maxExamples=6, fewShot=4)], models, "counted")
    asked.most = 1
    with pytest.raises(DisruptedError):
        evaluate(run)
    asked.most = None
    call = AskedModel._model_call

    def small(model: Any, inputs: Any, **options: Any) -> Any:
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(model, inputs, **options)

    monkeypatch.setattr(AskedModel, "_model_call", small)
    assert [one for one in evaluate(run).warnings if one.startswith("PromptsTruncated: 24 prompts")]


def test_smaller_batches_are_tried_where_the_accelerator_has_too_little_memory(
    bucket: Bucket, metals: str, long_base_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    call = AskedModel._model_call

    def small(model: Any, inputs: Any, **options: Any) -> Any:
        batches.append(len(inputs))
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(model, inputs, **options)

    monkeypatch.setattr(AskedModel, "_model_call", small)
    models = {TUNED: ModelSource(uri=long_base_uri)}
    report = evaluate(run_of(bucket, [benchmark("arc_easy", metals, maxExamples=4)], models, "memory"))
    assert score_of(report, TUNED, "arc-easy").examples == 4
    assert batches[:3] == [8, 4, 2]


def tampered(bucket: Bucket, mirror: str) -> None:
    key = parse_s3(f"{mirror}/allenai--ai2_arc/copied/ARC-Easy/test-00000-of-00001.parquet").key
    body = bucket.read(bucket.uri(key))
    bucket.put(key, body[:-1] + bytes([body[-1] ^ 1]))


def of_another_task(bucket: Bucket, mirror: str) -> None:
    bucket.put(parse_s3(f"{mirror}/arc_easy.json").key, bucket.read(f"{mirror}/arc_challenge.json"))


def without_a_split(bucket: Bucket, mirror: str) -> None:
    manifest = json.loads(bucket.read(f"{mirror}/arc_easy.json"))
    del manifest["splits"]["test"]
    bucket.put(parse_s3(f"{mirror}/arc_easy.json").key, json.dumps(manifest).encode())


def with_more_than_a_disk_holds(bucket: Bucket, mirror: str) -> None:
    manifest = json.loads(bucket.read(f"{mirror}/arc_easy.json"))
    manifest["splits"]["test"][0]["size"] = 2 * 1024**3 + 1
    bucket.put(parse_s3(f"{mirror}/arc_easy.json").key, json.dumps(manifest).encode())


def not_json(bucket: Bucket, mirror: str) -> None:
    bucket.put(parse_s3(f"{mirror}/arc_easy.json").key, b"<html>")


def removed(bucket: Bucket, mirror: str) -> None:
    bucket.client.delete_object(Bucket=bucket.name, Key=parse_s3(f"{mirror}/arc_easy.json").key)


@pytest.mark.parametrize(
    ("damage", "reason", "words"),
    [
        (removed, Reason.BENCHMARK_NOT_FOUND, "The mirror has no copy of the benchmark arc_easy"),
        (tampered, Reason.BENCHMARK_INVALID, "is not the file of which its manifest has the digest"),
        (of_another_task, Reason.BENCHMARK_INVALID, "is about arc_challenge, allenai/ai2_arc ARC-Challenge, and not"),
        (without_a_split, Reason.BENCHMARK_INVALID, "lacks the split 'test', which the task reads"),
        (with_more_than_a_disk_holds, Reason.BENCHMARK_INVALID, "bytes, of at most 2,147,483,648"),
        (not_json, Reason.BENCHMARK_INVALID, "is no manifest of a mirror"),
    ],
)
def test_a_mirror_that_can_not_be_used_is_told_with_the_command_that_mends_it_before_anything_is_generated(
    bucket: Bucket,
    long_base_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Any,
    reason: Reason,
    words: str,
) -> None:
    monkeypatch.setattr(
        "finetune_trainer.evaluation.evaluate.generate_outputs", lambda *_: pytest.fail("something was generated")
    )
    mirror = bucket.uri(f"mirror/{damage.__name__}")
    for task in ("arc_easy", "arc_challenge"):
        copy = write_copy(tmp_path / task, task)  # type: ignore[arg-type]
        mirror_benchmark(task, Storage(bucket.storage), parse_s3(mirror), copy, None)  # type: ignore[arg-type]
    damage(bucket, mirror)
    run = run_of(bucket, [benchmark("arc_easy", mirror)], {TUNED: ModelSource(uri=long_base_uri)}, damage.__name__)
    with pytest.raises(DiagnosedError) as refused:
        evaluate(run)
    failure = refused.value.failure
    assert (failure.reason, failure.retryable) == (reason, False)
    assert words in failure.message
    assert f"finetune-trainer mirror-benchmark arc_easy --to {mirror}" in failure.message


def test_more_solved_examples_than_there_are_is_told(bucket: Bucket, mirror: str, long_base_uri: str) -> None:
    run = run_of(bucket, [benchmark("gsm8k", mirror)], {TUNED: ModelSource(uri=long_base_uri)}, "too-many")
    with pytest.raises(
        DiagnosedError, match=r"prompts have 5 solved examples, and the dataset's copy has 2\. Set fewShot"
    ):
        evaluate(run)


def test_files_outside_what_the_class_allows_are_not_read(bucket: Bucket, mirror: str, long_base_uri: str) -> None:
    run = run_of(bucket, [benchmark("arc_easy", mirror)], {TUNED: ModelSource(uri=long_base_uri)}, "elsewhere")
    allowed = run.model_copy(update={"allowed_datasets": [bucket.uri("data/*")]})
    with pytest.raises(DiagnosedError) as refused:
        evaluate(allowed)
    assert refused.value.failure.reason is Reason.SOURCE_NOT_ALLOWED


def test_every_task_of_the_list_has_a_copy_here() -> None:
    assert set(COPIES) == set(BENCHMARK_TASKS)
