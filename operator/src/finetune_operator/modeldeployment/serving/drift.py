"""status.drift: the fields of the serving objects that others change, and when upkeep.py reverts them.

The first change is reverted immediately. A second controller would set it again at once, and each reversal restarts
Pods, so a contested field is reverted with exponential backoff until the other controller stops. The
number of reversals is also bounded across all fields and managers: somebody who changes another field each time, under
another name, restarts Pods, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.modeldeployment import DriftedField, DriftRounds
from finetune_operator.core.backoff import delay_seconds
from finetune_operator.core.conditions import EventNote, Readiness, stalled
from finetune_operator.core.managed_fields import GENERATION, ForeignChange

CONTESTED_CORRECTIONS = 5
CONTESTED_ROUNDS = 20
"""More than people make by hand; fields that are contested wait after far fewer."""
WINDOW = timedelta(minutes=15)
"""Longer than GitOps tools wait between two looks, and than the longest pause."""
FIRST_PAUSE_SECONDS = 60
LONGEST_PAUSE_SECONDS = 600
DRIFT_CORRECTED = "DriftCorrected"
"""The reason of an Event, and of no condition."""
_MOST_FIELDS = 32
_MOST_NAMED = 3
_FIELD_LENGTH = 512


def recent_drift(before: Sequence[DriftedField], now: datetime) -> list[DriftedField]:
    """What was put back within the window. Times equally far in the future come from a wrong clock and are ignored."""
    return [one for one in before if abs(now - one.last_correction_time) < WINDOW]


def recent_rounds(before: DriftRounds | None, now: datetime) -> DriftRounds | None:
    """How often anything was put back; None once nothing was within the window."""
    return before if before is not None and abs(now - before.last_correction_time) < WINDOW else None


def with_round(
    before: DriftRounds | None, record: Sequence[DriftedField], drift: Mapping[str, ForeignChange], now: datetime
) -> DriftRounds | None:
    """The count once these fields are put back, if one of them was set by a request that `record` does not have yet.

    What is left of a request after a partial reversal has another generation, but still its manager and its second.
    """
    counted = {(one.manager, _second(one.last_change)) for one in record}
    if all((change.manager, _second(change.id)) in counted for change in drift.values()):
        return before
    return DriftRounds(count=before.count + 1 if before else 1, last_correction_time=whole_seconds(now))


def with_corrections(
    before: Sequence[DriftedField], drift: Mapping[str, ForeignChange], now: datetime
) -> list[DriftedField]:
    """The record once these fields are put back; those of the most corrections are kept.

    A change is counted once, also where it takes several looks to put it right, or one read what was there before.
    """
    found = {one.field: one for one in before}
    for name, change in drift.items():
        field, last_change = _key(name, change)
        old = found.get(field)
        if old is not None and old.last_change == last_change:
            continue
        found[field] = DriftedField(
            field=field,
            manager=change.manager,
            corrections=old.corrections + 1 if old is not None else 1,
            last_correction_time=whole_seconds(now),
            last_change=last_change,
        )
    return sorted(found.values(), key=lambda one: (-one.corrections, one.field))[:_MOST_FIELDS]


def correction_events(
    before: Sequence[DriftedField], after: Sequence[DriftedField], recreated: Sequence[str], name: str
) -> list[EventNote]:
    """What is put right now, noted once: what comes again within the window is counted in the status alone."""
    known = {one.field for one in before}
    fresh = [one for one in after if one.field not in known]
    named = [f"{one.field}, which {_who_set(one)}" for one in fresh]
    notes = []
    if named:
        more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        notes.append(
            f"Reverted: {'; '.join(named[:_MOST_NAMED])}{more}. What is served is set in the ModelDeployment and its "
            f"FineTuneClass; replicas by `kubectl scale mdep {name}`."
        )
    if recreated:
        notes.append(f"Recreated after it was deleted: {', '.join(recreated)}.")
    return [EventNote("Warning", DRIFT_CORRECTED, note) for note in notes]


def contested_fields(record: Sequence[DriftedField]) -> list[DriftedField]:
    """The fields that are not put back at once any more."""
    return [one for one in record if one.corrections >= CONTESTED_CORRECTIONS]


def next_correction_time(
    record: Sequence[DriftedField], drift: Mapping[str, ForeignChange], rounds: DriftRounds | None = None
) -> datetime | None:
    """When these fields may be put back; None: at once, as one of them at least is not contested.

    What is counted already and is still there is put back at once: it was tried, and something came between.
    """
    due = {(one.field, one.last_change): _due(one) for one in contested_fields(record)}
    counted = {(one.field, one.last_change) for one in record}
    found = {_key(name, change) for name, change in drift.items()}
    if found & due.keys() or found <= counted:
        return None
    by_field = {field: moment for (field, _), moment in due.items()}
    fields = {field for field, _ in found}
    moments = [by_field[field] for field in fields] if fields <= by_field.keys() else []
    return max([*moments, *_due_of_rounds(rounds)], default=None)


def next_drift_check(
    record: Sequence[DriftedField], now: datetime, rounds: DriftRounds | None = None
) -> datetime | None:
    """When the next pause is over, or the contest itself."""
    moments = [moment for one in contested_fields(record) for moment in (_due(one), one.last_correction_time + WINDOW)]
    if rounds is not None and (of_rounds := _due_of_rounds(rounds)):
        moments += [*of_rounds, rounds.last_correction_time + WINDOW]
    return min((moment for moment in moments if moment > now), default=None)


def contested_readiness(
    record: Sequence[DriftedField], name: str, rounds: DriftRounds | None = None
) -> Readiness | None:
    """Which fields are contested, and by whom; None when none is."""
    fields = contested_fields(record)
    if not fields and _due_of_rounds(rounds):
        fields = sorted(record, key=lambda one: one.last_correction_time, reverse=True)[:_MOST_NAMED]
    if not fields:
        return None
    managers = sorted({one.manager for one in fields if one.manager is not None})
    who = " and ".join(repr(manager) for manager in managers) or "An unknown client"
    names = ", ".join(one.field for one in fields[:3]) + (f" and {len(fields) - 3} more" if len(fields) > 3 else "")
    return stalled(
        Reason.DRIFT_CONTESTED,
        f"{who} keeps setting {names} of {name!r}, so it is reverted ever more rarely. "
        "Remove it from what the other one applies: what is served is set in the ModelDeployment and its "
        "FineTuneClass, and an autoscaler's target is the ModelDeployment. "
        "This clears by itself 15 minutes after the last change.",
    )


def _who_set(field: DriftedField) -> str:
    return "somebody changed or removed" if field.manager is None else f"{field.manager!r} set"


def _key(name: str, change: ForeignChange) -> tuple[str, str]:
    """The field and the change as the record has them."""
    return name[:_FIELD_LENGTH], change.id[:_FIELD_LENGTH]


def _second(change_id: str | None) -> str:
    """The id of a change without the generation: when the API server recorded it."""
    return (change_id or "").partition(GENERATION)[0]


def _due(field: DriftedField) -> datetime:
    return _after_pause(field.last_correction_time, field.corrections - CONTESTED_CORRECTIONS + 1)


def _due_of_rounds(rounds: DriftRounds | None) -> list[datetime]:
    """When anything at all may be put back again; none while that has not been often."""
    if rounds is None or rounds.count < CONTESTED_ROUNDS:
        return []
    return [_after_pause(rounds.last_correction_time, rounds.count - CONTESTED_ROUNDS + 1)]


def _after_pause(moment: datetime, times: int) -> datetime:
    pause = delay_seconds(times, first=FIRST_PAUSE_SECONDS, longest=LONGEST_PAUSE_SECONDS)
    return moment + timedelta(seconds=pause)
