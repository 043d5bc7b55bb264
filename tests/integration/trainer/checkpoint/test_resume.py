"""A run that was stopped and resumed takes the same steps, to the last bit, as one that nobody disturbed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.finetunejob import Adapter, LoRA, Method, TrainingData
from finetune_api.sources import parse_s3
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.process.failures import DisruptedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.runs import Workplace, preference, stopped_after_first_checkpoint, train_here


def losses(workplace: Workplace, output: str) -> list[tuple[str, str]]:
    return [(row["step"], row["train_loss"]) for row in workplace.results(output)]


LORA, FULL = Adapter(lora=LoRA(rank=4, dropout=0.1)), Adapter(type="Full")
SFT, DPO = Method(), Method(type="DPO")


@pytest.mark.parametrize(
    ("method", "adapter"), [(SFT, LORA), (SFT, FULL), (DPO, LORA), (DPO, FULL)], ids=lambda value: value.type
)
def test_an_interrupted_run_has_the_losses_of_an_undisturbed_one(
    workplace: Workplace, storage: Storage, tmp_path: Path, method: Method, adapter: Adapter
) -> None:
    training = workplace.training
    if method.type == "DPO":
        training = workplace.bucket.put_lines("data/pairs.jsonl", [preference(number) for number in range(40)])
    dataset = workplace.dataset(training=TrainingData(uri=training), validation=None)
    settings: dict[str, Any] = {"method": method, "adapter": adapter, "dataset": dataset}
    name = f"{method.type}-{adapter.type}"
    hyperparameters = {"epochs": 2.0, "checkpoint_every_steps": 7, "learning_rate": 1e-3, "beta": 0.1}
    smooth = train_here(workplace.train_run(f"smooth/{name}", hyperparameters, **settings), tmp_path / "smooth")
    first = workplace.train_run(f"stopped/{name}", hyperparameters, **settings)
    with stopped_after_first_checkpoint(), pytest.raises(DisruptedError):
        train_here(first, tmp_path / "first")
    stopped_at = checkpoints.list_committed(storage, parse_s3(first.output_uri))[-1].manifest.step
    assert 7 <= stopped_at < 20

    resumed = train_here(first.model_copy(update={"attempt": 2}), tmp_path / "second")
    assert resumed.result.step == smooth.result.step == 20
    assert losses(workplace, f"stopped/{name}") == losses(workplace, f"smooth/{name}")
    assert resumed.result.trained_tokens == smooth.result.trained_tokens
    events = workplace.bucket.read(workplace.bucket.uri(f"stopped/{name}/events.jsonl")).splitlines()
    story = [(event["attempt"], event["message"]) for event in map(json.loads, events)]
    assert (1, "Fine-tuning job started") in story
    assert (2, f"Resumed from the checkpoint of step {stopped_at}") in story
