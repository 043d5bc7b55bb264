"""Outputs of a model that is loaded here, saved as they are generated, so that another try continues from there.

An object holds the outputs of a few seconds, in a folder whose name is a digest of the model and what it was asked.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, TypeAdapter

from finetune_api.base import LONGEST_SECONDS, MOST_EXAMPLES, ApiModel
from finetune_api.evaluation import Generation
from finetune_api.pod_contracts.run import ModelSource
from finetune_api.sources import parse_s3
from finetune_grading.sample import Sample
from finetune_grading.tool_calls import ToolCall
from finetune_trainer.model.folders import model_version
from finetune_trainer.outputs.heldout import HeldOutExample
from finetune_trainer.outputs.output import Output
from finetune_trainer.storage.storage import Storage

KEEP_SECONDS = 15.0
"""How much a killed Pod loses at most, in addition to the batch that it was generating."""


_Count = Annotated[int, Field(ge=0, le=MOST_EXAMPLES)]


class _Function(ApiModel):
    name: str
    arguments: str


class _Call(ApiModel):
    """In the format of OpenAI's messages."""

    type: Literal["function"]
    function: _Function


class _Row(ApiModel):
    """An output as it is stored, where others may have written, too."""

    text: str
    calls: list[_Call]
    prompt_tokens: _Count
    completion_tokens: _Count
    seconds: float = Field(ge=0, le=LONGEST_SECONDS)
    batch: _Count
    is_unfinished: bool = False


_ROWS: TypeAdapter[list[tuple[_Count, _Row]]] = TypeAdapter(list[tuple[_Count, _Row]])


class KeptOutputs:
    """The outputs of one model by position: samplesPerExample for each example, one example after another."""

    def __init__(
        self,
        storage: Storage,
        folder: str | None,
        model: ModelSource,
        generation: Generation,
        examples: Sequence[HeldOutExample],
    ) -> None:
        self._storage = storage
        self._folder = None
        if folder is not None:
            digest = _digest(model, model_version(model, storage), generation, examples)
            self._folder = parse_s3(folder).join(digest)
        self._count = len(examples) * generation.samples_per_example
        self._new: dict[int, Output] = {}
        self._kept_time = time.monotonic()

    def find(self) -> dict[int, Output]:
        """The outputs of earlier tries, by position. Raises DiagnosedError."""
        found: dict[int, Output] = {}
        if self._folder is None:
            return found
        for item in self._storage.list_objects(self._folder):
            found |= _read(self._storage.find(self._folder.join(item.path)))
        return {at: output for at, output in found.items() if at < self._count}

    def keep(self, outputs: Mapping[int, Output]) -> None:
        """Save an output soon, together with others. Raises DiagnosedError."""
        self._new |= outputs
        if time.monotonic() - self._kept_time >= KEEP_SECONDS:
            self.write()

    def write(self) -> None:
        """Save all outputs that are not saved yet. Raises DiagnosedError."""
        if self._folder is not None and self._new:
            rows = [[at, _to_row(output)] for at, output in sorted(self._new.items())]
            self._storage.write(self._folder.join(f"{rows[0][0]}-{time.time_ns()}.json"), orjson.dumps(rows))
        self._new = {}
        self._kept_time = time.monotonic()


def _digest(
    model: ModelSource,
    content: Sequence[tuple[str, int, str]],
    generation: Generation,
    examples: Sequence[HeldOutExample],
) -> str:
    """A digest of what was asked: it differs for another model, other settings, or another version of this program."""
    asked = hashlib.sha256(orjson.dumps([_version(), model.to_wire(), content, generation.to_wire()]))
    for example in examples:
        # repr, because it keeps the exact numbers in prompts, which JSON would not.
        asked.update(repr((example.line, example.prompt)).encode(errors="surrogatepass"))
    return asked.hexdigest()


def _version() -> str:
    try:
        return version("finetune-operator")
    except PackageNotFoundError:  # It runs from its sources, uninstalled.
        return "unknown"


def _to_row(output: Output) -> dict[str, Any]:
    """An output of a loaded model as it is stored."""
    calls = [call.to_wire() for call in output.sample.tool_calls]
    counted = {name: getattr(output, name) for name in ("prompt_tokens", "completion_tokens", "seconds", "batch")}
    return {"text": output.sample.output_text, "calls": calls, **counted, "is_unfinished": output.is_unfinished}


def _read(stored: bytes | None) -> dict[int, Output]:
    """The outputs in an object; empty if any row is invalid, as one that no model can have generated."""
    try:
        return {at: _to_output(row) for at, row in _ROWS.validate_json(stored or b"[]")}
    except ValueError:
        return {}


def _to_output(row: _Row) -> Output:
    """Raises ValueError."""
    return Output(
        Sample(row.text, tuple(ToolCall.from_wire(call.to_wire()) for call in row.calls)),
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        seconds=row.seconds,
        batch=row.batch,
        is_unfinished=row.is_unfinished,
    )
