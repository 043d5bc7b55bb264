"""A FineTuneJob as OpenAI's API shows it: the job, its events and its checkpoints. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.default_hyperparameters import DEFAULT_SEED
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.lifecycle import UnreadableStatusError
from finetune_openai.jobs.finetunejob import CREATED_ANNOTATION, METHODS, automatic_rate, model_name, requested
from finetune_openai.jobs.request import DpoHyperparameters, Hyperparameters, JobRequest

_STATUSES = {
    "Validating": "validating_files",
    "Queued": "queued",
    "Training": "running",
    "Retrying": "running",
    "Suspended": "paused",
    "Succeeded": "succeeded",
    "Failed": "failed",
    "Cancelled": "cancelled",
}
FINISHED = frozenset({"succeeded", "failed", "cancelled"})
_CODES = {
    Reason.DATASET_INVALID: "invalid_training_file",
    Reason.DATASET_NOT_FOUND: "invalid_training_file",
    Reason.DEADLINE_EXCEEDED: "deadline_exceeded",
    Reason.BUDGET_EXCEEDED: "exceeded_quota",
}
_MOST_LOGGED_EVENTS = 10_000


@dataclass(frozen=True)
class ViewedJob:
    """A FineTuneJob, read: what was requested, what the spec says and where it stands."""

    id: str
    created: int
    created_nanoseconds: int
    """Finer than `created`, by the clock of the server that created it; 0 if that is not known."""
    spec: dict[str, Any]
    request: JobRequest
    base: str
    namespace: str
    status: FineTuneJobStatus

    @property
    def state(self) -> str:
        """OpenAI's status, which has none for a job that is being cancelled: that keeps what it had until it is."""
        found = _STATUSES.get(self.status.phase or "Validating", "running")
        is_pausing = self.spec.get("suspend") and not self.spec.get("cancel") and found not in (*FINISHED, "paused")
        return "pausing" if is_pausing else found

    @property
    def model(self) -> str | None:
        """The tuned model's name, once there is one."""
        if self.state != "succeeded":
            return None
        return model_name(self.id, self.request, self.base, self.namespace)

    @property
    def results_file(self) -> str:
        """The id of results.csv."""
        return f"file-{self.id.removeprefix('ftjob-')}"


def viewed(job: dict[str, Any]) -> ViewedJob | None:
    """The job; None for one that the API did not make, or whose annotation or status can't be read."""
    found = requested(job)
    if found is None:
        return None
    try:
        status = FineTuneJobStatus.read(job.get("status"))
    except UnreadableStatusError:
        return None
    metadata = job["metadata"]
    created = datetime.fromisoformat(metadata["creationTimestamp"])
    text = metadata.get("annotations", {}).get(CREATED_ANNOTATION, "")
    request, base = found
    return ViewedJob(
        id=metadata["name"],
        created=_seconds(created),
        created_nanoseconds=int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0,
        spec=job["spec"],
        request=request,
        base=base,
        namespace=metadata["namespace"],
        status=status,
    )


def newest_first(jobs: Iterable[ViewedJob]) -> list[ViewedJob]:
    """A new job comes before all others, also before those of its second, so that it moves none to another page."""
    return sorted(jobs, key=lambda job: (-job.created, -job.created_nanoseconds, job.id))


