"""What the API refuses, in OpenAI's envelope: the `openai` package raises its own exceptions by status and code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

LONGEST_SHOWN = 80
_BRANCH = re.compile(r"(constrained-)?(int|float|str)|literal\[.*\]|\[key\]")


class RefusedError(Exception):
    """A request that is refused; `status` is the HTTP code."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.kind = kind

    def envelope(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> RefusedError:
    """A request that can't be right."""
    return RefusedError(400, message, param=param, code=code)


def not_found(what: str, name: str, param: str | None = None) -> RefusedError:
    """There is no such object, or none that the caller may see."""
    return RefusedError(404, f"No such {what}: {shown(name)}", param=param)


def model_not_found(name: str, known: Sequence[str]) -> RefusedError:
    """A model that the platform does not offer; the message names those that it does."""
    offered = f"Available models: {', '.join(known)}." if known else "The platform offers no models for fine-tuning."
    message = f"The model '{shown(name)}' does not exist or can't be fine-tuned. {offered}"
    return RefusedError(404, message, param="model", code="model_not_found")


def unavailable(message: str) -> RefusedError:
    """Something behind the API does not answer; clients try again."""
    return RefusedError(503, message, kind="server_error", code="service_unavailable")


def wrong_fields(error: ValidationError) -> RefusedError:
    """The first wrong field of a request, as OpenAI words it."""
    found = error.errors(include_url=False)
    path = _path(found[0]["loc"])
    # Of a union's branches, the last one is reported: the first is "auto".
    first = next(one for one in reversed(found) if _path(one["loc"]) == path)
    if first["type"] == "extra_forbidden":
        return invalid(f"Unrecognized request argument supplied: {shown(path)}", path[:LONGEST_SHOWN])
    if first["type"] == "missing":
        return invalid(f"Missing required parameter: '{path}'.", path, "missing_required_parameter")
    if first["type"] == "json_invalid":
        return invalid("We could not parse the JSON body of your request. The API expects a JSON object.")
    message = str(first["msg"]).removeprefix("Value error, ")
    return invalid(f"Invalid value for '{shown(path)}': {message}.", path[:LONGEST_SHOWN], "invalid_value")


def shown(text: str) -> str:
    """Untrusted text, short enough for a message, on one line."""
    line = "".join(letter if letter.isprintable() else "?" for letter in text[: LONGEST_SHOWN + 1])
    return line if len(line) <= LONGEST_SHOWN else line[:LONGEST_SHOWN] + "..."


def _path(loc: tuple[int | str, ...]) -> str:
    """Without what pydantic adds to the path: the branch of a union, or that a key is meant, which are no fields."""
    kept = loc[:-1] if len(loc) > 1 and isinstance(loc[-1], str) and _BRANCH.fullmatch(loc[-1]) else loc
    return ".".join(str(part) for part in kept)
