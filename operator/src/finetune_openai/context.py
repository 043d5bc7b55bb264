"""What the handlers of requests share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from aiohttp import web

from finetune_http.listening import keep
from finetune_openai.auth.callers import Access, Caller, Verb
from finetune_openai.graders.process import GraderProcesses
from finetune_openai.platform import Platform
from finetune_operator.kube.client import Kube


@dataclass(frozen=True)
class Context:
    """The one namespace that is served."""

    namespace: str
    kube: Kube
    access: Access
    platform: Platform
    graders: GraderProcesses = field(default_factory=GraderProcesses)


CONTEXT: web.AppKey[Context] = web.AppKey("context")


BODY_SECONDS = 30.0
"""For a body that is no file: it has a megabyte at most."""


async def read(request: web.Request) -> bytes:
    """The whole body. Raises TimeoutError, which is answered by 408."""
    async with asyncio.timeout(BODY_SECONDS):
        return await request.read()


async def required(request: web.Request, verb: Verb) -> Caller:
    """Who asks, if it may do this. Raises RefusedError (401, 403, 429), ApiError."""
    access = request.app[CONTEXT].access
    caller = await access.caller(request.headers, request.remote or "")
    await access.require(caller, verb)
    keep(request)
    return caller
