"""What tells one run of an object from every other: its runId, the spec that it began with, and which run it is.

A runId may come again, by a rollback in git: nothing that Jobs or the storage hold of an earlier run is then taken for
the new one's. The digest is written into the status when the run begins, so that it outlives an operator whose own
defaults differ.
"""

from __future__ import annotations

from finetune_api.finetunejob import CHANGEABLE_WITHIN_A_RUN, FineTuneJobSpec, FineTuneJobStatus
from finetune_operator.core.digest import digest, without


def run_key(status: FineTuneJobStatus) -> str:
    """The run in names of Jobs and folders; of runs that began before there were digests, the runId alone."""
    run_id = status.run_id or ""
    return f"{run_id}-{status.run_digest}" if status.run_digest else run_id


def run_digest(spec: FineTuneJobSpec, number: int) -> str:
    """Eight characters for the spec, as far as it can't change within a run, and the run's number."""
    return digest([number, without(spec, CHANGEABLE_WITHIN_A_RUN)], 8)


def next_run_number(status: FineTuneJobStatus) -> int:
    """The number of the run after the one of this status; the first one's is 1."""
    begun = status.run_number or len(status.history) + (status.run_id is not None)
    return begun + 1
