"""The answers of the class's models, kept in the storage: what was asked before costs nothing.

One object for each answer, named by the SHA-256 of what was asked of which model. So a Pod that starts again goes on
where the one before was, and a run with other gates or graders asks only what is new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from finetune_api.sources import StorageLocation
from finetune_grading.exact_json import write_json
from finetune_trainer.storage.storage import Storage


@dataclass(frozen=True)
class Answer:
    """An API's answer, with its cost."""

    body: Mapping[str, Any]
    seconds: float | None = None
    """From the last request to the end of its answer."""
    without: tuple[str, ...] = ()
    """Options of the question that the API refused."""

    @property
    def prompt_tokens(self) -> int:
        """As the API counts them; 0 where it does not."""
        return self._tokens("prompt_tokens")

    @property
    def completion_tokens(self) -> int:
        """As the API counts them; 0 where it does not."""
        return self._tokens("completion_tokens")

    def _tokens(self, name: str) -> int:
        usage = self.body.get("usage")
        count = usage.get(name) if isinstance(usage, Mapping) else None
        return count if isinstance(count, int) and 0 <= count < 2**40 else 0


@dataclass(frozen=True)
class Answers:
    """The folder with what was answered."""

    storage: Storage
    folder: StorageLocation

    def find(self, digest: str) -> Answer | None:
        """What was answered to the question of this digest; None also where something else lies there.

        Raises DiagnosedError.
        """
        stored = self.storage.find(self._location(digest))
        try:
            value = orjson.loads(stored or b"null")
        except orjson.JSONDecodeError:
            return None
        match value:
            case {"body": dict(body)}:
                return Answer(body, _seconds(value.get("seconds")), _texts(value.get("without")))
        return None

    def keep(self, digest: str, answer: Answer) -> None:
        """Unless it is nested too deeply to be written. Raises DiagnosedError."""
        value = {name: getattr(answer, name) for name in ("body", "seconds", "without")}
        try:
            written = write_json(value)
        except ValueError:
            return
        self.storage.write(self._location(digest), written.encode())

    def _location(self, digest: str) -> StorageLocation:
        return self.folder.join(f"{digest}.json")


def _seconds(value: object) -> float | None:
    is_time = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**40
    return float(value) if is_time else None  # type: ignore[arg-type]


def _texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def question_digest(question: Mapping[str, Any]) -> str:
    """SHA-256 of what is asked of which model."""
    return hashlib.sha256(write_json(question).encode()).hexdigest()
