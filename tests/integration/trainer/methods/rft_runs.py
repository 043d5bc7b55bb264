"""Prompts that ask for a digit eight times, and runs that learn to repeat it."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from finetune_api.finetunejob import RFT, Adapter, Dataset, Method, TrainingData, ValidationData
from finetune_api.pod_contracts.outcome import TrainReport
from finetune_trainer.methods.rft.rollouts import Rollouts
from tests.integration.trainer.runs import Workplace

FULL = Adapter(type="Full")
COMPLETION_TOKENS = 8


def prompt(number: int) -> dict[str, Any]:
    digit = str(number % 10)
    return {
        "messages": [{"role": "user", "content": f"Repeat {digit}"}],
        "answer": digit * COMPLETION_TOKENS,
        "id": number,
    }


def method(**changes: Any) -> Method:
    """Credit for each character that is right."""
    settings: dict[str, Any] = {
        "graders": [
            {
                "name": "close",
                "type": "TextSimilarity",
                "textSimilarity": {"reference": "{{item.answer}}", "metric": "FuzzyMatch"},
            },
            {"name": "exact", "type": "StringCheck", "stringCheck": {"reference": "{{item.answer}}"}},
        ],
        "reward": "0.9*close + 0.1*exact",
        "completionsPerPrompt": 4,
        "maxCompletionTokens": COMPLETION_TOKENS,
        "lossType": "DrGRPO",
    }
    return Method(type="RFT", rft=RFT.from_wire(settings | changes))


def digits(workplace: Workplace) -> Dataset:
    """Twenty prompts, and ten that are held out."""

    def put(name: str, numbers: range) -> str:
        return workplace.bucket.put_lines(f"data/{name}.jsonl", [prompt(number) for number in numbers])

    return Dataset(
        training=TrainingData(uri=put("prompts", range(20))),
        validation=ValidationData(uri=put("held-out-prompts", range(20, 30))),
    )


@contextmanager
def generating_in_halves(*, stopped_after: int | None = None) -> Iterator[None]:
    """Every generation has two parts; between those that follow the step `stopped_after`, a SIGTERM comes."""

    def halves(trainer: Any, prompt_ids: list[list[int]]) -> Iterator[list[list[int]]]:
        middle = len(prompt_ids) // 2
        yield prompt_ids[:middle]
        if trainer.model.training and trainer.state.global_step == stopped_after:
            os.kill(os.getpid(), signal.SIGTERM)
        yield prompt_ids[middle:]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rollouts, "_parts", halves)
        yield


def weights(workplace: Workplace, report: TrainReport) -> str:
    """The digest of the result's weights."""
    name = "adapter_model.safetensors" if report.result.adapter_type == "LoRA" else "model.safetensors"
    return hashlib.sha256(workplace.bucket.read(f"{report.result.uri}/{name}")).hexdigest()


def measured_rows(workplace: Workplace, output: str) -> list[dict[str, str]]:
    """The rows of results.csv with an evaluation."""
    return [row for row in workplace.results(output) if row["valid_reward_mean"]]


def validations(workplace: Workplace, output: str) -> list[float]:
    return [float(row["valid_reward_mean"]) for row in measured_rows(workplace, output)]
