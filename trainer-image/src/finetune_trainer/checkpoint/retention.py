"""Which checkpoints of a run are kept, and the removal of all others. storage/commits.py says why that is safe."""

from __future__ import annotations

import math
from collections.abc import Sequence

import structlog

from finetune_api.finetunejob import Best
from finetune_api.pod_contracts.manifest import MANIFEST_NAME
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Claim, Committed
from finetune_trainer.storage.storage import Storage

_log = structlog.get_logger()


def prune(
    storage: Storage, claim: Claim, kept: Sequence[Committed], *, keep: int, best: Best | None
) -> tuple[Committed, ...]:
    """Remove outdated checkpoints after the last of `kept` was committed. Returns the remaining ones.

    Removes outdated and superseded checkpoints, files without a manifest (also those of dead processes) and incomplete
    uploads: all that is older than the newest commit. If that fails, it is logged, and the next call repeats it.
    """
    outdated_ones = outdated(kept, keep, best)
    remaining = tuple(committed for committed in kept if committed not in outdated_ones)
    try:
        _sweep(storage, claim, remaining)
    except DiagnosedError as error:
        _log.warning(f"old checkpoints could not be removed: {error}")
    return remaining


def outdated(checkpoints: Sequence[Committed], keep: int, best: Best | None) -> list[Committed]:
    """The checkpoints to remove: neither among the newest `keep` nor the best. `kept` is ordered oldest first.

    By a reward, neither among the best `keep` nor the newest: later is not better there, and several are worth a look.
    """
    if best is not None and best.of_rewards:
        measured = [committed for committed in ranked(checkpoints, best) if metric_of(committed, best) is not None]
        return [committed for committed in checkpoints[:-1] if committed not in measured[:keep]]
    chosen = best_of(checkpoints, best)
    return [committed for committed in checkpoints[:-keep] if committed is not chosen]


def best_of(checkpoints: Sequence[Committed], best: Best | None) -> Committed | None:
    """The one with the best metric; None when none has the metric."""
    return next((committed for committed in ranked(checkpoints, best) if metric_of(committed, best) is not None), None)


def ranked(checkpoints: Sequence[Committed], best: Best | None) -> list[Committed]:
    """In the order of preference for the result: by the metric, then those without it, the newest first.

    Of equal losses the earlier is preferred, of equal rewards the later: few prompts have often equal rewards, and the
    first checkpoint may be of the warm-up's first step, which changes no weight.
    """
    sign = -1 if best is not None and best.goal == "Maximize" else 1
    order = -1 if best is not None and best.of_rewards else 1

    def rank(committed: Committed) -> tuple[float, int]:
        metric = metric_of(committed, best)
        step = committed.manifest.step
        return (math.inf, -step) if metric is None else (sign * metric, order * step)

    return sorted(checkpoints, key=rank)


def metric_of(committed: Committed, best: Best | None) -> float | None:
    """The value of the declared metric, if it was measured."""
    return None if best is None else committed.manifest.metrics.get(best.metric_name)


def _sweep(storage: Storage, claim: Claim, kept: Sequence[Committed]) -> None:
    """Remove all checkpoints that are older than the last of `kept` and not among them, their manifests first."""
    folder = claim.run.join(commits.CHECKPOINTS)
    keys = {committed.manifest.key for committed in kept}
    newest = kept[-1].manifest

    def is_doomed(path: str) -> bool:
        place = commits.checkpoint_path(path)
        if place is None:
            return False
        key, _ = place
        return key not in keys and (key.claim, key.step) < (claim.number, newest.step)

    doomed = [item.path for item in storage.list_objects(folder) if is_doomed(item.path)]
    manifests = [path for path in doomed if path.endswith(f"/{MANIFEST_NAME}")]
    storage.delete(folder.join(path) for path in manifests)
    storage.delete(folder.join(path) for path in doomed if path not in manifests)
    storage.abort_uploads(folder, is_doomed)
