"""Finds the jobs that the API made, and what their runs left in the storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.sources import parse_s3
from finetune_openai.context import CONTEXT
from finetune_openai.jobs.finetunejob import JOB_ID, OPENAI_LABEL
from finetune_openai.jobs.response import ViewedJob, job_body, newest_first, viewed
from finetune_openai.storage.file_store import FILE_ID
from finetune_operator.kube.resources import FINE_TUNE_JOBS, Object

_RESULTS = "results.csv"


@dataclass(frozen=True)
class ResultsFile:
    """results.csv of a job: as the API shows it, and where it is."""

    body: Mapping[str, object]
    key: str


async def find_job(request: web.Request, job_id: str) -> ViewedJob | None:
    """The job of this id that the API made; None when there is none."""
    if not JOB_ID.fullmatch(job_id):
        return None
    context = request.app[CONTEXT]
    found = await context.kube.get(FINE_TUNE_JOBS, context.namespace, job_id)
    return viewed(found) if found is not None and is_ours(found) else None


async def all_succeeded(request: web.Request) -> list[ViewedJob]:
    """The jobs that have a tuned model, newest first."""
    return [job for job in await all_jobs(request) if job.state == "succeeded"]


async def all_jobs(request: web.Request) -> list[ViewedJob]:
    """The jobs that the API made, newest first."""
    context = request.app[CONTEXT]
    found = await context.kube.list(FINE_TUNE_JOBS, context.namespace, {OPENAI_LABEL: "true"})
    return newest_first(job for item in found if (job := viewed(item)) is not None)


async def results_of(request: web.Request, file_id: str) -> ResultsFile | None:
    """The results file of this id; None when there is none."""
    if not FILE_ID.fullmatch(file_id):
        return None
    job = await find_job(request, f"ftjob-{file_id.removeprefix('file-')}")
    if job is None or job.state != "succeeded":
        return None
    key = _run_key(job.status, _RESULTS)
    content = None if key is None else await (await request.app[CONTEXT].platform.storage()).read(key)
    if key is None or content is None:
        return None
    finished = job_body(job)["finished_at"]
    body = {
        "object": "file",
        "id": file_id,
        "bytes": len(content),
        "created_at": finished,
        "filename": "step_metrics.csv",
        "purpose": "fine-tune-results",
        "status": "processed",
        "status_details": None,
        "expires_at": None,
    }
    return ResultsFile(body, key)


async def run_file(request: web.Request, job: ViewedJob, name: str) -> bytes | None:
    """A file that the trainer wrote into the run's folder; None while there is none."""
    key = _run_key(job.status, name)
    return None if key is None else await (await request.app[CONTEXT].platform.storage()).read(key)


def _run_key(status: FineTuneJobStatus, name: str) -> str | None:
    try:
        return None if status.storage_uri is None else parse_s3(status.storage_uri).join(name).key
    except ValueError:
        return None


def is_ours(job: Object) -> bool:
    return bool(job["metadata"].get("labels", {}).get(OPENAI_LABEL) == "true")
