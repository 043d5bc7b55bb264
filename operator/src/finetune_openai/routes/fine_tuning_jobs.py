"""/v1/fine_tuning/jobs: the jobs are FineTuneJobs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from finetune_openai.auth.callers import Caller
from finetune_openai.context import CONTEXT, read, required
from finetune_openai.errors import RefusedError, invalid, model_not_found, shown, wrong_fields
from finetune_openai.jobs.finetunejob import (
    CALLER_ANNOTATION,
    CREATED_ANNOTATION,
    REQUEST_LABEL,
    RETRY_ANNOTATION,
    BaseModel,
    job_name,
    job_object,
    job_of_model,
    request_digest,
)
from finetune_openai.jobs.request import JobRequest
from finetune_openai.jobs.response import FINISHED, ViewedJob, checkpoint_bodies, event_bodies, job_body, viewed
from finetune_openai.pagination import Page, list_body
from finetune_openai.routes.job_lookup import all_jobs, find_job, is_ours, results_of, run_file
from finetune_openai.storage.file_store import RETRY_SECONDS, StoredFile
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import FINE_TUNE_JOBS, Object

_EVENTS = "events.jsonl"
_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)
_MOST_NAMES = 100


async def create(request: web.Request) -> web.Response:
    """POST. The repetition of a request whose answer was lost gives the job that the first one made."""
    caller = await required(request, "create")
    body = await read(request)
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
    jobs = await all_jobs(request)
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
    found, has_more = page.cut(event_bodies(job, await run_file(request, job, _EVENTS)), _id)
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


async def _job(request: web.Request) -> ViewedJob:
    job_id = request.match_info["job"]
    found = await find_job(request, job_id)
    if found is None:
        message = f"Could not find fine tune: {shown(job_id)}"
        raise RefusedError(404, message, param="fine_tune_id", code="fine_tune_not_found")
    return found


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
    raise model_not_found(name, [one for model in await platform.models() for one in (model.name, *model.aliases)])


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
    job["metadata"]["annotations"] |= {
        CALLER_ANNOTATION: caller.user,
        RETRY_ANNOTATION: str(is_retry).lower(),
        CREATED_ANNOTATION: str(time.time_ns()),
    }
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
                if there is not None and (is_retry or key is not None or _was_retried(there)) and is_ours(there):
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


def _readable(job: Object) -> ViewedJob:
    found = viewed(job)
    if found is None:
        raise RefusedError(500, "The job can't be shown.", kind="server_error")
    return found


def _was_retried(job: Object) -> bool:
    """Whether a repetition overtook the request that it repeats."""
    return job["metadata"].get("annotations", {}).get(RETRY_ANNOTATION) == "true" and _age(job) < RETRY_SECONDS


def _age(job: Object) -> float:
    return time.time() - datetime.fromisoformat(job["metadata"]["creationTimestamp"]).timestamp()


def _id(item: Mapping[str, Any]) -> str:
    return str(item["id"])
