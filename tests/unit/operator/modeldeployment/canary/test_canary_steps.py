"""How a canary goes on, by what is known of it: the state machine alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.modeldeployment import MOST_SOURCES, Canary, CanaryStatus, TrafficBatch, TrafficCounts, TrafficReport
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.modeldeployment.canary.counting import counted
from finetune_operator.modeldeployment.canary.observation import CanaryObservation
from finetune_operator.modeldeployment.canary.readiness import canary_readiness
from finetune_operator.modeldeployment.canary.steps import (
    CRASH_SECONDS,
    DRAIN_SECONDS,
    MOST_BETWEEN_LOOKS,
    REPORT_SECONDS,
    START_SECONDS,
    UNREADY_SECONDS,
    Advance,
    advance,
    due,
    ending,
    is_proved,
    new_canary,
    promoting,
    replicas_of,
)
from tests.unit.operator.states import NOW

NEXT = ModelSource(uri="s3://models/next", digest="sha256:next")
SPEC = Canary.from_wire({"steps": [{"percent": 10, "minimumRequests": 100}, {"percent": 50, "minimumRequests": 100}]})
ONE_STEP = Canary.from_wire({"steps": [{"percent": 50, "minimumRequests": 100}]})
READY = CanaryObservation(ready=1, splits=True)
SOURCE = "0" * 32


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def report(
    canary: CanaryStatus, its: int, errors: int = 0, *, stable: int | None = None, **changes: Any
) -> TrafficReport:
    """A gateway's next batch: what serves has ten times as many requests, and no error."""
    known = {one.source: one.sequence for one in canary.sources}
    source = changes.get("source", SOURCE)
    batch = TrafficBatch(
        sequence=changes.get("sequence", known.get(source, 0) + 1),
        stable=TrafficCounts(
            requests=its * 10 if stable is None else stable,
            **{changes.get("share", "errors"): changes.get("of_stable", 0)},
        ),
        canary=TrafficCounts(requests=its, **{changes.get("share", "errors"): errors}),
    )
    return TrafficReport(source=source, split=changes.get("split", canary.split), batch=batch)


def looked(canary: CanaryStatus, *reports: TrafficReport, spec: Canary = SPEC, at: float = 60, **seen: Any) -> Advance:
    told = CanaryObservation(**{"ready": 2, "splits": True, "reports": reports, **seen})
    return advance(canary, spec, 4, told, later(at))


def analysing(spec: Canary = SPEC) -> CanaryStatus:
    found = advance(new_canary(NEXT, SPEC, NOW), spec, 1, READY, NOW).canary
    assert found is not None and found.phase == "Analysing"
    return found


def known(found: Advance) -> CanaryStatus:
    assert found.canary is not None
    return found.canary


def test_it_gets_requests_once_its_pods_answer_behind_a_gateway() -> None:
    canary = new_canary(NEXT, SPEC, NOW)
    for waits in (CanaryObservation(0, True), CanaryObservation(1, False)):
        assert advance(canary, SPEC, 1, waits, NOW) == Advance(advance(canary, SPEC, 1, waits, NOW).canary)
        assert known(advance(canary, SPEC, 1, waits, NOW)).percent == 0
    assert (analysing().percent, analysing().step) == (10, 1)
    assert analysing().split != ""


@pytest.mark.parametrize(("replicas", "step", "number"), [(1, 1, 1), (4, 1, 1), (4, 2, 2), (11, 1, 2)])
def test_it_has_as_many_pods_as_its_share_needs(replicas: int, step: int, number: int) -> None:
    assert replicas_of(new_canary(NEXT, SPEC, NOW).model_copy(update={"step": step}), SPEC, replicas) == number


