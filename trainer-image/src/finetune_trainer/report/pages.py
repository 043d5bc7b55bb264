"""The pages of a result: the model card (README.md) and the report (report.html)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_api.finetunejob import Adapter, CorruptCheckpoint, RewardCalibration
from finetune_api.pod_contracts.manifest import Manifest
from finetune_api.pod_contracts.outcome import PREFLIGHT_REPORT_NAME
from finetune_api.pod_contracts.run import TrainRun
from finetune_api.sources import parse_location
from finetune_trainer.model.export import MODEL_CARD
from finetune_trainer.report.measures import Measure
from finetune_trainer.report.model_card import datasets_of, model_card, versions
from finetune_trainer.report.report import REPORT_NAME, Completion, Samples, readable, report_html
from finetune_trainer.report.summary import ResultOrigin, summarize
from finetune_trainer.storage.commits import Committed
from finetune_trainer.storage.storage import Storage

TIME_FORMAT = "%Y-%m-%d %H:%M:%S UTC"


@dataclass(frozen=True)
class FinishedRun:
    """How a run went, for its report."""

    chosen: Manifest
    """The checkpoint that becomes the result."""
    kept: Sequence[Committed]
    corrupt: Sequence[CorruptCheckpoint]
    log: Sequence[Mapping[str, float]]
    """The Trainer's."""
    totals: Mapping[str, float]
    """Seconds that checkpoints took."""
    data_digests: Mapping[str, str]
    samples: Samples
    metrics: Mapping[str, str]
    """The method's."""
    measures: Sequence[Measure]
    """The method's."""
    origin: ResultOrigin
    completions: Sequence[Completion] = ()
    """Those that were recorded at evaluations."""


def write_pages(run: TrainRun, storage: Storage, finished: FinishedRun, folder: Path) -> None:
    """Write both pages into the result's local folder. Raises DiagnosedError when the storage can't be read."""
    found = _read(storage.find(parse_location(run.output_uri).join(PREFLIGHT_REPORT_NAME)))
    tables = {
        "Run": _run_facts(run),
        "Result": _result_facts(finished.chosen),
        "Hyperparameters": run.hyperparameters.to_wire(),
        "Adapter": {"type": run.adapter.type, **dict(_adapter_facts(run.adapter))},
        "Dataset": dict(_dataset_facts(found)),
        "Data files": dict(finished.data_digests) | datasets_of(run),
        "Checkpoints": dict(_checkpoint_facts(finished)),
        "Versions": versions(),
    }
    report = report_html(
        f"{run.job.namespace}/{run.job.name}, run {run.job.run_id}",
        {heading: facts for heading, facts in tables.items() if facts},
        finished.log,
        finished.samples,
        summarize(run, finished.chosen, finished.log, finished.samples, finished.origin, finished.measures),
        finished.metrics,
        finished.completions,
        _calibration(found),
    )
    (folder / REPORT_NAME).write_text(report, encoding="utf-8")
    card = model_card(run, finished.chosen, finished.data_digests, is_adapter=finished.origin.is_adapter)
    (folder / MODEL_CARD).write_text(card, encoding="utf-8")


def _run_facts(run: TrainRun) -> dict[str, object]:
    facts = {
        "model": run.model.uri,
        "adapter it came with": run.model.adapter_uri,
        "method": run.method.type,
        "attempt": run.attempt,
        "nodes x processes": f"{run.parallelism.nodes} x {run.parallelism.processes_per_node}",
    }
    return {name: value for name, value in facts.items() if value is not None}


def _adapter_facts(adapter: Adapter) -> Iterator[tuple[str, object]]:
    settings = adapter.full if adapter.type == "Full" else adapter.low_rank
    for name, value in (settings.to_wire() if settings is not None else {}).items():
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else value


def _result_facts(chosen: Manifest) -> dict[str, object]:
    return {"step": chosen.step, "committed": f"{chosen.created:{TIME_FORMAT}}", **chosen.metrics}


def _read(preflight: bytes | None) -> dict[str, Any]:
    """Preflight's report; empty if there is none."""
    try:
        found: Any = json.loads(preflight or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _calibration(preflight: Mapping[str, Any]) -> RewardCalibration | None:
    """What preflight measured of the starting model's rewards; None if it did not."""
    try:
        found = RewardCalibration.model_validate(preflight.get("calibration") or {}, extra="ignore")
    except ValidationError:
        return None
    return found if found.prompts else None


def _dataset_facts(preflight: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Counts and warnings from preflight's report."""
    dataset = preflight.get("dataset")
    if not isinstance(dataset, dict):
        return
    for name, value in dataset.items():
        if isinstance(value, dict):
            yield name, ", ".join(f"{readable(count)} {what}" for what, count in value.items())
        elif isinstance(value, list):
            yield from ((f"{name.removesuffix('s')} {number}", item) for number, item in enumerate(value, start=1))
        else:
            yield name, value


def _checkpoint_facts(finished: FinishedRun) -> Iterator[tuple[str, object]]:
    for committed in finished.kept:
        manifest = committed.manifest
        metrics = ", ".join(f"{name} {value:g}" for name, value in manifest.metrics.items())
        chosen = "the result; " if manifest.key == finished.chosen.key else ""
        yield f"step {manifest.step}", f"{chosen}{manifest.created:{TIME_FORMAT}}; {metrics}"
    for item in finished.corrupt:
        yield f"step {item.step}", f"corrupt: {item.message}"
    for name, value in finished.totals.items():
        yield name.replace("_", " "), value
