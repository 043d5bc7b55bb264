"""The evaluation of a step, stored with its checkpoint, which is committed before it is evaluated.

Without it each attempt would repeat the evaluation of the step that it resumes from; if that takes longer than the time
between two preemptions, the run would never progress. Every evaluation of a checkpoint gives the same result, so the
first record stays.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from finetune_api.sources import StorageLocation
from finetune_trainer.checkpoint.training_state import TRAINER_STATE
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.commits import Committed
from finetune_trainer.storage.storage import Storage

EVALUATION_NAME = "evaluation.json"

Entry = Mapping[str, int | float]
"""Of a Trainer's log: `step`, and what was measured: `eval_loss`, where the method has a loss on held-out examples."""
MEASURED = {"eval_loss": "evalLoss", "eval_reward_mean": "validReward"}
"""What checkpoints are compared by: the name in such an entry, and in a checkpoint's manifest."""

_ENTRY: TypeAdapter[dict[str, int | float]] = TypeAdapter(dict[str, int | float])

_log = structlog.get_logger()


def is_evaluation(entry: Entry) -> bool:
    """Whether an entry of a Trainer's log is that of an evaluation."""
    return any(name.startswith("eval_") for name in entry)


def measured(entry: Entry) -> dict[str, float]:
    """What checkpoints are compared by, of an entry, by the names of manifests."""
    return {name: entry[key] for key, name in MEASURED.items() if key in entry and math.isfinite(entry[key])}


def record(storage: Storage, checkpoint: StorageLocation, entry: Entry) -> None:
    """Store it in the folder of the step's checkpoint. A failure is only logged: a resumed run evaluates again."""
    try:
        storage.write_if_absent(checkpoint.join(EVALUATION_NAME), json.dumps(dict(entry)).encode())
    except DiagnosedError as error:
        _log.warning(f"the evaluation of step {entry['step']} could not be stored: {error}")


def find_record(storage: Storage, committed: Committed) -> Entry | None:
    """The evaluation of a checkpoint; None when there is none, or what is stored is not one."""
    body = storage.find(committed.folder.join(EVALUATION_NAME))
    if body is None:
        return None
    try:
        entry = _ENTRY.validate_json(body)
    except ValidationError:
        return None
    is_known = entry.get("step") == committed.manifest.step and is_evaluation(entry)
    return entry if is_known and all(math.isfinite(entry.get(key, 0.0)) for key in MEASURED) else None


def add_to_log(checkpoint: Path, entry: Entry) -> None:
    """Append the evaluation to the Trainer's log in a checkpoint's local folder."""
    file = checkpoint / TRAINER_STATE
    state = json.loads(file.read_bytes())
    if all(not is_evaluation(known) or known["step"] != entry["step"] for known in state["log_history"]):
        state["log_history"].append(dict(entry))
        file.write_text(json.dumps(state))
