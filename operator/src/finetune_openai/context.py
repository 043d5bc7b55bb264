"""What the handlers of requests share."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

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


async def required(request: web.Request, verb: Verb) -> Caller:
    """Who asks, if it may do this. Raises RefusedError (401, 403, 429), ApiError."""
    access = request.app[CONTEXT].access
    caller = await access.caller(request.headers, request.remote or "")
    await access.require(caller, verb)
    return caller
