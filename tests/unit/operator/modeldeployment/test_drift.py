"""What two controllers both write is put back at once a few times, then ever more rarely, in the end at once again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from finetune_api.modeldeployment import DriftedField, DriftRounds
from finetune_operator.core.managed_fields import ForeignChange
from finetune_operator.modeldeployment.serving.drift import (
    WINDOW,
    contested_fields,
    contested_readiness,
    correction_events,
    next_correction_time,
    next_drift_check,
    recent_drift,
    recent_rounds,
    with_corrections,
    with_round,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
IMAGE = "Deployment spec.image"
REPLICAS = "Deployment spec.replicas"


def changes(fields: Mapping[str, str | None], id: str = "1") -> dict[str, ForeignChange]:
    """Changes of these fields by these managers."""
    return {field: ForeignChange(manager, f"{manager} {id}") for field, manager in fields.items()}


def record_of(number: int, fields: Mapping[str, str | None] | None = None) -> list[DriftedField]:
    """So many corrections of the image, three seconds apart, the last of them at noon."""
    record: list[DriftedField] = []
    for left in reversed(range(number)):
        change = changes({IMAGE: "flux"} if fields is None else fields, f"{left} before noon")
        record = with_corrections(record, change, NOON - timedelta(seconds=3 * left))
    return record


AGAIN = changes({IMAGE: "flux"}, "once more")


@pytest.mark.parametrize("seconds", [0, 1, 60, 600])
def test_a_change_counts_once_however_many_looks_it_takes_to_put_it_back(seconds: int) -> None:
    change = changes({IMAGE: "flux"})
    record = with_corrections(with_corrections([], change, NOON), change, NOON + timedelta(seconds=seconds))
    assert [one.corrections for one in record] == [1]


def test_a_contested_change_that_is_counted_and_still_there_is_put_back_at_once() -> None:
    """The write that was to put it back met a conflict."""
    record = with_corrections(record_of(8), AGAIN, NOON)
    assert next_correction_time(record, AGAIN) is None
    assert next_correction_time(record, changes({IMAGE: "flux"}, "and again")) == NOON + timedelta(minutes=10)


def test_four_times_it_is_put_back_at_once_and_then_the_pause_doubles_up_to_ten_minutes() -> None:
    pauses = [next_correction_time(record_of(number), AGAIN) for number in range(1, 11)]
    assert pauses[:4] == [None] * 4
    assert [moment and (moment - NOON).total_seconds() for moment in pauses[4:]] == [60, 120, 240, 480, 600, 600]
    moment = next_correction_time(record_of(10_000), AGAIN)
    assert moment == NOON + timedelta(minutes=10)


def test_other_fields_are_put_back_at_once_meanwhile() -> None:
    another = changes({REPLICAS: "kubectl"})
    assert next_correction_time(record_of(9), another) is None
    assert next_correction_time(record_of(9), {**AGAIN, **another}) is None, "and what is contested with them"


def fight(rounds: int, *fields: str) -> tuple[list[DriftedField], DriftRounds | None]:
    """Each time these fields, and one that nobody has changed before, by a name that nobody has had before."""
    record: list[DriftedField] = []
    total: DriftRounds | None = None
    for number in range(rounds):
        moment = NOON - timedelta(seconds=3 * (rounds - 1 - number))
        change = changes({f"Deployment spec.env[{number}]": f"m{number}", **dict.fromkeys(fields, "m")}, f"{number}")
        assert next_correction_time(record, change, total) is None or moment >= NOON, "at once"
        total = with_round(total, record, change, moment)
        record = with_corrections(record, change, moment)
    return record, total


def test_who_changes_another_field_each_time_is_not_fought_without_end_either() -> None:
    """A fresh field beside the contested one is put back at once, and the contested one with it: twenty times."""
    for fields in ((), (IMAGE,)):
        record, total = fight(20, *fields)
        assert total == DriftRounds(count=20, last_correction_time=NOON)
        fresh = changes({"Deployment spec.env[fresh]": "another"})
        for change in (fresh, {**fresh, **AGAIN}):
            assert next_correction_time(record, change, total) == NOON + timedelta(minutes=1)
        readiness = contested_readiness(record, "router", total)
        assert readiness is not None and readiness.reason == "DriftContested"
        assert next_drift_check(record, NOON, total) == NOON + timedelta(minutes=1)
    record, total = fight(19, IMAGE)
    assert next_correction_time(record, changes({"Deployment spec.env[fresh]": "another"}), total) is None


def test_many_fields_at_once_and_a_change_that_takes_several_looks_are_one_round() -> None:
    wide = changes({f"Deployment spec.f{number}": "kubectl-edit" for number in range(30)})
    total = with_round(None, [], wide, NOON)
    record = with_corrections([], wide, NOON)
    assert total == DriftRounds(count=1, last_correction_time=NOON)
    assert with_round(total, record, wide, NOON + timedelta(seconds=5)) == total
    assert with_round(total, record, {}, NOON + timedelta(seconds=5)) == total


def test_what_is_left_of_a_request_after_a_partial_reversal_is_no_other_round() -> None:
    """The reversal itself raised the generation; the second time, the manager has written again."""
    whole = {name: ForeignChange("kubectl", f"kubectl {NOON} generation 2") for name in ("image", "env")}
    left = {"env": ForeignChange("kubectl", f"kubectl {NOON} generation 3")}
    again = {"env": ForeignChange("kubectl", f"kubectl {NOON + timedelta(seconds=1)} generation 4")}
    record, total = with_corrections([], whole, NOON), with_round(None, [], whole, NOON)
    assert with_round(total, record, left, NOON) == total
    found = with_round(total, record, again, NOON)
    assert found is not None and found.count == 2


def test_the_rounds_are_forgotten_after_a_quarter_of_an_hour() -> None:
    total = DriftRounds(count=40, last_correction_time=NOON)
    assert recent_rounds(total, NOON + WINDOW - timedelta(seconds=1)) == total
    assert recent_rounds(total, NOON + WINDOW) is None
    assert recent_rounds(total, NOON - WINDOW) is None, "a wrong clock wrote it"


def test_two_that_take_turns_are_counted_each() -> None:
    record: list[DriftedField] = []
    for number in range(5):
        moment = NOON + timedelta(seconds=3 * number)
        record = with_corrections(record, changes({IMAGE: "flux"}, str(number)), moment)
        record = with_corrections(record, changes({"Deployment spec.args": "other"}, str(number)), moment)
    assert len(contested_fields(record)) == 2


def test_what_was_not_touched_for_a_quarter_of_an_hour_is_forgotten() -> None:
    record = record_of(9)
    assert recent_drift(record, NOON + WINDOW - timedelta(seconds=1)) == record
    assert recent_drift(record, NOON + WINDOW) == []
    assert recent_drift(record, NOON - WINDOW) == [], "a wrong clock wrote it"
    assert next_drift_check(record, NOON) == NOON + timedelta(minutes=10)
    assert next_drift_check(record, NOON + timedelta(minutes=10)) == NOON + WINDOW
    assert next_drift_check(record_of(4), NOON) is None


def test_the_standing_names_the_fields_and_who_sets_them() -> None:
    assert contested_readiness(record_of(4), "router") is None
    readiness = contested_readiness(record_of(5), "router")
    assert readiness is not None and readiness.stalled
    assert readiness.reason == "DriftContested"
    assert readiness.message.startswith("'flux' keeps setting Deployment spec.image of 'router'")
    many = contested_readiness(record_of(5, {f"Deployment spec.f{n}": None for n in range(5)}), "router")
    assert many is not None
    assert (
        "An unknown client keeps setting Deployment spec.f0, Deployment spec.f1, Deployment spec.f2 and 2 more"
        in many.message
    )


def test_the_record_is_bounded() -> None:
    wide = {f"Deployment spec.{'x' * 2000}{n}": "m" * 128 for n in range(1000)}
    assert len(record_of(1, wide)) <= 32
    long = {f"Deployment spec.{'x' * 2000}": "m"}
    assert next_correction_time(record_of(5, long), changes(long, "once more")) is not None


def test_the_first_correction_of_a_field_is_an_event_that_names_it_and_who_set_it() -> None:
    drift = changes({"Deployment spec.paused": None, REPLICAS: "kubectl"})
    first = with_corrections([], drift, NOON)
    (note,) = correction_events([], first, (), "router")
    assert (note.type, note.reason) == ("Warning", "DriftCorrected")
    assert note.message.startswith(
        "Reverted: Deployment spec.paused, which somebody changed or removed; Deployment spec.replicas, which "
        "'kubectl' set. "
    )
    assert note.message.endswith("`kubectl scale mdep router`.")


def test_what_is_put_back_again_within_the_window_is_counted_and_makes_no_other_event() -> None:
    first = record_of(1)
    later = NOON + timedelta(minutes=2)
    assert correction_events(first, with_corrections(first, AGAIN, later), (), "router") == []
    (note,) = correction_events(
        first, with_corrections(first, {**AGAIN, **changes({"Deployment spec.args": "x"})}, later), (), "router"
    )
    assert "spec.args" in note.message
    assert "spec.image" not in note.message


def test_of_many_fields_the_first_three_are_named() -> None:
    record = with_corrections([], changes({f"Deployment spec.f{number}": "x" for number in range(9)}), NOON)
    (note,) = correction_events([], record, (), "router")
    assert "spec.f2, which 'x' set and 6 more." in note.message
    assert "spec.f3" not in note.message


def test_what_somebody_deleted_is_named() -> None:
    (note,) = correction_events([], [], ("Service 'router'",), "router")
    assert note.message == "Recreated after it was deleted: Service 'router'."