def test_it_goes_from_step_to_step_and_is_promoted() -> None:
    second = known(looked(analysing(), report(analysing(), 300)))
    assert (second.step, second.percent, second.phase) == (2, 50, "Analysing")
    assert second.canary.requests == 0, "each step is counted by itself"
    assert second.split != analysing().split
    assert not is_proved(second.model_copy(update={"step": 1, "verdict": "Pass"}), SPEC), "one step is left"
    proved = known(looked(second, report(second, 300)))
    assert is_proved(proved, SPEC)
    gone = promoting(proved, later(60))
    assert (gone.percent, gone.split, gone.phase) == (0, "", "Promoting"), "its accelerators are for the rollout"
    assert due(gone, SPEC, later(60)) == later(60 + DRAIN_SECONDS)
    assert due(gone, SPEC, later(60 + DRAIN_SECONDS)) is None


def test_as_long_as_it_can_not_be_rolled_out_it_is_watched() -> None:
    proved = known(looked(analysing(ONE_STEP), report(analysing(ONE_STEP), 300), spec=ONE_STEP))
    assert is_proved(proved, ONE_STEP)
    assert looked(proved, report(proved, 900, errors=200), spec=ONE_STEP).rolled_back is not None
    gone = known(looked(proved, ready=0, spec=ONE_STEP))
    assert looked(gone, ready=0, spec=ONE_STEP, at=60 + START_SECONDS).rolled_back is not None


def test_what_was_ended_is_over_once_no_gateway_knows_it_and_its_pods_are_gone() -> None:
    over = ending(analysing(), "Withdrawn", NOW)
    assert looked(over, at=DRAIN_SECONDS - 1, is_gone=True).canary == over
    assert looked(over, at=DRAIN_SECONDS).canary == over
    assert looked(over, at=DRAIN_SECONDS, is_gone=True).canary is None


def test_a_share_that_is_changed_holds_at_once_and_is_counted_again() -> None:
    canary = known(looked(analysing(), report(analysing(), 90)))
    smaller = Canary.from_wire({"steps": [{"percent": 2, "minimumRequests": 100}, {"percent": 50}]})
    found = known(looked(canary, spec=smaller))
    assert (found.percent, found.step, found.canary.requests) == (2, 1, 0)
    assert found.split != canary.split
    greater = Canary.from_wire({"steps": [{"percent": 40, "minimumRequests": 100}, {"percent": 50}]})
    waits = known(looked(canary, spec=greater, ready=1))
    assert (waits.phase, waits.percent) == ("Starting", 10), "it has Pods for no more"


def test_the_next_step_waits_for_its_pods_and_keeps_the_share_meanwhile() -> None:
    waiting = known(looked(analysing(), report(analysing(), 300), ready=1))
    assert (waiting.step, waiting.percent, waiting.phase) == (2, 10, "Starting")
    assert known(looked(waiting, ready=2)).percent == 50


def test_without_enough_requests_nothing_is_promoted() -> None:
    canary = analysing()
    for number in (19, 1, 60, 19):
        canary = known(looked(canary, report(canary, number)))
        assert (canary.step, canary.verdict) == (1, "NotEnoughData")
    assert canary.canary.requests == 99
    assert known(looked(analysing(), at=10**7)).step == 1, "however long it takes"


def test_a_worse_one_is_rolled_back_with_both_numbers() -> None:
    found = looked(analysing(), report(analysing(), 200, errors=20))
    assert known(found).outcome == "RolledBack"
    assert known(found).percent == 0
    assert found.rolled_back == (
        "ErrorRate was 0.1; that of the model that serves, 0 (7.02 to 14 points more, 2 allowed)."
    )


def test_the_first_requests_end_it_without_statistics_if_many_of_them_fail() -> None:
    assert looked(analysing(), report(analysing(), 6, errors=5)).rolled_back == "5 of its first 6 requests failed."
    assert looked(analysing(), report(analysing(), 6, errors=4)).rolled_back is None
    both = report(analysing(), 6, errors=5, stable=60, of_stable=50)
    assert looked(analysing(), both).rolled_back is None, "what serves fails, too"


@pytest.mark.parametrize(("errors", "of_stable"), [(2, 20), (3, 30), (20, 200)])
@pytest.mark.parametrize("share", ["errors", "refused", "left"])
def test_faults_that_both_have_are_not_the_canarys(errors: int, of_stable: int, share: str) -> None:
    found = looked(analysing(), report(analysing(), 200, errors=errors, of_stable=of_stable, share=share))
    assert found.rolled_back is None


