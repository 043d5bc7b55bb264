"""What one model answered to one benchmark, saved while it is asked, so that another try continues from there.

<folder>/<digest>/answers-<time>.json    the answers of a few seconds, by a digest of what was asked
<folder>/<digest>/rows.json              all rows, once the benchmark has ended
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import orjson
from pydantic import Field, TypeAdapter

from finetune_api.base import ApiModel
from finetune_api.pod_contracts.run import ModelSource
from finetune_api.sources import StorageLocation
from finetune_trainer.model.folders import model_version
from finetune_trainer.storage.storage import Storage

KEEP_SECONDS = 15.0
"""How much a killed Pod loses at most, in addition to the batches that it was asking."""
ROWS = "rows.json"

Answer = str | tuple[float, bool]
"""A generated text, or the log-probability of a continuation, and whether greedy decoding would have written it."""


class Row(ApiModel):
    """One example of a benchmark, with what the model made of it."""

    example: int = Field(description="Its place in the dataset, counted from 0.")
    digest: str = Field(description="SHA-256 of the example: that of the same example for every model.")
    prompt: str = Field(description="What the model was asked first, of several continuations the first one.")
    target: str = Field(description="The right answer, as lm-eval's definition has it.")
    answers: list[Any] = Field(description="The output, or the log-probability of each continuation.")
    score: float | None = Field(ge=0, le=1, description="None if the model's probabilities are no numbers.")


class Measured(ApiModel):
    """What a model made of a benchmark."""

    rows: list[Row] = Field(description="In the order of the dataset.")
    truncated: int = Field(description="Number of prompts that did not fit into the model's context.")
    cut: int = Field(0, description="Number of outputs that end at the limit of their length.")


_ANSWERS: TypeAdapter[dict[str, Answer]] = TypeAdapter(dict[str, Answer])


class KeptAnswers:
    """The answers of one model to one benchmark, by what was asked. `folder` None: nothing is saved."""

    def __init__(self, storage: Storage, folder: StorageLocation | None) -> None:
        self._storage = storage
        self._folder = folder
        self._new: dict[str, Answer] = {}
        self._kept_time = time.monotonic()

    def measured(self) -> Measured | None:
        """What an earlier try measured, if it came to the end of the benchmark. Raises DiagnosedError."""
        content = None if self._folder is None else self._storage.find(self._folder.join(ROWS))
        try:
            return None if content is None else Measured.model_validate_json(content)
        except ValueError:
            return None

    def answers(self) -> dict[str, Answer]:
        """The answers of earlier tries. Raises DiagnosedError."""
        found: dict[str, Answer] = {}
        if self._folder is None:
            return found
        for item in self._storage.list_objects(self._folder):
            if item.path != ROWS:
                found |= _read(self._storage.find(self._folder.join(item.path)))
        return found

    def keep(self, answers: Mapping[str, Answer]) -> None:
        """Save answers soon, together with others. Raises DiagnosedError."""
        self._new |= answers
        if time.monotonic() - self._kept_time >= KEEP_SECONDS:
            self.write()

    def write(self) -> None:
        """Save all answers that are not saved yet. Raises DiagnosedError."""
        if self._folder is not None and self._new:
            self._storage.write(self._folder.join(f"answers-{time.time_ns()}.json"), orjson.dumps(self._new))
        self._new = {}
        self._kept_time = time.monotonic()

    def finish(self, measured: Measured) -> None:
        """Save what was measured: the benchmark has ended. Raises DiagnosedError."""
        if self._folder is not None:
            self._storage.write(self._folder.join(ROWS), orjson.dumps(measured.model_dump(by_alias=True)))
        self._new = {}


def kept_folder(
    storage: Storage, folder: StorageLocation, model: ModelSource, asked: Mapping[str, Any]
) -> StorageLocation:
    """The folder of a model's answers to a benchmark: another one if anything is different. Raises DiagnosedError."""
    versions = [version("lm-eval"), version("transformers"), version("torch")]
    content = [versions, model.to_wire(), model_version(model, storage), asked]
    return folder.join("benchmarks", hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest())


def digest_of(request: Sequence[Any]) -> str:
    """A digest of what the model is asked: a context and a continuation, or a prompt and how to go on from it."""
    return hashlib.sha256(repr(request).encode(errors="surrogatepass")).hexdigest()


def _read(stored: bytes | None) -> dict[str, Answer]:
    """The answers in an object; empty if any is invalid."""
    try:
        return _ANSWERS.validate_json(stored or b"{}")
    except ValueError:
        return {}
