"""/v1/models: the models that can be tuned, and those that were."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from finetune_openai.context import CONTEXT, required
from finetune_openai.errors import RefusedError, shown
from finetune_openai.jobs.finetunejob import job_of_model
from finetune_openai.pagination import list_body
from finetune_openai.routes.job_lookup import all_succeeded, find_job


async def list_models(request: web.Request) -> web.Response:
    """GET: the class's catalogue, and the tuned models of the namespace."""
    await required(request, "list")
    context = request.app[CONTEXT]
    names = [name for model in await context.platform.models() for name in (model.name, *model.aliases)]
    found = [_body(name, 0, "finetune-operator") for name in dict.fromkeys(names)]
    found += [_body(str(job.model), job.created, context.namespace) for job in await all_succeeded(request)]
    return web.json_response(list_body(found, has_more=False))


async def get(request: web.Request) -> web.Response:
    """GET /{id}."""
    await required(request, "get")
    context, name = request.app[CONTEXT], request.match_info["model"]
    if await context.platform.model(name) is not None:
        return web.json_response(_body(name, 0, "finetune-operator"))
    tuned = job_of_model(name)
    job = None if tuned is None else await find_job(request, tuned[0])
    if job is None or job.model != name:
        raise RefusedError(404, f"The model '{shown(name)}' does not exist", param="model", code="model_not_found")
    return web.json_response(_body(name, job.created, context.namespace))


def _body(name: str, created: int, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": owner}
