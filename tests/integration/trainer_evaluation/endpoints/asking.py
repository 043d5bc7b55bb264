"""Tries of runs that ask one model of the class."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from finetune_api.graders import Grader, GraderErrorCode
from finetune_api.model_usage import Budget
from finetune_api.pod_contracts.run import EndpointConfig
from finetune_api.sources import StorageLocation
from finetune_grading.grade import Grade
from finetune_grading.grade_rows import grade_rows
from finetune_grading.judge import StopGradingError
from finetune_grading.registered_graders import compile_graders
from finetune_grading.sample import Row, Sample
from finetune_trainer.endpoints.answer_cache import Answers
from finetune_trainer.endpoints.asked_model import AskedModel
from finetune_trainer.endpoints.endpoint import Endpoint
from finetune_trainer.endpoints.limits import Ledger, ledger_of
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.stub_api import StubApi

T = TypeVar("T")
KEY = "sk-very-secret"
TONE = Grader.from_wire(
    {
        "name": "tone",
        "type": "ScoreModel",
        "scoreModel": {"model": "judge", "range": [0, 5], "input": [{"content": "Rate {{sample.output_text}}"}]},
    }
)


class Asking:
    """A try of a run that asks one model; `folder` is that of its namespace's answers."""

    def __init__(self, bucket: Bucket, api: StubApi, tmp_path: Path, folder: str, run: str = "u/1", **config: Any):
        (tmp_path / "judge").mkdir(exist_ok=True)
        (tmp_path / "judge" / "API_KEY").write_text(f"{KEY}\n")
        budget = Budget.from_wire(config.pop("budget", {}))
        settings = {
            "name": "judge",
            "url": api.url,
            "model": "large",
            "secretName": "openai",
            "concurrency": 4,
            **config,
        }
        storage, location = Storage(bucket.storage), StorageLocation(bucket.name, folder)
        self.endpoint = Endpoint(
            EndpointConfig.from_wire(settings),
            "team-a",
            Answers(storage, location),
            Ledger(budget, storage, ledger_of(location, "u", run.partition("/")[2])),
            keys=tmp_path,
            sleep=lambda seconds: asyncio.sleep(min(seconds, 0.3)),
        )
        self.model = AskedModel(self.endpoint)

    def grade(self, *texts: str) -> list[Grade]:
        graders = compile_graders([TONE], {"judge": self.model})
        rows = [Row({}, Sample(text)) for text in texts]
        return self.run(lambda: grade_rows(graders, rows))["tone"]

    def run(self, ask: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            async with self.endpoint.connected():
                return await ask()

        return asyncio.run(run())

    def stopped(self, *texts: str) -> DiagnosedError:
        with pytest.raises(StopGradingError) as stop:
            self.grade(*texts)
        assert isinstance(stop.value.__cause__, DiagnosedError)
        return stop.value.__cause__


def errors(found: Sequence[Grade]) -> set[GraderErrorCode | None]:
    return {None if grade.error is None else grade.error.code for grade in found}