@pytest.mark.parametrize(
    ("share", "said"),
    [("refused", "requests refused (4xx)"), ("left", "requests left by their client before an answer")],
)
def test_one_that_refuses_or_keeps_clients_waiting_is_worse_too(share: str, said: str) -> None:
    early = looked(analysing(), report(analysing(), 6, errors=6, share=share))
    assert str(early.rolled_back).startswith("6 of its first 6 requests were ")
    found = looked(analysing(), report(analysing(), 200, errors=20, share=share))
    told = f"The share of {said} was 0.1; that of the model that serves, 0 "
    assert str(found.rolled_back).startswith(told)
    some = looked(analysing(), report(analysing(), 200, errors=6, share=share))
    assert known(some).verdict == "NotEnoughData", "3 % more may be chance, and may not"


def test_what_answers_nothing_is_never_promoted_though_both_are_alike() -> None:
    canary = analysing()
    for _ in range(5):
        canary = known(looked(canary, report(canary, 300, errors=300, of_stable=3000, share="refused")))
    assert (canary.step, canary.verdict) == (1, "NotEnoughData")


def waiting_for_approval() -> tuple[CanaryStatus, Canary]:
    spec = Canary.from_wire({"steps": [{"percent": 50, "minimumRequests": 300}], "approval": "Manual"})
    return analysing(spec), spec


