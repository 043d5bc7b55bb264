"""The server of a ModelDeployment: the OpenAI routes of `transformers serve`, locked to one model.

`transformers serve` (5.20.1) itself can't be locked: pinned to a model it still loads any other by POST /load_model,
unloads its own by POST /reset, lets a request replace the chat template, generates past the context, and fails
/v1/models where it has no cache folder. So this takes its request handlers, which speak the OpenAI protocol, and gives
them routes, a model and limits. Nothing here can load a second model or reach a hub.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from jinja2 import TemplateError
from starlette.exceptions import HTTPException as AnyHTTPException
from transformers import GenerationConfig
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.utils import GenerateManager, GenerationState

from finetune_api.run import SERVING_PORT
from finetune_trainer.evaluation.generation import Generator, load_generator
from finetune_trainer.models.models import LocalModel
from finetune_trainer.process.narration import narrated
from finetune_trainer.serving.openai_requests import ChatRequest, CompletionRequest, TextRequest

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 (a Pod is reached from outside itself)
SHUTDOWN_SECONDS = 20

_log = structlog.get_logger()


def serve(folder: Path, *, port: int = SERVING_PORT, host: str = ALL_INTERFACES) -> None:
    """Serve the model in a folder under the folder's name, until SIGTERM.

    The port opens, and GET /health answers, once it is loaded. Raises DiagnosedError (ModelInvalid).
    """
    name = folder.name
    with narrated(f"loading {name}"):
        generator = load_generator(LocalModel(folder))
    _log.info("serving", model=name, host=host, port=port)
    uvicorn.run(
        build_app(name, generator),
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def build_app(name: str, generator: Generator) -> FastAPI:
    """The routes: chat completions, completions, the list of models, health. Nothing else."""
    manager, state = _OneModel(name, generator), _BoundedState(generator.context_length)
    chat = ChatCompletionHandler(manager, state)
    completion = CompletionHandler(manager, state)
    created = int(time.time())
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    async def answer(handler: Any, request: TextRequest) -> Response:
        if request.model != name:
            message = f"The model {request.model!r} does not exist; this server has {name!r}."
            raise HTTPException(404, _error(message, "model_not_found"))
        response: Response = await handler.handle_request(request.to_handler(), str(uuid.uuid4()))
        if isinstance(response, StreamingResponse):
            response.body_iterator = _until_done(response.body_iterator)
        return response

    @app.post("/v1/chat/completions")
    async def chat_completions(request: ChatRequest) -> Response:
        return await answer(chat, request)

    @app.post("/v1/completions")
    async def completions(request: CompletionRequest) -> Response:
        return await answer(completion, request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        model = {"id": name, "object": "model", "created": created, "owned_by": "finetune-operator"}
        return {"object": "list", "data": [model]}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.exception_handler(AnyHTTPException)
    async def on_refusal(_: Request, refusal: AnyHTTPException) -> JSONResponse:
        detail = refusal.detail if isinstance(refusal.detail, dict) else _error(str(refusal.detail))
        return JSONResponse(detail, refusal.status_code)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, invalid: RequestValidationError) -> JSONResponse:
        first = invalid.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return JSONResponse(_error(f"{where}: {first['msg']}", "invalid_value"), 400)

    @app.exception_handler(TemplateError)
    async def on_template(_: Request, error: TemplateError) -> JSONResponse:
        return JSONResponse(_error(f"The model's chat template refuses these messages: {error}"), 400)

    return app


class _OneModel(ModelManager):
    """Has one model from the start, and loads nothing, whatever is asked for."""

    def __init__(self, name: str, generator: Generator) -> None:
        super().__init__()
        self.force_model = name
        self._generator = generator

    @staticmethod
    def process_model_name(model_id: str) -> str:
        """The name as it stands in answers: without the revision that the original adds."""
        return model_id

    def load_model_and_processor(self, *_: Any, **__: Any) -> tuple[Any, Any]:
        return self._generator.model, self._generator.processor


class _BoundedState(GenerationState):
    """Hands out the one manager that generates, bounded by the context."""

    def __init__(self, context_length: int) -> None:
        super().__init__()
        self._manager = _BoundedManager(context_length)

    def get_manager(self, model_id: str, use_cb: bool = False) -> GenerateManager:
        return self._manager


class _BoundedManager(GenerateManager):
    """Generates one request after another, none past the model's context."""

    def __init__(self, context_length: int) -> None:
        super().__init__()
        self._context_length = context_length

    def generate_streaming(
        self,
        model: Any,
        processor: Any,
        inputs: Any,
        gen_config: GenerationConfig,
        request_id: str,
        response_parser: Any = None,
    ) -> Any:
        bounded = bound(gen_config, inputs["input_ids"].shape[-1], self._context_length)
        return super().generate_streaming(model, processor, inputs, bounded, request_id, response_parser)

    async def generate_non_streaming(
        self, model: Any, processor: Any, inputs: Any, gen_config: GenerationConfig, request_id: str
    ) -> Any:
        bounded = bound(gen_config, inputs["input_ids"].shape[-1], self._context_length)
        return await super().generate_non_streaming(model, processor, inputs, bounded, request_id)


def bound(config: GenerationConfig, prompt_tokens: int, context_length: int) -> GenerationConfig:
    """The config, with no more new tokens than the context has room for, and sampling where a temperature asks for it.

    Raises HTTPException (400, context_length_exceeded) when there is no room for one.
    """
    room = context_length - prompt_tokens
    if room < 1:
        message = f"The model's context has {context_length} tokens; the messages have {prompt_tokens}."
        raise HTTPException(400, _error(message, "context_length_exceeded"))
    config.max_new_tokens = min(config.max_new_tokens, room)
    if config.temperature is not None:
        config.do_sample = config.temperature > 0
    return config


async def _until_done(events: Any) -> AsyncIterator[Any]:
    """The stream's events, and the `[DONE]` that OpenAI's protocol ends with."""
    async with aclosing(events) as stream:  # closing it is what ends the generation for a client that left
        async for event in stream:
            yield event
    yield "data: [DONE]\n\n"


def _error(message: str, code: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
