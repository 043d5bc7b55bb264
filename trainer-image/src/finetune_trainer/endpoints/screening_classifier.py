"""The model of the class that screening asks: of a job's dataset, and of a Dataset."""

from __future__ import annotations

from finetune_api.evaluation import Budget
from finetune_api.run import DatasetRun, PreflightRun
from finetune_api.sources import parse_s3
from finetune_trainer.endpoints.answer_cache import Answers
from finetune_trainer.endpoints.endpoint import Endpoint
from finetune_trainer.endpoints.limits import Ledger, ledger_of
from finetune_trainer.storage.storage import Storage


def classifier_of(run: PreflightRun | DatasetRun, storage: Storage) -> Endpoint | None:
    """None where rules alone screen. Sends nothing."""
    if run.classifier is None or run.answers_uri is None:
        return None
    folder, job = parse_s3(run.answers_uri), run.job
    budget = (run.dataset.screening and run.dataset.screening.budget) or Budget()
    ledger = Ledger(budget, storage, ledger_of(folder, job.uid, job.run_id), "dataset.screening.budget")
    return Endpoint(run.classifier, job.namespace, Answers(storage, folder), ledger)
