"""A checkpoint as a model: what the run would have had as its result if it had ended there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.conditions import Reason
from finetune_api.evaluation import Generation
from finetune_api.finetunejob import Adapter, CheckpointStatus, Freeze, Full, LoRA
from finetune_api.graders import Grader
from finetune_api.pod_contracts.outcome import TrainReport
from finetune_api.pod_contracts.run import CheckpointSource, EvaluateRun, JobIdentity, ModelSource, NamedModel, TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer.checkpoint.loadable import fetch_loadable, find_loadable
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.model.loading import load_model
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.runs import Workplace, train_here

EVERY_TEN = {"checkpoint_every_steps": 10}
NEW_LORA = Adapter(lora=LoRA(rank=4, alpha=8))
OF_A_WHOLE_MODEL = {
    "LoRA": NEW_LORA,
    "Full": Adapter(type="Full"),
    "Full, frozen": Adapter(type="Full", full=Full(freeze=Freeze(layers=1, embeddings=True))),
}
OF_AN_ADAPTED_MODEL = {
    "Continue": Adapter(lora=LoRA(inherited="Continue")),
    "Merge": Adapter(lora=LoRA(rank=4, alpha=8, inherited="Merge")),
    "Full": Adapter(type="Full"),
}


@pytest.fixture(scope="module")
def lora(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainRun, TrainReport]:
    return trained(workplace, "loadable-lora", tmp_path_factory.mktemp("loadable"))


def trained(workplace: Workplace, output: str, directory: Path, **changes: Any) -> tuple[TrainRun, TrainReport]:
    run = workplace.train_run(output, EVERY_TEN, **{"adapter": NEW_LORA, **changes})
    return run, train_here(run, directory)


def source_of(run: TrainRun, checkpoint: CheckpointStatus) -> ModelSource:
    found = CheckpointSource(
        uri=checkpoint.uri, step=checkpoint.step, digest=checkpoint.digest, adapter=run.adapter.to_wire()
    )
    return run.model.model_copy(update={"checkpoint": found})


def result_of(run: TrainRun, report: TrainReport) -> ModelSource:
    result = report.result
    if result.adapter_type == "Full":
        return ModelSource(uri=result.uri, digest=result.digest)
    return ModelSource(uri=run.model.uri, adapter_uri=result.uri, digest=result.digest)


def weights(source: ModelSource, storage: Storage, directory: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_model(
        fetch_loadable(source, storage, directory), torch.float32
    ).state_dict()
    return weights


def assert_loads_as_the_result(run: TrainRun, report: TrainReport, storage: Storage, directory: Path) -> None:
    earlier, last = report.checkpoints
    expected = weights(result_of(run, report), storage, directory / "result")
    of_last = weights(source_of(run, last), storage, directory / "last")
    of_earlier = weights(source_of(run, earlier), storage, directory / "earlier")
    assert (earlier.step, last.step) == (10, 20)
    assert of_last.keys() == of_earlier.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in of_last.items())
    assert not all(torch.equal(weight, expected[name]) for name, weight in of_earlier.items())


@pytest.mark.parametrize("kind", OF_A_WHOLE_MODEL)
def test_the_checkpoint_of_the_last_step_loads_as_the_result_does_and_an_earlier_one_as_another_model(
    workplace: Workplace, storage: Storage, tmp_path: Path, kind: str
) -> None:
    output = f"loadable-{kind.replace(', ', '-').lower()}-run"
    run, report = trained(workplace, output, tmp_path / "run", adapter=OF_A_WHOLE_MODEL[kind])
    assert_loads_as_the_result(run, report, storage, tmp_path)


@pytest.mark.parametrize("kind", OF_AN_ADAPTED_MODEL)
def test_so_does_one_of_a_run_that_began_with_an_adapter(
    workplace: Workplace, lora: tuple[TrainRun, TrainReport], storage: Storage, tmp_path: Path, kind: str
) -> None:
    run, report = trained(
        workplace,
        f"loadable-adapted-{kind.lower()}",
        tmp_path / "run",
        model=result_of(*lora),
        adapter=OF_AN_ADAPTED_MODEL[kind],
    )
    assert_loads_as_the_result(run, report, storage, tmp_path)


def test_every_checkpoint_of_a_run_is_evaluated_by_its_name_and_the_last_answers_as_the_result(
    workplace: Workplace, lora: tuple[TrainRun, TrainReport]
) -> None:
    run, report = lora
    models = {f"tuned-step-{one.step}": source_of(run, one) for one in report.checkpoints}
    models |= {"result": result_of(run, report)}
    judged = EvaluateRun(
        job=JobIdentity(namespace="team-a", name="judge", uid="u", run_id="1"),
        storage=workplace.bucket.storage,
        output_uri=workplace.bucket.uri("runs/judge-checkpoints"),
        models=[NamedModel(name=name, model=model) for name, model in models.items()],
        dataset_uri=workplace.validation,
        graders=[Grader.from_wire({"name": "similar", "type": "TextSimilarity"})],
        generation=Generation(max_tokens=4),
        limit_examples=4,
    )

    scores = {score.candidate: score for score in evaluate(judged).scores}

    assert list(scores) == ["tuned-step-10", "tuned-step-20", "result"]
    assert scores["tuned-step-20"].score == scores["result"].score
    page = workplace.bucket.read(workplace.bucket.uri("runs/judge-checkpoints/report.html")).decode()
    assert "tuned-step-10 scores" in page
    assert "Lowest scores of" in page


def test_a_checkpoint_that_was_deleted_meanwhile_is_reported_by_its_step_before_anything_is_fetched(
    workplace: Workplace, lora: tuple[TrainRun, TrainReport], storage: Storage
) -> None:
    run, report = lora
    gone = report.checkpoints[0].model_copy(update={"uri": f"{report.checkpoints[0].uri}9", "step": 5})

    with pytest.raises(DiagnosedError) as caught:
        find_loadable(source_of(run, gone), storage)

    assert caught.value.failure.reason == Reason.MODEL_NOT_FOUND
    assert "The checkpoint of step 5 is not at" in caught.value.failure.message
    assert not caught.value.failure.retryable


def test_one_with_another_manifest_than_expected_is_refused(
    lora: tuple[TrainRun, TrainReport], storage: Storage
) -> None:
    run, report = lora
    other = report.checkpoints[0].model_copy(update={"digest": report.checkpoints[1].digest})

    with pytest.raises(DiagnosedError, match="has changed") as caught:
        find_loadable(source_of(run, other), storage)

    assert caught.value.failure.reason == Reason.MODEL_INVALID


def test_one_whose_weights_do_not_match_its_manifest_is_refused(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    run, report = trained(workplace, "loadable-corrupt", tmp_path / "run")
    shard = f"{report.checkpoints[0].uri}/model/shard-00001-of-00001.safetensors"
    workplace.bucket.put(parse_s3(shard).key, workplace.bucket.read(shard)[:-1] + b"?")

    with pytest.raises(DiagnosedError) as caught:
        fetch_loadable(source_of(run, report.checkpoints[0]), storage, tmp_path / "model")

    assert caught.value.failure.reason == Reason.MODEL_INVALID
