"""The events of a run (events.jsonl) and its metrics by step (results.csv, with OpenAI's columns)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from types import MappingProxyType

import structlog

from finetune_api.finetunejob import CorruptCheckpoint
from finetune_api.sources import StorageLocation
from finetune_trainer.report.report import Completion
from finetune_trainer.storage.storage import Storage

EVENTS_NAME = "events.jsonl"
RESULTS_NAME = "results.csv"

# OpenAI's columns, and the names in the Trainer's log.
# Each validation uses the whole set, so valid_* equals full_valid_*, which OpenAI measures at the end of an epoch.
COLUMNS = {
    "step": "step",
    "train_loss": "loss",
    "train_mean_token_accuracy": "mean_token_accuracy",
    "valid_loss": "eval_loss",
    "valid_mean_token_accuracy": "eval_mean_token_accuracy",
    "full_valid_loss": "eval_loss",
    "full_valid_mean_token_accuracy": "eval_mean_token_accuracy",
}

COMPLETION = "completion"
"""The type of an event that records one."""
_COMPLETION = b'"type": "completion"'
_FIELDS = [field.name for field in fields(Completion)]

_log = structlog.get_logger()


class EventLog:
    """The events of a run, including those of earlier attempts, in memory until `store`.

    `metrics`: those of the method (Method.metrics), which results.csv has in addition to the losses.
    """

    def __init__(
        self, storage: Storage, output: StorageLocation, attempt: int, metrics: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._storage = storage
        self._output = output
        self._attempt = attempt
        self._metrics = metrics
        listed = any(item.path == EVENTS_NAME for item in storage.list_objects(output))
        self._lines = [storage.read(output.join(EVENTS_NAME)) if listed else b""]
        self._written = 1

    def add(self, message: str, **data: object) -> None:
        """Record an event, and log it."""
        _log.info(message, **data)
        self.note(message, **data)

    def add_corrupt(self, corrupt: Sequence[CorruptCheckpoint]) -> None:
        """Record the checkpoints that were skipped."""
        for item in corrupt:
            self.add(f"Checkpoint of step {item.step} skipped: {item.message}", type="corrupt", step=item.step)

    def warn(self, message: str) -> None:
        """Record a warning, and log it."""
        _log.warning(message)
        self.note(message, type="warning")

    def note(self, message: str, **data: object) -> None:
        """Record an event without logging it. Thread-safe."""
        event = {
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "attempt": self._attempt,
            "message": message,
            **data,
        }
        self._lines.append(json.dumps(event, ensure_ascii=False).encode() + b"\n")

    def completions(self) -> list[Completion]:
        """Those that were recorded at evaluations, of all attempts; a repeated evaluation's are there once."""
        recorded = [json.loads(line) for line in b"".join(self._lines).splitlines() if _COMPLETION in line]
        found = [
            Completion(**{name: one[name] for name in _FIELDS}) for one in recorded if one.get("type") == COMPLETION
        ]
        return list({(one.step, one.prompt, one.number): one for one in found}.values())

    @property
    def has_new_completions(self) -> bool:
        """Whether completions were noted since the events were written: a resumed attempt does not make them again."""
        return any(_COMPLETION in line for line in self._lines[self._written :])

    def store_events(self) -> None:
        """Write events.jsonl to the storage."""
        lines = list(self._lines)
        self._storage.write(self._output.join(EVENTS_NAME), b"".join(lines))
        self._written = len(lines)

    def store(self, log_history: Sequence[Mapping[str, float]]) -> None:
        """Write both files to the storage."""
        self.store_events()
        self._storage.write(self._output.join(RESULTS_NAME), results_csv(log_history, self._metrics).encode())


def results_csv(log_history: Sequence[Mapping[str, float]], metrics: Mapping[str, str]) -> str:
    """One row for each logged step; a value that was not measured at a step is empty. `metrics`: Method.metrics."""
    columns = {
        **COLUMNS,
        **{f"train_{name}": key for name, key in metrics.items()},
        **{f"valid_{name}": f"eval_{key}" for name, key in metrics.items()},
    }
    rows: dict[int, dict[str, float]] = {}
    for entry in log_history:
        measured = {column: entry[name] for column, name in columns.items() if name in entry}
        if len(measured) > 1:
            rows.setdefault(int(entry["step"]), {}).update(measured)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[step] for step in sorted(rows))
    return text.getvalue()
