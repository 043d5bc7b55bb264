"""The model of the class that screening asks: of a job's dataset, and of a Dataset."""

from __future__ import annotations

from finetune_api.model_usage import Budget
from finetune_api.pod_contracts.run import DatasetRun, PreflightRun
from finetune_api.safety.screening import Screening
from finetune_api.sources import parse_s3
from finetune_trainer.endpoints.answer_cache import Answers
from finetune_trainer.endpoints.endpoint import Endpoint
from finetune_trainer.endpoints.limits import Ledger, ledger_of
from finetune_trainer.storage.storage import Storage


def classifier_of(
    run: PreflightRun | DatasetRun, screening: Screening, storage: Storage, field: str = "dataset.screening"
) -> Endpoint | None:
    """None where rules alone screen. Sends nothing. `field`: the one of `screening`, for messages."""
    if run.classifier is None or run.answers_uri is None:
        return None
    folder, job = parse_s3(run.answers_uri), run.job
    budget = screening.budget or Budget()
    ledger = Ledger(budget, storage, ledger_of(folder, job.uid, job.run_id), f"{field}.budget")
    return Endpoint(run.classifier, job.namespace, Answers(storage, folder), ledger)
