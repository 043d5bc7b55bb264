"""The run that a laptop trains is the operator's, but for one process and for where things are."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_api.default_hyperparameters import resolve_for
from finetune_api.finetunejob import DatasetFindings, FileStatistics, FineTuneJobSpec, ModelStatus, Parallelism
from finetune_api.pod_contracts.outcome import PreflightReport
from finetune_api.pod_contracts.run import ModelSource
from finetune_api.sources import ON_A_LAPTOP
from finetune_trainer.local.job_file import LocalJob
from finetune_trainer.local.storage_settings import storage_config
from finetune_trainer.local.training import refuse_changed, train_run
from finetune_trainer.process.failures import DiagnosedError

SPEC = FineTuneJobSpec.model_validate(
    {
        "runId": "7",
        "model": {"uri": "file:///models/base"},
        "dataset": {"training": {"uri": "file:///data/train.jsonl"}},
        "hyperparameters": {"epochs": 2, "batchSize": 8},
        "parallelism": {"nodes": 2, "processesPerNode": 4},
        "checkpoints": {"keep": 2},
    },
    context=ON_A_LAPTOP,
)
MODEL = ModelSource(uri="file:///models/base")
FOUND = PreflightReport(
    dataset=DatasetFindings(training=FileStatistics(examples=100, tokens=9000, max_tokens=120)),
    model=ModelStatus(architecture="LlamaForCausalLM", context_length=2048),
)


def test_one_process_trains_with_the_batches_and_steps_of_a_cluster(tmp_path: Path) -> None:
    run = train_run(LocalJob("team-a", "router", SPEC), tmp_path, FOUND, MODEL)
    assert run.hyperparameters == resolve_for(SPEC, FOUND)
    assert run.parallelism == Parallelism()
    assert (run.job.name, run.job.run_id, run.output_uri) == ("router", "7", f"file://{tmp_path}")
    assert run.storage.local_folders
    assert run.metrics_port is None


def test_each_time_the_command_runs_is_an_attempt(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    for number in (1, 2):
        (tmp_path / "claims" / f"{number:06d}.json").touch()
    assert train_run(LocalJob("team-a", "router", SPEC), tmp_path, FOUND, MODEL).attempt == 3


@pytest.mark.parametrize(
    ("variables", "endpoint", "region", "path_style"),
    [
        ({}, None, "us-east-1", False),
        ({"AWS_REGION": "eu-west-1"}, None, "eu-west-1", False),
        ({"AWS_ENDPOINT_URL": "http://minio:9000"}, "http://minio:9000", "us-east-1", True),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}, "http://b", "us-east-1", True),
    ],
)
def test_s3_is_where_the_variables_of_aws_say(
    variables: dict[str, str], endpoint: str | None, region: str, path_style: bool
) -> None:
    config = storage_config(variables)
    assert (config.endpoint, config.region, config.path_style) == (endpoint, region, path_style)


def test_a_run_goes_on_wherever_its_data_is_reached_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    refuse_changed(train_run(LocalJob("team-a", "router", SPEC), tmp_path, FOUND, MODEL), tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:8333")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    now = train_run(LocalJob("team-a", "router", SPEC), tmp_path, FOUND, MODEL)
    assert (now.storage.endpoint, now.storage.region) == ("http://localhost:8333", "eu-west-1")
    refuse_changed(now, tmp_path)
    elsewhere = now.model_copy(update={"model": now.model.model_copy(update={"digest": "sha256:another"})})
    with pytest.raises(DiagnosedError, match=r"model\.digest: .* before, sha256:another now"):
        refuse_changed(elsewhere, tmp_path)


def test_a_run_does_not_go_on_with_other_settings(tmp_path: Path) -> None:
    refuse_changed(train_run(LocalJob("team-a", "router", SPEC), tmp_path, FOUND, MODEL), tmp_path)
    changed = SPEC.model_copy(update={"hyperparameters": SPEC.hyperparameters.model_copy(update={"epochs": 3})})
    with pytest.raises(DiagnosedError, match=r"hyperparameters\.epochs: 2.* before, 3.* now"):
        refuse_changed(train_run(LocalJob("team-a", "router", changed), tmp_path, FOUND, MODEL), tmp_path)
