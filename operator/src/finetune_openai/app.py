"""The web application: paths of OpenAI's API and of Azure's, and errors in OpenAI's envelope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import ClientPayloadError, web
from aiohttp.web_exceptions import HTTPException

from finetune_openai.context import CONTEXT, Context
from finetune_openai.errors import RefusedError, shown, unavailable
from finetune_openai.routes import files, fine_tuning_jobs, graders, models, uploads
from finetune_operator.kube.errors import ApiError

LARGEST_JSON_BYTES = 2**20
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PREFIXES = ("/v1", "/openai", "/openai/v1", "/api/projects/{project}/openai/v1")
"""What OpenAI's client puts before the paths, and Azure's, which are the same from there on."""
_log = structlog.get_logger(__name__)


def application(context: Context) -> web.Application:
    """The API of one namespace."""
    app = web.Application(client_max_size=LARGEST_JSON_BYTES, middlewares=[_in_the_envelope])
    app[CONTEXT] = context
    app.router.add_get("/healthz", _healthy)
    for prefix in PREFIXES:
        _add_routes(app, prefix)
    return app


def _add_routes(app: web.Application, prefix: str) -> None:
    router = app.router
    router.add_post(f"{prefix}/files", files.create)
    router.add_get(f"{prefix}/files", files.list_files)
    router.add_get(f"{prefix}/files/{{file}}", files.get)
    router.add_get(f"{prefix}/files/{{file}}/content", files.content)
    router.add_delete(f"{prefix}/files/{{file}}", files.delete)
    uploads_path = f"{prefix}/uploads"
    router.add_post(uploads_path, uploads.create)
    router.add_post(f"{uploads_path}/{{upload}}/parts", uploads.add_part)
    router.add_post(f"{uploads_path}/{{upload}}/complete", uploads.complete)
    router.add_post(f"{uploads_path}/{{upload}}/cancel", uploads.cancel)
    jobs_path = f"{prefix}/fine_tuning/jobs"
    router.add_post(jobs_path, fine_tuning_jobs.create)
    router.add_get(jobs_path, fine_tuning_jobs.list_jobs)
    router.add_get(f"{jobs_path}/{{job}}", fine_tuning_jobs.get)
    router.add_get(f"{jobs_path}/{{job}}/events", fine_tuning_jobs.events)
    router.add_get(f"{jobs_path}/{{job}}/checkpoints", fine_tuning_jobs.checkpoints)
    router.add_post(f"{jobs_path}/{{job}}/cancel", fine_tuning_jobs.cancel)
    router.add_post(f"{jobs_path}/{{job}}/pause", fine_tuning_jobs.pause)
    router.add_post(f"{jobs_path}/{{job}}/resume", fine_tuning_jobs.resume)
    router.add_post(f"{prefix}/fine_tuning/alpha/graders/run", graders.run)
    router.add_post(f"{prefix}/fine_tuning/alpha/graders/validate", graders.validate)
    router.add_get(f"{prefix}/models", models.list_models)
    router.add_get(f"{prefix}/models/{{model:.+}}", models.get)


@web.middleware
async def _in_the_envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in OpenAI's form; internal ones reveal nothing."""
    try:
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise RefusedError(415, "The body is compressed. Send it as it is, without Content-Encoding.")
        return await handler(request)
    except RefusedError as error:
        refused = error
    except ApiError as error:
        _log.warning("the API server refuses or fails", status=error.status, error=error.message)
        refused = unavailable("The cluster's API server does not answer as it should now. Try again later.")
    except HTTPException as error:
        refused = RefusedError(error.status, _of_http(request, error))
    except TimeoutError:
        refused = RefusedError(408, "The request did not arrive in time.")
    except (ConnectionError, ClientPayloadError):
        refused = RefusedError(400, "The connection was lost in the middle of the request.")
    except Exception:
        _log.exception("a request failed", method=request.method, path=request.path)
        refused = RefusedError(500, "The server had an error while processing your request.", kind="server_error")
    answer = web.json_response(refused.envelope(), status=refused.status)
    if not request.content.is_eof():
        answer.force_close()  # The rest of a refused upload is not read.
    return answer


async def _healthy(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def _of_http(request: web.Request, error: HTTPException) -> str:
    if error.status == 404:
        return f"Invalid URL ({request.method} {shown(request.path)})"
    return error.reason
