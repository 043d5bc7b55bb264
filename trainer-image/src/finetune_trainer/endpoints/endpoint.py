"""One model of the class behind an OpenAI-compatible API: requests to it, within its limits, and at most once each."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import httpx2

from finetune_api.conditions import Reason
from finetune_api.graders import GraderErrorCode
from finetune_api.model_usage import ModelUsage
from finetune_api.pod_contracts.run import MODEL_KEY, MODEL_KEYS_DIRECTORY, EndpointConfig
from finetune_grading.grade import RowError
from finetune_grading.judge import StopGradingError
from finetune_trainer.endpoints.answer_cache import Answer, Answers, question_digest
from finetune_trainer.endpoints.limits import Ledger, Pace, Sleep
from finetune_trainer.endpoints.responses import (
    OPTIONS,
    Response,
    error_text,
    is_out_of_quota,
    read_response,
    refused_option,
    seconds_to_wait,
)
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.credentials import hide

T = TypeVar("T")
TRIES = 6
BACKOFF_SECONDS = 0.5
CONNECT_SECONDS = 10
MOST_FAILURES = 20
"""After so many questions in a row without an answer, the API counts as unreachable."""
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


class Endpoint:
    """`namespace`: that of the run, for messages; `keys`: the folder of the mounted Secrets, by model."""

    def __init__(
        self,
        config: EndpointConfig,
        namespace: str,
        answers: Answers,
        ledger: Ledger,
        *,
        keys: Path = Path(MODEL_KEYS_DIRECTORY),
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.config = config
        self.usage = ModelUsage(model=config.name)
        self.hides_revision = False
        """Whether a ModelDeployment has answered without its revision."""
        self._namespace = namespace
        self._answers = answers
        self._ledger = ledger
        self._key_file = keys / config.name / MODEL_KEY
        self._sleep = sleep
        self._pace = Pace(config.requests_per_minute, sleep)
        self._asked: dict[str, asyncio.Task[Answer]] = {}
        self._refused_options: set[str] = set()
        self._failures = 0
        self._client: httpx2.AsyncClient | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Requests can be sent within."""
        # Before the loop's first request, in the loop that sends them.
        self._slots = asyncio.Semaphore(self.config.concurrency)
        tls = ssl.create_default_context(cadata=self.config.ca_bundle)
        timeout = httpx2.Timeout(self.config.timeout_seconds, connect=CONNECT_SECONDS)
        # The slots are the limit: a request that waits for a connection would be slow by our own doing.
        most = httpx2.Limits(max_connections=self.config.concurrency, max_keepalive_connections=self.config.concurrency)
        async with httpx2.AsyncClient(verify=tls, timeout=timeout, limits=most, follow_redirects=False) as self._client:
            yield

    async def post(self, route: str, body: Mapping[str, Any], is_answer: Callable[[Mapping[str, Any]], bool]) -> Answer:
        """The answer to a request, from the storage where it was asked before.

        Raises RowError: model_grader_server_error, BudgetExceeded; StopGradingError.
        """
        digest = self._digest(route, body)
        running = self._asked.get(digest)
        if running is not None:
            self._count(cached=1)
            return await running
        task = asyncio.ensure_future(self._answer(digest, route, body, is_answer))
        self._asked[digest] = task
        task.add_done_callback(lambda _: self._asked.pop(digest, None))
        return await task

    def _digest(self, route: str, body: Mapping[str, Any]) -> str:
        config = self.config
        return question_digest(
            {"url": config.url, "model": config.model, "digest": config.digest, "route": route, "body": body}
        )

    async def _answer(
        self, digest: str, route: str, body: Mapping[str, Any], is_answer: Callable[[Mapping[str, Any]], bool]
    ) -> Answer:
        found: Answer | None = await _in_thread(self._answers.find, digest)
        if found is not None and is_answer(found.body):
            self._count(cached=1)
            return found
        async with self._slots:
            answer = await self._send(route, body, is_answer)
        await _storing(self._ledger.add_tokens(answer.prompt_tokens + answer.completion_tokens))
        self._count(prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens)
        await _in_thread(self._answers.keep, digest, answer)
        return answer

    async def _send(
        self, route: str, body: Mapping[str, Any], is_answer: Callable[[Mapping[str, Any]], bool]
    ) -> Answer:
        """Ask until there is an answer, a few times."""
        failure = ""
        for attempt in range(TRIES):
            sent = {name: value for name, value in body.items() if name not in self._refused_options}
            response = await self._request(route, sent)
            if isinstance(response, str):
                failure = response
            elif response.status == 200:
                if response.body is not None and is_answer(response.body):
                    self._stop_if_changed(response.body)
                    self._failures = 0
                    without = tuple(option for option in OPTIONS if option in body and option not in sent)
                    return Answer(response.body, response.seconds, without)
                failure = f"its response is not one of OpenAI's /{route}"
                break
            elif is_out_of_quota(response):
                self._stop_without_quota(response)
            elif response.status in PASSING:
                failure = f"{response.status} {self._hide_key(error_text(response))}"
                if (pause := seconds_to_wait(response)) is not None:
                    self._pace.pause(pause)
                    continue
            elif (option := refused_option(response, sent)) is not None:
                self._refused_options.add(option)
                continue
            else:
                self._stop_if_useless(response)
                raise self._no_answer(f"{response.status} {self._hide_key(error_text(response))}")
            if attempt + 1 < TRIES:
                await self._sleep(BACKOFF_SECONDS * 2**attempt * (0.5 + random.random()))
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            message = f"{self._where()} has not answered {self._failures} questions in a row; the last time: {failure}"
            raise StopGradingError from DiagnosedError(Reason.ENDPOINT_UNREACHABLE, message, retryable=True)
        raise self._no_answer(failure, passing=True)

    async def _request(self, route: str, body: Mapping[str, Any]) -> Response | str:
        """One request: the response, or why there is none."""
        assert self._client is not None, "connected()"
        key = self._key()
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        await self._pace.turn()
        await _storing(self._ledger.take())
        self._count(requests=1)
        try:
            async with asyncio.timeout(self.config.timeout_seconds):
                return await read_response(
                    self._client,
                    f"{self.config.url.rstrip('/')}/{route}",
                    {"model": self.config.model, **body},
                    headers,
                )
        except TimeoutError:
            return f"no answer within {self.config.timeout_seconds} s"
        except httpx2.HTTPError as error:
            return self._hide_key(f"{type(error).__name__}: {error}")

    def _stop_if_changed(self, body: Mapping[str, Any]) -> None:
        """Another revision of a ModelDeployment answers than the one that is asked. Raises StopGradingError."""
        asked, answered = self.config.digest, body.get("system_fingerprint")
        if asked is None:
            return
        if not isinstance(answered, str):
            self.hides_revision = True
        elif answered != asked:
            message = f"{self._where()} now answers as revision {answered[:100]!r}, but was asked as {asked!r}."
            raise StopGradingError from DiagnosedError(Reason.MODEL_CHANGED, message, retryable=True)

    def _stop_without_quota(self, response: Response) -> NoReturn:
        """Raises StopGradingError."""
        raise StopGradingError from DiagnosedError(
            Reason.ENDPOINT_DENIED,
            f"{self._where()} has no quota left for the key: {response.status} {self._hide_key(error_text(response))}",
            suggestion="Raise the account's quota, and run again: what was answered is not asked again.",
        )

    def _stop_if_useless(self, response: Response) -> None:
        """No question will be answered: the key is wrong, or there is no such model. Raises StopGradingError."""
        said = self._hide_key(error_text(response))
        if response.status in (401, 403):
            raise StopGradingError from DiagnosedError(
                Reason.ENDPOINT_DENIED,
                f"{self._where()} rejected the key: {response.status} {said}",
                suggestion=f"Correct the key: {self._key_command()}",
            )
        if response.status in (404, 410) or 300 <= response.status < 400:
            what = (
                "redirects, which is not followed" if response.status < 400 else f"has no model {self.config.model!r}"
            )
            raise StopGradingError from DiagnosedError(
                Reason.MODEL_NOT_FOUND,
                f"{self._where()} {what}: {response.status} {said}",
                suggestion="Ask the platform team to correct `url` and `model` in spec.models of the FineTuneClass.",
            )

    def _key(self) -> str | None:
        """Read for each request: the kubelet replaces the file when the Secret changes."""
        if self.config.secret_name is None:
            return None
        try:
            key = self._key_file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            key = ""
        if not (key and key.isascii() and key.isprintable()):
            raise StopGradingError from DiagnosedError(
                Reason.SECRET_NOT_FOUND,
                f"Secret {self.config.secret_name!r} has no usable {MODEL_KEY} for the model {self.config.name!r}.",
                suggestion=f"Set it: {self._key_command()}",
            )
        return key

    def _key_command(self) -> str:
        if self.config.secret_name is None:
            return "name its Secret in credentialsSecretName in spec.models of the FineTuneClass"
        create = (
            f"kubectl -n {self._namespace} create secret generic {self.config.secret_name} "
            f"--from-literal={MODEL_KEY}=..."
        )
        return f"{create} --dry-run=client -o yaml | kubectl apply -f -"

    def _hide_key(self, text: str) -> str:
        key = self._key()
        return text if key is None else hide(text, key)

    def _where(self) -> str:
        return f"The API of the model {self.config.name!r} ({self.config.url})"

    def _no_answer(self, why: str, *, passing: bool = False) -> RowError:
        return RowError(GraderErrorCode.MODEL_GRADER_SERVER_ERROR, f"{self._where()}: {why}", passing=passing)

    def _count(self, **counts: int) -> None:
        update = {name: getattr(self.usage, name) + count for name, count in counts.items()}
        self.usage = self.usage.model_copy(update=update)


async def _in_thread(call: Callable[..., T], *arguments: Any) -> T:
    return await _storing(asyncio.to_thread(call, *arguments))


async def _storing(done: Awaitable[T]) -> T:
    """The storage waits out an outage; what it gives up ends the run."""
    try:
        return await done
    except DiagnosedError as error:
        raise StopGradingError from error
