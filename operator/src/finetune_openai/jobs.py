"""/v1/fine_tuning/jobs: the jobs are FineTuneJobs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.sources import parse_s3
from finetune_openai.access import Caller
from finetune_openai.context import CONTEXT, required
from finetune_openai.errors import RefusedError, invalid, model_not_found, shown, wrong_fields
from finetune_openai.file_store import FILE_ID, RETRY_SECONDS, StoredFile
from finetune_openai.job_object import (
    CALLER_ANNOTATION,
    JOB_ID,
    OPENAI_LABEL,
    REQUEST_LABEL,
    RETRY_ANNOTATION,
    BaseModel,
    job_name,
    job_object,
    job_of_model,
    request_digest,
)
from finetune_openai.job_request import JobRequest
from finetune_openai.job_view import FINISHED, ViewedJob, checkpoint_bodies, event_bodies, job_body, viewed
from finetune_openai.pages import Page, list_body
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import FINE_TUNE_JOBS, Object

_EVENTS, _RESULTS = "events.jsonl", "results.csv"
_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)
_MOST_NAMES = 100


@dataclass(frozen=True)
class ResultsFile:
    """results.csv of a job: as the API shows it, and where it is."""

    body: Mapping[str, object]
    key: str


async def create(request: web.Request) -> web.Response:
    """POST. The repetition of a request whose answer was lost gives the job that the first one made."""
    caller = await required(request, "create")
    body = await request.read()
    try:
        asked = JobRequest.model_validate_json(body)
    except ValidationError as error:
        raise wrong_fields(error) from error
    files = await request.app[CONTEXT].platform.files()
    training = await _dataset(request, asked.training_file, "training_file")
    validation = None
    if asked.validation_file is not None:
        validation = files.uri((await _dataset(request, asked.validation_file, "validation_file")).id)
    base = await _base(request, asked.model)
    class_name = request.app[CONTEXT].platform.class_name
    job = job_object(asked, base, files.uri(training.id), validation, class_name)
    made = await _create_once(request, caller, job, body)
    return web.json_response(job_body(_readable(made)))


async def list_jobs(request: web.Request) -> web.Response:
    """GET: newest first; `metadata[key]=value` filters, `metadata=null` gives those without."""
    await required(request, "list")
    page = Page.of(request.query, default=20, most=100)
    wanted = {named[1]: value for name, value in request.query.items() if (named := _METADATA.fullmatch(name))}
    jobs = await _all(request)
    if request.query.get("metadata") == "null":
        jobs = [job for job in jobs if not job.request.metadata]
    jobs = [job for job in jobs if all((job.request.metadata or {}).get(key) == wanted[key] for key in wanted)]
    found, has_more = page.cut(jobs, lambda job: job.id)
    return web.json_response(list_body([job_body(job) for job in found], has_more))


async def get(request: web.Request) -> web.Response:
    """GET /{id}."""
    await required(request, "get")
    return web.json_response(job_body(await _job(request)))


async def events(request: web.Request) -> web.Response:
    """GET /{id}/events: what the status tells, and what the trainer logged until its last checkpoint."""
    await required(request, "get")
    job = await _job(request)
    page = Page.of(request.query, default=20, most=1000)
    found, has_more = page.cut(event_bodies(job, await _written(request, job, _EVENTS)), _id)
    return web.json_response(list_body(found, has_more))


async def checkpoints(request: web.Request) -> web.Response:
    """GET /{id}/checkpoints: those that are kept."""
    await required(request, "get")
    page = Page.of(request.query, default=10, most=100)
    found, has_more = page.cut(checkpoint_bodies(await _job(request)), _id)
    return web.json_response(list_body(found, has_more))


async def cancel(request: web.Request) -> web.Response:
    """POST /{id}/cancel: spec.cancel."""
    return await _change(request, "cancel", {"cancel": True})


async def pause(request: web.Request) -> web.Response:
    """POST /{id}/pause: spec.suspend."""
    return await _change(request, "pause", {"suspend": True})


async def resume(request: web.Request) -> web.Response:
    """POST /{id}/resume: spec.suspend false; the job goes on from its newest checkpoint."""
    return await _change(request, "resume", {"suspend": False})


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


async def find_job(request: web.Request, job_id: str) -> ViewedJob | None:
    """The job of this id that the API made; None when there is none."""
    if not JOB_ID.fullmatch(job_id):
        return None
    context = request.app[CONTEXT]
    found = await context.kube.get(FINE_TUNE_JOBS, context.namespace, job_id)
    return viewed(found) if found is not None and _is_ours(found) else None


async def all_succeeded(request: web.Request) -> list[ViewedJob]:
    """The jobs that have a tuned model, newest first."""
    return [job for job in await _all(request) if job.state == "succeeded"]


async def _job(request: web.Request) -> ViewedJob:
    job_id = request.match_info["job"]
    found = await find_job(request, job_id)
    if found is None:
        message = f"Could not find fine tune: {shown(job_id)}"
        raise RefusedError(404, message, param="fine_tune_id", code="fine_tune_not_found")
    return found


async def _all(request: web.Request) -> list[ViewedJob]:
    """Newest first; of those made in one second, always in the same order."""
    context = request.app[CONTEXT]
    found = await context.kube.list(FINE_TUNE_JOBS, context.namespace, {OPENAI_LABEL: "true"})
    jobs = [job for item in found if (job := viewed(item)) is not None]
    return sorted(jobs, key=lambda job: (-job.created, job.id))


async def _dataset(request: web.Request, file_id: str, param: str) -> StoredFile:
    """A file to train on. Raises RefusedError."""
    files = await request.app[CONTEXT].platform.files()
    found = await files.find(file_id)
    if found is not None:
        return found
    if await results_of(request, file_id) is not None:
        raise invalid(
            f"File '{file_id}' has the purpose 'fine-tune-results'; '{param}' needs 'fine-tune'.",
            param,
            "invalid_file_purpose",
        )
    raise invalid(f"invalid {param}: {shown(file_id)}", param, "file_not_found")


async def _base(request: web.Request, name: str) -> BaseModel:
    """What to start from: a model of the catalogue, or a tuned one. Raises RefusedError."""
    platform = request.app[CONTEXT].platform
    found = await platform.model(name)
    if found is not None:
        return BaseModel(found.name, uri=found.uri)
    tuned = job_of_model(name)
    if tuned is not None:
        job_id, is_checkpoint = tuned
        job = await find_job(request, job_id)
        if is_checkpoint and job is not None:
            raise invalid("A checkpoint can't be tuned further here: start from the job's final model.", "model")
        if job is not None and job.model == name:
            return BaseModel(job.base, job=job.id)
    raise model_not_found(name, [model.name for model in await platform.models()])


async def _create_once(request: web.Request, caller: Caller, job: Object, body: bytes) -> Object:
    """Create the job; of a repeated request, find the one that is there.

    A job's name follows from its request and how many jobs the same request has made, so that a first request that is
    still on its way and its repetition meet at the same name.
    """
    context = request.app[CONTEXT]
    key = request.headers.get("Idempotency-Key")
    is_retry = request.headers.get("x-stainless-retry-count", "0") != "0"
    digest = request_digest(caller.user, body, key)
    job["metadata"]["namespace"] = context.namespace
    job["metadata"]["labels"][REQUEST_LABEL] = digest
    job["metadata"]["annotations"] |= {CALLER_ANNOTATION: caller.user, RETRY_ANNOTATION: str(is_retry).lower()}
    same = await context.kube.list(FINE_TUNE_JOBS, context.namespace, {REQUEST_LABEL: digest})
    if is_retry or key is not None:
        recent = [one for one in same if _age(one) < RETRY_SECONDS]
        if recent:
            return max(recent, key=lambda one: str(one["metadata"]["creationTimestamp"]))
    for number in range(len(same), len(same) + _MOST_NAMES):
        job["metadata"]["name"] = job_name(digest, number)
        try:
            return await context.kube.create(FINE_TUNE_JOBS, context.namespace, job)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                there = await context.kube.get(FINE_TUNE_JOBS, context.namespace, job["metadata"]["name"])
                if there is not None and (is_retry or key is not None or _was_retried(there)) and _is_ours(there):
                    return there
                continue
            if error.status in (400, 422):
                raise invalid(f"The job was refused: {shown(error.message)}") from error
            raise
    raise RefusedError(409, "Too many jobs of the same request.", code="conflict")


async def _change(request: web.Request, what: str, spec: Mapping[str, Any]) -> web.Response:
    await required(request, "update")
    job = await _job(request)
    if job.state in FINISHED:
        raise invalid(f"Cannot {what} a job with status '{job.state}'.", "fine_tune_id", "invalid_job_status")
    context = request.app[CONTEXT]
    changed = {
        "apiVersion": FINE_TUNE_JOBS.api_version,
        "kind": FINE_TUNE_JOBS.kind,
        "metadata": {"namespace": context.namespace, "name": job.id},
        "spec": dict(spec),
    }
    await context.kube.merge_existing(changed)
    return web.json_response(job_body(await _job(request)))


async def _written(request: web.Request, job: ViewedJob, name: str) -> bytes | None:
    """A file that the trainer wrote into the run's folder; None while there is none."""
    key = _run_key(job.status, name)
    return None if key is None else await (await request.app[CONTEXT].platform.storage()).read(key)


def _run_key(status: FineTuneJobStatus, name: str) -> str | None:
    try:
        return None if status.storage_uri is None else parse_s3(status.storage_uri).join(name).key
    except ValueError:
        return None


def _readable(job: Object) -> ViewedJob:
    found = viewed(job)
    if found is None:
        raise RefusedError(500, "The job can't be shown.", kind="server_error")
    return found


def _is_ours(job: Object) -> bool:
    return bool(job["metadata"].get("labels", {}).get(OPENAI_LABEL) == "true")


def _was_retried(job: Object) -> bool:
    """Whether a repetition overtook the request that it repeats."""
    return job["metadata"].get("annotations", {}).get(RETRY_ANNOTATION) == "true" and _age(job) < RETRY_SECONDS


def _age(job: Object) -> float:
    return time.time() - datetime.fromisoformat(job["metadata"]["creationTimestamp"]).timestamp()


def _id(item: Mapping[str, Any]) -> str:
    return str(item["id"])
