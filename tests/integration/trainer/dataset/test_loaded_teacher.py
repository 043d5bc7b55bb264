"""Datasets whose teacher the Pod loads: real S3, a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import DatasetRun
from finetune_trainer.dataset import build as command
from finetune_trainer.dataset import generation
from finetune_trainer.generate.generation import Generator
from finetune_trainer.model.loading import LocalModel
from finetune_trainer.outputs import kept_outputs, loaded_outputs
from tests.integration.trainer.dataset.test_generation import again, counts, failure, lines_of, run_of
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.tiny_models import save_model


@pytest.fixture(scope="module")
def model(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> str:
    return bucket.put_folder("models/teacher", save_model(tmp_path_factory.mktemp("teacher"), 3))


def loaded(bucket: Bucket, output: str, model: str, **settings: Any) -> DatasetRun:
    lines = [{"prompt": f"Say {number}", "completion": "x"} for number in range(12)]
    chosen = {"teacher": {"uri": model}, "temperature": 1.0, "maxTokens": 60, "samplesPerPrompt": 2}
    return run_of(bucket, output, None, lines, **chosen | settings)


def test_a_model_that_is_loaded_here_is_a_teacher_too_and_its_outputs_outlive_a_kill(
    bucket: Bucket, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights end some texts."""
    monkeypatch.setattr(kept_outputs, "KEEP_SECONDS", 0.0)
    run = loaded(bucket, "loaded", model)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(generation, "_write", _dies)
        command.build(run, tmp_path / "killed")
    monkeypatch.setattr(loaded_outputs, "load_generator", lambda *_: pytest.fail("all outputs were kept"))
    report = command.build(again(run), tmp_path)
    revision, found = report.revision, lines_of(bucket, report.revision)
    assert found
    assert all(one["prompt"].startswith("Say ") and one["completion"] != "x" for one in found)
    assert counts(revision).keys() <= {"truncated", "unusable"}
    assert revision.generated is not None
    assert revision.generated.kept + sum(counts(revision).values()) == 24
    assert (revision.generated.teacher, revision.format) == (model, "PromptCompletion")
    assert str(revision.generated.teacher_digest).startswith("sha256:")
    (usage,) = report.usage
    assert (usage.model, usage.requests) == (model, 24)
    assert 24 < usage.completion_tokens <= 24 * 60


def _dies(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_teacher_that_is_another_one_once_it_is_fetched_is_asked_in_the_next_try(
    bucket: Bucket, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = loaded_outputs.load_generator

    def replaced_meanwhile(local: LocalModel) -> Generator:
        bucket.put_lines("models/teacher/notes.jsonl", [{}])
        return load(local)

    run = loaded(bucket, "replaced", model)
    with monkeypatch.context() as patched:
        patched.setattr(loaded_outputs, "load_generator", replaced_meanwhile)
        found = failure(run, tmp_path)
    assert (found.reason, found.retryable) == (Reason.MODEL_CHANGED, True)
    assert command.build(again(run), tmp_path).revision.examples


def test_a_model_that_is_not_there_is_reported(bucket: Bucket, tmp_path: Path) -> None:
    found = failure(loaded(bucket, "missing", bucket.uri("models/missing")), tmp_path)
    assert found.reason is Reason.MODEL_NOT_FOUND