def job_body(job: ViewedJob) -> dict[str, Any]:
    """The object fine_tuning.job."""
    request, status, state = job.request, job.status, job.state
    hyperparameters = _hyperparameters(job)
    shown = {name: value for name, value in hyperparameters.items() if name in Hyperparameters.model_fields}
    of_method: dict[str, Any] = {"hyperparameters": hyperparameters}
    if request.method is not None and request.method.reinforcement is not None:
        of_method = {"grader": request.method.reinforcement.grader, **of_method}
    finished = _seconds(status.completion_time) if status.completion_time and state in FINISHED else None
    seed = status.resolved.seed if status.resolved else request.seed
    body = {
        "object": "fine_tuning.job",
        "id": job.id,
        "created_at": job.created,
        "model": request.model,
        "fine_tuned_model": job.model,
        "organization_id": job.namespace,
        "status": state,
        "training_file": request.training_file,
        "validation_file": request.validation_file,
        "hyperparameters": shown,
        "method": {"type": request.type, request.type: of_method},
        "seed": DEFAULT_SEED if seed is None else seed,
        "error": _error(job),
        "finished_at": finished,
        "estimated_finish": _estimated_finish(job),
        "trained_tokens": status.result.trained_tokens if status.result and state == "succeeded" else None,
        "result_files": [job.results_file] if state == "succeeded" else [],
        "integrations": [],
        "metadata": request.metadata,
        "user_provided_suffix": request.suffix,
    }
    return body if request.trainingType is None else {**body, "trainingType": request.trainingType}


def checkpoint_bodies(job: ViewedJob) -> list[dict[str, Any]]:
    """The objects fine_tuning.job.checkpoint, newest first."""
    metric = job.spec.get("checkpoints", {}).get("best", {}).get("metric", "EvalLoss")
    name = "train_loss" if metric == "TrainLoss" else "full_valid_loss"
    name = "full_valid_mean_reward" if job.request.type == "reinforcement" else name
    return [
        {
            "object": "fine_tuning.job.checkpoint",
            "id": f"ftckpt-{_digest(job.id, found.uri)}",
            "created_at": _seconds(found.committed_time) if found.committed_time else job.created,
            "fine_tuned_model_checkpoint": model_name(job.id, job.request, job.base, job.namespace, found.step),
            "fine_tuning_job_id": job.id,
            "step_number": found.step,
            "metrics": {"step": found.step} | ({} if found.metric is None else {name: found.metric}),
        }
        for found in reversed(job.status.checkpoints)
    ]


def event_bodies(job: ViewedJob, log: bytes | None) -> list[dict[str, Any]]:
    """The objects fine_tuning.job.event, newest first. `log`: the trainer's own events (events.jsonl)."""
    events = [*_status_events(job), *_logged(log or b"")]
    events.sort(key=lambda event: event["created_at"])  # Stable: what happened in one second stays in order.
    counted: dict[str, int] = {}
    for event in events:
        what = f"{event['created_at']} {event['message']}"
        counted[what] = counted.get(what, 0) + 1
        event["id"] = f"ftevent-{_digest(job.id, f'{what} {counted[what]}')}"
    return events[::-1]


def _status_events(job: ViewedJob) -> Iterator[dict[str, Any]]:
    status = job.status
    yield _event(job.created, f"Created fine-tuning job: {job.id}")
    yield _event(job.created, f"Validating training file: {job.request.training_file}")
    attempt, progress = status.attempt, status.progress
    if attempt is not None and attempt.number == 1:
        yield _event(_seconds(attempt.start_time), "Files validated, moving job to queued state")
    for ended in status.ended_attempts:
        if ended.outcome in ("Failed", "Disrupted"):
            text = f"Attempt {ended.number} ended early: {ended.message or ended.reason or ended.outcome}"
            yield _event(_seconds(ended.end_time), text, level="warn")
    if progress is not None and progress.step:
        parts = [f"Step {progress.step}/{progress.total_steps}"]
        data: dict[str, Any] = {"step": progress.step, "total_steps": progress.total_steps}
        for name, value in (("training loss", progress.loss), ("validation loss", progress.eval_loss)):
            if value is not None:
                parts.append(f"{name}={value}")
                data["train_loss" if name == "training loss" else "full_valid_loss"] = value
        message = f"{parts[0]}: {', '.join(parts[1:])}" if len(parts) > 1 else parts[0]
        yield _event(_seconds(progress.last_updated_time), message, kind="metrics", data=data)
    if status.completion_time is None:
        return
    end = _seconds(status.completion_time)
    if job.state == "succeeded":
        yield _event(end, f"New fine-tuned model created: {job.model}")
        yield _event(end, "The job has successfully completed")
    elif job.state == "cancelled":
        yield _event(end, "Fine-tuning job cancelled")
    elif (error := _error(job)) is not None:
        yield _event(end, f"The job failed: {error['message']}", level="error")