@pytest.mark.parametrize("good", [100, 299, 1000, 10_000])
@pytest.mark.parametrize("share", ["errors", "refused", "left"])
def test_an_outage_ends_it_within_50_requests_whenever_it_begins(good: int, share: str) -> None:
    canary, spec = waiting_for_approval()
    for number in (100,) * (good // 100) + (good % 100,):
        canary = known(looked(canary, report(canary, number), spec=spec))
    assert canary.next_look_requests <= canary.canary.requests + MOST_BETWEEN_LOOKS
    failed, found = 0, Advance(canary)
    while found.rolled_back is None and failed < 1000:
        found = looked(known(found), report(known(found), 10, errors=10, share=share), spec=spec)
        failed += 10
    assert failed <= 50
    assert found.rolled_back is not None


def test_an_outage_of_both_does_not_end_it() -> None:
    canary, spec = waiting_for_approval()
    for _ in range(20):
        canary = known(looked(canary, report(canary, 100), spec=spec))
    found = looked(canary, report(canary, 100, errors=100, of_stable=1000), spec=spec)
    assert found.rolled_back is None


def test_pods_that_never_start_or_are_gone_end_it() -> None:
    never = advance(
        new_canary(NEXT, SPEC, NOW),
        SPEC,
        1,
        CanaryObservation(0, True, failing="No node has room."),
        later(START_SECONDS),
    )
    assert never.rolled_back == "Its Pods were not ready within 30 minutes. No node has room."
    gone = known(looked(analysing(), ready=0, at=0))
    assert gone.unready_time == NOW
    assert due(gone, SPEC, NOW) == later(START_SECONDS)
    assert known(looked(gone, ready=1, at=10)).unready_time is None
    failing = known(looked(gone, ready=0, at=20, failing="It exits with 1.", is_its_fault=True))
    assert due(failing, SPEC, later(20)) == later(20 + UNREADY_SECONDS)
    crashed = looked(failing, ready=0, at=20 + UNREADY_SECONDS, failing="It exits with 1.", is_its_fault=True)
    assert crashed.rolled_back == "None of its Pods has been ready for 60 seconds. It exits with 1."


CRASHES = CanaryObservation(0, True, failing="No model.", is_its_fault=True)


def test_a_model_whose_pods_crash_before_they_had_requests_is_rolled_back_after_five_minutes_of_it() -> None:
    loading = known(advance(new_canary(NEXT, SPEC, NOW), SPEC, 1, CanaryObservation(0, True), NOW))
    failing = known(advance(loading, SPEC, 1, CRASHES, later(400)))
    assert due(failing, SPEC, later(400)) == later(400 + CRASH_SECONDS)
    assert known(advance(failing, SPEC, 1, CanaryObservation(0, True), later(410))).failing_time is None, "it loads"
    ended = advance(failing, SPEC, 1, CRASHES, later(400 + CRASH_SECONDS))
    assert ended.rolled_back == "None of its Pods has been ready for 300 seconds. No model."


def test_a_pod_that_waits_for_a_node_or_loads_again_is_waited_for_before_it_had_requests_and_after() -> None:
    waits = {"ready": 0, "failing": "No node has room."}
    started = known(advance(new_canary(NEXT, SPEC, NOW), SPEC, 1, CanaryObservation(splits=True, **waits), NOW))
    late = advance(started, SPEC, 1, CanaryObservation(splits=True, **waits), later(START_SECONDS - 1))
    assert late.rolled_back is None
    gone = known(looked(analysing(), ready=0, at=0))
    assert looked(gone, at=START_SECONDS - 1, **waits).rolled_back is None
    assert str(looked(gone, at=START_SECONDS, **waits).rolled_back).endswith("No node has room.")


def test_a_pod_that_is_replaced_is_waited_for_as_one_that_starts() -> None:
    gone = known(looked(analysing(), ready=0, at=0))
    assert looked(gone, ready=0, at=UNREADY_SECONDS).rolled_back is None, "its node is drained"
    assert "has been ready" in str(looked(gone, ready=0, at=START_SECONDS).rolled_back)
    assert due(gone, SPEC, later(UNREADY_SECONDS)) == later(START_SECONDS)


def test_that_no_gateway_answers_or_the_operator_was_away_is_not_its_fault() -> None:
    waits = advance(new_canary(NEXT, SPEC, NOW), SPEC, 1, CanaryObservation(1, splits=False), later(START_SECONDS + 1))
    assert (waits.rolled_back, known(waits).phase) == (None, "Starting")
    assert known(advance(new_canary(NEXT, SPEC, NOW), SPEC, 1, READY, later(START_SECONDS + 1))).phase == "Analysing"


@pytest.mark.parametrize(("then", "ends"), [("Wait", False), ("Abort", True)])
def test_a_deadline_ends_a_step_that_is_undecided_if_it_is_to(then: str, ends: bool) -> None:
    steps = [{"percent": 10, "minimumRequests": 100, "deadlineSeconds": 600}]
    spec = Canary.from_wire({"steps": steps, "onNotEnoughData": then})
    canary = analysing(spec)
    assert (due(canary, spec, NOW) == later(600)) is ends
    assert looked(canary, spec=spec, at=599).rolled_back is None
    late = looked(canary, spec=spec, at=9000)
    assert late.rolled_back is None, "the operator was away, and gateways have not reported yet"
    assert (due(known(late), spec, later(9000)) == later(9000 + REPORT_SECONDS)) is ends
    found = looked(known(late), report(canary, 50), spec=spec, at=9000 + REPORT_SECONDS).rolled_back
    assert (found is not None and "50 requests" in found) is ends
    passed = looked(known(late), report(canary, 300), spec=spec, at=9000 + REPORT_SECONDS)
    assert is_proved(known(passed), spec)


def test_with_manual_approval_it_waits_for_its_revision_and_is_still_watched() -> None:
    wire = {"steps": [{"percent": 50, "minimumRequests": 100}], "approval": "Manual"}
    spec = Canary.from_wire(wire)
    waiting = known(looked(analysing(spec), report(analysing(spec), 300), spec=spec))
    assert waiting.phase == "WaitingForApproval"
    for revision in (None, "sha256:x", "sha256:next"):
        approved = Canary.from_wire({**wire, **({"approvedRevision": revision} if revision else {})})
        assert is_proved(known(looked(waiting, spec=approved)), approved) == (revision == "sha256:next")
    assert looked(waiting, report(waiting, 300, errors=90), spec=spec).rolled_back is not None


def test_an_approval_that_an_earlier_canary_left_approves_nothing_until_it_is_given_again() -> None:
    wire = {"steps": [{"percent": 50, "minimumRequests": 100}], "approval": "Manual"}
    left = Canary.from_wire({**wire, "approvedRevision": "sha256:next"})
    none = Canary.from_wire(wire)
    begun = known(advance(new_canary(NEXT, left, NOW), left, 1, READY, NOW))
    waiting = known(looked(begun, report(begun, 300), spec=left))
    assert waiting.phase == "WaitingForApproval"
    assert not is_proved(waiting, left)
    told = canary_readiness(waiting, left, "", NOW).message
    assert "named it before this canary began, which approves nothing: remove it, then set it again." in told
    removed = known(looked(waiting, spec=none))
    assert not is_proved(removed, none)
    assert is_proved(known(looked(removed, spec=left)), left)
    automatic = left.model_copy(update={"approval": "Automatic"})
    assert is_proved(waiting, automatic)


def test_while_it_waits_for_approval_it_says_what_was_found_and_what_an_approval_names_instead() -> None:
    wire = {"steps": [{"percent": 50, "minimumRequests": 100}], "approval": "Manual"}
    spec, other = Canary.from_wire(wire), Canary.from_wire({**wire, "approvedRevision": "sha256:x"})
    waiting = known(looked(analysing(spec), report(analysing(spec), 300), spec=spec))
    told = canary_readiness(waiting, spec, "", NOW).message
    assert "Set spec.rollout.canary.approvedRevision to it. ErrorRate was 0; that of the model that serves, 0 (" in told
    told = canary_readiness(waiting, other, "", NOW).message
    assert "Set spec.rollout.canary.approvedRevision to it, which is 'sha256:x'. " in told


def test_what_was_ended_stays_ended() -> None:
    over = ending(analysing(), "Withdrawn", NOW)
    assert known(looked(over, report(over, 300, split=analysing().split), at=1)) == over


def test_a_batch_counts_once_and_in_its_order() -> None:
    canary = analysing()
    first, second = report(canary, 5, sequence=1), report(canary, 7, sequence=2)
    for batches, requests in (([first, first], 5), ([second], 0), ([second, first], 5), ([first, second, first], 12)):
        assert counted(canary, batches).canary.requests == requests
    assert counted(canary, [report(canary, 5, split="another")]).canary.requests == 0
    assert counted(ending(canary, "Withdrawn", NOW), [report(canary, 5, split="")]).canary.requests == 0


def test_only_so_many_processes_are_heard() -> None:
    canary = analysing()
    many = [report(canary, 1, source=f"{number:032x}") for number in range(MOST_SOURCES + 9)]
    assert counted(canary, many).canary.requests == MOST_SOURCES


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 2**16))
def test_however_batches_are_lost_sent_again_and_mixed_up_none_counts_twice(order: Sequence[int], seed: int) -> None:
    """Two gateways, each of which sends its batch until it is acknowledged, to an operator that forgets at times."""
    canary = analysing()
    sent = {source: 0 for source in ("a" * 32, "b" * 32)}
    for number in order:
        source = sorted(sent)[number % 2]
        acknowledged = {one.source: one.sequence for one in canary.sources}.get(source, 0)
        batch = report(canary, 1, source=source, sequence=acknowledged + 1)
        before = canary
        canary = counted(canary, [batch, batch])
        if number > 1:
            canary = before  # the write was lost: nothing is acknowledged
        else:
            sent[source] += 1
    assert canary.canary.requests == sum(sent.values())


def test_a_forged_count_breaks_nothing() -> None:
    canary = analysing()
    most = TrafficCounts(requests=10**15, errors=10**15, tokens=10**15, token_squares=10**15, answers=10**15)
    batch = TrafficBatch(sequence=1, stable=most, canary=most)
    canary = counted(canary, [TrafficReport(source=SOURCE, split=canary.split, batch=batch)])
    again = TrafficBatch(sequence=2, stable=most, canary=most)
    assert looked(canary, TrafficReport(source=SOURCE, split=canary.split, batch=again)).canary is not None
