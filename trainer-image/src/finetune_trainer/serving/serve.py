"""The server of a ModelDeployment: OpenAI's routes for one model. It can't load a second model or reach a hub.

The path of a request: its body is read within limits (bodies.py), validated (openai_requests.py), rendered to a prompt
in a process of its own (prompts.py), processed by the engine, one request after another (engine.py), and returned as
OpenAI's objects (responses.py). No step blocks the event loop, so that /health reports the state of the engine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from transformers.cli.serving.utils import get_response_template

from finetune_api.run import SERVING_PORT
from finetune_trainer.generate.generation import Generator, load_generator
from finetune_trainer.generate.tool_calls import response_template
from finetune_trainer.model.loading import LocalModel
from finetune_trainer.process.environment import end_well_on_sigterm
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.serving.bodies import BodyError, discard, longest_body, read_json
from finetune_trainer.serving.engine import MOST_WAITING, Engine, EngineBusyError, GenerationError, Order
from finetune_trainer.serving.openai_requests import ChatRequest, CompletionRequest, TextRequest
from finetune_trainer.serving.prompts import Prompt, PromptRefusedError, Prompts, PromptsBusyError
from finetune_trainer.serving.request_errors import explain
from finetune_trainer.serving.responses import DONE, Answer, AnswerParser, marks_in, to_event

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 (a Pod is reached from outside itself)
SHUTDOWN_SECONDS = 20
OWNER = "finetune-operator"

_Asked = TypeVar("_Asked", bound=TextRequest)

_log = structlog.get_logger()


def serve(folder: Path, revision: str, *, port: int = SERVING_PORT, host: str = ALL_INTERFACES) -> None:
    """Serve the model in a folder under the folder's name until SIGTERM. `revision`: of the model, for its answers.

    After SIGTERM, requests in progress are completed, and then the process exits with code 0 (SystemExit). The port
    opens, and GET /health answers, once the model is loaded. Raises DiagnosedError (ModelInvalid).
    """
    end_well_on_sigterm()  # uvicorn raises the signal again at the end.
    name = folder.name
    with log_progress(f"loading {name}"):
        generator = load_generator(LocalModel(folder))
    _log.info("serving", model=name, host=host, port=port)
    uvicorn.run(
        build_app(folder, generator, revision),
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def build_app(folder: Path, generator: Generator, revision: str) -> FastAPI:
    """The routes: chat completions, completions, the one model, health. Nothing else."""
    server = _Server(folder, generator, revision)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await server.prompts.start()
        yield
        await server.prompts.stop()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await server.chat(request)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await server.complete(request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [server.model]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        server.refuse_other(name)
        return server.model

    @app.get("/health")
    async def health() -> dict[str, str]:
        if server.engine.lost is not None:
            raise _refusal(503, f"The accelerator fails: {server.engine.lost}", "engine_lost")
        if server.engine.is_stuck:
            raise _refusal(503, "The engine has been silent for too long.", "engine_stuck")
        return {"status": "ok"}

    @app.exception_handler(HTTPException)
    async def on_refusal(_: Request, refusal: HTTPException) -> JSONResponse:
        detail = refusal.detail if isinstance(refusal.detail, dict) else _error(refusal.status_code, refusal.detail)
        return JSONResponse(detail, refusal.status_code, headers=refusal.headers)

    @app.exception_handler(Exception)
    async def on_fault(_: Request, fault: Exception) -> JSONResponse:
        return JSONResponse(_error(500, "The server failed; its log says why."), 500)

    return app


class _Server:
    """The state that the routes share."""

    def __init__(self, folder: Path, generator: Generator, revision: str) -> None:
        self.engine = Engine(generator)
        self.prompts = Prompts(folder)
        self._preparing = 0
        self.model = {"id": folder.name, "object": "model", "created": int(time.time()), "owned_by": OWNER}
        self._revision = revision
        self._context_length = generator.context_length
        self._format = get_response_template(generator.processor, generator.model)
        self._calls_format = self._format or response_template(generator.tokenizer)

    async def chat(self, request: Request) -> Response:
        async with self._place(request):
            asked = await self._read(request, ChatRequest)
            messages = [message.model_dump(exclude_none=True) for message in asked.messages]
            variables = asked.chat_template_kwargs or {}
            prompt = await _made(self.prompts.of_messages(messages, asked.offered_tools, variables))
            template = self._calls_format if asked.offered_tools else self._format
            most = asked.max_completion_tokens or asked.max_tokens
            generation = self._submit(asked, prompt, most, marks_in(template))
        parser = AnswerParser(template, prompt.text)
        answer = Answer("chat.completion", asked.model, len(prompt.tokens), parser, self._revision)
        return await _answer(request, asked, generation, answer)

    async def complete(self, request: Request) -> Response:
        async with self._place(request):
            asked = await self._read(request, CompletionRequest)
            prompt = await _made(self.prompts.of_text(asked.prompt))
            generation = self._submit(asked, prompt, asked.max_tokens)
        answer = Answer("text_completion", asked.model, len(prompt.tokens), AnswerParser(None, ""), self._revision)
        return await _answer(request, asked, generation, answer)

    def refuse_other(self, model: str) -> None:
        """Raises HTTPException (404, model_not_found) for any model but the one."""
        if model != self.model["id"]:
            message = f"The model {model!r} does not exist; this server has {self.model['id']!r}."
            raise _refusal(404, message, "model_not_found", "model")

    @asynccontextmanager
    async def _place(self, request: Request) -> AsyncIterator[None]:
        """One of the places for requests that wait, from before the body is read until the engine has it.

        Raises HTTPException (503) when none is free.
        """
        if self._preparing + self.engine.waiting >= MOST_WAITING:
            await discard(request)
            raise _overloaded()
        self._preparing += 1
        try:
            yield
        finally:
            self._preparing -= 1

    async def _read(self, request: Request, kind: type[_Asked]) -> _Asked:
        try:
            value = await read_json(request, longest_body(self._context_length))
            asked = kind.model_validate(value)
        except BodyError as error:
            raise _refusal(error.status, str(error)) from error
        except ValidationError as invalid:
            message, parameter = explain(invalid)
            raise _refusal(400, message, "invalid_value", parameter) from None
        self.refuse_other(asked.model)
        return asked

    def _submit(self, asked: TextRequest, prompt: Prompt, max_tokens: int | None, marks: str = "") -> Any:
        self._refuse_too_long(prompt)
        order = Order(
            prompt.tokens,
            max_tokens,
            asked.temperature,
            asked.top_p,
            asked.frequency_penalty or 0.0,
            asked.presence_penalty or 0.0,
            asked.seed,
            asked.stops,
            marks,
        )
        try:
            return self.engine.submit(order)
        except EngineBusyError:
            raise _overloaded() from None

    def _refuse_too_long(self, prompt: Prompt) -> None:
        if not prompt.tokens:
            raise _refusal(400, "The prompt has no tokens.", "invalid_value")
        if len(prompt.tokens) >= self._context_length:
            message = f"The model's context has {self._context_length} tokens; the messages have {len(prompt.tokens)}."
            raise _refusal(400, message, "context_length_exceeded", "messages")


async def _answer(request: Request, asked: TextRequest, generation: Any, answer: Answer) -> Response:
    if asked.stream:
        with_usage = asked.stream_options is not None and asked.stream_options.include_usage
        return StreamingResponse(_events(answer, generation, with_usage=with_usage), media_type="text/event-stream")
    gone = asyncio.create_task(_cancel_when_gone(request, generation))
    try:
        return JSONResponse(await answer.whole(generation.pieces()))
    except GenerationError as error:
        raise _refusal(503, f"The model could not answer: {error}", "generation_failed") from error
    finally:
        gone.cancel()


async def _made(prompt: Any) -> Prompt:
    try:
        made: Prompt = await prompt
        return made
    except PromptRefusedError as error:
        code = "invalid_prompt" if error.parameter is None else "unsupported_parameter"
        raise _refusal(400, str(error), code, error.parameter) from error
    except PromptsBusyError:
        raise _overloaded() from None


async def _events(answer: Answer, generation: Any, *, with_usage: bool) -> AsyncIterator[bytes]:
    """The stream, with the `[DONE]` that OpenAI's protocol ends with. A client that leaves ends the generation."""
    try:
        async with aclosing(answer.events(generation.pieces(), with_usage=with_usage)) as chunks:
            async for chunk in chunks:
                yield to_event(chunk)
    except GenerationError as error:
        yield to_event(_error(503, f"The model could not answer: {error}", "generation_failed"))
    finally:
        generation.cancel()
    yield DONE


async def _cancel_when_gone(request: Request, generation: Any) -> None:
    """Cancel the generation when the client disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    generation.cancel()


def _overloaded() -> HTTPException:
    message = "Too many requests are already waiting for this server. Try again later."
    return _refusal(503, message, "server_overloaded", headers={"Retry-After": "1"})


def _refusal(
    status: int, message: str, code: str | None = None, param: str | None = None, headers: dict[str, str] | None = None
) -> HTTPException:
    return HTTPException(status, _error(status, message, code, param), headers)  # type: ignore[arg-type]


def _error(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
