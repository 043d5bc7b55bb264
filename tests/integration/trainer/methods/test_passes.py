"""What the passes of a training cost beside the model's own work."""

from __future__ import annotations

import traceback
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from finetune_api.finetunejob import SFT, Adapter, Dataset, LoRA, Method, TrainingData, ValidationData
from finetune_trainer.distributed import batches
from finetune_trainer.methods.dpo_trainer import ResumableDPOTrainer
from finetune_trainer.methods.sft_trainer import ResumableSFTTrainer
from tests.integration.trainer.runs import Workplace, preference, train_here

ADAPTER = Adapter(lora=LoRA(rank=4, alpha=8, dropout=0.0))
READ_BACK = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
"""The CPU goes on once the accelerator has computed their value, or the size of it."""
OF_TRAINERS = ("/finetune_trainer/", "/trl/", "/transformers/trainer")


class Synchronizations(TorchDispatchMode):
    """Notes which lines of Trainers read a value back. Those of models are their own: masks look for padding."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in READ_BACK:
            frames = [frame for frame in traceback.extract_stack()[:-1] if "/torch/" not in frame.filename]
            if any(part in frames[-1].filename for part in OF_TRAINERS):
                self.lines.append(f"{frames[-1].filename}: {frames[-1].line}")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (Method(sft=SFT(prompt_loss_weight=0.25)), {}),
        (Method(sft=SFT(prompt_loss_weight=0.25)), {"packing": True}),
        (Method(type="DPO"), {"beta": 0.1, "max_length": 64}),
    ],
    ids=["padded", "packed", "pairs"],
)
def test_a_step_reads_one_value_back_however_many_passes_it_has(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method, changes: dict[str, Any]
) -> None:
    watched = Synchronizations()
    passes: list[str] = []
    trainer: Any = ResumableDPOTrainer if method.type == "DPO" else ResumableSFTTrainer

    def watch(name: str) -> None:
        original = getattr(trainer, name)

        @wraps(original)
        def called(*arguments: Any, **settings: Any) -> Any:
            passes.append(name)
            with watched:
                return original(*arguments, **settings)

        monkeypatch.setattr(trainer, name, called)

    monkeypatch.setattr(batches, "MOST_TOKENS", 128)
    for name in ("training_step", "_track_num_input_tokens", "prediction_step"):
        watch(name)
    settings = {"epochs": 0.5, "batch_size": 4, "max_length": 128} | changes
    dataset = workplace.dataset()
    if method.type == "DPO":
        pairs = workplace.bucket.put_lines("passes/pairs.jsonl", [preference(number) for number in range(20)])
        dataset = Dataset(training=TrainingData(uri=pairs), validation=ValidationData(uri=pairs))
    run = workplace.train_run(f"passes/{len(str(changes))}", settings, adapter=ADAPTER, method=method, dataset=dataset)
    train_here(run, tmp_path / "passes")
    steps = len(workplace.results(f"passes/{len(str(changes))}"))
    assert len(watched.lines) == steps, watched.lines
    assert passes.count("training_step") > 2 * steps
    assert "prediction_step" in passes


def test_validation_examples_share_rows_where_training_packs_and_keep_their_loss(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    predict = ResumableSFTTrainer.prediction_step

    def noted(trainer: Any, model: Any, inputs: Any, *arguments: Any, **settings: Any) -> Any:
        shapes.append(tuple(inputs["input_ids"].shape))
        return predict(trainer, model, inputs, *arguments, **settings)

    monkeypatch.setattr(ResumableSFTTrainer, "prediction_step", noted)
    monkeypatch.setattr(batches, "MOST_TOKENS", 128)

    def validated(packing: bool) -> tuple[float, float]:
        shapes.clear()
        settings = {"epochs": 0.3, "max_length": 128, "learning_rate": 1e-9, "packing": packing}
        run = workplace.train_run(f"validated/{packing}", settings, adapter=ADAPTER)
        train_here(run, tmp_path / f"validated-{packing}")
        (row,) = [row for row in workplace.results(f"validated/{packing}") if row["valid_loss"]]
        return float(row["valid_loss"]), float(row["valid_mean_token_accuracy"])

    apart = validated(packing=False)
    passes = len(shapes)
    assert validated(packing=True) == pytest.approx(apart, rel=1e-5)
    assert 2 * len(shapes) < passes
    assert max(length for _, length in shapes) <= 128
