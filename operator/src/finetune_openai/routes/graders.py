"""/v1/fine_tuning/alpha/graders: a grader is checked, or tried on one output, before a job or an evaluation uses it."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from finetune_openai.context import CONTEXT, read, required
from finetune_openai.errors import invalid, wrong_fields
from finetune_openai.graders.request import RunRequest, ValidateRequest
from finetune_openai.graders.run import InvalidRequestError, checked

Asked = TypeVar("Asked", bound=BaseModel)


async def run(request: web.Request) -> web.Response:
    """POST run."""
    caller = await required(request, "create")
    asked = await _read(request, RunRequest)
    return web.json_response(await request.app[CONTEXT].graders.run(asked, caller.user))


async def validate(request: web.Request) -> web.Response:
    """POST validate: the grader that was given."""
    await required(request, "create")
    asked = await _read(request, ValidateRequest)
    try:
        await asyncio.to_thread(checked, asked.grader)
    except InvalidRequestError as error:
        raise invalid(str(error), "grader", "invalid_grader") from error
    return web.json_response({"grader": asked.grader})


async def _read(request: web.Request, model: type[Asked]) -> Asked:
    try:
        return model.model_validate_json(await read(request))
    except ValidationError as error:
        raise wrong_fields(error) from error
