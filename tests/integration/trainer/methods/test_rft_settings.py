"""Settings of reinforcement fine-tuning: the loss, the reference, and the end at signs of hacking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Adapter, Dataset, LoRA, TrainingData, ValidationData
from finetune_api.pod_contracts.run import ModelSource
from finetune_api.sources import parse_s3
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.methods.rft_runs import FULL, digits, method, prompt
from tests.integration.trainer.runs import Workplace, train_here


@pytest.fixture(scope="module")
def dataset(workplace: Workplace) -> Dataset:
    return digits(workplace)


@pytest.fixture(scope="module")
def tuned(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """The base model with an adapter that SFT has trained."""
    report = train_here(workplace.train_run("rft-start"), tmp_path_factory.mktemp("start"))
    return ModelSource(uri=workplace.model, adapter_uri=report.result.uri, digest=report.result.digest)


@pytest.mark.parametrize("loss", ["DAPO", "RLOO"])
@pytest.mark.parametrize("start", ["Full", "LoRA", "Continue", "Merge"])
def test_the_reference_is_the_model_that_the_run_starts_from(
    workplace: Workplace, dataset: Dataset, tuned: ModelSource, tmp_path: Path, start: str, loss: str
) -> None:
    """At the first step they are the same, also where the model comes with an adapter of its own; then no longer."""
    inherits = start in ("Continue", "Merge")
    low_rank: Any = LoRA(rank=4, dropout=0.0, **({"inherited": start} if inherits else {}))
    name = f"kl-{start}-{loss}"
    run = workplace.train_run(
        name,
        {"epochs": 1.0, "batch_size": 4, "learning_rate": 1e-2, "total_steps": 5, "schedule": "Constant"},
        method=method(klCoefficient=0.1, lossType=loss),
        adapter=FULL if start == "Full" else Adapter(lora=low_rank),
        dataset=dataset,
        **({"model": tuned} if inherits else {}),
    )
    train_here(run, tmp_path)
    distances = [abs(float(row["train_kl"])) for row in workplace.results(name) if row["train_kl"]]
    assert len(distances) == 5
    assert distances[0] < 1e-6
    assert distances[-1] > 1e-4


def test_a_run_whose_training_reward_leaves_the_other_behind_ends_with_its_checkpoints(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    """Held-out prompts ask for what the model never writes."""
    held_out = [{**prompt(number), "answer": "\N{SNOWMAN}" * 8} for number in range(20, 30)]
    run = workplace.train_run(
        "rft-hacked",
        {"epochs": 4.0, "batch_size": 4, "learning_rate": 1e-3, "total_steps": 20, "checkpoint_every_steps": 2},
        method=method(stop={"gapAbove": 0.001, "afterEvaluations": 2}),
        adapter=FULL,
        dataset=Dataset(
            training=TrainingData(
                uri=workplace.bucket.put_lines("data/hacked.jsonl", [prompt(number) for number in range(20)])
            ),
            validation=ValidationData(uri=workplace.bucket.put_lines("data/hacked-valid.jsonl", held_out)),
        ),
    )
    with pytest.raises(DiagnosedError) as caught:
        train_here(run, tmp_path / "first")
    failure = caught.value.failure
    assert failure.reason is Reason.REWARD_HACKING_SUSPECTED
    assert not failure.retryable
    kept = [one.manifest.step for one in checkpoints.list_committed(storage, parse_s3(run.output_uri))]
    assert kept == [2, 4]
    with pytest.raises(DiagnosedError, match="At each of the last 2 evaluations"):
        train_here(run.model_copy(update={"attempt": 2}), tmp_path / "second")