def _logged(log: bytes) -> Iterator[dict[str, Any]]:
    """What the trainer logged, but for the end of the job, which is in its status."""
    for line in log.splitlines()[:_MOST_LOGGED_EVENTS]:
        try:
            found = json.loads(line)
            moment, message = _seconds(datetime.fromisoformat(found["time"])), str(found["message"])[:4096]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if found.get("type") in ("result", "completed"):
            continue
        data = {name: value for name, value in found.items() if name not in ("time", "message", "type", "attempt")}
        is_metrics = "loss" in message and "step" in found
        level = "warn" if found.get("type") in ("warning", "corrupt") else "info"
        yield _event(moment, message, level=level, kind="metrics" if is_metrics else "message", data=data)


def _event(
    moment: int, message: str, *, level: str = "info", kind: str = "message", data: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "object": "fine_tuning.job.event",
        "id": "",
        "created_at": moment,
        "level": level,
        "message": message,
        "type": kind,
        "data": data or {},
    }


def _hyperparameters(job: ViewedJob) -> dict[str, Any]:
    """What was asked for, and what "auto" became once it is known."""
    asked, resolved = job.request.asked_hyperparameters, job.status.resolved
    shown: dict[str, Any] = asked.model_dump()
    if job.request.type == "dpo" and not isinstance(asked, DpoHyperparameters):
        shown["beta"] = "auto"
    if resolved is None:
        return shown
    continued = "fineTuneJobRef" in job.spec.get("model", {})
    rate = automatic_rate(METHODS[job.request.type], continued=continued)
    found = {
        "n_epochs": max(1, round(resolved.epochs)),
        "batch_size": resolved.batch_size,
        "learning_rate_multiplier": float(f"{resolved.learning_rate / rate:.4g}"),
        "beta": resolved.beta,
        "compute_multiplier": 1,
        "eval_interval": resolved.checkpoint_every_steps,
        "eval_samples": 1,
    }
    return {name: found[name] if value == "auto" else value for name, value in shown.items()}


def _error(job: ViewedJob) -> dict[str, Any] | None:
    """Why it failed; None where it did not."""
    if job.state != "failed":
        return None
    end = next((one for one in job.status.conditions if one.type == "Failed" and one.status == "True"), None)
    failure = job.status.failure
    reason = end.reason if end else failure.reason if failure else "Failed"
    message = end.message if end else failure.message if failure else "The job failed."
    dataset = job.status.dataset
    of_validation = bool(dataset and dataset.errors and all(one.file == "validation" for one in dataset.errors))
    code = next((code for known, code in _CODES.items() if known == reason), _words(reason))
    if code == "invalid_training_file":
        param = "validation_file" if of_validation else "training_file"
        return {"code": f"invalid_{param}", "message": message, "param": param}
    return {"code": code, "message": message, "param": None}


def _estimated_finish(job: ViewedJob) -> int | None:
    progress = job.status.progress
    if job.state != "running" or progress is None or progress.estimated_remaining_seconds is None:
        return None
    return _seconds(progress.last_updated_time) + progress.estimated_remaining_seconds


def _words(reason: str) -> str:
    """A reason as OpenAI writes codes: CUDAOutOfMemory -> cuda_out_of_memory."""
    letters = []
    for place, letter in enumerate(reason):
        begins = letter.isupper() and place > 0
        if begins and (not reason[place - 1].isupper() or reason[place + 1 : place + 2].islower()):
            letters.append("_")
        letters.append(letter.lower())
    return "".join(letters)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _seconds(moment: datetime) -> int:
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
