"""What can go wrong, as exceptions: each message says what happened, where, and what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence

from finetune_view.fields import Object

FORBIDDEN, UNAUTHORIZED, NOT_FOUND, CONFLICT, GONE, INVALID = 403, 401, 404, 409, 410, 422
MAY_HEAL = frozenset({0, 408, 429, 500, 502, 503, 504})
"""HTTP codes after which the same request may succeed; 0: there was no answer."""


class FineTuneError(Exception):
    """Every error of this package."""


class ApiError(FineTuneError):
    """The API server refused a request, or did not answer: then `status` is 0. `reason` is Kubernetes'."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def may_heal(self) -> bool:
        """Whether the same request may succeed in a while."""
        return self.status in MAY_HEAL


class NotFoundError(ApiError):
    """There is no such object."""


class ForbiddenError(ApiError):
    """This user may not do that, or is not known to the cluster."""


class AlreadyExistsError(ApiError):
    """An object of this name exists."""


class InvalidSpecError(ApiError):
    """The spec breaks a rule of the kind, or a policy of the cluster."""


class DifferentSpecError(FineTuneError):
    """An object of this name exists and asks for something else. `differences`: path, what it has, what was given."""

    def __init__(self, message: str, differences: Sequence[tuple[str, str, str]]) -> None:
        super().__init__(message)
        self.differences = tuple(differences)


class RunError(FineTuneError):
    """A wait ended without what was waited for. `next_steps`: what can be done, the most important first."""

    def __init__(self, message: str, *, reason: str, detail: str, next_steps: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *(f"  - {step}" for step in next_steps)]))
        self.reason = reason
        self.detail = detail
        self.next_steps = tuple(next_steps)


class RunFailedError(RunError):
    """The run is over and did not succeed. `log`: the last lines of the Pod that failed."""

    def __init__(
        self, message: str, *, reason: str, detail: str, next_steps: Sequence[str] = (), log: str = ""
    ) -> None:
        super().__init__(message, reason=reason, detail=detail, next_steps=next_steps)
        self.log = log


class StalledError(RunError):
    """The run waits for someone to fix something, and has for longer than `stalled_after`. It is not over."""


class WaitTimeoutError(RunError, TimeoutError):
    """Time was over before the run was. The run goes on."""


class DeletedError(FineTuneError):
    """The object was deleted, or replaced by another one of its name."""


class NoResultError(FineTuneError):
    """What was asked for does not exist (yet)."""


class NoConnectionError(FineTuneError):
    """No cluster was found: there is no kubeconfig, and this is no Pod."""


class StorageError(FineTuneError):
    """A file could not be read from the storage."""


class MissingPackageError(FineTuneError, ImportError):
    """A package that this needs is not installed."""


def error_of(status: int, body: bytes, request: str) -> ApiError:
    """The error of a response of the API server."""
    try:
        answer = json.loads(body)
        reason, detail = str(answer.get("reason", "")), str(answer.get("message", ""))
    except (ValueError, AttributeError):
        reason, detail = "", body[:500].decode(errors="replace")
    message = (detail or f"{request} was answered with {status}").rstrip(".")
    if status in (FORBIDDEN, UNAUTHORIZED):
        what = "Log in to the cluster again" if status == UNAUTHORIZED else "Ask the platform team for a role there"
        return ForbiddenError(status, reason, f"{message}. {what}.")
    if status == NOT_FOUND:
        return NotFoundError(status, reason, f"{message}.{'' if detail and reason else _NO_KIND}")
    if status == CONFLICT and reason == "AlreadyExists":
        return AlreadyExistsError(status, reason, f"{message}.")
    if status in (400, INVALID):
        return InvalidSpecError(status, reason, f"{message}.")
    return ApiError(status, reason, f"{message}.")


_NO_KIND = " Are finetune-operator's CRDs installed in this cluster? Is it the right one?"


def answer_of(body: bytes, request: str, server: str) -> Object:
    """The answer of the API server, which always has a kind and metadata. Raises ApiError for that of something else
    on the way, such as a proxy's page."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise no_answer(request, server, error) from error
    if isinstance(answer, dict) and isinstance(answer.get("kind"), str) and isinstance(answer.get("metadata"), dict):
        return answer
    raise no_answer(request, server, ValueError(f"{body[:100]!r} is no answer of an API server"))


def no_answer(request: str, server: str, cause: BaseException) -> ApiError:
    """The error of a request that had no answer."""
    why = str(cause) or type(cause).__name__
    return ApiError(0, "NoAnswer", f"{server} did not answer {request}: {why}. Check the kubeconfig and the network.")
